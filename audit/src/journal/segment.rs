//! Segments: a header, then frames. Reading one back, and telling a torn end from damage.

use crate::digest::Digest;
use crate::event::EventKind;
use crate::record::frame::{self, FrameFault, MAGIC};
use crate::record::{BootId, Chain, ChainError, KeyTurn, RecordError, SealedRecord};

use super::storage::{SegmentId, SegmentStore, StorageError};

/// Bytes of a segment's header: mark 8, number 8, boot 16, first sequence number 8, check 16.
pub(super) const HEADER_BYTES: u64 = 56;
/// One frame in so many is remembered by its offset.
const INDEX_EVERY: u64 = 64;

const SEGMENT_MARK: &[u8; 8] = b"EWJRNL\x00\x01";
const LABEL: &[u8] = b"edgeward journal segment v1\n";
const CHECK_BYTES: usize = 16;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: SegmentId,
    pub(super) boot: BootId,
    pub(super) first_seq: u64,
}

/// A segment as the journal knows it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) boot: BootId,
    pub(super) first_seq: u64,
    /// One more than the last sequence number.
    pub(super) next_seq: u64,
    /// Length, header included.
    pub(super) bytes: u64,
    /// (sequence number, offset) of every 64th frame.
    index: Vec<(u64, u64)>,
}

/// A segment read back.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) segment: Segment,
    /// The end of the chain; none if the segment has no record.
    pub(super) chain: Option<Chain>,
    /// The first record's opening and link, for comparing with the segment before.
    pub(super) first: Option<SealedRecord>,
    /// The newest turn of the key, and its sequence number.
    pub(super) turn: Option<(u64, KeyTurn)>,
    /// Bytes after the last good frame, which nobody had been promised.
    pub(super) torn: u64,
}

/// Why a segment cannot be what we wrote. Offsets are in bytes from the segment's start.
#[derive(Debug, thiserror::Error)]
pub enum SegmentFault {
    #[error("header is not that of this segment")]
    Header,
    #[error("header is incomplete")]
    TornHeader,
    #[error("damaged at offset {offset}")]
    Frame {
        offset: u64,
        #[source]
        source: FrameFault,
    },
    #[error("record at offset {offset} cannot be read")]
    Record {
        offset: u64,
        #[source]
        source: RecordError,
    },
    #[error("chain is broken at offset {offset}")]
    Chain {
        offset: u64,
        #[source]
        source: ChainError,
    },
}

impl Header {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = SEGMENT_MARK.to_vec();
        bytes.extend_from_slice(&self.id.0.to_be_bytes());
        bytes.extend_from_slice(self.boot.as_bytes());
        bytes.extend_from_slice(&self.first_seq.to_be_bytes());
        let digest = Digest::of(&[LABEL, &bytes]);
        bytes.extend(digest.as_bytes().iter().take(CHECK_BYTES));
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (mark, rest) = bytes.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (boot, rest) = rest.split_first_chunk::<16>()?;
        let (first_seq, rest) = rest.split_first_chunk::<8>()?;
        let (_, rest) = rest.split_first_chunk::<CHECK_BYTES>()?;
        let header = Self {
            id: SegmentId(u64::from_be_bytes(*id)),
            boot: BootId::from_bytes(*boot),
            first_seq: u64::from_be_bytes(*first_seq),
        };
        (mark == SEGMENT_MARK && bytes.starts_with(&header.to_bytes())).then_some((header, rest))
    }
}

impl Segment {
    fn new(header: &Header) -> Self {
        Self {
            id: header.id,
            boot: header.boot,
            first_seq: header.first_seq,
            next_seq: header.first_seq,
            bytes: HEADER_BYTES,
            index: Vec::new(),
        }
    }

    /// Notes that a frame of so many bytes was appended.
    pub(super) fn added(&mut self, seq: u64, frame_bytes: u64) {
        if (seq - self.first_seq).is_multiple_of(INDEX_EVERY) {
            self.index.push((seq, self.bytes));
        }
        self.bytes += frame_bytes;
        self.next_seq = seq.saturating_add(1);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next_seq == self.first_seq
    }

    /// A remembered frame at or before `seq`: its sequence number and offset.
    pub(super) fn seek(&self, seq: u64) -> (u64, u64) {
        let after = self.index.partition_point(|(known, _)| *known <= seq);
        let found = after.checked_sub(1).and_then(|at| self.index.get(at));
        found.copied().unwrap_or((self.first_seq, HEADER_BYTES))
    }
}

/// Makes a segment with its header; removes it again if that fails.
pub(super) fn create<S: SegmentStore>(
    store: &mut S,
    header: &Header,
) -> Result<Segment, StorageError> {
    store.create(header.id)?;
    if let Err(error) = store.append(header.id, &header.to_bytes()) {
        store.delete(header.id)?;
        return Err(error);
    }
    Ok(Segment::new(header))
}

/// Reads a whole segment back and checks every record.
///
/// A bad frame is a torn end, to be cut off, unless a good frame after it says that what was here had been flushed.
pub(super) fn scan(id: SegmentId, bytes: &[u8]) -> Result<Scanned, SegmentFault> {
    if (bytes.len() as u64) < HEADER_BYTES {
        return Err(SegmentFault::TornHeader);
    }
    // A file system may give a file its length before its bytes: zeros, where nothing was ever flushed.
    if bytes
        .iter()
        .take(HEADER_BYTES as usize)
        .all(|byte| *byte == 0)
        && !frames(bytes).any(|_| true)
    {
        return Err(SegmentFault::TornHeader);
    }
    let (header, mut rest) = Header::parse(bytes).ok_or(SegmentFault::Header)?;
    if header.id != id {
        return Err(SegmentFault::Header);
    }
    let mut segment = Segment::new(&header);
    let mut chain: Option<Chain> = None;
    let (mut first, mut turn) = (None, None);
    while !rest.is_empty() {
        let offset = segment.bytes;
        let frame = match frame::read(rest) {
            Ok(frame) => frame,
            Err(source) if promised_later(rest, segment.next_seq) => {
                return Err(SegmentFault::Frame { offset, source });
            }
            Err(_) => break,
        };
        let record = SealedRecord::parse(frame.record)
            .map_err(|source| SegmentFault::Record { offset, source })?;
        let seq = record.record().seq;
        match &mut chain {
            None if record.record().boot != header.boot => return Err(SegmentFault::Header),
            None if seq != header.first_seq => return Err(SegmentFault::Header),
            None => chain = Some(Chain::starting_at(&record)),
            Some(chain) => chain
                .advance(&record)
                .map_err(|source| SegmentFault::Chain { offset, source })?,
        }
        segment.added(seq, frame.len() as u64);
        if record.event().kind == EventKind::JournalSealed {
            turn = KeyTurn::parse(record.event()).ok().map(|turn| (seq, turn));
        }
        rest = rest.get(frame.len()..).unwrap_or_default();
        first.get_or_insert(record);
    }
    Ok(Scanned {
        segment,
        chain,
        first,
        turn,
        torn: rest.len() as u64,
    })
}

/// Whether some good frame in `bytes` says that `seq` had been flushed.
fn promised_later(bytes: &[u8], seq: u64) -> bool {
    frames(bytes).any(|frame| frame.durable > seq)
}

/// All good frames in `bytes`, wherever they begin.
fn frames(bytes: &[u8]) -> impl Iterator<Item = frame::Frame<'_>> {
    bytes
        .windows(MAGIC.len())
        .enumerate()
        .filter(|(_, window)| *window == MAGIC)
        .filter_map(|(at, _)| frame::read(bytes.get(at..)?).ok())
}
