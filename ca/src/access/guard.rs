//! The table in force: in front of every route.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_identity::{Clock, Kind, VerifiedPeer};
use zeroize::Zeroizing;

use super::table::ROUTES;
use super::{Class, Principal, lookup};
use crate::api::problem::Problem;
use crate::audit::AuditLog;
use crate::serve::Caller;
use crate::store::{Store, StoreError};

/// What begins every API key: `ewk1_<id>_<secret>`.
pub const API_KEY_PREFIX: &str = "ewk1";
/// Longest `Authorization` header looked at, in bytes.
const MAX_AUTHORIZATION_BYTES: usize = 256;

/// What the guard needs.
#[derive(Clone)]
pub struct Guard {
    pub store: Store,
    pub audit: Arc<AuditLog>,
    pub clock: Arc<dyn Clock>,
}

/// Why a request goes no further.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("no such route")]
    NoRoute,
    #[error("the route does not know this method")]
    Method,
    #[error("the route is not in the table of callers")]
    NotInTable,
    #[error("the connection's caller was not established")]
    NoCaller,
    #[error("both a certificate and an api key were presented")]
    TwoCredentials,
    #[error("the api key is malformed, unknown, revoked or expired")]
    ApiKey,
    #[error("the operator is unknown, revoked, or has a newer certificate")]
    Operator,
    #[error("this caller may not do this")]
    Forbidden,
    #[error("an identity is needed: an operator certificate or an api key")]
    Unauthenticated,
    #[error("callers cannot be looked up now")]
    Store(#[source] StoreError),
}

