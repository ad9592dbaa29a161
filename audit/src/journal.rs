//! The journal: one node's records in append-only segments, kept until the cloud has stored them.
//!
//! **When is a record on disk?** Every record is written before [`Journal::append`] returns, so a killed process loses
//! none. Against power cuts: class `must` is flushed before `append` returns; the others are flushed together with the
//! next one that is, or after [`MAX_UNFLUSHED_RECORDS`] or [`MAX_UNFLUSHED_AGE`], whichever comes first (the owner calls
//! [`Journal::tick`]). Only flushed records are handed out for sending, so the cloud never knows more than the disk.
//!
//! **What if space runs out?** Each class leaves room for the more important ones ([`Limits`]): `may` stops first, then
//! `should`, then what grants; what takes rights away has the last part, and a reserve file that is given up when the
//! disk itself is full. What is left out is counted, and `journal.lost` records say so: when it begins, each time that
//! the count has doubled, and when it ends.
//!
//! **What if a write fails?** A part that was written is cut off again. Where that fails too, or a flush fails, nobody
//! knows what the disk holds: the journal refuses everything until it is opened anew.

use std::collections::VecDeque;
use std::time::Duration;

use edgeward_identity::{BootTime, PublicKey, SignError, Signer, SpiffeId, Timestamp};

use crate::event::{Class, Effect, Event, EventKind};
use crate::record::{
    BootId, Chain, ChainError, KeyTurn, Position, RECORDS_A_KEY, RecordError, Salts, SealedRecord,
    frame,
};

mod loss;
mod mark;
mod memory;
mod open;
mod pending;
mod segment;
mod segment_file;
mod space;
mod storage;

#[cfg(test)]
mod tests;

pub use mark::{Mark, Marked};
pub use memory::{Fault, MemoryStore};
pub use open::{Boot, Cut, OpenError, Opened};
pub use pending::Pending;
pub use segment::SegmentFault;
pub use segment_file::FileStore;
pub use space::{
    DEFAULT_JOURNAL_BYTES, DEFAULT_SEGMENT_BYTES, Limits, LimitsError, MAX_SEGMENT_BYTES,
    MIN_JOURNAL_BYTES, MIN_SEGMENT_BYTES, MUST_RESERVE_BYTES, TAKE_AWAY_RESERVE_BYTES,
};
pub use storage::{SegmentId, SegmentStore, StorageError};

use loss::{Due, LOSS_END_MARGIN_BYTES, Loss};
use segment::{HEADER_BYTES, Header, Segment};

/// Most records that wait for a flush.
pub const MAX_UNFLUSHED_RECORDS: usize = 256;
/// Longest time a record waits for a flush.
pub const MAX_UNFLUSHED_AGE: Duration = Duration::from_millis(500);
/// How often a full disk is asked again for the reserve.
const RESERVE_RETRY_EVERY: Duration = Duration::from_secs(10);

/// The journal of one node, positioned in the running boot.
#[derive(Debug)]
pub struct Journal<S> {
    store: S,
    limits: Limits,
    chain: Chain,
    salts: Salts,
    /// The newest turn of the running boot's key, as far as it is still here.
    last_turn: Option<KeyTurn>,
    /// Records of the running boot since its last turn.
    since_turn: u64,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// Everything below this sequence number of the running boot is flushed.
    durable: u64,
    unflushed: usize,
    unflushed_since: Option<BootTime>,
    loss: Loss,
    /// The reserve is in place. While it is not, the disk is full, and only what takes away may write.
    reserved: bool,
    reserve_tried: Option<BootTime>,
    broken: bool,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is record `position`; flushed if its class is `must`.
    Recorded(Position),
    /// There was no room for its class; it is counted and the loss is on record.
    LeftOut,
}

