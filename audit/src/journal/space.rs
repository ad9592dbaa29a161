//! Who may use how much of the journal.

use crate::event::{Class, Effect};
use crate::record::frame::MAX_FRAME_BYTES;

/// Default limit of a journal, in bytes: about 150,000 events.
pub const DEFAULT_JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Smallest limit of a journal, in bytes.
pub const MIN_JOURNAL_BYTES: u64 = 4 * 1024 * 1024;
/// Default size of a segment, in bytes: what an acknowledgement frees at once.
pub const DEFAULT_SEGMENT_BYTES: u64 = 1024 * 1024;
/// Smallest size of a segment, in bytes: holds any two records.
pub const MIN_SEGMENT_BYTES: u64 = 64 * 1024;
/// Largest size of a segment, in bytes: one is read as a whole when the journal is opened.
pub const MAX_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Kept free for what takes rights away, in bytes, in the limit and as a reserve file on disk: about 600 events.
pub const TAKE_AWAY_RESERVE_BYTES: u64 = 256 * 1024;
/// Kept free for class `must`, in bytes.
pub const MUST_RESERVE_BYTES: u64 = 1024 * 1024;

/// How much a journal may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(super) journal_bytes: u64,
    pub(super) segment_bytes: u64,
}

/// The operator's limits cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    #[error("journal limit is below {MIN_JOURNAL_BYTES} bytes: {0}")]
    Journal(u64),
    #[error("segment size is not within {MIN_SEGMENT_BYTES} and {MAX_SEGMENT_BYTES} bytes: {0}")]
    Segment(u64),
}

impl Limits {
    pub fn new(journal_bytes: u64, segment_bytes: u64) -> Result<Self, LimitsError> {
        if journal_bytes < MIN_JOURNAL_BYTES {
            return Err(LimitsError::Journal(journal_bytes));
        }
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&segment_bytes) {
            return Err(LimitsError::Segment(segment_bytes));
        }
        Ok(Self {
            journal_bytes,
            segment_bytes,
        })
    }

    /// Up to how many bytes events of this class and effect may fill the journal.
    pub(super) fn ceiling(&self, class: Class, effect: Effect) -> u64 {
        let must = self.journal_bytes - TAKE_AWAY_RESERVE_BYTES;
        match (class, effect) {
            (Class::May, _) => self.journal_bytes / 2,
            (Class::Should, _) => must - MUST_RESERVE_BYTES,
            (Class::Must, Effect::TakesAway) => self.journal_bytes,
            // The loss record that follows a refusal fits too.
            (Class::Must, Effect::Grants | Effect::Neutral) => must - MAX_FRAME_BYTES as u64,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            journal_bytes: DEFAULT_JOURNAL_BYTES,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
        }
    }
}
