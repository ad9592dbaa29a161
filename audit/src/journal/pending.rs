//! Reading records back for sending.

use std::collections::VecDeque;

use crate::batch::{MAX_BATCH_RECORD_BYTES, MAX_BATCH_RECORDS};
use crate::record::{BootId, Position, frame};

use super::JournalError;
use super::segment::Segment;
use super::storage::SegmentStore;

/// Consecutive records of one boot, in the bytes they were sealed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub boot: BootId,
    pub first_seq: u64,
    /// 1 to [`MAX_BATCH_RECORDS`] records.
    pub records: Vec<Vec<u8>>,
}

impl Pending {
    /// Where to ask on from when these are sent.
    pub fn next(&self) -> Position {
        let count = u64::try_from(self.records.len()).unwrap_or(u64::MAX);
        Position {
            boot: self.boot,
            seq: self.first_seq.saturating_add(count),
        }
    }
}

pub(super) fn read<S: SegmentStore>(
    store: &mut S,
    segments: &VecDeque<Segment>,
    from: Option<Position>,
) -> Result<Option<Pending>, JournalError> {
    let Some((start, seq)) = locate(segments, from) else {
        return Ok(None);
    };
    let mut found: Option<Pending> = None;
    let mut budget = MAX_BATCH_RECORD_BYTES;
    for segment in segments.iter().skip(start) {
        let boot = found.as_ref().map_or(segment.boot, |found| found.boot);
        if segment.boot != boot {
            break;
        }
        let first_seq = seq.max(segment.first_seq);
        let pending = found.get_or_insert(Pending {
            boot,
            first_seq,
            records: Vec::new(),
        });
        if !read_segment(store, segment, pending, &mut budget)? {
            break;
        }
    }
    Ok(found.filter(|found| !found.records.is_empty()))
}

/// The segment to begin in, and the sequence number.
fn locate(segments: &VecDeque<Segment>, from: Option<Position>) -> Option<(usize, u64)> {
    let nonempty = |segment: &Segment| segment.next_seq > segment.first_seq;
    let Some(from) = from.filter(|from| segments.iter().any(|segment| segment.boot == from.boot))
    else {
        let start = segments.iter().position(nonempty)?;
        return segments
            .get(start)
            .map(|segment| (start, segment.first_seq));
    };
    let in_boot = segments
        .iter()
        .position(|segment| segment.boot == from.boot && segment.next_seq > from.seq);
    if let Some(start) = in_boot {
        return segments
            .get(start)
            .map(|segment| (start, from.seq.max(segment.first_seq)));
    }
    // That boot is through: go on with the next.
    let last = segments
        .iter()
        .rposition(|segment| segment.boot == from.boot)?;
    let start = last + 1 + segments.iter().skip(last + 1).position(nonempty)?;
    segments
        .get(start)
        .map(|segment| (start, segment.first_seq))
}

/// Adds what fits; says whether there was room for all.
fn read_segment<S: SegmentStore>(
    store: &mut S,
    segment: &Segment,
    pending: &mut Pending,
    budget: &mut usize,
) -> Result<bool, JournalError> {
    let (mut seq, mut offset) = segment.seek(pending.next().seq);
    let left = usize::try_from(segment.bytes - offset).unwrap_or(usize::MAX);
    // The remembered frame is at most 63 frames before the wanted one; those are small on average.
    let bytes = store
        .read(segment.id, offset, left)
        .map_err(JournalError::Storage)?;
    let mut rest = bytes.as_slice();
    while seq < segment.next_seq {
        let frame = frame::read(rest).map_err(|_| JournalError::Damaged {
            segment: segment.id,
            offset,
        })?;
        if seq >= pending.next().seq {
            let size = frame.record.len() + 2;
            if pending.records.len() >= MAX_BATCH_RECORDS || size > *budget {
                return Ok(false);
            }
            *budget -= size;
            pending.records.push(frame.record.to_vec());
        }
        rest = rest.get(frame.len()..).unwrap_or_default();
        offset += frame.len() as u64;
        seq += 1;
    }
    Ok(true)
}
