//! What must be done now and then: the cloud's own SVID, its issuing certificate, rows that have ended.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::tls::Credentials;
use edgeward_identity::{SoftwareKey, SpiffeId, Svid, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::keys::CloudKeys;
use crate::store::Store;

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(600);
/// How often the deny-list is signed anew even if nothing changes.
const SIGN_TRUST_EVERY: Duration = Duration::from_secs(24 * 3600);

/// A fresh SVID of the cloud with a key that never leaves this process.
pub(super) fn own_svid(keys: &CloudKeys, id: &SpiffeId, now: Timestamp) -> anyhow::Result<Svid> {
    let key = Arc::new(SoftwareKey::generate()?);
    Ok(keys.issuer().issue_cloud(id, key, now)?)
}

/// Runs until `stop`. What fails is tried again at the next turn, and said each time.
pub(super) async fn run(
    hub: Arc<Hub>,
    credentials: Arc<Credentials>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut half_life = hub.clock.now().plus(crate::issue::CLOUD_LIFETIME / 2);
    let mut trust_signed = hub.clock.now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = hub.clock.now();
        let number = hub.keys.key_set_number();
        if let Err(error) = hub.keys.renew(now) {
            tracing::error!(%error, "keys cannot be renewed");
        }
        if now >= half_life {
            match own_svid(&hub.keys, &hub.config.id, now) {
                Ok(svid) => {
                    half_life = svid.leaf().half_life();
                    credentials.replace(&svid);
                }
                Err(error) => tracing::error!(%error, "own certificate cannot be renewed"),
            }
        }
        if now.since(trust_signed) >= SIGN_TRUST_EVERY || hub.keys.key_set_number() != number {
            match hub.refresh_trust() {
                Ok(()) => trust_signed = now,
                Err(error) => tracing::error!(%error, "deny-list cannot be signed anew"),
            }
        }
        match prune(&hub.store, now).await {
            Ok(0) => {}
            Ok(pruned) => tracing::debug!(pruned, "ended certificates forgotten"),
            Err(error) => tracing::error!(%error, "ended certificates cannot be forgotten"),
        }
    }
}

async fn prune(store: &Store, now: Timestamp) -> Result<u64, crate::store::StoreError> {
    let mut tx = store.begin("svid.prune").await?;
    let pruned = tx.prune_svids(now).await?;
    tx.commit().await?;
    Ok(pruned)
}
