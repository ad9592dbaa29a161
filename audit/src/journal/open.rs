//! Opening a journal: reading it back, cutting a torn end, beginning a boot.

use std::collections::VecDeque;

use edgeward_identity::{BootTime, SpiffeId, Timestamp};

use crate::event::{Event, EventKind};
use crate::record::{BootId, BootOpened, Chain, KeyTurn, PreviousBoot, Salts};

use super::loss::Loss;
use super::segment::{self, Header, Scanned, Segment, SegmentFault};
use super::space::{Limits, MAX_SEGMENT_BYTES, TAKE_AWAY_RESERVE_BYTES};
use super::storage::{SegmentId, SegmentStore, StorageError};
use super::{Journal, JournalError};

/// The running boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The same as long as the machine runs, another one after a restart.
    pub id: BootId,
    /// The TPM's counters, where there is a TPM.
    pub reset_count: Option<u32>,
    pub restart_count: Option<u32>,
}

/// How opening went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The boot's chain goes on; else it was begun.
    pub continued: bool,
    /// A torn end was cut off.
    pub cut: Option<Cut>,
}

/// A torn end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub segment: SegmentId,
    pub offset: u64,
    pub bytes: u64,
}

/// The journal cannot be opened. It is evidence: keep it aside, and begin a new one under a new boot id.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("journal storage failed")]
    Storage(#[from] StorageError),
    #[error("segment {segment} is damaged")]
    Segment {
        segment: SegmentId,
        #[source]
        source: SegmentFault,
    },
    #[error("segment {segment} is torn at offset {offset} but is not the last one")]
    TornInside { segment: SegmentId, offset: u64 },
    #[error("segment {0} is larger than any that was written")]
    TooLarge(SegmentId),
    #[error("segment {0} does not continue the one before")]
    Broken(SegmentId),
    #[error("journal belongs to another node: {0}")]
    Node(SpiffeId),
    #[error("opening could not be recorded")]
    Record(#[from] JournalError),
}

pub(super) fn open<S: SegmentStore>(
    mut store: S,
    node: &SpiffeId,
    boot: &Boot,
    limits: Limits,
    time: Timestamp,
    salts: Salts,
) -> Result<(Journal<S>, Opened), OpenError> {
    let ReadBack {
        segments,
        end,
        turn,
        cut,
    } = read_back(&mut store, node)?;
    // Whatever the last process wrote must be on disk before anything relies on it.
    if let Some(last) = segments.back() {
        store.sync(last.id)?;
    }
    let reserved = match store.reserve(TAKE_AWAY_RESERVE_BYTES) {
        Ok(()) => true,
        Err(StorageError::NoSpace) => false,
        Err(other) => return Err(other.into()),
    };
    let continued = end.as_ref().is_some_and(|end| end.boot() == boot.id);
    let mut journal = Journal {
        store,
        limits,
        chain: Chain::new(node.clone(), boot.id),
        salts,
        last_turn: None,
        since_turn: 0,
        segments,
        durable: 0,
        unflushed: 0,
        unflushed_since: None,
        loss: Loss::default(),
        reserved,
        reserve_tried: None,
        broken: false,
    };
    match end {
        Some(end) if continued => {
            journal.durable = end.next_seq().unwrap_or(u64::MAX);
            let kept = journal.segments.iter().find(|kept| kept.boot == boot.id);
            let oldest = kept.map_or(0, |kept| kept.first_seq);
            let since = turn.as_ref().map_or(oldest, |(seq, _)| seq + 1);
            journal.since_turn = journal.durable.saturating_sub(since);
            journal.last_turn = turn.map(|(_, turn)| turn);
            journal.chain = end;
        }
        end => begin(&mut journal, end.as_ref(), boot, time)?,
    }
    if let Some(cut) = cut {
        let event = Event::new(time, node.clone(), EventKind::JournalRecovered)
            .subject(node.clone())
            .detail("segment", cut.segment)
            .detail("offset", cut.offset)
            .detail("bytes", cut.bytes);
        journal.append(event, BootTime::default())?;
    }
    Ok((journal, Opened { continued, cut }))
}

struct ReadBack {
    segments: VecDeque<Segment>,
    end: Option<Chain>,
    /// The newest turn of the last boot's key.
    turn: Option<(u64, KeyTurn)>,
    cut: Option<Cut>,
}

fn read_back<S: SegmentStore>(store: &mut S, node: &SpiffeId) -> Result<ReadBack, OpenError> {
    let mut ids = store.list()?;
    ids.sort_unstable();
    let last = ids.last().copied();
    let mut segments = VecDeque::new();
    let mut end: Option<Chain> = None;
    let mut turn = None;
    let mut cut = None;
    for id in ids {
        let is_last = Some(id) == last;
        let scanned = match read_segment(store, id) {
            // A crash between making a segment and its first flush leaves a short file, or one without records.
            Err(OpenError::Segment {
                source: SegmentFault::TornHeader,
                ..
            }) if is_last => {
                let bytes = store.len(id)?;
                store.delete(id)?;
                cut = Some(Cut {
                    segment: id,
                    offset: 0,
                    bytes,
                })
                .filter(|cut| cut.bytes > 0);
                continue;
            }
            other => other?,
        };
        let offset = scanned.segment.bytes;
        if scanned.torn > 0 {
            if !is_last {
                return Err(OpenError::TornInside {
                    segment: id,
                    offset,
                });
            }
            store.truncate(id, offset)?;
            cut = Some(Cut {
                segment: id,
                offset,
                bytes: scanned.torn,
            });
        }
        if scanned.chain.is_none() && is_last {
            store.delete(id)?;
            continue;
        }
        let same_boot = end
            .as_ref()
            .is_some_and(|end| end.boot() == scanned.segment.boot);
        end = Some(join(end, &scanned, node)?);
        turn = scanned.turn.or(turn.filter(|_| same_boot));
        segments.push_back(scanned.segment);
    }
    Ok(ReadBack {
        segments,
        end,
        turn,
        cut,
    })
}

fn read_segment<S: SegmentStore>(store: &mut S, id: SegmentId) -> Result<Scanned, OpenError> {
    let length = store.len(id)?;
    if length > MAX_SEGMENT_BYTES {
        return Err(OpenError::TooLarge(id));
    }
    let bytes = store.read(id, 0, usize::try_from(length).unwrap_or(usize::MAX))?;
    segment::scan(id, &bytes).map_err(|source| OpenError::Segment {
        segment: id,
        source,
    })
}

/// Checks that a segment continues the chain, or that its boot names where the chain ended.
fn join(before: Option<Chain>, scanned: &Scanned, node: &SpiffeId) -> Result<Chain, OpenError> {
    let id = scanned.segment.id;
    let (Some(first), Some(chain)) = (&scanned.first, &scanned.chain) else {
        return Err(OpenError::Broken(id));
    };
    if chain.node() != node {
        return Err(OpenError::Node(chain.node().clone()));
    }
    let follows = match (before, &first.record().opened) {
        // The oldest segment kept: what came before was acknowledged and deleted.
        (None, _) => true,
        (Some(mut before), None) => before.advance(first).is_ok(),
        (Some(before), Some(opened)) => opened.previous == previous(&before),
    };
    if follows {
        Ok(chain.clone())
    } else {
        Err(OpenError::Broken(id))
    }
}

fn previous(end: &Chain) -> Option<PreviousBoot> {
    let head = end.head()?;
    Some(PreviousBoot {
        boot: end.boot(),
        last_seq: head.seq,
        head: head.hash,
    })
}

/// Begins the running boot's chain in a segment of its own.
fn begin<S: SegmentStore>(
    journal: &mut Journal<S>,
    end: Option<&Chain>,
    boot: &Boot,
    time: Timestamp,
) -> Result<(), OpenError> {
    let id = journal
        .segments
        .back()
        .map_or(SegmentId(0), |last| last.id.next());
    let header = Header {
        id,
        boot: boot.id,
        first_seq: 0,
    };
    let opened = BootOpened {
        previous: end.and_then(previous),
        reset_count: boot.reset_count,
        restart_count: boot.restart_count,
    };
    let node = journal.chain.node().clone();
    let event = Event::new(time, node.clone(), EventKind::JournalOpened).subject(node);
    let salt = journal.salts.draw();
    let sealed = journal
        .chain
        .seal_opening(opened, event, salt)
        .map_err(JournalError::Record)?;
    let segment = match segment::create(&mut journal.store, &header) {
        Err(StorageError::NoSpace) if journal.reserved => {
            // On a full disk a node must still be able to begin, to send, and to record what is taken away.
            journal.store.release_reserve()?;
            journal.reserved = false;
            segment::create(&mut journal.store, &header)?
        }
        other => other?,
    };
    journal.segments.push_back(segment);
    journal.write(&sealed, EventKind::JournalLost)?;
    journal.written(&sealed, true, BootTime::default())?;
    Ok(())
}
