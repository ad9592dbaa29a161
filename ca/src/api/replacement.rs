//! Another TPM under a name that is in use: an operator's word for a machine whose TPM was replaced.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::event::{Event, EventKind};
use edgeward_identity::Tier;

use super::Cloud;
use super::extract::{Body, Named};
use super::problem::Problem;
use super::tokens::{MAX_TTL, Minted, ttl_of};
use super::views::{ProblemView, ReplacementRequest, TokenCreated};
use crate::access::Principal;
use crate::store::nodes::NodeStatus;
use crate::store::recoveries::Replacement;
use crate::store::tokens::TokenRow;

/// Create a token with which one other TPM takes over a node's name, address and labels. The node's present keys are denied
/// once it has. The string in the answer is shown once.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/replace-tpm", tag = "nodes", operation_id = "node_replace_tpm", params(("name" = String, Path)), request_body = ReplacementRequest,
    responses((status = 201, body = TokenCreated), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn replace_tpm(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
    Body(request): Body<ReplacementRequest>,
) -> Result<(StatusCode, Json<TokenCreated>), Problem> {
    let now = api.now();
    let node = api
        .store
        .node(&name)
        .await?
        .filter(|node| node.status != NodeStatus::Removed)
        .ok_or_else(|| Problem::not_found("no such node"))?;
    if node.status == NodeStatus::Quarantined {
        return Err(Problem::conflict(
            "node_quarantined",
            "the node is quarantined: release it first",
        ));
    }
    let least_tier = match request.tier.as_deref() {
        None => node.tier,
        Some(text) => text.parse::<Tier>().map_err(|_| {
            Problem::bad_request(
                "tier",
                "tier is none of hardware, listed, virtual, software",
            )
        })?,
    };
    let ttl = ttl_of(request.ttl.as_deref(), api.settings.token_ttl, MAX_TTL)?;
    let minted = Minted::draw(&api)?;
    let row = TokenRow {
        id: minted.id.clone(),
        secret_hash: minted.secret_hash.clone(),
        created: now,
        created_by: caller.actor().to_string(),
        expires: now.plus(ttl),
        uses: 1,
        used: 0,
        labels: node.labels.clone(),
        name: Some(
            node.name
                .parse()
                .map_err(|error| Problem::internal(&error))?,
        ),
        ek: None,
        approval: false,
        revoked: None,
        revoked_by: None,
    };
    let replacement = Replacement {
        node: node.name.clone(),
        least_tier,
    };
    let mut tx = api.store.begin("node.replace").await?;
    tx.insert_token(&row).await?;
    tx.insert_replacement(&row.id, &replacement).await?;
    let event = Event::new(now, caller.actor().clone(), EventKind::TokenCreated)
        .subject(format!("token:{}", row.id).as_str())
        .allowed()
        .detail("expires", crate::when::format(row.expires))
        .detail("uses", row.uses)
        .detail("replaces_tpm_of", &node.name)
        .detail("root", node.root.as_str())
        .detail("tier", node.tier)
        .detail("least_tier", least_tier);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    let created = TokenCreated {
        id: row.id,
        token: minted.token,
        expires: row.expires.into(),
        uses: row.uses,
    };
    Ok((StatusCode::CREATED, Json(created)))
}
