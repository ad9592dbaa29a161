//! Retention: what of the log is deleted, by the stated policy and nothing else.
//!
//! Only a whole segment goes, only from the beginning of the log on, and only when it is older than the policy says, covered by a
//! checkpoint, in the archive if there is one, and passed by every export that is configured and by the rules of alerts.
//! `audit.pruned` is recorded in the transaction that raises the minimum index; from then on nothing below is shown. What
//! is below is deleted in small transactions, and their end is found again after a crash. Tiles stay: every kept event,
//! and every archived one, can be proven for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edgeward_audit::block::BLOCK_LEAVES;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::segment::SEGMENT_BLOCKS;
use edgeward_identity::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::archive::{self, Kept};
use crate::audit::{AuditLog, RecordFault};
use crate::config::exports::Export;
use crate::config::retention::Retention;
use crate::keys::notes::log_origin;
use crate::store::{Store, StoreError};

#[cfg(test)]
mod tests;

/// How often something is looked for that may go.
const TICK: Duration = Duration::from_secs(300);
/// Others write between two transactions that delete.
const BREATH: Duration = Duration::from_millis(50);
/// Where the index of terms was swept, it is not swept again for so long: a sweep reads all of it.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Most segments that one turn of the minimum index takes: what is due after a long time goes in steps.
const MAX_SEGMENTS: u64 = 4096;

/// The task.
pub struct Pruner {
    retention: Retention,
    exports: Vec<String>,
    store: Store,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    /// Leaves of a segment.
    leaves: u64,
    swept: Option<Instant>,
    archive: Option<Kept>,
    /// Whether the log says that segments are not in the archive.
    told: bool,
}

/// How far deletion may go, and what keeps it from going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// The smallest index whose event is kept.
    pub minimum: u64,
    /// What could be the minimum now.
    pub possible: u64,
    /// Why not more.
    pub held_by: Holder,
}

/// What keeps the next segment from being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The policy: events are kept for ever.
    Forever,
    /// The policy: it is not old enough. Or it is not full yet.
    Age,
    /// It is not archived.
    Archive,
    /// An export has not passed it.
    Export(String),
    /// The rules of alerts have not.
    Alerts,
}

/// A turn did not end well; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordFault),
}

