//! The REST API under `/api/`: JSON in and out, problem documents (RFC 9457) for errors, OpenAPI at `/api/openapi.json`.
//!
//! Who may call what is in [`crate::access`]; the accept loop puts the caller into every request. Handlers read and
//! write the store, record events, and ask [`Control`] for whatever reaches nodes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use edgeward_audit::event::Actor;
use edgeward_audit::query::CursorKey;
use edgeward_identity::{Clock, Secret, SpiffeId, SpkiHash, Timestamp};
use edgeward_policy::{CompiledPolicy, SliceBreakGlass};
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::guard::Guard;
use crate::alerts::desk::Desk;
use crate::apps::{AppsSaid, Repository};
use crate::audit::{AuditLog, RecordFault};
use crate::authorities::Rotate;
use crate::ek::EkTrust;
use crate::hub::director::{AppOrderFault, GoesBack, Revoked, Spread, Whom};
use crate::hub::{Begin, Progress, RolloutFault};
use crate::keys::CloudKeys;
use crate::keys::ledger::NotNow;
use crate::store::director::DeniedRow;
use crate::store::policies::PolicyRow;
use crate::store::{Store, StoreError};
use crate::witness::Witnessing;
use edgeward_apps::{AppName, Version};

mod alerts;
mod apikeys;
mod approvals;
mod apps;
mod audit;
mod audit_log;
mod break_glass;
mod ca;
mod director;
mod document;
mod ekroots;
mod eks;
mod evidence;
pub mod exports;
mod extract;
mod nodes;
mod operators;
mod policies;
pub mod problem;
mod publishers;
mod replacement;
pub mod results;
mod retention;
mod sites;
mod status;
mod tokens;
pub mod views;
pub mod witness;

use document::Document;

#[cfg(test)]
mod tests;

/// Largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Largest policy upload, in bytes: its lists of digests, and 8 MiB for its files and for JSON's quoting.
pub const MAX_POLICY_BODY_BYTES: usize = edgeward_policy::source::MAX_LISTS_BYTES + 8 * 1024 * 1024;
/// An answer must begin within this time.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Most policies that are compiled at a time.
const MAX_COMPILING: usize = 2;
/// Most policies that are being uploaded or checked at a time: what bounds the memory that they take.
const MAX_UPLOADS: usize = 4;
/// Most answers that are being counted at a time.
const MAX_COUNTING: usize = 2;
/// Most open answers with `follow=true`.
const MAX_FOLLOWERS: usize = 64;

/// Everything the handlers work with.
pub struct Api {
    pub store: Store,
    pub audit: Arc<AuditLog>,
    pub clock: Arc<dyn Clock>,
    pub keys: Arc<CloudKeys>,
    pub control: Arc<dyn Control>,
    pub ek: Arc<EkTrust>,
    pub apps: Arc<Repository>,
    pub alerts: Arc<Desk>,
    pub witness: Arc<Witnessing>,
    pub settings: Settings,
    cursor_key: CursorKey,
    compiling: Semaphore,
    uploads: Semaphore,
    app_uploads: Semaphore,
    with_logs: Semaphore,
    followers: Arc<Semaphore>,
    log_readers: audit_log::Readers,
    counting: Semaphore,
}

/// What an [`Api`] is made of.
pub struct Parts {
    pub store: Store,
    pub audit: Arc<AuditLog>,
    pub clock: Arc<dyn Clock>,
    pub keys: Arc<CloudKeys>,
    pub control: Arc<dyn Control>,
    pub ek: Arc<EkTrust>,
    pub apps: Arc<Repository>,
    pub alerts: Arc<Desk>,
    pub witness: Arc<Witnessing>,
    pub settings: Settings,
}

/// What of the configuration shows in answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` at which machines reach this cloud: goes into tokens and contexts.
    pub advertise: Vec<String>,
    pub token_ttl: Duration,
    pub token_uses: u32,
    /// Whether nodes wait for an operator's approval unless their token says otherwise.
    pub approval: bool,
    /// Who else gets the audit log.
    pub exports: Vec<crate::config::exports::Export>,
    /// For how long events are kept, and where they are archived.
    pub retention: crate::config::retention::Retention,
}

