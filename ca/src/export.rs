//! Exports: the audit log for others, each at least once, in order, from a position of its own.
//!
//! An export consumes the feed of covered events: it can fall behind, stop and be wrong without anybody else noticing, and
//! no receiver can hold up the log. Where it stands is in the database (`store/exports.rs`); of several clouds on one
//! database one sends, by a lease. What is given twice carries the same index in the log.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::Clock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use course::{Pauses, STALLED_AFTER};

use crate::audit::AuditLog;
use crate::config::exports::Export;
use crate::store::Store;

mod course;
mod pump;
mod retry;
mod sink;
#[cfg(test)]
mod tests;

/// How long the ends of all connections may take when the cloud stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// The running exports.
#[derive(Debug)]
pub struct Exports {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Exports {
    /// Starts one task for each.
    pub fn start(
        exports: &[Export],
        store: &Store,
        audit: &Arc<AuditLog>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for export in exports {
            let pump = pump::Pump::new(export.clone(), store.clone(), audit.clone(), clock.clone());
            tasks.spawn(pump.run(stop.clone()));
        }
        Self { tasks, stop }
    }

    /// Ends them in order, so that what was given is known to be there. The store must still be open.
    pub async fn finish(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            tracing::warn!("an export did not end in time: what it gave last is given again");
        }
    }
}
