//! The task that keeps the tree behind what is stored by no more than its bound.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_identity::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::head::{Halt, Published};
use super::round::{RoundFault, Rounds};
use crate::audit::AuditLog;
use crate::keys::CloudKeys;
use crate::store::Store;

/// Least time from the begin of a round to that of the next, unless leaves are left over.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// Where nobody else writes to the database there is nothing to look for; a look now and then costs nothing.
const IDLE: Duration = Duration::from_secs(30);
/// How often it is looked whether what halted the log was repaired.
const HALTED: Duration = Duration::from_secs(5);

/// Most events that one word of damage names; it says how many there are.
const NAMED: usize = 16;

/// Turns stored events into tiles and checkpoints.
pub struct Integrator {
    audit: Arc<AuditLog>,
    store: Store,
    clock: Arc<dyn Clock>,
    rounds: Rounds,
}

/// When the next round is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    AtOnce,
    WhenAppended,
    After(Duration),
}

impl Integrator {
    /// `data` is the cloud's folder: the newest checkpoint is kept there as well.
    pub fn new(
        audit: Arc<AuditLog>,
        store: Store,
        keys: Arc<CloudKeys>,
        data: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Self {
        store.cover_by_checkpoints();
        Self {
            rounds: Rounds::new(store.clone(), keys, data),
            audit,
            store,
            clock,
        }
    }

    /// Runs until `stop`, then covers what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut appended = self.store.appended();
        loop {
            appended.mark_unchanged();
            let begun = Instant::now();
            let next = self.turn().await;
            let idle = match next {
                Next::AtOnce if stop.is_cancelled() => break,
                Next::AtOnce => continue,
                Next::After(pause) => pause,
                Next::WhenAppended if self.store.is_shared() => INTERVAL,
                Next::WhenAppended => IDLE,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(begun + INTERVAL) => {}
            }
            if next == Next::WhenAppended {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = tokio::time::timeout(idle, appended.changed()) => {}
                }
            } else {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(idle) => {}
                }
            }
        }
        while self.turn().await == Next::AtOnce {}
    }

    async fn turn(&mut self) -> Next {
        let now = self.clock.now();
        let begun = Instant::now();
        match self.rounds.round(now).await {
            Ok(done) => {
                if let Some(published) = done.published {
                    self.publish(published);
                }
                if done.leaves > 0 {
                    metrics::histogram!("edgeward_audit_log_round_seconds")
                        .record(begun.elapsed().as_secs_f64());
                    let waited = done
                        .oldest
                        .map_or(Duration::ZERO, |oldest| self.clock.now().since(oldest));
                    metrics::histogram!("edgeward_audit_log_wait_seconds")
                        .record(waited.as_secs_f64());
                }
                for (events, reason) in &done.damaged {
                    self.damaged(events, reason).await;
                }
                self.resume().await;
                match done.more {
                    true => Next::AtOnce,
                    false => Next::WhenAppended,
                }
            }
            Err(RoundFault::Halt(halt)) => {
                self.halt(halt).await;
                Next::After(HALTED)
            }
            Err(fault @ (RoundFault::Store(_) | RoundFault::File(_))) => {
                tracing::warn!(error = %fault, "the log's tree waits");
                metrics::counter!("edgeward_audit_log_rounds_failed_total").increment(1);
                Next::After(INTERVAL)
            }
        }
    }

    fn publish(&self, published: Published) {
        gauge_size(published.size);
        let size = published.size;
        self.audit.log_head().publish(published);
        self.store.cover(size);
    }

    async fn halt(&self, halt: Halt) {
        metrics::gauge!("edgeward_audit_log_halted").set(1.0);
        if !self.audit.log_head().halt(Some(halt.clone())) {
            return;
        }
        tracing::error!(code = halt.code(), reason = %halt,
            "CRITICAL: no checkpoint of the audit log is signed any more (docs/audit-log.md)");
        let event = Event::new(self.clock.now(), Actor::Cloud, EventKind::AuditHalted)
            .code(halt.code())
            .detail("reason", halt.to_string());
        self.record(event).await;
    }

    /// What could not be opened any more when its block was made. A crash before this is on record leaves it to the
    /// self-check, which finds the same at every start.
    async fn damaged(&self, events: &[u64], reason: &str) {
        tracing::error!(
            ?events,
            reason,
            "CRITICAL: records of the audit log are damaged: only their hashes are left"
        );
        let named: Vec<String> = events.iter().take(NAMED).map(ToString::to_string).collect();
        let event = Event::new(self.clock.now(), Actor::Cloud, EventKind::AuditDamaged)
            .code("log_damaged")
            .detail("reason", reason)
            .detail("events", named.join(" "))
            .detail("count", events.len());
        self.record(event).await;
    }

    async fn resume(&self) {
        metrics::gauge!("edgeward_audit_log_halted").set(0.0);
        if self.audit.log_head().halt(None) {
            tracing::info!("checkpoints of the audit log are signed again");
            let event = Event::new(self.clock.now(), Actor::Cloud, EventKind::AuditResumed);
            self.record(event).await;
        }
    }

    async fn record(&self, event: Event) {
        if let Err(error) = self.audit.record(event).await {
            tracing::error!(%error, "event could not be recorded");
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a gauge; the number of events is far below 2^52"
)]
fn gauge_size(size: u64) {
    metrics::gauge!("edgeward_audit_log_size").set(size as f64);
}
