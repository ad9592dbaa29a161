//! The archive: pieces of the log as sealed segments, outside of the database, each once a checkpoint covers it.
//!
//! A consumer of the log like an export, with a place of its own in the database (`store/archive.rs`) and a lease, so
//! that of several clouds one writes. A segment that cannot be written is tried again for ever; nobody else waits for it
//! but pruning, which deletes nothing that is not archived.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgeward_audit::block::BLOCK_LEAVES;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::segment::{SEGMENT_BLOCKS, Segment};
use edgeward_audit::tiles::tiles_of_inclusion;
use edgeward_identity::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditLog, RecordFault};
use crate::config::retention::Archive;
use crate::export::{Pauses, STALLED_AFTER};
use crate::keys::notes::log_origin;
use crate::store::archive::ArchiveRow;
use crate::store::{Store, StoreError, Tx};

mod kept;
mod storage;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use kept::Kept;
use storage::NotArchived;

/// Nobody else writes for so long after the last word of who does. A segment may take longer: two clouds then write the
/// same.
const LEASE: Duration = Duration::from_secs(60);
/// A checkpoint that witnesses cosigned so long before the newest one is preferred to it.
const COSIGNED_WITHIN: Duration = Duration::from_secs(600);
/// How often the archive looks for a segment that is full.
const TICK: Duration = Duration::from_secs(2);

/// The task.
pub struct Archiver {
    kept: Kept,
    store: Store,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    /// Blocks of a segment.
    blocks: u8,
    pauses: Pauses,
    /// Whether the log says that this archive is stalled.
    told: bool,
}

/// Why a segment is not archived yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordFault),
    #[error(transparent)]
    NotArchived(#[from] NotArchived),
    /// The database's: what the archive is to hold next is gone, and was not pruned.
    #[error(
        "events are missing in the database from {0} on: it is damaged, or not the one that was archived"
    )]
    Missing(u64),
    /// Ours, or the database's: nothing that would not prove itself goes into the archive.
    #[error("segment cannot be made: {0}")]
    Segment(String),
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Wrote,
    NothingYet,
    /// Another cloud writes.
    Others,
}