/// What the routes ask of the parts of the cloud that give and take rights. Whatever takes away does so before it
/// returns, on every connected peer's session queue.
#[async_trait]
pub trait Control: Send + Sync {
    /// Puts keys on the deny-list until their certificates end, pushes it, closes their connections.
    async fn deny(&self, keys: &[(SpkiHash, Timestamp)], reason: &str) -> Result<(), ControlFault>;
    async fn approve(&self, node: &str, by: &Actor) -> Result<(), ControlFault>;
    async fn quarantine(&self, node: &str, by: &Actor, reason: &str) -> Result<(), ControlFault>;
    async fn release(&self, node: &str, by: &Actor) -> Result<(), ControlFault>;
    async fn remove(&self, node: &str, by: &Actor, reason: &str) -> Result<(), ControlFault>;
    /// A stored, recorded policy comes into force: slices are cut, signed and pushed.
    async fn activate(&self, policy: Arc<CompiledPolicy>) -> Result<(), ControlFault>;
    /// A candidate is stored, recorded and in force for the nodes of its first stage.
    async fn begin_rollout(&self, begin: Begin, by: &Actor) -> Result<(), RolloutFault>;
    /// The candidate that is being tried.
    async fn rollout(&self) -> Result<Option<Progress>, RolloutFault>;
    async fn pause_rollout(&self, by: &Actor) -> Result<(), RolloutFault>;
    async fn resume_rollout(&self, by: &Actor) -> Result<(), RolloutFault>;
    /// What was in force before the candidate is in force again, as the policy of `row`.
    async fn abort_rollout(&self, row: PolicyRow, by: &Actor) -> Result<(), RolloutFault>;
    /// Every signing authority and its state.
    async fn authorities(&self) -> Result<views::CaView, ControlFault>;
    /// Begins a rotation, or goes on with the one under way.
    async fn rotate(&self, rotate: Rotate, by: &Actor) -> Result<(), ControlFault>;
    /// Another key signs what each node should have of applications.
    async fn rotate_director(&self, by: &Actor) -> Result<(), ControlFault>;
    /// What this authority signed is renewed at once. `key` is the beginning of its hash.
    async fn taint(&self, key: &str, by: &Actor) -> Result<(), ControlFault>;
    /// This authority is trusted no longer.
    async fn retire(&self, key: &str, force: bool, by: &Actor) -> Result<(), ControlFault>;
    /// Approvals were given or revoked, or grants of break-glass are void: slices are cut anew at once.
    async fn openings_changed(&self) -> Result<(), ControlFault>;
    /// What break-glass of this name opens on a node by the policy in force for it, and the node's present key.
    async fn break_glass(
        &self,
        node: &SpiffeId,
        name: &str,
    ) -> Result<Option<(SliceBreakGlass, SpkiHash)>, ControlFault>;
    /// From now on a release, or a file in releases, runs nowhere; nodes are told at once.
    async fn revoke_app(&self, row: DeniedRow, by: &Actor) -> Result<(), AppOrderFault>;
    /// How far a revocation has come.
    fn spread_of(&self, revoked: &Revoked) -> Spread;
    /// These nodes go back to the release before.
    async fn order_back(
        &self,
        app: &AppName,
        whom: Whom<'_>,
        by: &Actor,
        reason: &str,
    ) -> Result<Vec<GoesBack>, AppOrderFault>;
    /// The director's newest word for a node, signed; `None`: it has none.
    async fn director_word(&self, node: &str) -> Result<Option<Vec<u8>>, ControlFault>;
    /// The policy in force.
    fn policy(&self) -> Option<Arc<CompiledPolicy>>;
    /// Names of the nodes whose session is open.
    fn connected(&self) -> Vec<String>;
    /// What a node said of its applications to this cloud.
    fn apps_of(&self, node: &str) -> Option<Arc<AppsSaid>>;
    /// What the director gave a node, as it is stored: also where the node has said nothing to this cloud.
    fn apps_given(&self, node: &str) -> Vec<(AppName, Version)>;
}

/// Why [`Control`] did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ControlFault {
    /// The caller's.
    #[error("no such node: {0}")]
    NoSuchNode(String),
    /// The caller's: the node's status does not allow it.
    #[error("node is {status}, so it cannot be {wanted}")]
    Status {
        status: &'static str,
        wanted: &'static str,
    },
    /// The caller's.
    #[error("{0}")]
    NoSuchAuthority(String),
    /// The caller's: the authority's state does not allow it.
    #[error(transparent)]
    Authority(NotNow),
    /// The caller's.
    #[error("{} identities rely on it: {}", .0.len(), first_names(.0))]
    Relied(Vec<String>),
    /// The caller's: whoever keeps the root key.
    #[error("{0}")]
    RootNeeded(String),
    /// Ours.
    #[error(transparent)]
    Record(#[from] RecordFault),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Failed(String),
}

