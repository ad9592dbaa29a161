//! The chain of one boot: what comes next, and whether a record is it.

use edgeward_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::event::Event;

use super::{BootId, BootOpened, Record, RecordError, Salt, SealedRecord};

/// A place in the journals of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub boot: BootId,
    pub seq: u64,
}

/// The last record of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub seq: u64,
    pub hash: Digest,
}

/// The end of one boot's chain. Sealing does not move it: store the record first, then [`Chain::advance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    node: SpiffeId,
    boot: BootId,
    head: Option<Head>,
}

/// Why a record does not continue a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("record belongs to another node: {0}")]
    Node(SpiffeId),
    #[error("record belongs to another boot: {0}")]
    Boot(BootId),
    #[error("sequence number is {found} where {expected} is due")]
    Sequence { expected: u64, found: u64 },
    #[error("record {seq} does not name the hash of the record before")]
    Link { seq: u64 },
    #[error("sequence numbers are used up")]
    Exhausted,
}

impl Chain {
    /// A chain without records.
    pub fn new(node: SpiffeId, boot: BootId) -> Self {
        Self {
            node,
            boot,
            head: None,
        }
    }

    /// A chain whose last record is known.
    pub fn resume(node: SpiffeId, boot: BootId, head: Head) -> Self {
        Self {
            node,
            boot,
            head: Some(head),
        }
    }

    /// A chain that starts in the middle: `first` is taken on trust, what follows is checked.
    pub fn starting_at(first: &SealedRecord) -> Self {
        Self::resume(
            first.record().node.clone(),
            first.record().boot,
            first.head(),
        )
    }

    pub fn node(&self) -> &SpiffeId {
        &self.node
    }

    pub fn boot(&self) -> BootId {
        self.boot
    }

    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// The next sequence number; none after `u64::MAX`.
    pub fn next_seq(&self) -> Option<u64> {
        self.head.map_or(Some(0), |head| head.seq.checked_add(1))
    }

    /// The hash that the next record names.
    pub fn next_prev(&self) -> Digest {
        self.head.map_or(Digest::ZERO, |head| head.hash)
    }

    /// Makes the record that would open this chain.
    pub fn seal_opening(
        &self,
        opened: BootOpened,
        event: Event,
        salt: Salt,
    ) -> Result<SealedRecord, RecordError> {
        self.record(Some(opened), event, salt).seal()
    }

    /// Makes the next record. No two records may have one salt.
    pub fn seal(&self, event: Event, salt: Salt) -> Result<SealedRecord, RecordError> {
        self.record(None, event, salt).seal()
    }

    /// Takes a record as the next one, or says why it is not.
    pub fn advance(&mut self, next: &SealedRecord) -> Result<(), ChainError> {
        let record = next.record();
        if record.node != self.node {
            return Err(ChainError::Node(record.node.clone()));
        }
        if record.boot != self.boot {
            return Err(ChainError::Boot(record.boot));
        }
        let expected = self.next_seq().ok_or(ChainError::Exhausted)?;
        if record.seq != expected {
            return Err(ChainError::Sequence {
                expected,
                found: record.seq,
            });
        }
        if record.prev != self.next_prev() {
            return Err(ChainError::Link { seq: record.seq });
        }
        self.head = Some(next.head());
        Ok(())
    }

    fn record(&self, opened: Option<BootOpened>, event: Event, salt: Salt) -> Record {
        Record {
            salt: Some(salt),
            node: self.node.clone(),
            boot: self.boot,
            // A chain of 2^64 records ends in a refusal by `advance`, since this number repeats.
            seq: self.next_seq().unwrap_or(u64::MAX),
            prev: self.next_prev(),
            opened,
            event,
        }
    }
}
