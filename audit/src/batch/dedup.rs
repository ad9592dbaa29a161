//! Exactly once in effect: what of a batch is new, given what is stored.

use crate::digest::Digest;
use crate::record::{BootId, BootOpened, ChainError, Head, SealedRecord};

use super::VerifiedBatch;

/// What to store of a batch, and what to acknowledge after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The records to store, in order; empty if all are known.
    pub new: &'a [SealedRecord],
    /// How many records were known already.
    pub duplicates: usize,
    /// The head after storing: acknowledge everything up to it.
    pub head: Head,
}

/// Why a batch is not stored. A gap is repaired by sending from `expected`; an equivocation is an alarm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DedupError {
    #[error("records {expected} to {} are missing", first.saturating_sub(1))]
    Gap { expected: u64, first: u64 },
    #[error("record {seq} differs from the stored one")]
    Equivocation {
        seq: u64,
        stored: Digest,
        given: Digest,
    },
    #[error("batch does not fit the stored chain")]
    Chain(#[source] ChainError),
}

/// How the opening of a boot fits what is stored of the boot it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// The node says that it kept no journal before.
    First,
    /// The boot before is stored whole.
    Complete,
    /// The boot before ends later than what is stored: these records are still to come, or lost.
    Missing { boot: BootId, from: u64, to: u64 },
    /// More is stored of the boot before than the node says there was: its journal was rolled back.
    RolledBack {
        boot: BootId,
        stored: u64,
        stated: u64,
    },
    /// The boot before ended in another record than the stored one: a cloned or edited journal.
    Forked { boot: BootId, seq: u64 },
}

/// Compares a batch with what is stored of its (node, boot): the last record's `head`, and by `hash_at` the hash
/// of a stored record at or below it (none if its body was pruned).
pub fn accept(
    batch: &VerifiedBatch,
    head: Option<Head>,
    hash_at: impl FnOnce(u64) -> Option<Digest>,
) -> Result<Accepted<'_>, DedupError> {
    let records = batch.records();
    let first = batch.first_seq();
    let last = batch.head();
    let Some(stored) = head else {
        return match first {
            0 => Ok(Accepted {
                new: records,
                duplicates: 0,
                head: last,
            }),
            _ => Err(DedupError::Gap { expected: 0, first }),
        };
    };
    let next = stored
        .seq
        .checked_add(1)
        .ok_or(DedupError::Chain(ChainError::Exhausted))?;
    if first > next {
        return Err(DedupError::Gap {
            expected: next,
            first,
        });
    }
    if last.seq < stored.seq {
        // All known. One hash tells, since it covers all records before it.
        return match hash_at(last.seq) {
            Some(known) => same(last.seq, known, last.hash).map(|()| Accepted {
                new: &[],
                duplicates: records.len(),
                head: stored,
            }),
            None => Ok(Accepted {
                new: &[],
                duplicates: records.len(),
                head: stored,
            }),
        };
    }
    let known = records.partition_point(|record| record.record().seq < next);
    let (old, new) = records.split_at(known);
    match (old.last(), new.first()) {
        // The batch overlaps: its record at the stored head must be the stored one.
        (Some(overlap), _) => same(stored.seq, stored.hash, overlap.hash())?,
        // It begins right after: it names the hash that it thinks is stored.
        (None, Some(next)) => same(stored.seq, stored.hash, next.record().prev)?,
        (None, None) => return Err(DedupError::Chain(ChainError::Exhausted)),
    }
    Ok(Accepted {
        new,
        duplicates: old.len(),
        head: last,
    })
}

/// Compares what a boot's first record says of the boot before with what is stored: `head` is the last stored record of
/// that boot, `hash_at` gives the hash of a stored record of it.
pub fn continuity(
    opened: &BootOpened,
    head: Option<Head>,
    hash_at: impl FnOnce(u64) -> Option<Digest>,
) -> Continuity {
    let Some(previous) = opened.previous else {
        return Continuity::First;
    };
    let boot = previous.boot;
    let Some(stored) = head else {
        return Continuity::Missing {
            boot,
            from: 0,
            to: previous.last_seq,
        };
    };
    let known = if stored.seq == previous.last_seq {
        Some(stored.hash)
    } else {
        hash_at(previous.last_seq)
    };
    match known {
        Some(known) if known != previous.head => Continuity::Forked {
            boot,
            seq: previous.last_seq,
        },
        Some(_) | None if stored.seq > previous.last_seq => Continuity::RolledBack {
            boot,
            stored: stored.seq,
            stated: previous.last_seq,
        },
        Some(_) | None if stored.seq < previous.last_seq => Continuity::Missing {
            boot,
            from: stored.seq + 1,
            to: previous.last_seq,
        },
        Some(_) | None => Continuity::Complete,
    }
}

impl DedupError {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "audit_gap",
            Self::Equivocation { .. } => "audit_equivocation",
            Self::Chain(_) => "audit_batch_chain",
        }
    }
}

fn same(seq: u64, stored: Digest, given: Digest) -> Result<(), DedupError> {
    if stored == given {
        Ok(())
    } else {
        Err(DedupError::Equivocation { seq, stored, given })
    }
}