impl Api {
    /// Reads or makes the key of cursors, which all clouds of one store share.
    pub async fn new(parts: Parts) -> Result<Arc<Self>, StoreError> {
        let cursor_key = CursorKey::new(&cursor_secret(&parts.store).await?);
        Ok(Arc::new(Self {
            store: parts.store,
            audit: parts.audit,
            clock: parts.clock,
            keys: parts.keys,
            control: parts.control,
            ek: parts.ek,
            apps: parts.apps,
            alerts: parts.alerts,
            witness: parts.witness,
            settings: parts.settings,
            cursor_key,
            compiling: Semaphore::new(MAX_COMPILING),
            uploads: Semaphore::new(MAX_UPLOADS),
            app_uploads: Semaphore::new(apps::MAX_UPLOADS),
            with_logs: Semaphore::new(evidence::MAX_WITH_LOGS),
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            log_readers: audit_log::Readers::default(),
            counting: Semaphore::new(MAX_COUNTING),
        }))
    }

    /// All routes, behind the table of callers.
    pub fn router(self: &Arc<Self>) -> Router {
        let (router, document) = routes_and_document(self);
        let json: Arc<str> = document
            .to_json()
            .expect("the document is made of strings and lists")
            .into();
        let router = router.with_state(self.clone()).route(
            "/api/openapi.json",
            axum::routing::get(async move || openapi(&json)),
        );
        let router = router
            .fallback(no_route)
            .layer(axum::middleware::from_fn(deadline))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
        self.guard().protect(router)
    }

    /// The table of callers in force, for routers other than this one (gRPC).
    pub fn guard(&self) -> Guard {
        Guard {
            store: self.store.clone(),
            audit: self.audit.clone(),
            clock: self.clock.clone(),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The handlers' state.
type Cloud = State<Arc<Api>>;

fn routes_and_document(api: &Arc<Api>) -> (Router<Arc<Api>>, utoipa::openapi::OpenApi) {
    let policies = OpenApiRouter::new()
        .routes(routes!(policies::check))
        .routes(routes!(policies::apply, policies::history))
        .routes(routes!(policies::current))
        .routes(routes!(policies::show))
        .routes(routes!(policies::staging::status))
        .routes(routes!(policies::staging::pause))
        .routes(routes!(policies::staging::resume))
        .routes(routes!(policies::staging::abort))
        .routes(routes!(policies::staging::rollback))
        .layer(DefaultBodyLimit::max(MAX_POLICY_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(
            api.clone(),
            one_of_few,
        ));
    let apps = OpenApiRouter::new()
        .routes(routes!(publishers::list))
        .routes(routes!(publishers::put))
        .routes(routes!(publishers::prepare_online_key))
        .routes(routes!(apps::list, apps::publish))
        .routes(routes!(apps::show))
        .routes(routes!(apps::missing))
        .routes(routes!(apps::chunk, apps::put_chunk))
        .routes(routes!(apps::manifest, apps::put_manifest))
        .routes(routes!(apps::metadata))
        .layer(DefaultBodyLimit::max(apps::MAX_UPLOAD_BYTES))
        .layer(axum::middleware::from_fn_with_state(
            api.clone(),
            apps::one_of_some,
        ));
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(status::status))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::show, nodes::remove))
        .routes(routes!(evidence::show))
        .routes(routes!(results::keys))
        .routes(routes!(results::show))
        .routes(routes!(nodes::approve))
        .routes(routes!(nodes::quarantine))
        .routes(routes!(nodes::release))
        .routes(routes!(replacement::replace_tpm))
        .routes(routes!(approvals::list, approvals::give))
        .routes(routes!(approvals::terms))
        .routes(routes!(approvals::revoke))
        .routes(routes!(break_glass::list, break_glass::issue))
        .routes(routes!(break_glass::revoke))
        .routes(routes!(break_glass::acknowledge))
        .routes(routes!(ca::show))
        .routes(routes!(ca::rotate))
        .routes(routes!(ca::rotate_director))
        .routes(routes!(ca::taint))
        .routes(routes!(ca::retire))
        .routes(routes!(audit_log::checkpoint))
        .routes(routes!(audit_log::tile))
        .routes(routes!(audit_log::key))
        .routes(routes!(audit::events::events))
        .routes(routes!(audit::events::event))
        .routes(routes!(audit::proof::proof))
        .routes(routes!(audit::stats::stats))
        .routes(routes!(audit::coverage::coverage))
        .routes(routes!(audit::coverage::acknowledge))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::acknowledge))
        .routes(routes!(alerts::rules))
        .routes(routes!(alerts::test))
        .routes(routes!(alerts::silences, alerts::silence))
        .routes(routes!(alerts::unsilence))
        .routes(routes!(exports::list))
        .routes(routes!(exports::refused))
        .routes(routes!(exports::retry))
        .routes(routes!(sites::list))
        .routes(routes!(sites::erase))
        .routes(routes!(retention::show))
        .routes(routes!(audit_log::checked, audit_log::check))
        .routes(routes!(witness::show))
        .routes(routes!(witness::add_checkpoint))
        .routes(routes!(witness::checkpoint))
        .routes(routes!(operators::list, operators::add))
        .routes(routes!(operators::revoke))
        .routes(routes!(apikeys::list, apikeys::create))
        .routes(routes!(apikeys::revoke))
        .routes(routes!(ekroots::list, ekroots::import))
        .routes(routes!(ekroots::remove))
        // Not among the uploads: what takes away waits for none of them.
        .routes(routes!(director::revoke))
        .routes(routes!(director::revoke_digest))
        .routes(routes!(director::revoked))
        .routes(routes!(director::back))
        .routes(routes!(director::word))
        .routes(routes!(eks::list, eks::put))
        .routes(routes!(eks::remove))
        .merge(policies)
        .merge(apps)
        .split_for_parts()
}

