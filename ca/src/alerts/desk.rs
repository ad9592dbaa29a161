//! Looks at the log as it is covered, and writes what rules make of it: alerts, words for sinks, quarantines.
//!
//! One cloud of a database has the duty. Whatever follows from an event is written in one transaction with the position
//! in the log, so that a crash neither loses nor doubles an alert; a quarantine is intended in that transaction and
//! performed after it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edgeward_identity::{Clock, SpiffeId, Timestamp};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::act::Outcome;
use super::engine::{Engine, Seen};
use super::rule::{Rules, Severity};
use crate::audit::{AuditLog, RecordFault};
use crate::config::Alerts;
use crate::store::alerts::ActRow;
use crate::store::{Store, StoreError, Tx};

mod quarantine;
mod replay;
mod write;

pub(crate) use quarantine::end_act;
use write::together;

/// Most events that are looked at in one turn.
const BATCH: u32 = 500;
/// How often time is looked at where no event comes.
const TURN: Duration = Duration::from_secs(1);
/// How often the duty is renewed, the position kept, and alerts looked through that may be over.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the duty lasts.
const DUTY: Duration = Duration::from_secs(30);
/// How long what is over is kept.
const KEEP: Duration = Duration::from_secs(90 * 86_400);
/// What numbers everything here.
pub(crate) const NUMBER: &str = "alert.number";

/// What cuts nodes off.
#[async_trait]
pub trait Cutter: Send + Sync {
    /// How many nodes are active.
    fn active(&self) -> usize;
    /// Quarantines an active node, and ends the act in the same transaction. [`Outcome::Failed`]: not written, to be
    /// asked for again.
    async fn quarantine(&self, act: &ActRow, why: &str) -> Outcome;
}

/// Rules in force, and what is done with them.
pub struct Desk {
    store: Store,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    config: Alerts,
    rules: Rules,
    /// There is something to say.
    pub(super) said: Notify,
}

/// What a [`Desk`] is made of.
pub struct Parts {
    pub store: Store,
    pub audit: Arc<AuditLog>,
    pub clock: Arc<dyn Clock>,
    pub config: Alerts,
    pub rules: Rules,
}

/// Why looking at the log stopped.
#[derive(Debug, thiserror::Error)]
enum Halted {
    #[error("another cloud has the duty now")]
    Relieved,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordFault),
}

/// How far the log was looked at.
struct Watch {
    engine: Engine,
    /// Number of events that were looked at.
    next: u64,
    /// As it is stored.
    kept: u64,
    upkeep: Timestamp,
}

