//! Marks: what is remembered elsewhere of a journal, to tell later whether it is still the same one.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::record::{BootId, Head, Position, frame};

use super::segment::Segment;
use super::storage::{SegmentId, SegmentStore};
use super::{Journal, JournalError};

/// A record that is on disk, and the segment that holds it. Segments count up over all boots and are deleted from the
/// front, so the segment's number tells a record that was deleted from one that was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    pub segment: u64,
    pub boot: BootId,
    pub head: Head,
}

/// How a journal stands to a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// The marked record is there.
    Holds,
    /// It was deleted, as everything is once the log covers it.
    Deleted,
    /// The journal ends before it: it was cut short or an older one was put back.
    Behind,
    /// Another record is in its place.
    Another,
}

impl<S: SegmentStore> Journal<S> {
    /// Flushes, and marks the end of the running boot.
    pub fn mark(&mut self) -> Result<Option<Mark>, JournalError> {
        self.flush()?;
        let segment = match self.segments.back() {
            Some(active) if active.is_empty() => self.segments.iter().nth_back(1),
            active => active,
        };
        Ok(segment.zip(self.chain.head()).map(|(segment, head)| Mark {
            segment: segment.id.0,
            boot: self.chain.boot(),
            head,
        }))
    }

    /// The boot of the oldest record that is kept.
    pub fn oldest(&self) -> BootId {
        self.segments
            .front()
            .map_or(self.chain.boot(), |oldest| oldest.boot)
    }

    /// Whether this journal is one that had the mark.
    pub fn stands_to(&mut self, mark: &Mark) -> Result<Marked, JournalError> {
        let marked = SegmentId(mark.segment);
        let oldest = self.segments.front().map(|segment| segment.id);
        if oldest.is_some_and(|oldest| oldest > marked) {
            return Ok(Marked::Deleted);
        }
        let holder = self.segments.iter().find(|segment| segment.id >= marked);
        let Some(holder) = holder else {
            return Ok(Marked::Behind);
        };
        if holder.id != marked || holder.boot != mark.boot {
            return Ok(Marked::Another);
        }
        if holder.next_seq <= mark.head.seq {
            return Ok(Marked::Behind);
        }
        let position = Position {
            boot: mark.boot,
            seq: mark.head.seq,
        };
        Ok(match self.hash_at(position)? {
            Some(hash) if hash == mark.head.hash => Marked::Holds,
            _ => Marked::Another,
        })
    }

    /// The hash of a record that is kept.
    pub fn hash_at(&mut self, position: Position) -> Result<Option<Digest>, JournalError> {
        let holder = self.segments.iter().find(|segment| {
            segment.boot == position.boot
                && (segment.first_seq..segment.next_seq).contains(&position.seq)
        });
        holder
            .map(|holder| read_hash(&self.store, holder, position.seq))
            .transpose()
    }
}

/// Reads on from the remembered frame before the wanted one.
fn read_hash<S: SegmentStore>(
    store: &S,
    segment: &Segment,
    wanted: u64,
) -> Result<Digest, JournalError> {
    let (mut seq, mut offset) = segment.seek(wanted);
    let left = usize::try_from(segment.bytes - offset).unwrap_or(usize::MAX);
    let bytes = store
        .read(segment.id, offset, left)
        .map_err(JournalError::Storage)?;
    let mut rest = bytes.as_slice();
    loop {
        let damaged = JournalError::Damaged {
            segment: segment.id,
            offset,
        };
        let Ok(frame) = frame::read(rest) else {
            return Err(damaged);
        };
        if seq == wanted {
            return Ok(crate::record::record_hash(frame.record));
        }
        rest = rest.get(frame.len()..).unwrap_or_default();
        offset += frame.len() as u64;
        seq += 1;
    }
}
