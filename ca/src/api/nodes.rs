//! Nodes: what is known of them, and an operator's word about them.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_apps::{AppName, Version};
use edgeward_identity::{AttestationState, Kind, SpiffeId, overlay};
use edgeward_policy::Mode;

use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{
    ComparedProfile, Explained, NodeAppView, NodeView, ProblemView, ReasonRequest, UNHEARD,
};
use super::{Api, Cloud, Items, items};
use crate::access::Principal;
use crate::advice::advice;
use crate::apps::AppSaid;
use crate::store::evidence::Which;
use crate::store::nodes::{NodeRow, NodeStatus};
use crate::store::results::AttestationRow;

/// Longest reason, in bytes: fits a detail of an event.
const MAX_REASON_BYTES: usize = 400;

/// List all nodes by name, removed ones left out.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", operation_id = "node_list",
    responses((status = 200, body = Items<NodeView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<Items<NodeView>>, Problem> {
    let rows = api.store.nodes().await?;
    let standing: BTreeMap<String, AttestationRow> = api
        .store
        .attestations()
        .await?
        .into_iter()
        .map(|row| (row.node.clone(), row))
        .collect();
    let connected: BTreeSet<String> = api.control.connected().into_iter().collect();
    let views = rows
        .into_iter()
        .filter(|row| row.status != NodeStatus::Removed)
        .map(|row| {
            let attestation = standing.get(&row.name);
            let connected = connected.contains(&row.name);
            view(&api, row, attestation, connected)
        })
        .collect::<Result<_, Problem>>()?;
    Ok(items(views))
}

/// Show one node, also a removed one.
#[utoipa::path(get, path = "/api/v1/nodes/{name}", tag = "nodes", operation_id = "node_show", params(("name" = String, Path)),
    responses((status = 200, body = NodeView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(api): Cloud,
    Named(name): Named<String>,
) -> Result<Json<NodeView>, Problem> {
    one(&api, &name).await.map(Json)
}

/// Approve a node that waits for it. Its next enrolment attempt is answered with a certificate.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/approve", tag = "nodes", operation_id = "node_approve", params(("name" = String, Path)),
    responses((status = 200, body = NodeView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn approve(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
) -> Result<Json<NodeView>, Problem> {
    api.control.approve(&name, caller.actor()).await?;
    one(&api, &name).await.map(Json)
}

/// Quarantine a node: every connected peer cuts it off at once, its keys go on the deny-list.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/quarantine", tag = "nodes", operation_id = "node_quarantine", params(("name" = String, Path)), request_body = ReasonRequest,
    responses((status = 200, body = NodeView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn quarantine(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
    Body(request): Body<ReasonRequest>,
) -> Result<Json<NodeView>, Problem> {
    let reason = reason_of(request)?;
    api.control
        .quarantine(&name, caller.actor(), &reason)
        .await?;
    one(&api, &name).await.map(Json)
}

/// Release a node from quarantine. It has rights again after it passes fresh evidence.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/release", tag = "nodes", operation_id = "node_release", params(("name" = String, Path)),
    responses((status = 200, body = NodeView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn release(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
) -> Result<Json<NodeView>, Problem> {
    api.control.release(&name, caller.actor()).await?;
    one(&api, &name).await.map(Json)
}

/// Remove a node for good: cut off at once; its machine may enrol again with a new token.
#[utoipa::path(delete, path = "/api/v1/nodes/{name}", tag = "nodes", operation_id = "node_remove", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn remove(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
) -> Result<StatusCode, Problem> {
    api.control
        .remove(&name, caller.actor(), "removed by an operator")
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn one(api: &Api, name: &str) -> Result<NodeView, Problem> {
    let row = api
        .store
        .node(name)
        .await?
        .ok_or_else(|| Problem::not_found("no such node"))?;
    let attestation = api.store.attestation(name).await?;
    let connected = api.control.connected().iter().any(|node| node == name);
    let profiles = compared(api, &row);
    let mut view = view(api, row, attestation.as_ref(), connected)?;
    view.explained = Some(explained(api, name, attestation.as_ref(), profiles).await?);
    view.expires = api
        .store
        .newest_svid(name, api.now())
        .await?
        .map(|svid| svid.not_after.into());
    Ok(view)
}

fn compared(api: &Api, row: &NodeRow) -> Vec<ComparedProfile> {
    let policy = api.control.policy();
    let profiles = policy
        .iter()
        .flat_map(|policy| policy.profiles_for(&row.labels));
    profiles
        .map(|profile| ComparedProfile {
            name: profile.name.clone(),
            mode: match profile.mode {
                Mode::Enforce => "enforce".to_owned(),
                Mode::Monitor => "monitor".to_owned(),
            },
        })
        .collect()
}

async fn explained(
    api: &Api,
    name: &str,
    attestation: Option<&AttestationRow>,
    profiles: Vec<ComparedProfile>,
) -> Result<Explained, Problem> {
    let evidence = api.store.evidence(name, Which::Latest).await?;
    let code = attestation.and_then(|row| row.code.as_deref());
    let findings = attestation
        .map(|row| row.findings.clone())
        .unwrap_or_default();
    let now = api.now();
    let loud = api.store.loud_break_glass().await?;
    let loud = loud
        .into_iter()
        .filter(|row| row.node == name)
        .map(|row| super::break_glass::view(row, now))
        .collect();
    let counters = attestation.filter(|row| row.passed.is_some());
    Ok(Explained {
        advice: code.map(|code| advice(code).to_owned()),
        findings: findings.into_iter().map(Into::into).collect(),
        profiles,
        firmware: evidence
            .as_ref()
            .map(|evidence| format!("{:#018x}", evidence.firmware)),
        secure_boot: evidence.as_ref().and_then(|evidence| evidence.secure_boot),
        boots: counters.map(|row| row.counters.reset_count),
        resumes: counters.map(|row| row.counters.restart_count),
        evidence: evidence.map(|evidence| evidence.taken.into()),
        break_glass: loud,
    })
}

fn view(
    api: &Api,
    row: NodeRow,
    attestation: Option<&AttestationRow>,
    connected: bool,
) -> Result<NodeView, Problem> {
    let id = SpiffeId::new(api.keys.trust_domain(), Kind::Node, &row.name)
        .map_err(|error| Problem::internal(&error))?;
    let said = api.control.apps_of(&row.name);
    let apps = match &said {
        Some(said) => said.apps.iter().map(app).collect(),
        // One that is connected and says nothing is an agent that knows no applications.
        None if connected => Vec::new(),
        None => {
            let given = api.control.apps_given(&row.name);
            given.into_iter().map(unheard).collect()
        }
    };
    Ok(NodeView {
        app_control: said.as_ref().map(|said| said.app_control.to_owned()),
        apps_said: said.map(|said| said.at.into()),
        apps,
        spiffe_id: id.to_string(),
        status: row.status.as_str().to_owned(),
        state: attestation
            .map_or(AttestationState::None, |row| row.state)
            .to_string(),
        tier: row.tier.to_string(),
        connected,
        labels: row.labels,
        root: row.root.as_str().to_owned(),
        ipv4: Some(row.v4.to_string()),
        ipv6: overlay::ipv6_of(&id).to_string(),
        enrolled: row.enrolled.into(),
        attested: attestation.and_then(|row| row.passed).map(Into::into),
        reason: attestation.and_then(|row| row.code.clone()),
        would_fail: attestation.and_then(|row| {
            let mut monitored = row.findings.iter().filter(|finding| finding.monitored);
            monitored.next().map(|finding| finding.code.clone())
        }),
        expires: None,
        since: attestation.map(|row| row.changed.into()),
        explained: None,
        name: row.name,
    })
}

/// The node has been away since this cloud began: nobody knows what became of what it was given.
fn unheard((app, version): (AppName, Version)) -> NodeAppView {
    NodeAppView {
        app: app.to_string(),
        version: Some(version.to_string()),
        digest: None,
        state: UNHEARD.to_owned(),
        code: None,
        fetched: 0,
        wanted: 0,
    }
}

fn app(said: &AppSaid) -> NodeAppView {
    NodeAppView {
        app: said.app.to_string(),
        version: said.version.as_ref().map(ToString::to_string),
        digest: said.digest.as_ref().map(ToString::to_string),
        state: said.state.to_owned(),
        code: (!said.code.is_empty()).then(|| said.code.clone()),
        fetched: said.fetched,
        wanted: said.wanted,
    }
}

fn reason_of(request: ReasonRequest) -> Result<String, Problem> {
    let reason = request.reason.unwrap_or_default();
    match reason.len() <= MAX_REASON_BYTES {
        true => Ok(reason),
        false => Err(Problem::bad_request(
            "reason",
            format!("reason is longer than {MAX_REASON_BYTES} bytes"),
        )),
    }
}
