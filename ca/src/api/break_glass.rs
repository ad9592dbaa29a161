//! Break-glass: grants for the day the cloud is gone, and what became of them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_audit::event::{Event, EventKind};
use edgeward_identity::{Kind, Purpose, SpiffeId, Timestamp};
use edgeward_policy::SliceBreakGlass;
use edgeward_wire::break_glass::{Approver, GRANT_SCHEMA, GrantBody};

use super::extract::{Body, Named};
use super::problem::Problem;
use super::tokens::ttl_of;
use super::views::{GlassIssued, GlassRequest, GlassView, ProblemView};
use super::{Api, Cloud, Items, items};
use crate::access::Principal;
use crate::keys::Label;
use crate::store::break_glass::{GlassRow, MAX_GRANTS};
use crate::store::operators::Operator;

/// What numbers grants.
const NUMBER: &str = "break_glass.number";
/// How long a grant may be opened, unless somebody says otherwise.
const DEFAULT_VALID: Duration = Duration::from_secs(90 * 86_400);
/// Longest time that a grant may be opened.
const MAX_VALID: Duration = Duration::from_secs(366 * 86_400);

/// List grants and what became of them, newest first.
#[utoipa::path(get, path = "/api/v1/break-glass", tag = "policies", operation_id = "break_glass_list",
    responses((status = 200, body = Items<GlassView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<Items<GlassView>>, Problem> {
    let now = api.now();
    let rows = api.store.break_glass().await?;
    Ok(items(rows.into_iter().map(|row| view(row, now)).collect()))
}

/// Sign a grant for one node, by the policy in force. It is not kept: whoever asked seals it.
#[utoipa::path(post, path = "/api/v1/break-glass", tag = "policies", operation_id = "break_glass_issue", request_body = GlassRequest,
    responses((status = 201, body = GlassIssued), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn issue(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<GlassRequest>,
) -> Result<(StatusCode, Json<GlassIssued>), Problem> {
    let now = api.now();
    let valid = ttl_of(request.valid.as_deref(), DEFAULT_VALID, MAX_VALID)?;
    if !api.keys.may_grant_break_glass(now) {
        return Err(Problem::conflict(
            "root_offline",
            "the key set lets nobody sign grants yet: start the cloud once with the root key at hand",
        ));
    }
    let node = SpiffeId::new(api.keys.trust_domain(), Kind::Node, &request.node)
        .map_err(|_| Problem::not_found("no such node"))?;
    let (glass, node_key) = api
        .control
        .break_glass(&node, &request.name)
        .await?
        .ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no_such_break_glass",
                "the policy in force has no such break-glass, or it opens nothing on this node",
            )
        })?;
    let approvers = approvers(&glass, &api.store.operators().await?, now);
    if approvers.len() < usize::from(glass.quorum) {
        return Err(Problem::conflict(
            "break_glass_quorum",
            format!(
                "it takes {} operators, and {} of those it names have a certificate",
                glass.quorum,
                approvers.len()
            ),
        ));
    }
    let mut tx = api.store.begin("break_glass.issue").await?;
    if tx.break_glass_in_force(now).await? >= MAX_GRANTS {
        return Err(Problem::conflict(
            "break_glass_limit",
            format!("more grants than the limit: {MAX_GRANTS}"),
        ));
    }
    let number = tx.raise_number(NUMBER).await?;
    let body = GrantBody {
        schema: GRANT_SCHEMA.to_owned(),
        name: glass.name.clone(),
        node_key,
        rules: glass.rules.iter().map(ToString::to_string).collect(),
        approvers,
        quorum: glass.quorum,
        ttl_seconds: glass.ttl.get(),
    };
    let row = row_of(&body, number, &request.node, now, now.plus(valid), &caller);
    tx.add_break_glass(&row).await?;
    let event = Event::new(now, caller.actor().clone(), EventKind::GlassIssued)
        .subject(node.clone())
        .allowed()
        .detail("number", number)
        .detail("name", &row.name)
        .detail("rules", row.rules.join(" "))
        .detail("approvers", row.approvers.join(" "))
        .detail("quorum", row.quorum)
        .detail("ends", crate::when::format(row.ends));
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    let label = Label {
        purpose: Purpose::BreakGlass,
        audience: node.to_string(),
        number,
        issued: now,
        lifetime: valid,
    };
    let object = api
        .keys
        .sign(label, &body)
        .map_err(|error| Problem::internal(&error))?;
    let issued = GlassIssued {
        grant: view(row, now),
        object: STANDARD.encode(object),
        key_set: STANDARD.encode(api.keys.key_set_bytes()),
    };
    Ok((StatusCode::CREATED, Json(issued)))
}