/// The event is not on record. Whatever it was to grant must not be granted.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal is full")]
    Full,
    #[error("journal storage failed")]
    Storage(#[source] StorageError),
    #[error("journal is unusable after a failed write and must be opened anew")]
    Broken,
    #[error("event does not make a record")]
    Record(#[from] RecordError),
    #[error("journal key could not vouch for the next one")]
    Sign(#[from] SignError),
    #[error("journal chain is inconsistent")]
    Chain(#[from] ChainError),
    #[error("journal segment {segment} holds no frame at offset {offset}")]
    Damaged { segment: SegmentId, offset: u64 },
    #[error("acknowledgement is beyond the journal: boot {boot}, next {next}")]
    AcknowledgedUnknown { boot: BootId, next: u64 },
}

impl<S: SegmentStore> Journal<S> {
    /// Opens the journal in `store`, or begins it. Within the same boot it goes on where it ended; a new boot begins a
    /// chain whose first record names the end of the last one. A torn end is cut off and recorded.
    pub fn open(
        store: S,
        node: &SpiffeId,
        boot: &Boot,
        limits: Limits,
        time: Timestamp,
        salts: Salts,
    ) -> Result<(Self, Opened), OpenError> {
        open::open(store, node, boot, limits, time, salts)
    }

    /// Records an event. `now` is the time since boot.
    pub fn append(&mut self, event: Event, now: BootTime) -> Result<Appended, JournalError> {
        if self.broken {
            return Err(JournalError::Broken);
        }
        self.end_loss(event.time, now)?;
        let (class, kind) = (event.class(), event.kind);
        let time = event.time;
        let sealed = self.chain.seal(event, self.salts.draw())?;
        if self.has_room(kind, &sealed) {
            match self.write(&sealed, kind) {
                Ok(()) => return self.written(&sealed, class == Class::Must, now),
                Err(JournalError::Full) => {}
                Err(other) => return Err(other),
            }
        }
        let event = match self.loss.count(kind, time) {
            Due::Nothing => None,
            // What follows may be incomplete, even if we end before the count is known.
            Due::Begun => Some(self.loss.begun(self.chain.node())),
            Due::Continues => Some(self.loss.continues(self.chain.node())),
        };
        if let Some(event) = event {
            self.record_loss(event, now)?;
        }
        if class == Class::Must {
            Err(JournalError::Full)
        } else {
            Ok(Appended::LeftOut)
        }
    }

    /// Whether the key is due to turn.
    pub fn is_turn_due(&self) -> bool {
        self.since_turn >= RECORDS_A_KEY
    }

    /// The newest turn of the running boot's key; none if there was none, or if the cloud has it and it is deleted.
    pub fn last_turn(&self) -> Option<&KeyTurn> {
        self.last_turn.as_ref()
    }

    /// Records that the key in use, `signer`, vouches for `next` and for all before. On disk when this returns: the
    /// owner forgets the old key then, and not before.
    pub fn turn(
        &mut self,
        signer: &dyn Signer,
        next: (u32, &PublicKey),
        time: Timestamp,
        now: BootTime,
    ) -> Result<(), JournalError> {
        if self.broken {
            return Err(JournalError::Broken);
        }
        // It may write a record, and the signature is over the place.
        self.end_loss(time, now)?;
        let event = KeyTurn::event(&self.chain, signer, next, time)?;
        let sealed = self.chain.seal(event, self.salts.draw())?;
        if !self.has_room(EventKind::JournalSealed, &sealed) {
            return Err(JournalError::Full);
        }
        self.write(&sealed, EventKind::JournalSealed)?;
        self.written(&sealed, true, now)?;
        Ok(())
    }

    /// Flushes what has waited long enough. Call when [`Journal::next_tick`] says.
    pub fn tick(&mut self, now: BootTime) -> Result<(), JournalError> {
        match self.next_tick() {
            Some(due) if now >= due => self.flush(),
            Some(_) | None => Ok(()),
        }
    }

    pub fn next_tick(&self) -> Option<BootTime> {
        self.unflushed_since
            .map(|since| since.plus(MAX_UNFLUSHED_AGE))
    }

    /// Flushes everything written, as before a shutdown.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        if self.broken {
            return Err(JournalError::Broken);
        }
        if self.unflushed > 0 {
            let id = self.active()?.id;
            if let Err(error) = self.store.sync(id) {
                // After a failed flush the kernel may have dropped the pages: what is on disk is unknown.
                self.broken = true;
                return Err(JournalError::Storage(error));
            }
        }
        self.unflushed = 0;
        self.unflushed_since = None;
        self.durable = self.chain.next_seq().unwrap_or(u64::MAX);
        Ok(())
    }

    /// The oldest flushed records from `from` on, of one boot, within the limits of a batch; none if there are none.
    /// Without `from`, or where it is in no kept segment, from the oldest record kept.
    pub fn pending(&mut self, from: Option<Position>) -> Result<Option<Pending>, JournalError> {
        self.flush()?;
        pending::read(&mut self.store, &self.segments, from)
    }

    /// The cloud has stored everything of `boot` below `next`: deletes the whole segments that this covers, oldest
    /// first. The segment that is written to always stays, so the chain's end is never forgotten.
    pub fn acknowledge(&mut self, boot: BootId, next: u64) -> Result<(), JournalError> {
        if boot == self.chain.boot() && self.chain.next_seq().is_some_and(|end| next > end) {
            return Err(JournalError::AcknowledgedUnknown { boot, next });
        }
        while let Some(oldest) = self.deletable(boot, next) {
            self.store.delete(oldest).map_err(JournalError::Storage)?;
            self.segments.pop_front();
        }
        self.restore_reserve();
        Ok(())
    }

    /// Whether [`Journal::acknowledge`] would delete anything.
    pub fn would_delete(&self, boot: BootId, next: u64) -> bool {
        self.deletable(boot, next).is_some()
    }

    fn deletable(&self, boot: BootId, next: u64) -> Option<SegmentId> {
        // An active segment without records does not know the chain's end; the one before does.
        let is_empty = self.segments.back().is_none_or(Segment::is_empty);
        let kept = if is_empty { 2 } else { 1 };
        let oldest = self.segments.front()?;
        let whole = oldest.boot == boot && oldest.next_seq <= next;
        (whole && self.segments.len() > kept).then_some(oldest.id)
    }

    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Events left out since the last `journal.lost` record that ended a loss.
    pub fn left_out(&self) -> u64 {
        self.loss.total()
    }

    /// Gives the storage back, as for opening the journal anew.
    pub fn into_store(self) -> S {
        self.store
    }

    fn written(
        &mut self,
        sealed: &SealedRecord,
        must: bool,
        now: BootTime,
    ) -> Result<Appended, JournalError> {
        self.unflushed += 1;
        let since = *self.unflushed_since.get_or_insert(now);
        let old = now.since(since) >= MAX_UNFLUSHED_AGE;
        if must || old || self.unflushed >= MAX_UNFLUSHED_RECORDS {
            self.flush()?;
        }
        Ok(Appended::Recorded(sealed.position()))
    }

    /// Puts the record behind the others. On any error the segments are as before, or the journal is broken.
    fn write(&mut self, sealed: &SealedRecord, kind: EventKind) -> Result<(), JournalError> {
        match self.try_write(sealed) {
            Err(JournalError::Storage(StorageError::NoSpace)) => {
                // The disk is full. What takes away, and the loss record, may use the reserve.
                if kind.effect() != Effect::TakesAway || !self.reserved {
                    return Err(JournalError::Full);
                }
                self.store
                    .release_reserve()
                    .map_err(JournalError::Storage)?;
                self.reserved = false;
                match self.try_write(sealed) {
                    Err(JournalError::Storage(StorageError::NoSpace)) => Err(JournalError::Full),
                    other => other,
                }
            }
            other => other,
        }
    }

    fn try_write(&mut self, sealed: &SealedRecord) -> Result<(), JournalError> {
        let length = frame_bytes(sealed);
        let active = self.active()?;
        if active.bytes > HEADER_BYTES && active.bytes + length > self.limits.segment_bytes {
            self.roll(sealed)?;
        }
        let durable = self.durable;
        let active = self.active()?;
        let (id, end) = (active.id, active.bytes);
        let mut bytes = Vec::with_capacity(sealed.bytes().len() + frame::HEADER_BYTES);
        frame::write(&mut bytes, sealed.bytes(), &sealed.hash(), durable);
        if let Err(error) = self.store.append(id, &bytes) {
            self.broken = self.store.truncate(id, end).is_err();
            return Err(JournalError::Storage(error));
        }
        self.chain.advance(sealed)?;
        self.since_turn += 1;
        if sealed.event().kind == EventKind::JournalSealed {
            self.since_turn = 0;
            self.last_turn = KeyTurn::parse(sealed.event()).ok();
        }
        self.active_mut()?.added(sealed.record().seq, length);
        Ok(())
    }

    /// Begins the next segment, whose first record will be `first`.
    fn roll(&mut self, first: &SealedRecord) -> Result<(), JournalError> {
        self.flush()?;
        let id = self.active()?.id.next();
        let header = Header {
            id,
            boot: first.record().boot,
            first_seq: first.record().seq,
        };
        let segment = segment::create(&mut self.store, &header).map_err(JournalError::Storage)?;
        self.segments.push_back(segment);
        Ok(())
    }

    fn has_room(&self, kind: EventKind, sealed: &SealedRecord) -> bool {
        let open = self.reserved || kind.effect() == Effect::TakesAway;
        open && self.bytes() + frame_bytes(sealed) + HEADER_BYTES
            <= self.limits.ceiling(kind.class(), kind.effect())
    }

    /// Writes the last loss record of a loss, with its counts, once there is room again for all classes that lost.
    fn end_loss(&mut self, time: Timestamp, now: BootTime) -> Result<(), JournalError> {
        let Some(lowest) = self.loss.lowest() else {
            return Ok(());
        };
        if self
            .reserve_tried
            .is_none_or(|tried| now.since(tried) >= RESERVE_RETRY_EVERY)
        {
            self.reserve_tried = Some(now);
            self.restore_reserve();
        }
        let room =
            self.bytes() + LOSS_END_MARGIN_BYTES <= self.limits.ceiling(lowest, Effect::Neutral);
        if self.reserved && room {
            let event = self.loss.ended(time, self.chain.node());
            if self.record_loss(event, now)? {
                self.loss = Loss::default();
            }
        }
        Ok(())
    }

    fn record_loss(&mut self, event: Event, now: BootTime) -> Result<bool, JournalError> {
        let sealed = self.chain.seal(event, self.salts.draw())?;
        if !self.has_room(EventKind::JournalLost, &sealed) {
            return Ok(false);
        }
        match self.write(&sealed, EventKind::JournalLost) {
            Ok(()) => self.written(&sealed, true, now).map(|_| true),
            Err(JournalError::Full) => Ok(false),
            Err(other) => Err(other),
        }
    }

    fn restore_reserve(&mut self) {
        if !self.reserved {
            self.reserved = self.store.reserve(TAKE_AWAY_RESERVE_BYTES).is_ok();
        }
    }

    fn active(&self) -> Result<&Segment, JournalError> {
        self.segments.back().ok_or(JournalError::Broken)
    }

    fn active_mut(&mut self) -> Result<&mut Segment, JournalError> {
        self.segments.back_mut().ok_or(JournalError::Broken)
    }
}

impl JournalError {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full => "journal_full",
            Self::Storage(_) | Self::Broken => "journal_storage",
            Self::Record(_) | Self::Chain(_) => "journal_record",
            Self::Sign(_) => "journal_key",
            Self::Damaged { .. } => "journal_damaged",
            Self::AcknowledgedUnknown { .. } => "journal_acknowledged_unknown",
        }
    }
}

fn frame_bytes(sealed: &SealedRecord) -> u64 {
    let bytes = frame::HEADER_BYTES + sealed.bytes().len();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
