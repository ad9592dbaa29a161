//! What must be done now and then: the cloud's own SVID, its issuing certificate, rows that have ended.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::tls::Credentials;
use edgeward_identity::{Clock, SoftwareKey, SpiffeId, Svid, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::keys::CloudKeys;
use crate::store::Store;

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(600);

/// A fresh SVID of the cloud with a key that never leaves this process.
pub(super) fn own_svid(keys: &CloudKeys, id: &SpiffeId, now: Timestamp) -> anyhow::Result<Svid> {
    let key = Arc::new(SoftwareKey::generate()?);
    Ok(keys.issuer().issue_cloud(id, key, now)?)
}

/// Runs until `stop`. What fails is tried again at the next turn, and said each time.
pub(super) async fn run(
    keys: Arc<CloudKeys>,
    credentials: Arc<Credentials>,
    id: SpiffeId,
    store: Store,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut half_life = clock.now().plus(crate::issue::CLOUD_LIFETIME / 2);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = clock.now();
        if let Err(error) = keys.renew(now) {
            tracing::error!(%error, "keys cannot be renewed");
        }
        if now >= half_life {
            match own_svid(&keys, &id, now) {
                Ok(svid) => {
                    half_life = svid.leaf().half_life();
                    credentials.replace(&svid);
                }
                Err(error) => tracing::error!(%error, "own certificate cannot be renewed"),
            }
        }
        match prune(&store, now).await {
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
