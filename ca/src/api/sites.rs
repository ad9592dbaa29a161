//! The sites whose events are sealed by keys of their own, and the erasure of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgeward_audit::event::{Actor, Event, EventKind};

use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::{EraseRequest, ErasedView, ProblemView, SiteView};
use super::{Api, Cloud, Items, items};
use crate::access::Principal;
use crate::keys::sites::{Site, SiteKeyFault, SiteKeyState};
use crate::store::StoreError;

/// Most ids of keys that the event of an erasure names; a site has one, rarely a few. The store names all.
const MAX_NAMED: usize = 8;

/// List the sites whose events are sealed by a key of their own, and what was erased.
#[utoipa::path(get, path = "/api/v1/audit/sites", tag = "audit", operation_id = "audit_sites",
    responses((status = 200, body = Items<SiteView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Json<Items<SiteView>> {
    let mut sites: BTreeMap<Site, SiteView> = BTreeMap::new();
    for key in api.store.site_keys().list() {
        let view = sites.entry(key.site.clone()).or_insert_with(|| SiteView {
            site: key.site.to_string(),
            keys: 0,
            since: None,
            erased: 0,
            last_erased: None,
            erasable: key.site.is_erasable(),
        });
        put(view, &key);
    }
    items(sites.into_values().collect())
}

fn put(view: &mut SiteView, key: &SiteKeyState) {
    match key.erased {
        None => {
            view.keys += 1;
            view.since = view.since.max(Some(key.made.into()));
        }
        Some(erased) => {
            view.erased += 1;
            view.last_erased = view.last_erased.max(Some(erased.into()));
        }
    }
}

/// Erase the events of a site for good: the keys that sealed them so far are destroyed. Their places in the log stay, and
/// so do all proofs: what is proven is a salted hash. What is recorded from now on is sealed by a new key.
#[utoipa::path(post, path = "/api/v1/audit/sites/{site}/erase", tag = "audit", operation_id = "audit_site_erase", request_body = EraseRequest,
    params(("site" = String, Path)),
    responses((status = 200, body = ErasedView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn erase(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
    Body(request): Body<EraseRequest>,
) -> Result<Json<ErasedView>, Problem> {
    if name == Site::cloud().as_str() {
        return Err(Problem::conflict(
            "site_not_erasable",
            "what the cloud did that no node has to do with is not erased: who erased what is told there",
        ));
    }
    let site = Site::parse(&name)
        .ok_or_else(|| Problem::bad_request("site_malformed", "not the name of a site"))?;
    if request.confirm != site.as_str() {
        return Err(Problem::bad_request(
            "erase_not_confirmed",
            "confirm must be the site's name: this cannot be taken back",
        ));
    }
    // What was recorded is also done, whether or not the asker waits for the answer.
    let actor = caller.actor().clone();
    let erasing = tokio::spawn(erase_site(api, actor, site));
    erasing.await.map_err(|error| Problem::internal(&error))?
}

async fn erase_site(api: Arc<Api>, actor: Actor, site: Site) -> Result<Json<ErasedView>, Problem> {
    let now = api.now();
    let mut tx = api.store.begin("audit.erase").await?;
    // The new key first: what is recorded from here on outlives the old one.
    let old = tx.begin_erasure(&site, now).await.map_err(refused)?;
    if old.is_empty() {
        return Err(Problem::not_found(format!(
            "no event of this site was stored: {site}"
        )));
    }
    let ids: Vec<String> = old.iter().map(ToString::to_string).collect();
    let named: Vec<&str> = ids.iter().take(MAX_NAMED).map(String::as_str).collect();
    let event = Event::new(now, actor, EventKind::AuditErased)
        .allowed()
        .detail("site", &site)
        .detail("count", ids.len())
        .detail("keys", named.join(" "));
    // Recorded, or nothing is destroyed; what a crash leaves from here on, the next start ends.
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    api.store.end_erasures(false).await.map_err(refused)?;
    // A note that cannot be read is passed over there: nobody is told that what it names is gone.
    if !old.iter().all(|id| api.store.site_keys().is_erased(*id)) {
        return Err(not_known_to_be_erased());
    }
    tracing::warn!(%site, keys = ids.len(), "the events of a site were erased");
    Ok(Json(ErasedView {
        site: site.to_string(),
        keys: ids,
        erased: now.into(),
    }))
}

fn refused(error: StoreError) -> Problem {
    match error {
        StoreError::SiteKey(fault @ SiteKeyFault::TooMany) => {
            Problem::conflict("too_many_site_keys", fault.to_string())
        }
        StoreError::SiteKey(SiteKeyFault::File(fault)) => {
            tracing::error!(error = %fault, "keys of a site cannot be destroyed");
            not_known_to_be_erased()
        }
        other => other.into(),
    }
}

fn not_known_to_be_erased() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "site_keys_unavailable",
        "the folder of the sites' keys cannot be read or written: nothing is known to be erased; \
         what `audit.erased` names is tried again",
    )
}
