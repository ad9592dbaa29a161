//! What must be done now and then: the cloud's own SVID, its issuing certificate, rows that have ended.

use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::tls::Credentials;
use edgeward_identity::{SoftwareKey, SpiffeId, Svid, Timestamp};
use tokio_util::sync::CancellationToken;

use super::expiring;
use crate::audit::AuditLog;
use crate::hub::Hub;
use crate::issue::Issued;
use crate::keys::CloudKeys;
use crate::keys::ledger::State;
use crate::store::Store;

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(600);
/// How often the deny-list is signed anew even if nothing changes.
const SIGN_TRUST_EVERY: Duration = Duration::from_secs(24 * 3600);

/// How often a cloud looks for keys of sites that another one made or destroyed, or that are to be destroyed.
const KEYS_EVERY: Duration = Duration::from_secs(5);

/// A fresh SVID of the cloud with a key that never leaves this process; recorded before anybody sees it.
pub(super) async fn own_svid(
    keys: &CloudKeys,
    store: &Store,
    audit: &AuditLog,
    id: &SpiffeId,
    now: Timestamp,
) -> anyhow::Result<Svid> {
    let key = Arc::new(SoftwareKey::generate()?);
    let issuer = keys.issuer();
    let svid = issuer.issue_cloud(id, key, now)?;
    let issued = Issued {
        leaf: svid.leaf().clone(),
        issuer: issuer.key_hash(),
        chain: svid.chain().to_vec(),
    };
    let event = Event::new(now, Actor::Cloud, EventKind::SvidIssued)
        .subject(id.clone())
        .allowed();
    let mut tx = store.begin("svid.own").await?;
    tx.note_issued(&issued, now).await?;
    audit.record_in(&mut tx, issued.recorded_in(event)).await?;
    tx.commit().await?;
    gauge_end("own", svid.leaf().not_after);
    Ok(svid)
}

/// Runs until `stop`. What fails is tried again at the next turn, and said each time.
pub(super) async fn run(
    hub: Arc<Hub>,
    credentials: Arc<Credentials>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut half_life = hub.clock.now().plus(crate::issue::CLOUD_LIFETIME / 2);
    let mut issuer = hub.keys.issuer().key_hash();
    let mut trust_signed = hub.clock.now();
    let mut told = expiring::Told::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
            () = hub.trusts.changed() => {}
        }
        let now = hub.clock.now();
        if let Err(error) = hub.keys.renew(now) {
            tracing::error!(%error, "keys cannot be renewed");
        }
        if let Err(fault) = hub.turn_authorities().await {
            tracing::error!(%fault, "authorities cannot be turned over");
        }
        gauge_authorities(&hub);
        let signs = hub.keys.issuer().key_hash();
        if now >= half_life || signs != issuer {
            match own_svid(&hub.keys, &hub.store, &hub.audit, &hub.config.id, now).await {
                Ok(svid) => {
                    half_life = svid.leaf().half_life();
                    issuer = signs;
                    credentials.replace(&svid);
                }
                Err(error) => tracing::error!(%error, "own certificate cannot be renewed"),
            }
        }
        // Signed just now, or by an act that was stopped before it told anybody.
        let new_key_set = hub.has_new_key_set();
        if now.since(trust_signed) >= SIGN_TRUST_EVERY || new_key_set {
            let told = match new_key_set {
                true => hub.tell_key_set(),
                false => hub.refresh_trust(),
            };
            match told {
                Ok(()) => trust_signed = now,
                Err(error) => tracing::error!(%error, "deny-list cannot be signed anew"),
            }
        }
        if let Err(error) = expiring::tell(&mut told, &hub, now).await {
            tracing::error!(%error, "what ends soon cannot be told");
        }
        if let Err(error) = hub.prune_joins().await {
            tracing::error!(%error, "ended join counters cannot be forgotten");
        }
        let window = hub.config.recover.per;
        match prune(&hub.store, now, window).await {
            Ok(0) => {}
            Ok(pruned) => tracing::debug!(pruned, "ended certificates forgotten"),
            Err(error) => tracing::error!(%error, "ended certificates cannot be forgotten"),
        }
    }
}

/// When each authority that is in use ends, and how far the newest roots have come.
fn gauge_authorities(hub: &Hub) {
    let ledger = hub.keys.ledger();
    for authority in &ledger.authorities {
        let key = authority.key.to_string();
        let gauge = metrics::gauge!("edgeward_authority_not_after_seconds",
            "kind" => authority.role.as_str(), "key" => key, "state" => authority.state.as_str());
        match (authority.state, hub.keys.validity(authority)) {
            (State::Retired, _) | (_, Err(_)) => gauge.set(0.0),
            (_, Ok((_, until))) => gauge.set(seconds(until)),
        }
    }
    let (held, of) = hub.bundle_held(&ledger);
    metrics::gauge!("edgeward_bundle_nodes", "holding" => "newest").set(count(held));
    metrics::gauge!("edgeward_bundle_nodes", "holding" => "any").set(count(of));
}

fn gauge_end(which: &'static str, at: Timestamp) {
    metrics::gauge!("edgeward_svid_not_after_seconds", "svid" => which).set(seconds(at));
}

#[allow(
    clippy::cast_precision_loss,
    reason = "seconds since 1970 and counts of nodes are far below 2^52"
)]
fn seconds(at: Timestamp) -> f64 {
    at.secs() as f64
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count of nodes is far below 2^52"
)]
fn count(number: usize) -> f64 {
    number as f64
}

async fn prune(
    store: &Store,
    now: Timestamp,
    window: Duration,
) -> Result<u64, crate::store::StoreError> {
    let mut tx = store.begin("svid.prune").await?;
    let pruned = tx.prune_svids(now).await?;
    tx.prune_issued(now).await?;
    tx.prune_recoveries(now.minus(window)).await?;
    tx.commit().await?;
    Ok(pruned)
}

/// Runs until `stop`: clouds of one database share the folder of the sites' keys, and what one of them began to erase
/// each of them ends.
pub(super) async fn site_keys(store: Store, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(KEYS_EVERY) => {}
        }
        let keys = store.site_keys().clone();
        let looked = tokio::task::spawn_blocking(move || keys.look_again()).await?;
        if let Err(error) = looked {
            tracing::warn!(%error, "keys of sites that another cloud made cannot be read");
        }
        if let Err(error) = store.end_erasures(false).await {
            tracing::error!(%error, "keys of a site that was erased are not destroyed yet");
        }
    }
}