impl Archiver {
    pub fn new(
        archive: &Archive,
        store: Store,
        audit: Arc<AuditLog>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            kept: Kept::new(
                archive,
                log_origin(audit.keeper().trust_domain()),
                store.clone(),
            ),
            store,
            audit,
            clock,
            blocks: SEGMENT_BLOCKS,
            pauses: Pauses::default(),
            told: false,
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let pause = match self.turn().await {
                Ok(Turn::Wrote) => Duration::ZERO,
                Ok(Turn::NothingYet | Turn::Others) => TICK,
                Err(error) => {
                    tracing::warn!(archive = self.kept.name, %error, "segment is not archived yet");
                    let dice = u64::from(Instant::now().elapsed().subsec_nanos());
                    self.pauses.next(None, dice)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Writes the next segment, if it is full.
    async fn turn(&mut self) -> Result<Turn, Fault> {
        let known = self.store.archive(&self.kept.name).await?;
        let covered = *self.audit.covered().borrow();
        if known.is_some_and(|known| covered < known.next + self.leaves()) {
            return Ok(Turn::NothingYet);
        }
        let Some(mut row) = self.take().await? else {
            return Ok(Turn::Others);
        };
        let begun = Instant::now();
        let written = match self.segment(row.next).await {
            Ok(None) => return Ok(Turn::NothingYet),
            Ok(Some(segment)) => self.put(&row, &segment).await,
            Err(fault) => Err(fault),
        };
        match written {
            Ok(bytes) => {
                let first = row.next;
                row.next += self.leaves();
                row.segments += 1;
                row.bytes += bytes;
                row.failing = None;
                self.write(row, Some((first, bytes))).await?;
                self.went_well(bytes, begun);
                Ok(Turn::Wrote)
            }
            Err(fault) => {
                self.failed(&mut row, &fault);
                self.write(row, None).await?;
                Err(fault)
            }
        }
    }

    async fn take(&self) -> Result<Option<ArchiveRow>, Fault> {
        let now = self.clock.now();
        // Without another cloud nobody else can hold it: a crash leaves no lease to wait for.
        let claim = match self.store.is_shared() {
            true => now,
            false => Timestamp::from_millis(u64::MAX),
        };
        // What is pruned already is in no archive that is new.
        let begin = self
            .store
            .minimum_index()
            .await?
            .next_multiple_of(self.leaves());
        let holder = self.audit.boot().to_string();
        let mut tx = self.store.begin("archive.take").await?;
        let row = tx
            .take_archive(&self.kept.name, &holder, begin, claim, now.plus(LEASE))
            .await?;
        let row = match row {
            Some(row) if row.next < begin => Some(self.skip(&mut tx, row, begin).await?),
            row => row,
        };
        tx.commit().await?;
        Ok(row)
    }

    /// An archive that was not the configured one for a while: what was pruned meanwhile it will never hold.
    async fn skip(&self, tx: &mut Tx, row: ArchiveRow, begin: u64) -> Result<ArchiveRow, Fault> {
        tracing::warn!(
            archive = self.kept.name,
            from = row.next,
            to = begin - 1,
            "events were pruned that are not in this archive; it goes on behind them"
        );
        let event = self
            .event(EventKind::ArchiveResumed)
            .detail("skipped_from", row.next)
            .detail("skipped_to", begin - 1);
        tx.skip_archive(&self.kept.name, begin).await?;
        self.audit.record_in(tx, event).await?;
        Ok(ArchiveRow { next: begin, ..row })
    }

    async fn write(
        &self,
        mut row: ArchiveRow,
        written: Option<(u64, u64)>,
    ) -> Result<(), StoreError> {
        row.updated = self.clock.now();
        row.leased = row.updated.plus(LEASE);
        let mut tx = self.store.begin("archive.position").await?;
        if let Some((first, bytes)) = written {
            tx.note_segment(&row.name, first, bytes).await?;
        }
        tx.put_archive(&row).await?;
        tx.commit().await
    }

    /// The segment from leaf `first` on; none while it is not full, or not covered.
    async fn segment(&self, first: u64) -> Result<Option<Segment>, Fault> {
        let end = first + self.leaves();
        let Some(newest) = self.store.newest_checkpoint().await? else {
            return Ok(None);
        };
        if newest.size < end {
            return Ok(None);
        }
        let made = self.store.block_count().await?;
        let blocks = self
            .store
            .stored_blocks(first / BLOCK_LEAVES, end / BLOCK_LEAVES)
            .await?;
        let Some(blocks) = blocks else {
            // Covered a moment ago, and not a block yet; or pruned by a cloud that archives nothing.
            let is_to_come = made < end / BLOCK_LEAVES;
            return match is_to_come || first < self.store.minimum_index().await? {
                true => Ok(None),
                false => Err(Fault::Missing(first)),
            };
        };
        // Under one that witnesses cosigned, if there is one of late: for whoever reads it in years.
        let since = newest.signed.minus(COSIGNED_WITHIN);
        let cosigned = self.store.cosigned(end, since).await?;
        let cosigned = cosigned.filter(|cosigned| cosigned.size <= newest.size);
        let (size, note) = match cosigned {
            Some(cosigned) => (cosigned.size, cosigned.note),
            None => (newest.size, newest.note),
        };
        let wrong = |error: &dyn std::fmt::Display| Fault::Segment(error.to_string());
        let wanted = tiles_of_inclusion(first, size).map_err(|error| wrong(&error))?;
        let tiles = self.store.log_tiles(&wanted).await?;
        let proof =
            Segment::prove(&tiles, first, self.leaves(), size).map_err(|error| wrong(&error))?;
        Ok(Some(Segment {
            origin: self.kept.origin.clone(),
            first,
            checkpoint: note,
            proof,
            entries: blocks.entries,
            blocks: blocks.blocks,
        }))
    }

    async fn put(&self, row: &ArchiveRow, segment: &Segment) -> Result<u64, Fault> {
        // An empty folder may be where a disk is not mounted: what was written last is there, or this is not the archive.
        if let Some(last) = self.last(row).await? {
            self.kept.look_for(last).await?;
        }
        let bytes = segment
            .to_bytes()
            .map_err(|error| Fault::Segment(error.to_string()))?;
        // As a stranger reads it, but for the signature, whose key the log's round has just used.
        let again = Segment::parse(&bytes).map_err(|error| Fault::Segment(error.to_string()))?;
        again
            .proves_itself()
            .map_err(|error| Fault::Segment(error.to_string()))?;
        let length = bytes.len() as u64;
        self.kept
            .target
            .put(&self.kept.name_of(segment.first), Bytes::from(bytes))
            .await?;
        Ok(length)
    }

    /// The segment that was written last, by its first leaf.
    async fn last(&self, row: &ArchiveRow) -> Result<Option<u64>, StoreError> {
        if row.segments == 0 {
            return Ok(None);
        }
        let noted = self.store.last_segment(&row.name, row.next).await?;
        if noted.is_some() {
            return Ok(noted);
        }
        // An older version noted none. Behind what was skipped there is no segment before.
        let minimum = self.store.minimum_index().await?;
        let before = row.next.checked_sub(self.leaves());
        Ok(before.filter(|first| *first >= minimum))
    }

    fn leaves(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_LEAVES
    }

    fn went_well(&mut self, bytes: u64, begun: Instant) {
        self.pauses.went_well();
        metrics::counter!("edgeward_audit_archive_segments_total").increment(1);
        metrics::counter!("edgeward_audit_archive_bytes_total").increment(bytes);
        metrics::histogram!("edgeward_audit_archive_seconds").record(begun.elapsed().as_secs_f64());
        metrics::gauge!("edgeward_audit_archive_failing").set(0.0);
        if std::mem::take(&mut self.told) {
            self.audit.later(self.event(EventKind::ArchiveResumed));
        }
    }

    fn failed(&mut self, row: &mut ArchiveRow, fault: &Fault) {
        let now = self.clock.now();
        let since = row.failing.as_ref().map_or(now, |(_, since)| *since);
        row.failing = Some((fault.to_string(), since));
        metrics::gauge!("edgeward_audit_archive_failing").set(1.0);
        if !self.told && now >= since.plus(STALLED_AFTER) {
            self.told = true;
            let event = self.event(EventKind::ArchiveStalled);
            self.audit.later(event.detail("reason", fault));
        }
    }

    fn event(&self, kind: EventKind) -> Event {
        Event::new(self.clock.now(), Actor::Cloud, kind).detail("archive", &self.kept.name)
    }
}