impl Pruner {
    pub fn new(
        retention: Retention,
        exports: &[Export],
        store: Store,
        audit: Arc<AuditLog>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let origin = log_origin(audit.keeper().trust_domain());
        let archive = retention.archive.as_ref();
        let archive = archive.map(|archive| Kept::new(archive, origin, store.clone()));
        Self {
            archive,
            told: false,
            retention,
            exports: exports.iter().map(|export| export.name.clone()).collect(),
            store,
            audit,
            clock,
            leaves: u64::from(SEGMENT_BLOCKS) * BLOCK_LEAVES,
            swept: None,
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                done = self.turn() => if let Err(error) = done {
                    tracing::warn!(%error, "the audit log cannot be pruned");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Raises the minimum index as far as it may be, and deletes what is below.
    async fn turn(&mut self) -> Result<(), Fault> {
        let names: Vec<&str> = self.exports.iter().map(String::as_str).collect();
        let now = self.clock.now();
        let found = outlook(&self.store, &self.retention, &names, self.leaves, now).await?;
        let possible = self.archived(found.minimum, found.possible, now).await?;
        if possible > found.minimum {
            self.raise(found.minimum, possible, now).await?;
        }
        metrics::gauge!("edgeward_audit_minimum_index").set(possible as f64);
        while self.store.delete_pruned().await? {
            tokio::time::sleep(BREATH).await;
        }
        self.sweep().await
    }

    /// Takes what points to pruned blocks out of the index of terms, once a day at most. How far it came is stored: what
    /// one process leaves the next takes up.
    async fn sweep(&mut self) -> Result<(), Fault> {
        let Some(pruned) = self.store.pruned().await? else {
            return Ok(());
        };
        let recent = |swept: &Instant| swept.elapsed() < SWEEP_EVERY;
        if pruned.terms_swept >= pruned.deleted || self.swept.as_ref().is_some_and(recent) {
            return Ok(());
        }
        let mut next = Some(i64::MIN);
        while let Some(term) = next {
            next = self.store.delete_pruned_terms(term).await?;
            tokio::time::sleep(BREATH).await;
        }
        self.store.note_swept(pruned.deleted).await?;
        self.swept = Some(Instant::now());
        Ok(())
    }

    /// How far of `from` to `to` the archive holds everything, at this moment: what is deleted exists nowhere else.
    async fn archived(&mut self, from: u64, to: u64, now: Timestamp) -> Result<u64, Fault> {
        let Some(archive) = &self.archive else {
            return Ok(to);
        };
        let (mut end, mut absent) = (from, None);
        while end < to && absent.is_none() {
            // The archive's segments begin at multiples of their length.
            match archive.look_for(end / self.leaves * self.leaves).await {
                Ok(()) => end = (end / self.leaves + 1) * self.leaves,
                Err(archive::Fault::Store(error)) => return Err(error.into()),
                Err(fault) => absent = Some(fault.to_string()),
            }
        }
        if absent.is_some() || from < to {
            let mut tx = self.store.begin("archive.absent").await?;
            tx.note_absent(archive.name(), absent.as_deref(), now)
                .await?;
            tx.commit().await?;
        }
        let event = |kind| Event::new(now, Actor::Cloud, kind).detail("archive", archive.name());
        match absent {
            Some(why) => {
                tracing::warn!(
                    reason = why,
                    "nothing more is pruned: the archive does not hold it"
                );
                if !std::mem::replace(&mut self.told, true) {
                    let event = event(EventKind::ArchiveStalled);
                    self.audit.later(event.detail("reason", why));
                }
            }
            None if from < to && std::mem::take(&mut self.told) => {
                self.audit.later(event(EventKind::ArchiveResumed));
            }
            None => {}
        }
        Ok(end)
    }

    /// Recorded and raised at once, or neither.
    async fn raise(&self, from: u64, to: u64, now: Timestamp) -> Result<(), Fault> {
        let policy = self.retention.describe();
        let event = Event::new(now, Actor::Cloud, EventKind::AuditPruned)
            .detail("from", from)
            .detail("minimum_index", to)
            .detail("policy", &policy);
        let mut tx = self.store.begin("audit.minimum").await?;
        self.audit.record_in(&mut tx, event).await?;
        if !tx.raise_minimum(to, &policy, now).await? {
            // Another cloud was quicker, and recorded it.
            return Ok(());
        }
        tx.commit().await?;
        tracing::info!(minimum = to, policy, "events below this index are deleted");
        Ok(())
    }
}

/// How far deletion may go now, in whole segments of `leaves` leaves.
pub async fn outlook(
    store: &Store,
    retention: &Retention,
    exports: &[&str],
    leaves: u64,
    now: Timestamp,
) -> Result<Outlook, StoreError> {
    let minimum = store.minimum_index().await?;
    let held = |possible, held_by| Outlook {
        minimum,
        possible,
        held_by,
    };
    let Some(keep) = retention.keep else {
        return Ok(held(minimum, Holder::Forever));
    };
    let (reach, holder) = reach(store, retention, exports).await?;
    let mut possible = minimum;
    for _ in 0..MAX_SEGMENTS {
        let end = (possible / leaves + 1) * leaves;
        // Of a checkpoint that covers all of it, by the cloud's own clock.
        let old = match store.covered_since(end).await? {
            Some(signed) => now.since(signed) > keep,
            None => false,
        };
        if !old {
            return Ok(held(possible, Holder::Age));
        }
        if end > reach {
            return Ok(held(possible, holder));
        }
        possible = end;
    }
    Ok(held(possible, Holder::Age))
}

/// How far every consumer of the log has come: the number of leaves that all are done with, and who is last.
async fn reach(
    store: &Store,
    retention: &Retention,
    exports: &[&str],
) -> Result<(u64, Holder), StoreError> {
    let done = |position: Option<u64>| position.map_or(0, |last| last.saturating_add(1));
    let mut least = (done(store.alert_position().await?), Holder::Alerts);
    let rows = store.exports().await?;
    for name in exports {
        // One that has not begun has passed nothing.
        let row = rows.iter().find(|row| row.name == *name);
        let passed = done(row.and_then(|row| row.position));
        if passed < least.0 {
            least = (passed, Holder::Export((*name).to_owned()));
        }
    }
    if let Some(archive) = &retention.archive {
        let row = store.archive(&archive.describe()).await?;
        let archived = row.map_or(0, |row| row.next);
        if archived < least.0 {
            least = (archived, Holder::Archive);
        }
    }
    Ok(least)
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forever => f.write_str("events are kept for ever"),
            Self::Age => f.write_str("no further segment is full and older than the policy says"),
            Self::Archive => f.write_str("the next segment is not archived"),
            Self::Export(name) => write!(f, "export {name} has not passed the next segment"),
            Self::Alerts => f.write_str("the rules of alerts have not passed the next segment"),
        }
    }
}
