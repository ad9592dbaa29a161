//! API keys: for scripts that cannot hold a certificate.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_identity::{Kind, SpiffeId, Timestamp};
use zeroize::Zeroizing;

use super::extract::{Body, Named};
use super::operators::status_of;
use super::problem::Problem;
use super::tokens::{fill, ttl_of};
use super::views::{ApiKeyCreated, ApiKeyRequest, ApiKeyView, ProblemView};
use super::{Cloud, Items, items};
use crate::access::Principal;
use crate::access::guard::API_KEY_PREFIX;
use crate::store::apikeys::ApiKey;

/// How long an API key holds unless asked otherwise, and at most.
const DEFAULT_TTL: Duration = Duration::from_secs(90 * 86_400);
const MAX_TTL: Duration = Duration::from_secs(366 * 86_400);
/// Random bytes of a key's id and of its secret.
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// List API keys by name, revoked ones too. Secrets are not stored and cannot be shown.
#[utoipa::path(get, path = "/api/v1/apikeys", tag = "apikeys", operation_id = "apikey_list",
    responses((status = 200, body = Items<ApiKeyView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<Items<ApiKeyView>>, Problem> {
    let now = api.now();
    let keys = api.store.api_keys().await?;
    Ok(items(keys.into_iter().map(|key| view(key, now)).collect()))
}

/// Create an API key. The string in the answer is shown once.
#[utoipa::path(post, path = "/api/v1/apikeys", tag = "apikeys", operation_id = "apikey_create", request_body = ApiKeyRequest,
    responses((status = 201, body = ApiKeyCreated), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<ApiKeyRequest>,
) -> Result<(StatusCode, Json<ApiKeyCreated>), Problem> {
    let now = api.now();
    // The same names as for identities, so that logs and filters need no quoting.
    SpiffeId::new(api.keys.trust_domain(), Kind::Operator, &request.name)
        .map_err(|error| Problem::bad_request("apikey_name", error.to_string()))?;
    let ttl = ttl_of(request.ttl.as_deref(), DEFAULT_TTL, MAX_TTL)?;
    let mut id = [0; ID_BYTES];
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    fill(&mut id)?;
    fill(secret.as_mut())?;
    let key = ApiKey {
        id: hex::encode(id),
        name: request.name.clone(),
        role: request.role,
        created: now,
        created_by: caller.actor().to_string(),
        expires: now.plus(ttl),
        revoked: None,
        revoked_by: None,
    };
    let mut tx = api.store.begin("apikey.create").await?;
    tx.add_api_key(&key, secret.as_ref()).await?;
    let event = Event::new(now, caller.actor().clone(), EventKind::ApiKeyCreated)
        .subject(Actor::api_key(&key.name).to_string().as_str())
        .allowed()
        .detail("role", key.role)
        .detail("expires", crate::when::format(key.expires));
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    let created = ApiKeyCreated {
        name: key.name,
        role: key.role,
        key: format!(
            "{API_KEY_PREFIX}_{}_{}",
            key.id,
            URL_SAFE_NO_PAD.encode(secret.as_ref())
        ),
        expires: key.expires.into(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Revoke an API key: refused from the next request on.
#[utoipa::path(delete, path = "/api/v1/apikeys/{name}", tag = "apikeys", operation_id = "apikey_revoke", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
) -> Result<StatusCode, Problem> {
    let now = api.now();
    let mut tx = api.store.begin("apikey.revoke").await?;
    if !tx
        .revoke_api_key(&name, &caller.actor().to_string(), now)
        .await?
    {
        return Err(Problem::not_found("no such api key, or revoked before"));
    }
    let event = Event::new(now, caller.actor().clone(), EventKind::ApiKeyRevoked)
        .subject(Actor::api_key(&name).to_string().as_str());
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(key: ApiKey, now: Timestamp) -> ApiKeyView {
    ApiKeyView {
        name: key.name,
        role: key.role,
        status: status_of(key.revoked, key.expires, now),
        created: key.created.into(),
        created_by: key.created_by,
        expires: key.expires.into(),
        revoked: key.revoked.map(Into::into),
        revoked_by: key.revoked_by,
    }
}
