//! Signing authorities: shown to readers, turned over by admins.

use axum::Json;
use axum::extract::State;

use super::Cloud;
use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{CaView, ProblemView, RetireRequest, RotateRequest};
use crate::access::Principal;
use crate::authorities::Rotate;

/// Show every signing authority: its state, where its key is, who relies on it, and which nodes do not hold the newest roots yet.
#[utoipa::path(get, path = "/api/v1/ca", tag = "ca", operation_id = "ca_status",
    responses((status = 200, body = CaView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(State(api): Cloud) -> Result<Json<CaView>, Problem> {
    Ok(Json(api.control.authorities().await?))
}

/// Make a new authority and let it take over: an issuing one at once, a root when enough nodes hold it. Repeated, it goes on with the rotation under way.
#[utoipa::path(post, path = "/api/v1/ca/rotate", tag = "ca", operation_id = "ca_rotate", request_body = RotateRequest,
    responses((status = 200, body = CaView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn rotate(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<RotateRequest>,
) -> Result<Json<CaView>, Problem> {
    if request.activate_at.is_some_and(|percent| percent > 100) {
        return Err(Problem::bad_request(
            "percent",
            "activate_at is a percentage: 0 to 100",
        ));
    }
    let rotate = Rotate {
        role: request.kind,
        activate_at: request.activate_at,
        now: request.now,
    };
    api.control.rotate(rotate, caller.actor()).await?;
    Ok(Json(api.control.authorities().await?))
}

/// Let another key sign what each node should have of applications. The one before is named no more, by a new key set.
#[utoipa::path(post, path = "/api/v1/ca/director", tag = "ca", operation_id = "ca_rotate_director",
    responses((status = 200, body = CaView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn rotate_director(
    State(api): Cloud,
    caller: Principal,
) -> Result<Json<CaView>, Problem> {
    api.control.rotate_director(caller.actor()).await?;
    Ok(Json(api.control.authorities().await?))
}

/// Renew at once whatever an old authority signed. It is retired by itself when nobody relies on it any more.
#[utoipa::path(post, path = "/api/v1/ca/authorities/{key}/taint", tag = "ca", operation_id = "ca_taint", params(("key" = String, Path)),
    responses((status = 200, body = CaView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn taint(
    State(api): Cloud,
    caller: Principal,
    Named(key): Named<String>,
) -> Result<Json<CaView>, Problem> {
    api.control.taint(&key, caller.actor()).await?;
    Ok(Json(api.control.authorities().await?))
}

/// Trust an authority no longer, and give up a rotation that has not become active. Refused while somebody relies on it, unless forced.
#[utoipa::path(post, path = "/api/v1/ca/authorities/{key}/retire", tag = "ca", operation_id = "ca_retire", params(("key" = String, Path)), request_body = RetireRequest,
    responses((status = 200, body = CaView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn retire(
    State(api): Cloud,
    caller: Principal,
    Named(key): Named<String>,
    Body(request): Body<RetireRequest>,
) -> Result<Json<CaView>, Problem> {
    if let Some(own) = caller.key() {
        let issuer = api.store.issuer_of_key(&own.spki_hash()).await?;
        let ledger = api.keys.ledger();
        let falls = ledger.find(&key).is_ok_and(|authority| {
            ledger
                .issuing_with(&authority.key)
                .iter()
                .any(|issuing| Some(issuing.key) == issuer)
        });
        if falls {
            return Err(Problem::conflict(
                "own_certificate",
                "your own certificate would end with it: get a new one first (edgeward operator add --renew)",
            ));
        }
    }
    api.control
        .retire(&key, request.force, caller.actor())
        .await?;
    Ok(Json(api.control.authorities().await?))
}
