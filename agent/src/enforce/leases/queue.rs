//! Changes of the lease sets, merged by address and applied in one transaction after the other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Change, KernelLeases, NftFailed};

/// How long to wait before a transaction that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where changes are left. The newest change of an address wins, so what waits is bounded by the addresses of peers.
#[derive(Clone, Debug, Default)]
pub struct LeaseQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    changes: HashMap<IpAddr, Change>,
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
}

impl LeaseQueue {
    /// Leaves changes. Does not block.
    pub fn leave(&self, changes: impl IntoIterator<Item = Change>) {
        let mut pending = self.0.pending.lock();
        pending.put(changes);
        self.0.some.notify_one();
    }

    /// Leaves changes and waits until the kernel has them; on an error it does not.
    pub async fn apply(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), String> {
        let (done, applied) = oneshot::channel();
        {
            let mut pending = self.0.pending.lock();
            pending.put(changes);
            pending.waiting.push(done);
            self.0.some.notify_one();
        }
        applied
            .await
            .unwrap_or_else(|_| Err("leases are no longer applied".to_owned()))
    }

    /// Applies what is left until the token is cancelled, then removes the table.
    pub async fn run(
        self,
        kernel: KernelLeases,
        token: CancellationToken,
    ) -> Result<(), NftFailed> {
        while !token.is_cancelled() {
            tokio::select! {
                () = token.cancelled() => break,
                () = self.0.some.notified() => {}
            }
            let Pending { changes, waiting } = std::mem::take(&mut *self.0.pending.lock());
            let all: Vec<Change> = changes.into_values().collect();
            let result = kernel.apply(&all).await;
            if let Err(failed) = &result {
                tracing::error!(%failed, "lease sets not changed");
                metrics::counter!("edgeward_kernel_lease_failures_total").increment(1);
                self.retry_cuts(all);
            }
            for done in waiting {
                // Whoever waited may have given up.
                let _gone = done.send(result.as_ref().map_err(ToString::to_string).copied());
            }
            if result.is_err() {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
        kernel.remove().await
    }

    /// A lease that was not given is not given later; a cut is tried until it succeeds, and so is
    /// what only sleeps.
    fn retry_cuts(&self, failed: Vec<Change>) {
        let mut pending = self.0.pending.lock();
        for change in failed {
            let address = change.address();
            let again = match change {
                Change::Lease { .. } | Change::Cut { .. } => Change::Cut { address },
                Change::Asleep { .. } => Change::Asleep { address },
            };
            pending.changes.entry(address).or_insert(again);
        }
        self.0.some.notify_one();
    }
}

impl Pending {
    fn put(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.changes.insert(change.address(), change);
        }
    }
}
