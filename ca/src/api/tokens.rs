//! Bootstrap tokens: create, list, revoke.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::event::{Event, EventKind};
use edgeward_identity::{Secret, Timestamp};
use edgeward_policy::Labels;
use edgeward_wire::token::{BootstrapToken, SECRET_BYTES};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{ProblemView, TokenCreated, TokenRequest, TokenStatus, TokenView};
use super::{Api, Cloud, Items, items};
use crate::access::Principal;
use crate::issue::NamePattern;
use crate::store::tokens::TokenRow;

/// Longest life of a token.
pub(super) const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);
/// Most machines that may use one token.
const MAX_USES: u32 = 100_000;
/// Most labels of a token, and the longest key or value, in bytes.
const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 63;
/// Random bytes of a token id.
const ID_BYTES: usize = 6;

/// List bootstrap tokens, newest first. Secrets are not stored and cannot be shown.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", operation_id = "token_list",
    responses((status = 200, body = Items<TokenView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<Items<TokenView>>, Problem> {
    let now = api.now();
    let rows = api.store.tokens().await?;
    Ok(items(rows.into_iter().map(|row| view(row, now)).collect()))
}

/// Create a bootstrap token. The string in the answer is shown once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", operation_id = "token_create", request_body = TokenRequest,
    responses((status = 201, body = TokenCreated), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<TokenCreated>), Problem> {
    let now = api.now();
    let mut row = row_of(&api, request, &caller, now)?;
    let minted = Minted::draw(&api)?;
    (row.id, row.secret_hash) = (minted.id, minted.secret_hash);
    let mut tx = api.store.begin("token.create").await?;
    tx.insert_token(&row).await?;
    let labels: Vec<String> = row
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let event = Event::new(now, caller.actor().clone(), EventKind::TokenCreated)
        .subject(format!("token:{}", row.id).as_str())
        .allowed()
        .detail("expires", crate::when::format(row.expires))
        .detail("uses", row.uses)
        .detail(
            "name",
            row.name.as_ref().map_or("any", |name| name.as_str()),
        )
        .detail("labels", labels.join(" "));
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

/// Revoke a bootstrap token. Nodes that enrolled with it stay.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "token_revoke", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(api): Cloud,
    caller: Principal,
    Named(id): Named<String>,
) -> Result<StatusCode, Problem> {
    let now = api.now();
    let mut tx = api.store.begin("token.revoke").await?;
    if !tx
        .revoke_token(&id, &caller.actor().to_string(), now)
        .await?
    {
        return match tx.token(&id).await? {
            Some(_) => Err(Problem::conflict("revoked", "the token was revoked before")),
            None => Err(Problem::not_found("no such token")),
        };
    }
    let event = Event::new(now, caller.actor().clone(), EventKind::TokenRevoked)
        .subject(format!("token:{id}").as_str());
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A token's string, and what of it is stored.
pub(super) struct Minted {
    pub(super) id: String,
    pub(super) secret_hash: String,
    /// A secret.
    pub(super) token: String,
}

impl Minted {
    pub(super) fn draw(api: &Api) -> Result<Self, Problem> {
        let mut id = [0; ID_BYTES];
        let mut secret = [0; SECRET_BYTES];
        fill(&mut id)?;
        fill(&mut secret)?;
        let (id, secret) = (hex::encode(id), Secret::new(secret));
        let secret_hash = hex::encode(digest(&SHA256, secret.expose()));
        let token = BootstrapToken::new(
            api.settings.advertise.clone(),
            api.keys.trust_domain().clone(),
            api.keys.root_pin(),
            id.clone(),
            secret,
        )
        .map_err(|error| Problem::internal(&error))?;
        Ok(Self {
            id,
            secret_hash,
            token: token.encode().expose().clone(),
        })
    }
}

fn row_of(
    api: &Api,
    request: TokenRequest,
    caller: &Principal,
    now: Timestamp,
) -> Result<TokenRow, Problem> {
    let ttl = ttl_of(request.ttl.as_deref(), api.settings.token_ttl, MAX_TTL)?;
    let uses = request.uses.unwrap_or(api.settings.token_uses);
    if !(1..=MAX_USES).contains(&uses) {
        return Err(Problem::bad_request(
            "token_uses",
            format!("uses is not between 1 and {MAX_USES}"),
        ));
    }
    let name = request
        .name
        .as_deref()
        .map(str::parse::<NamePattern>)
        .transpose()
        .map_err(|error| Problem::bad_request("token_name", error.to_string()))?;
    Ok(TokenRow {
        id: String::new(),
        secret_hash: String::new(),
        created: now,
        created_by: caller.actor().to_string(),
        expires: now.plus(ttl),
        uses,
        used: 0,
        labels: labels_of(request.labels)?,
        name,
        ek: request.ek.as_deref().map(ek_of).transpose()?,
        approval: request.approval.unwrap_or(api.settings.approval),
        revoked: None,
        revoked_by: None,
    })
}

/// A duration such as `24h`, within `most`; `default` if absent.
pub(super) fn ttl_of(
    text: Option<&str>,
    default: Duration,
    most: Duration,
) -> Result<Duration, Problem> {
    let ttl = match text {
        None => return Ok(default),
        Some(text) => humantime::parse_duration(text)
            .map_err(|_| Problem::bad_request("ttl", "ttl is not a duration such as 24h"))?,
    };
    match ttl.is_zero() || ttl > most {
        true => Err(Problem::bad_request(
            "ttl",
            format!(
                "ttl is zero or more than {}",
                humantime::format_duration(most)
            ),
        )),
        false => Ok(ttl),
    }
}

pub(super) fn fill(bytes: &mut [u8]) -> Result<(), Problem> {
    SystemRandom::new().fill(bytes).map_err(|_| {
        tracing::error!("the random source failed");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the cloud failed; its log says why",
        )
    })
}

fn labels_of(labels: Labels) -> Result<Labels, Problem> {
    let good = |text: &str| {
        (1..=MAX_LABEL_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
    };
    if labels.len() > MAX_LABELS || !labels.iter().all(|(key, value)| good(key) && good(value)) {
        return Err(Problem::bad_request(
            "labels",
            format!(
                "at most {MAX_LABELS} labels, keys and values of 1 to {MAX_LABEL_BYTES} of A-Z a-z 0-9 - _ . /"
            ),
        ));
    }
    Ok(labels)
}

fn ek_of(text: &str) -> Result<String, Problem> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest)
        .map(|()| hex::encode(digest))
        .map_err(|_| Problem::bad_request("token_ek", "ek is not a sha-256 in hex"))
}

fn view(row: TokenRow, now: Timestamp) -> TokenView {
    let status = if row.revoked.is_some() {
        TokenStatus::Revoked
    } else if row.used >= row.uses {
        TokenStatus::Used
    } else if row.expires <= now {
        TokenStatus::Expired
    } else {
        TokenStatus::Usable
    };
    TokenView {
        id: row.id,
        status,
        uses: row.uses,
        used: row.used,
        labels: row.labels,
        name: row.name.map(|name| name.as_str().to_owned()),
        ek: row.ek,
        approval: row.approval,
        created: row.created.into(),
        created_by: row.created_by,
        expires: row.expires.into(),
        revoked: row.revoked.map(Into::into),
        revoked_by: row.revoked_by,
    }
}