/// Revoke a grant. It reaches the node with its policy: a node that is cut off already does not hear of it.
#[utoipa::path(delete, path = "/api/v1/break-glass/{number}", tag = "policies", operation_id = "break_glass_revoke", params(("number" = u64, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(api): Cloud,
    caller: Principal,
    Named(number): Named<u64>,
) -> Result<StatusCode, Problem> {
    let by = caller.actor().to_string();
    let now = api.now();
    let mut tx = api.store.begin("break_glass.revoke").await?;
    if !tx.revoke_break_glass(number, &by, now).await? {
        return Err(Problem::not_found("no such grant, or revoked before"));
    }
    record(&api, tx, &caller, EventKind::GlassRevoked, number).await?;
    api.control.openings_changed().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Say that you have seen that a grant was opened: it is not shown as an alert any more.
#[utoipa::path(post, path = "/api/v1/break-glass/{number}/acknowledge", tag = "policies", operation_id = "break_glass_acknowledge", params(("number" = u64, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn acknowledge(
    State(api): Cloud,
    caller: Principal,
    Named(number): Named<u64>,
) -> Result<StatusCode, Problem> {
    let by = caller.actor().to_string();
    let now = api.now();
    let mut tx = api.store.begin("break_glass.acknowledge").await?;
    if !tx.acknowledge_break_glass(number, &by, now).await? {
        return Err(Problem::not_found(
            "no such grant, or not opened, or acknowledged before",
        ));
    }
    record(&api, tx, &caller, EventKind::GlassAcknowledged, number).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn record(
    api: &Api,
    mut tx: crate::store::Tx,
    caller: &Principal,
    kind: EventKind,
    number: u64,
) -> Result<(), Problem> {
    let row = tx.break_glass_numbered(number).await?;
    let mut event = Event::new(api.now(), caller.actor().clone(), kind).detail("number", number);
    if let Some(row) = row {
        event = event.detail("name", &row.name);
        if let Ok(node) = SpiffeId::new(api.keys.trust_domain(), Kind::Node, &row.node) {
            event = event.subject(node);
        }
    }
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(())
}

/// Of those the policy names, the operators who have a certificate now. Only the key that they have now may open it.
fn approvers(glass: &SliceBreakGlass, operators: &[Operator], now: Timestamp) -> Vec<Approver> {
    let named = glass.by.iter().filter_map(|id| {
        let operator = operators.iter().find(|known| known.name == id.name())?;
        let stands = operator.revoked.is_none() && now < operator.expires;
        stands.then(|| Approver {
            id: id.clone(),
            key: operator.key,
        })
    });
    named.collect()
}

fn row_of(
    body: &GrantBody,
    number: u64,
    node: &str,
    now: Timestamp,
    ends: Timestamp,
    caller: &Principal,
) -> GlassRow {
    let approvers = body.approvers.iter();
    GlassRow {
        number,
        name: body.name.clone(),
        node: node.to_owned(),
        rules: body.rules.clone(),
        approvers: approvers.map(|one| one.id.name().to_owned()).collect(),
        quorum: u64::from(body.quorum),
        ttl_seconds: body.ttl_seconds,
        ends,
        issued: now,
        issued_by: caller.actor().to_string(),
        revoked: None,
        revoked_by: None,
        opened: None,
        opened_by: None,
        closed: None,
        acknowledged: None,
        acknowledged_by: None,
    }
}

pub(super) fn view(row: GlassRow, now: Timestamp) -> GlassView {
    let status = match &row {
        row if row.is_loud() => "opened",
        row if row.opened.is_some() => "acknowledged",
        row if row.revoked.is_some() => "revoked",
        row if row.ends <= now => "ended",
        _ => "sealed",
    };
    GlassView {
        status: status.to_owned(),
        number: row.number,
        name: row.name,
        node: row.node,
        rules: row.rules,
        approvers: row.approvers,
        quorum: row.quorum,
        ttl_seconds: row.ttl_seconds,
        ends: row.ends.into(),
        issued: row.issued.into(),
        issued_by: row.issued_by,
        opened: row.opened.map(Into::into),
        opened_by: row.opened_by,
        closed: row.closed.map(Into::into),
        acknowledged_by: row.acknowledged_by,
    }
}
