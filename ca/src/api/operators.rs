//! Operators: people and scripts with a certificate.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::event::{Event, EventKind};
use edgeward_identity::{Kind, PublicKey, SpiffeId, Timestamp, TrustDomain};

use super::extract::{Body, Named};
use super::problem::Problem;
use super::tokens::ttl_of;
use super::views::{CredentialStatus, OperatorIssued, OperatorRequest, OperatorView, ProblemView};
use super::{Api, Cloud, Items, items};
use crate::access::{Principal, Role};
use crate::issue::{Issued, MAX_OPERATOR_LIFETIME};
use crate::store::StoreError;
use crate::store::operators::Operator;

/// Why an operator's old key is denied.
const SUPERSEDED: &str = "superseded";
/// How long the answer to an operator who renews its own certificate has to go out.
const ANSWER_FIRST: Duration = Duration::from_secs(2);
/// Lifetime of an operator's certificate unless asked otherwise.
const DEFAULT_TTL: Duration = Duration::from_secs(90 * 86_400);

/// List operators by name, revoked ones too.
#[utoipa::path(get, path = "/api/v1/operators", tag = "operators", operation_id = "operator_list",
    responses((status = 200, body = Items<OperatorView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<Items<OperatorView>>, Problem> {
    let now = api.now();
    let operators = api.store.operators().await?;
    let views = operators
        .into_iter()
        .map(|operator| view(&api, operator, now))
        .collect::<Result<_, Problem>>()?;
    Ok(items(views))
}

/// Add an operator, or give one a new certificate. Only the public key comes up; the private one stays where it was made.
#[utoipa::path(post, path = "/api/v1/operators", tag = "operators", operation_id = "operator_add", request_body = OperatorRequest,
    responses((status = 201, body = OperatorIssued), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn add(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<OperatorRequest>,
) -> Result<(StatusCode, Json<OperatorIssued>), Problem> {
    let now = api.now();
    let trust_domain = api.keys.trust_domain();
    let id = SpiffeId::new(trust_domain, Kind::Operator, &request.name)
        .map_err(|error| Problem::bad_request("operator_name", error.to_string()))?;
    let key = proven_key(&request, trust_domain)?;
    let ttl = ttl_of(request.ttl.as_deref(), DEFAULT_TTL, MAX_OPERATOR_LIFETIME)?;
    let issued = api
        .keys
        .issuer()
        .issue_operator(&id, &key, ttl, now)
        .map_err(|fault| Problem::internal(&fault))?;
    let replaced = write(&api, &caller, &request, &id, &key, &issued, now).await?;
    if let Some(old) = replaced {
        // The store refuses the old key already; nodes learn it from the deny-list.
        let keys = vec![(old.key_hash(), old.expires)];
        if caller.key().map(PublicKey::spki_hash) == Some(old.key_hash()) {
            // Denying a key closes its connections: this answer, and the certificate in it, must be out before.
            let api = api.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ANSWER_FIRST).await;
                if let Err(fault) = api.control.deny(&keys, SUPERSEDED).await {
                    tracing::error!(%fault, "an operator's old key is not on the deny-list");
                }
            });
        } else {
            api.control.deny(&keys, SUPERSEDED).await?;
        }
    }
    let bundle = serde_json::from_slice(&api.keys.bundle().to_spiffe_json())
        .map_err(|error| Problem::internal(&error))?;
    let answer = OperatorIssued {
        name: request.name,
        spiffe_id: id.to_string(),
        role: request.role,
        expires: issued.leaf.not_after.into(),
        certificates: pem_of(&issued),
        bundle,
        trust_domain: trust_domain.to_string(),
        addresses: api.settings.advertise.clone(),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Revoke an operator: refused from the next request on, and by every node that hears the deny-list.
#[utoipa::path(delete, path = "/api/v1/operators/{name}", tag = "operators", operation_id = "operator_revoke", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
) -> Result<StatusCode, Problem> {
    let now = api.now();
    let mut tx = api.store.begin("operator.revoke").await?;
    let by = caller.actor().to_string();
    let Some(revoked) = tx.revoke_operator(&name, &by, now).await? else {
        drop(tx);
        return Err(revoked_before(&api, &name).await);
    };
    if revoked.role == Role::Admin && tx.active_admins(now).await? == 0 {
        return Err(Problem::conflict(
            "last_admin",
            "nobody could administer any more: add another admin first",
        ));
    }
    let event = Event::new(now, caller.actor().clone(), EventKind::OperatorRevoked)
        .subject(operator_id(&api, &name)?)
        .detail("role", revoked.role);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    api.control
        .deny(&[(revoked.key_hash(), revoked.expires)], "revoked")
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A second attempt denies the key once more: the first may have failed after the store had it.
async fn revoked_before(api: &Api, name: &str) -> Problem {
    let operator = match api.store.operator(name).await {
        Ok(Some(operator)) => operator,
        Ok(None) => return Problem::not_found("no such operator"),
        Err(error) => return error.into(),
    };
    match api
        .control
        .deny(&[(operator.key_hash(), operator.expires)], "revoked")
        .await
    {
        Ok(()) => Problem::conflict("revoked", "the operator was revoked before"),
        Err(fault) => fault.into(),
    }
}

/// Writes the operator and its event; returns the operator whose key was replaced.
async fn write(
    api: &Api,
    caller: &Principal,
    request: &OperatorRequest,
    id: &SpiffeId,
    key: &PublicKey,
    issued: &Issued,
    now: Timestamp,
) -> Result<Option<Operator>, Problem> {
    let expires = issued.leaf.not_after;
    let old = match request.renew {
        true => api.store.operator(&request.name).await?,
        false => None,
    };
    let mut tx = api.store.begin("operator.add").await?;
    if let Some(old) = &old {
        // Whatever happens to this process next, the deny-list has it from its next number on.
        tx.deny_keys("", SUPERSEDED, &[(old.key_hash(), old.expires)])
            .await?;
    }
    if request.renew {
        let same_role = old.as_ref().is_some_and(|old| old.role == request.role);
        if !same_role || !tx.renew_operator(&request.name, key, expires).await? {
            return Err(Problem::not_found(
                "no such operator with this role, or it was revoked",
            ));
        }
    } else {
        let operator = Operator {
            name: request.name.clone(),
            role: request.role,
            key: *key,
            expires,
            added: now,
            added_by: caller.actor().to_string(),
            revoked: None,
            revoked_by: None,
        };
        tx.add_operator(&operator).await.map_err(|error| match error {
            StoreError::Exists => Problem::conflict(
                "exists",
                "the name or the key was used before; renew gives an operator a new certificate",
            ),
            other => other.into(),
        })?;
    }
    let event = Event::new(now, caller.actor().clone(), EventKind::OperatorAdded)
        .subject(id.clone())
        .allowed()
        .detail("role", request.role)
        .detail("renewed", request.renew);
    let event = issued.recorded_in(event);
    tx.note_issued(issued, now).await?;
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(old)
}

fn proven_key(request: &OperatorRequest, trust_domain: &TrustDomain) -> Result<PublicKey, Problem> {
    let key = hex::decode(&request.public_key)
        .ok()
        .and_then(|point| PublicKey::from_point(&point).ok())
        .ok_or_else(|| {
            Problem::bad_request(
                "operator_key",
                "public_key is not an uncompressed p-256 point in hex",
            )
        })?;
    let refused = || {
        Problem::bad_request(
            "operator_proof",
            "proof does not show possession of the key",
        )
    };
    let proof = hex::decode(&request.proof).map_err(|_| refused())?;
    key.verify(
        &OperatorRequest::message(trust_domain, &request.name),
        &proof,
    )
    .map_err(|_| refused())?;
    Ok(key)
}

fn operator_id(api: &Api, name: &str) -> Result<SpiffeId, Problem> {
    SpiffeId::new(api.keys.trust_domain(), Kind::Operator, name)
        .map_err(|error| Problem::internal(&error))
}

fn pem_of(issued: &Issued) -> String {
    issued
        .chain
        .iter()
        .map(|certificate| pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec())))
        .collect()
}

pub(super) fn status_of(
    revoked: Option<Timestamp>,
    expires: Timestamp,
    now: Timestamp,
) -> CredentialStatus {
    match revoked {
        Some(_) => CredentialStatus::Revoked,
        None if expires <= now => CredentialStatus::Expired,
        None => CredentialStatus::Active,
    }
}

fn view(api: &Api, operator: Operator, now: Timestamp) -> Result<OperatorView, Problem> {
    Ok(OperatorView {
        spiffe_id: operator_id(api, &operator.name)?.to_string(),
        role: operator.role,
        status: status_of(operator.revoked, operator.expires, now),
        key: operator.key_hash().to_string(),
        added: operator.added.into(),
        added_by: operator.added_by,
        expires: operator.expires.into(),
        revoked: operator.revoked.map(Into::into),
        revoked_by: operator.revoked_by,
        name: operator.name,
    })
}