impl Desk {
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            store: parts.store,
            audit: parts.audit,
            clock: parts.clock,
            config: parts.config,
            rules: parts.rules,
            said: Notify::new(),
        })
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn config(&self) -> &Alerts {
        &self.config
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn keeper(&self) -> &SpiffeId {
        self.audit.keeper()
    }

    /// Whether this cloud looks at the log, and speaks.
    pub(super) async fn has_duty(&self) -> Result<bool, StoreError> {
        Ok(self.store.alert_duty().await?.as_deref() == Some(self.holder().as_str()))
    }

    /// Runs until `stop`. A fault of the store is waited out: nothing is lost, the position stands.
    pub async fn run(
        self: Arc<Self>,
        cutter: Arc<dyn Cutter>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let halted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                halted = self.watch(cutter.as_ref()) => halted,
            };
            match halted {
                Ok(()) | Err(Halted::Relieved) => {}
                Err(error) => tracing::error!(%error, "alerts: the log cannot be looked at"),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(UPKEEP) => {}
            }
        }
    }

    async fn watch(&self, cutter: &dyn Cutter) -> Result<(), Halted> {
        let stood = self.take_duty().await?;
        let mut watch = self.begin(stood).await?;
        let mut covered = self.audit.covered();
        loop {
            self.perform(cutter).await?;
            let size = *covered.borrow_and_update();
            let full = self.look(&mut watch, size, cutter).await?;
            if !full {
                // The end of the cloud ends the task, too; then nobody sends any more.
                let _ = tokio::time::timeout(TURN, covered.changed()).await;
            }
        }
    }

    /// Says until when somebody had it before; none if nobody ever did.
    async fn take_duty(&self) -> Result<Option<Timestamp>, Halted> {
        let mut tx = self.store.begin("alerts.duty").await?;
        let until = tx.alert_duty_until().await?;
        let holder = self.holder();
        let taken = tx.take_alert_duty(&holder, self.clock.now(), DUTY).await?;
        tx.commit().await?;
        match taken {
            true => Ok(until.map(|until| until.minus(DUTY))),
            false => Err(Halted::Relieved),
        }
    }

    fn holder(&self) -> String {
        self.audit.keeper().to_string()
    }

    /// Stands where this duty stood when it was left, at `stood`.
    async fn begin(&self, stood: Option<Timestamp>) -> Result<Watch, Halted> {
        let now = self.clock.now();
        let next = match self.store.alert_position().await? {
            Some(leaf) => leaf + 1,
            // What happened before there was anybody to tell is not told now.
            None => {
                let next = self.store.last_leaf().await?.map_or(0, |leaf| leaf + 1);
                // Kept before the first look: a crash from here on skips nothing.
                let mut tx = self.store.begin("alerts.begin").await?;
                self.moved(&mut tx, next).await?;
                tx.commit().await?;
                next
            }
        };
        let engine = self.replayed(next, stood.unwrap_or(now).min(now)).await?;
        Ok(Watch {
            engine,
            next,
            kept: next,
            upkeep: Timestamp::default(),
        })
    }

    /// One turn: events below `size`, then the time. Tells whether there is more at once.
    async fn look(
        &self,
        watch: &mut Watch,
        size: u64,
        cutter: &dyn Cutter,
    ) -> Result<bool, Halted> {
        let mut hits = Vec::new();
        let mut full = false;
        let mut next = watch.next;
        if size > next {
            let after = next.checked_sub(1);
            let (events, more) = (self
                .store
                .events_of(&self.rules.kinds(), after, size, BATCH))
            .await?;
            for event in &events {
                hits.extend(watch.engine.observe(seen(event)));
            }
            full = more;
            next = match events.last() {
                Some(last) if more => last.index + 1,
                _ => size,
            };
        }
        let now = self.clock.now();
        hits.extend(watch.engine.turn(now));
        let due = now.since(watch.upkeep) >= UPKEEP;
        if !hits.is_empty() {
            // Failed half-way, all of it is read again from where it is written: the engine with it.
            self.write(together(hits), next, cutter).await?;
            watch.kept = next;
        }
        watch.next = next;
        if due {
            watch.upkeep = now;
            self.keep_up(watch, now).await?;
        }
        metrics::gauge!("edgeward_audit_alerts_behind").set(count(size.saturating_sub(next)));
        Ok(full)
    }

    async fn keep_up(&self, watch: &mut Watch, now: Timestamp) -> Result<(), Halted> {
        let mut tx = self.store.begin("alerts.keep").await?;
        if !tx.take_alert_duty(&self.holder(), now, DUTY).await? {
            return Err(Halted::Relieved);
        }
        if watch.kept != watch.next {
            self.moved(&mut tx, watch.next).await?;
        }
        tx.prune_alerts(now.minus(KEEP)).await?;
        tx.commit().await?;
        watch.kept = watch.next;
        metrics::gauge!("edgeward_audit_alerts_keys").set(count(
            u64::try_from(watch.engine.keys()).unwrap_or(u64::MAX),
        ));
        self.end_what_is_over(now).await
    }

    async fn end_what_is_over(&self, now: Timestamp) -> Result<(), Halted> {
        let standing = self.store.alerts_standing().await?;
        for severity in Severity::ALL {
            let open = standing.iter().filter(|alert| alert.severity == severity);
            metrics::gauge!("edgeward_audit_alerts_open", "severity" => severity.as_str())
                .set(count(u64::try_from(open.count()).unwrap_or(u64::MAX)));
        }
        let over: Vec<u64> = standing
            .iter()
            .filter(|alert| alert.is_over(now))
            .map(|alert| alert.number)
            .collect();
        if over.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.begin("alerts.end").await?;
        for number in over {
            // Somebody may have acknowledged it meanwhile.
            if let Some(mut alert) = tx.alert(number).await?.filter(|alert| alert.is_over(now)) {
                self.end(&mut tx, &mut alert, now).await?;
            }
        }
        tx.commit().await?;
        self.said.notify_waiters();
        Ok(())
    }

    async fn moved(&self, tx: &mut Tx, next: u64) -> Result<(), Halted> {
        let Some(leaf) = next.checked_sub(1) else {
            return Ok(());
        };
        match tx.move_alert_position(&self.holder(), leaf).await? {
            true => Ok(()),
            false => Err(Halted::Relieved),
        }
    }
}

fn seen(event: &crate::store::audit::StoredEvent) -> Seen<'_> {
    Seen {
        leaf: event.index,
        at: event.received,
        keeper: &event.node,
        event: &event.event,
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of events are far below 2^52"
)]
fn count(number: u64) -> f64 {
    number as f64
}