fn openapi(json: &str) -> Response {
    (
        [(axum::http::header::CONTENT_TYPE, "application/json")],
        json.to_owned(),
    )
        .into_response()
}

/// A policy's bytes are read only where there is room for them; callers wait for their turn until the deadline.
async fn one_of_few(State(api): Cloud, request: Request, next: Next) -> Response {
    if request.method() != axum::http::Method::POST {
        return next.run(request).await;
    }
    match api.uploads.acquire().await {
        Ok(_turn) => next.run(request).await,
        Err(error) => problem::Problem::internal(&error).into_response(),
    }
}

async fn no_route() -> problem::Problem {
    problem::Problem::new(StatusCode::NOT_FOUND, "no_such_route", "no such route")
}

async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem::Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "deadline",
            "the answer took too long",
        )
        .into_response(),
    }
}

async fn cursor_secret(store: &Store) -> Result<Secret<[u8; 32]>, StoreError> {
    let mut fresh = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut fresh)
        .map_err(|_| StoreError::Unavailable("the random source failed".to_owned()))?;
    let mut tx = store.begin("api.cursor_key").await?;
    let text = tx.fact_or("audit_cursor_key", &hex::encode(fresh)).await?;
    tx.commit().await?;
    let mut key = [0; 32];
    hex::decode_to_slice(&text, &mut key).map_err(|_| StoreError::Unreadable {
        what: "cursor key",
        value: "not shown".to_owned(),
    })?;
    Ok(Secret::new(key))
}

/// The first few of them, for a sentence.
fn first_names(names: &[String]) -> String {
    let mut shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    if names.len() > shown.len() {
        shown.push("...");
    }
    shown.join(" ")
}

/// Lists are objects, so that fields may be added.
#[derive(Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Items<T> {
    pub items: Vec<T>,
}

fn items<T>(items: Vec<T>) -> Json<Items<T>> {
    Json(Items { items })
}

impl From<ControlFault> for problem::Problem {
    fn from(fault: ControlFault) -> Self {
        match fault {
            ControlFault::NoSuchNode(_) => Self::not_found(fault.to_string()),
            ControlFault::Status { .. } => Self::conflict("node_status", fault.to_string()),
            ControlFault::NoSuchAuthority(_) => Self::not_found(fault.to_string()),
            ControlFault::Authority(not_now) => {
                let code = not_now.code();
                Self::conflict(code, not_now.to_string())
            }
            ControlFault::Relied(_) => Self::conflict("authority_relied_on", fault.to_string()),
            ControlFault::RootNeeded(reason) => Self::conflict("root_offline", reason),
            ControlFault::Record(fault) => fault.into(),
            ControlFault::Store(fault) => fault.into(),
            ControlFault::Failed(_) => Self::internal(&fault),
        }
    }
}