/// Lets through whom the table admits, and hands the route its [`Principal`].
async fn enforce(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let path = path_of(&request);
    let caller = request.extensions().get::<Caller>().cloned();
    let begun = std::time::Instant::now();
    let response = match guard
        .admit(&method, &path, caller.as_ref(), request.headers())
        .await
    {
        Ok(principal) => {
            // Nobody behind the guard needs the credential.
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(denied) => {
            guard.note(&denied, &method, &path, caller.as_ref());
            denied.answer(is_grpc(request.headers()))
        }
    };
    // Labels are the table's own words, so nobody outside can make new ones.
    if let Some(route) = lookup(&method, &path) {
        let status = response.status().as_u16().to_string();
        metrics::histogram!("edgeward_request_seconds", "method" => route.method, "path" => route.path, "status" => status)
            .record(begun.elapsed().as_secs_f64());
    }
    response
}

impl Guard {
    /// Puts the table in front of every route of `router`.
    pub fn protect(&self, router: Router) -> Router {
        router.layer(axum::middleware::from_fn_with_state(self.clone(), enforce))
    }

    /// Whether a caller who was let in would still be: for answers that stay open. An error is a no.
    pub async fn still_stands(&self, principal: &Principal) -> bool {
        let now = self.clock.now();
        match (principal.class, &principal.actor) {
            (Class::Operator(role), Actor::Identity(id)) => {
                matches!(self.store.operator(id.name()).await, Ok(Some(operator))
                    if operator.revoked.is_none()
                        && operator.role == role
                        && Some(operator.key) == principal.key
                        && now < operator.expires)
            }
            (Class::ApiKey(role), Actor::ApiKey(name)) => {
                matches!(self.store.api_key_named(name.as_str()).await, Ok(Some(key))
                    if key.revoked.is_none() && key.role == role && now < key.expires)
            }
            _ => false,
        }
    }

    async fn admit(
        &self,
        method: &str,
        path: &str,
        caller: Option<&Caller>,
        headers: &HeaderMap,
    ) -> Result<Principal, Denied> {
        if path.is_empty() {
            return Err(Denied::NoRoute);
        }
        let Some(route) = lookup(method, path) else {
            return Err(match ROUTES.iter().any(|route| route.path == path) {
                true => Denied::Method,
                false => Denied::NotInTable,
            });
        };
        let principal = self
            .identify(caller.ok_or(Denied::NoCaller)?, headers)
            .await?;
        match route.admits(principal.class) {
            true => Ok(principal),
            false if principal.class == Class::Anonymous => Err(Denied::Unauthenticated),
            false => Err(Denied::Forbidden),
        }
    }

    async fn identify(&self, caller: &Caller, headers: &HeaderMap) -> Result<Principal, Denied> {
        let bearer = headers.get(header::AUTHORIZATION);
        match (caller.peer.as_deref(), bearer) {
            (Some(_), Some(_)) => Err(Denied::TwoCredentials),
            (None, Some(value)) => self.api_key(value.as_bytes()).await,
            (None, None) => Ok(Principal {
                class: Class::Anonymous,
                actor: actor_of(caller),
                key: None,
            }),
            (Some(peer), None) => self.certificate(caller, peer).await,
        }
    }

    async fn certificate(&self, caller: &Caller, peer: &VerifiedPeer) -> Result<Principal, Denied> {
        let class = match peer.id().kind() {
            Kind::Node => Class::Node,
            Kind::Device => Class::Device,
            Kind::Workload => Class::Workload,
            Kind::Cloud => Class::Cloud,
            Kind::Operator => self.operator_class(peer).await?,
        };
        Ok(Principal {
            class,
            actor: actor_of(caller),
            key: Some(*peer.key()),
        })
    }

    /// The role comes from the store at every request, so a revocation or a new certificate counts at once.
    async fn operator_class(&self, peer: &VerifiedPeer) -> Result<Class, Denied> {
        let operator = self
            .store
            .operator(peer.id().name())
            .await
            .map_err(Denied::Store)?
            .ok_or(Denied::Operator)?;
        let current = operator.revoked.is_none()
            && operator.key == *peer.key()
            && self.clock.now() < peer.not_after();
        match current {
            true => Ok(Class::Operator(operator.role)),
            false => Err(Denied::Operator),
        }
    }

    async fn api_key(&self, header: &[u8]) -> Result<Principal, Denied> {
        let (id, secret) = parse_api_key(header).ok_or(Denied::ApiKey)?;
        let key = self
            .store
            .api_key(id, &secret)
            .await
            .map_err(Denied::Store)?
            .ok_or(Denied::ApiKey)?;
        if key.revoked.is_some() || key.expires <= self.clock.now() {
            return Err(Denied::ApiKey);
        }
        Ok(Principal {
            class: Class::ApiKey(key.role),
            actor: Actor::api_key(&key.name),
            key: None,
        })
    }

    /// A denial is an event; unknown paths are not, or every scanner would write a book.
    fn note(&self, denied: &Denied, method: &str, path: &str, caller: Option<&Caller>) {
        let code = denied.code();
        metrics::counter!("edgeward_api_refused_total", "code" => code).increment(1);
        tracing::info!(method, path, code, reason = %denied, "request refused");
        if matches!(denied, Denied::NoRoute | Denied::Method) {
            return;
        }
        let actor = caller.map_or(Actor::Anonymous(None), actor_of);
        self.audit.later(
            Event::new(self.clock.now(), actor, EventKind::ApiRefused)
                .subject(format!("{method} {path}").as_str())
                .denied(code),
        );
    }
}

impl Denied {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoute => "no_such_route",
            Self::Method => "method_not_allowed",
            Self::NotInTable => "route_closed",
            Self::NoCaller => "caller_unknown",
            Self::TwoCredentials => "credential_ambiguous",
            Self::ApiKey => "api_key_refused",
            Self::Operator => "operator_refused",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
            Self::Store(_) => "unavailable",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TwoCredentials => StatusCode::BAD_REQUEST,
            Self::ApiKey | Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::NotInTable | Self::Operator | Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NoCaller => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn answer(&self, grpc: bool) -> Response {
        if grpc {
            let status = match self.status() {
                StatusCode::UNAUTHORIZED => tonic::Status::unauthenticated(self.code()),
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                    tonic::Status::unimplemented(self.code())
                }
                StatusCode::SERVICE_UNAVAILABLE => tonic::Status::unavailable(self.code()),
                _ => tonic::Status::permission_denied(self.code()),
            };
            return status.into_http();
        }
        // What the store said stays inside.
        let detail = match self {
            Self::Store(_) => "try again shortly".to_owned(),
            other => other.to_string(),
        };
        Problem::new(self.status(), self.code(), detail).into_response()
    }
}

/// Reads `Bearer ewk1_<id>_<secret>`.
pub fn parse_api_key(header: &[u8]) -> Option<(&str, Zeroizing<Vec<u8>>)> {
    if header.len() > MAX_AUTHORIZATION_BYTES {
        return None;
    }
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, key) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (prefix, rest) = key.split_once('_')?;
    let (id, secret) = rest.split_once('_')?;
    let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
    (prefix == API_KEY_PREFIX && !id.is_empty()).then(|| (id, Zeroizing::new(secret)))
}

/// How audit events name a caller whom no API key names.
pub fn actor_of(caller: &Caller) -> Actor {
    match &caller.peer {
        Some(peer) => Actor::Identity(peer.id().clone()),
        None => Actor::Anonymous(Some(caller.remote.ip().to_canonical())),
    }
}

/// What the table calls this request: the router's pattern, the whole path for gRPC, empty where nothing matched.
fn path_of(request: &Request) -> String {
    match request.extensions().get::<MatchedPath>() {
        Some(_) if request.uri().path().starts_with("/edgeward.") => {
            request.uri().path().to_owned()
        }
        Some(matched) => matched.as_str().to_owned(),
        None => String::new(),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
