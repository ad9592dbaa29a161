//! What an operator orders about applications that nodes have: revoked, one release back, carried where no session
//! reaches.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use edgeward_apps::{AppName, Digest, Version};

use super::Cloud;
use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{
    AppRevoked, BackRequest, BackView, NodeBack, ProblemView, RevokeDigest, RevokeRequest,
    RevokedNodes,
};
use crate::access::Principal;
use crate::hub::director::{AppOrderFault, Revoked, Whom};
use crate::store::director::DeniedRow;

/// Longest reason, in bytes.
const MAX_REASON_BYTES: usize = 1_000;
/// Most nodes of a kind that an answer names.
const MAX_NAMED: usize = 100;

/// Revoke a release: it runs nowhere any more. Every connected node is told at once.
#[utoipa::path(post, path = "/api/v1/apps/{publisher}/{name}/{version}/revoke", tag = "apps", operation_id = "app_revoke", request_body = RevokeRequest,
    params(("publisher" = String, Path), ("name" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = AppRevoked), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(api): Cloud,
    caller: Principal,
    Named((publisher, name, version)): Named<(String, String, String)>,
    Body(request): Body<RevokeRequest>,
) -> Result<Json<AppRevoked>, Problem> {
    let app = name_of(&publisher, &name)?;
    let version: Version = version
        .parse()
        .map_err(|why| Problem::bad_request("version", format!("{why}")))?;
    // What is known here is revoked at once; the database is asked only about what is not.
    let found = match api.apps.releases().find(&app, &version) {
        Some(found) => Some(found),
        None => {
            api.apps.look().await?;
            api.apps.releases().find(&app, &version)
        }
    };
    let (version, release) = found.ok_or_else(|| Problem::not_found("no such release"))?;
    let row = DeniedRow {
        digest: release.digest,
        app: app.to_string(),
        version: version.to_string(),
        reason: reason(request.reason)?,
        since: api.now(),
        denied_by: caller.actor().to_string(),
    };
    revoke_now(&api, &caller, row).await
}

/// Revoke by digest: of a manifest, or of a file wherever it is in a release.
#[utoipa::path(post, path = "/api/v1/apps/revoke", tag = "apps", operation_id = "app_revoke_digest", request_body = RevokeDigest,
    responses((status = 200, body = AppRevoked), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn revoke_digest(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<RevokeDigest>,
) -> Result<Json<AppRevoked>, Problem> {
    let digest: Digest = request
        .digest
        .parse()
        .map_err(|why| Problem::bad_request("digest", format!("{why}")))?;
    let row = DeniedRow {
        digest,
        app: String::new(),
        version: String::new(),
        reason: reason(request.reason)?,
        since: api.now(),
        denied_by: caller.actor().to_string(),
    };
    revoke_now(&api, &caller, row).await
}

/// Read how far a revocation has come: which nodes have ended what was revoked, by what they say.
#[utoipa::path(get, path = "/api/v1/apps/revoked/{digest}", tag = "apps", operation_id = "app_revoked", params(("digest" = String, Path)),
    responses((status = 200, body = AppRevoked), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn revoked(
    State(api): Cloud,
    Named(digest): Named<String>,
) -> Result<Json<AppRevoked>, Problem> {
    let digest: Digest = digest
        .parse()
        .map_err(|why| Problem::bad_request("digest", format!("{why}")))?;
    let row = api.store.denied_app(&digest).await?;
    let row = row.ok_or_else(|| Problem::not_found("nobody revoked this"))?;
    Ok(spread(&api, row))
}

/// Order nodes one release back: to the one that each had before, where policy still allows it.
#[utoipa::path(post, path = "/api/v1/apps/{publisher}/{name}/back", tag = "apps", operation_id = "app_back", request_body = BackRequest,
    params(("publisher" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = BackView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn back(
    State(api): Cloud,
    caller: Principal,
    Named((publisher, name)): Named<(String, String)>,
    Body(request): Body<BackRequest>,
) -> Result<Json<BackView>, Problem> {
    let app = name_of(&publisher, &name)?;
    let why = reason(request.reason)?;
    let whom = match (&request.node, &request.group) {
        (Some(node), None) => Whom::Node(node),
        (None, Some(group)) => Whom::Group(group),
        _ => {
            let detail = "name one of node and group".to_owned();
            return Err(Problem::bad_request("whom", detail));
        }
    };
    let going = api
        .control
        .order_back(&app, whom, caller.actor(), &why)
        .await
        .map_err(problem)?;
    let nodes = going.into_iter().map(|one| NodeBack {
        node: one.node,
        from: one.from.to_string(),
        to: one.to.to_string(),
    });
    Ok(Json(BackView {
        nodes: nodes.collect(),
    }))
}

/// Read the director's word for a node, to carry it where no session reaches.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/director", tag = "apps", operation_id = "node_director", params(("name" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn word(
    State(api): Cloud,
    Named(node): Named<String>,
) -> Result<Response, Problem> {
    match api.control.director_word(&node).await? {
        None => Err(Problem::not_found(
            "no such node, or it should have nothing",
        )),
        Some(bytes) => {
            let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
            Ok((kind, bytes).into_response())
        }
    }
}

async fn revoke_now(
    api: &super::Api,
    caller: &Principal,
    row: DeniedRow,
) -> Result<Json<AppRevoked>, Problem> {
    let done = api.control.revoke_app(row.clone(), caller.actor()).await;
    done.map_err(problem)?;
    Ok(spread(api, row))
}

/// How far it has come by now, as nodes say it. Never fails: what was revoked is, whatever can be said of it.
fn spread(api: &super::Api, row: DeniedRow) -> Json<AppRevoked> {
    let releases = api.apps.releases().with(&row.digest);
    let mut manifests: BTreeSet<Digest> = releases.iter().map(|(_, _, digest)| *digest).collect();
    manifests.insert(row.digest);
    let spread = api.control.spread_of(&Revoked {
        digest: row.digest,
        manifests,
        releases: releases
            .into_iter()
            .map(|(app, version, _)| (app, version))
            .collect(),
    });
    let first = |names: &BTreeSet<String>| names.iter().take(MAX_NAMED).cloned().collect();
    Json(AppRevoked {
        digest: row.digest.to_string(),
        app: row.app,
        version: row.version,
        reason: row.reason,
        nodes: RevokedNodes {
            ended: spread.ended.len() as u64,
            told: spread.told.len() as u64,
            away: spread.away.len() as u64,
            waited_for: first(&spread.told),
            out_of_reach: first(&spread.away),
        },
    })
}

fn problem(fault: AppOrderFault) -> Problem {
    let detail = fault.to_string();
    match fault {
        AppOrderFault::Full => Problem::new(StatusCode::CONFLICT, "apps-denied-full", detail),
        AppOrderFault::NoWayBack => Problem::new(StatusCode::CONFLICT, "app-no-way-back", detail),
        AppOrderFault::Hub(fault) => Problem::internal(&fault),
    }
}

fn name_of(publisher: &str, name: &str) -> Result<AppName, Problem> {
    format!("{publisher}/{name}")
        .parse()
        .map_err(|why| Problem::bad_request("app", format!("{why}")))
}

fn reason(text: String) -> Result<String, Problem> {
    let fits = !text.trim().is_empty()
        && text.len() <= MAX_REASON_BYTES
        && !text.chars().any(char::is_control);
    match fits {
        true => Ok(text),
        false => Err(Problem::bad_request(
            "reason",
            format!("say why, in at most {MAX_REASON_BYTES} bytes of one line"),
        )),
    }
}
