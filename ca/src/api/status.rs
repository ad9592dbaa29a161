//! The cloud at a glance.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use edgeward_identity::AttestationState;

use super::Cloud;
use super::problem::Problem;
use super::views::{ProblemView, StatusView};
use crate::store::nodes::NodeStatus;

/// Show what runs, how many nodes stand how, and which policy is in force.
#[utoipa::path(get, path = "/api/v1/status", tag = "cloud", operation_id = "status",
    responses((status = 200, body = StatusView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn status(State(api): Cloud) -> Result<Json<StatusView>, Problem> {
    let now = api.now();
    let mut nodes: BTreeMap<String, u64> = NodeStatus::ALL
        .iter()
        .filter(|status| **status != NodeStatus::Removed)
        .map(|status| (status.as_str().to_owned(), 0))
        .collect();
    let mut active = std::collections::BTreeSet::new();
    for row in api.store.nodes().await? {
        if row.status == NodeStatus::Removed {
            continue;
        }
        *nodes.entry(row.status.as_str().to_owned()).or_default() += 1;
        if row.status == NodeStatus::Active {
            active.insert(row.name);
        }
    }
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    let mut judged = 0;
    for row in api.store.attestations().await? {
        if active.contains(&row.node) {
            *states.entry(row.state.to_string()).or_default() += 1;
            judged += 1;
        }
    }
    let unjudged = active.len().saturating_sub(judged);
    if unjudged > 0 {
        *states
            .entry(AttestationState::None.to_string())
            .or_default() += u64::try_from(unjudged).unwrap_or(u64::MAX);
    }
    Ok(Json(StatusView {
        trust_domain: api.keys.trust_domain().to_string(),
        cloud: api.audit.keeper().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: now.into(),
        root_pin: api.keys.root_pin().to_string(),
        issuing_expires: api.keys.issuer().not_after().into(),
        nodes,
        states,
        sessions: u64::try_from(api.control.connected().len()).unwrap_or(u64::MAX),
        policy: api.store.policy_number().await?,
        deny_list: api.store.deny_list(now).await?.number(),
        audit_records: api
            .store
            .last_leaf()
            .await?
            .map_or(0, |leaf| leaf.saturating_add(1)),
        break_glass: api
            .store
            .loud_break_glass()
            .await?
            .into_iter()
            .map(|row| super::break_glass::view(row, now))
            .collect(),
    }))
}
