//! Sealed segments: a piece of the log in one file, which proves itself for ever and can be read for as long as the
//! keys of its sites exist.
//!
//! A segment holds whole blocks: a power of two of them from a multiple of that on, which is one complete subtree of the
//! log. Its entries are in the clear (they are salted hashes), the records as they were stored: sealed, each site's
//! apart. So destroying a site's key erases its records here, too, wherever the file went.
//!
//! ```text
//! "edgeward audit segment v1\n"
//! u16 length, origin
//! u64 first leaf, u8 number of blocks (1, 2, 4 … 64)
//! u32 length, checkpoint (the signed note, with cosignatures if there are any)
//! u8 number, hashes from the subtree's sibling to the root's child
//! 32 bytes for each leaf: its entry
//! for each block: i64 earliest, i64 latest (of its events, in milliseconds), u16 number of parts, and
//!     for each part: u64 key of a site, u8 length, places, u32 length, sealed columns, u32 length, sealed bodies
//! 32 bytes: SHA-256 over all of the above
//! ```
//!
//! All numbers are big-endian. [`Segment::verify`] needs the log's public key only; what is under the seals is
//! held to the entries when somebody opens them.

use crate::block::{BLOCK_LEAVES, MAX_BODIES_BYTES, MAX_COLUMNS_BYTES, Places};
use crate::checkpoint::{Checkpoint, CheckpointError, MAX_ORIGIN_BYTES};
use crate::digest::{DIGEST_BYTES, Digest};
use crate::log_proof::LogProof;
use crate::merkle::{self, MAX_PROOF_HASHES, Nodes, ProofError, leaf_hash};
use crate::note::{MAX_NOTE_BYTES, Note, NoteVerifier};
use crate::tiles::subtree_root;

mod form;
#[cfg(test)]
mod tests;

/// Blocks of a segment as the cloud writes them: 16,384 events. Small enough to be held in memory by whoever writes,
/// sends or reads one, large enough that a busy cloud sends about one in two seconds.
pub const SEGMENT_BLOCKS: u8 = 64;
/// How such files are named.
pub const FILE_EXTENSION: &str = "segment";
/// Most parts of a block: each has at least one event.
pub const MAX_PARTS: usize = 256;
/// What sealing may add to columns or bodies.
const MAX_SEAL_BYTES: usize = 64;
/// Longest sealed columns and bodies.
const MAX_SEALED_COLUMNS: usize = MAX_COLUMNS_BYTES + MAX_SEAL_BYTES;
const MAX_SEALED_BODIES: usize = MAX_BODIES_BYTES + MAX_SEAL_BYTES;
/// Longest segment, in bytes: all blocks full of the longest records. One of ordinary events has about two million.
pub const MAX_SEGMENT_BYTES: usize = (SEGMENT_BLOCKS as usize)
    * (MAX_SEALED_COLUMNS + MAX_SEALED_BODIES + MAX_PARTS * 64)
    + MAX_NOTE_BYTES
    + 1024 * 1024;

/// A piece of the log. Nothing of it is verified before [`Segment::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The log's name.
    pub origin: String,
    /// Index of the first leaf.
    pub first: u64,
    /// The signed note of a checkpoint that covers all of it, byte by byte.
    pub checkpoint: String,
    /// From the subtree's sibling to the root's child.
    pub proof: Vec<Digest>,
    /// Hashes of the records, one for each leaf.
    pub entries: Vec<Digest>,
    pub blocks: Vec<SegmentBlock>,
}

/// 256 events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentBlock {
    /// Of the events' own times, in milliseconds.
    pub earliest: i64,
    pub latest: i64,
    /// By the number of their keys.
    pub parts: Vec<SegmentPart>,
}

/// The events of a block that one key sealed, as the cloud stores them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPart {
    pub site_key: u64,
    /// Which of the 256.
    pub places: Places,
    /// Empty: erased before it was sealed.
    pub columns: Vec<u8>,
    /// Empty: erased before they were sealed.
    pub bodies: Vec<u8>,
}

/// What a segment was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub checkpoint: Checkpoint,
    /// The leaves from here on …
    pub first: u64,
    /// … to before this one.
    pub end: u64,
    /// Events whose record is there, sealed.
    pub sealed: u64,
}

/// Why bytes are no segment, or prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    #[error("segment is longer than the limit in bytes: {MAX_SEGMENT_BYTES}")]
    TooLong,
    #[error("not a segment of an audit log")]
    Format,
    #[error("segment is cut, or goes on behind its end")]
    Length,
    #[error("segment is damaged: its sum is another")]
    Sum,
    #[error("segment holds something out of bounds: {0}")]
    Bounds(&'static str),
    #[error("range of the segment is no complete subtree of the log")]
    Range,
    #[error("places of the parts of block {0} are malformed, or given twice")]
    Places(u64),
    #[error("checkpoint is not accepted: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("segment is not in the log of its checkpoint: {0}")]
    NotIncluded(#[from] ProofError),
    #[error("event is not in this segment: {0}")]
    Elsewhere(u64),
}

impl Segment {
    /// Reads a segment. Of one segment there is one form: what is written otherwise is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, SegmentError> {
        form::parse(bytes)
    }

    /// Writes it, if it is within bounds.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SegmentError> {
        form::write(self)
    }

    /// The leaf behind the last one.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.leaves())
    }

    /// Checks that these are the entries of the log `origin` with this key, at this place.
    pub fn verify(&self, origin: &str, log: &NoteVerifier) -> Result<Verified, SegmentError> {
        if self.origin != origin {
            return Err(CheckpointError::OtherLog(self.origin.clone()).into());
        }
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), origin, log)?;
        self.included_in(&checkpoint)?;
        let parts = self.blocks.iter().flat_map(|block| &block.parts);
        let sealed = parts
            .filter(|part| !part.bodies.is_empty())
            .map(|part| part.places.count() as u64)
            .sum();
        Ok(Verified {
            checkpoint,
            first: self.first,
            end: self.end(),
            sealed,
        })
    }

    /// As [`Segment::verify`], but without a look at who signed the checkpoint: for whoever writes segments.
    pub fn proves_itself(&self) -> Result<(), SegmentError> {
        let note = Note::parse(self.checkpoint.as_bytes()).map_err(CheckpointError::from)?;
        let checkpoint = Checkpoint::parse_text(note.unverified_text())?;
        match checkpoint.origin == self.origin {
            true => self.included_in(&checkpoint),
            false => Err(CheckpointError::OtherLog(checkpoint.origin).into()),
        }
    }

    fn included_in(&self, checkpoint: &Checkpoint) -> Result<(), SegmentError> {
        let level = self.level()?;
        if self.end() > checkpoint.size {
            return Err(ProofError::Index {
                index: self.end().saturating_sub(1),
                size: checkpoint.size,
            }
            .into());
        }
        // A complete subtree is a leaf of the tree that begins at its level.
        let root = subtree_root(&self.leaf_hashes()).ok_or(SegmentError::Range)?;
        let above = ((checkpoint.size - 1) >> level) + 1;
        merkle::verify_inclusion(
            &root,
            self.first >> level,
            above,
            &self.proof,
            &checkpoint.root,
        )?;
        Ok(())
    }

    /// The entry of a leaf: the hash of its record.
    pub fn entry(&self, index: u64) -> Result<Digest, SegmentError> {
        let offset = index
            .checked_sub(self.first)
            .and_then(|n| usize::try_from(n).ok());
        let entry = offset.and_then(|offset| self.entries.get(offset));
        entry.copied().ok_or(SegmentError::Elsewhere(index))
    }

    /// The proof that one entry is in the log, under the segment's checkpoint.
    pub fn proof_of(&self, index: u64) -> Result<LogProof, SegmentError> {
        self.entry(index)?;
        let within = merkle::inclusion_proof(
            self.leaf_hashes().as_slice(),
            index - self.first,
            self.leaves(),
        )?;
        Ok(LogProof {
            index,
            hashes: within
                .into_iter()
                .chain(self.proof.iter().copied())
                .collect(),
            checkpoint: self.checkpoint.clone(),
            extra: None,
        })
    }

    /// The proof of a complete subtree of `leaves` leaves from `first` on, out of a tree of `size` leaves.
    pub fn prove<N: Nodes + ?Sized>(
        nodes: &N,
        first: u64,
        leaves: u64,
        size: u64,
    ) -> Result<Vec<Digest>, SegmentError> {
        let level = level_of(first, leaves)?;
        if first.checked_add(leaves).is_none_or(|end| end > size) {
            return Err(ProofError::Index { index: first, size }.into());
        }
        // That of its first leaf; without the part that lies within.
        let whole = merkle::inclusion_proof(nodes, first, size)?;
        Ok(whole.into_iter().skip(usize::from(level)).collect())
    }

    fn leaves(&self) -> u64 {
        self.entries.len() as u64
    }

    fn level(&self) -> Result<u8, SegmentError> {
        level_of(self.first, self.leaves())
    }

    fn leaf_hashes(&self) -> Vec<Digest> {
        let entries = self.entries.iter();
        entries.map(|entry| leaf_hash(entry.as_bytes())).collect()
    }
}

impl SegmentError {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong | Self::Format | Self::Length | Self::Bounds(_) | Self::Places(_) => {
                "segment_malformed"
            }
            Self::Range => "segment_range",
            Self::Sum => "segment_damaged",
            Self::Checkpoint(_) => "segment_checkpoint",
            Self::NotIncluded(_) => "segment_not_included",
            Self::Elsewhere(_) => "segment_elsewhere",
        }
    }
}

/// The level of the node above these leaves, which must be a complete subtree of whole blocks.
fn level_of(first: u64, leaves: u64) -> Result<u8, SegmentError> {
    let most = u64::from(SEGMENT_BLOCKS) * BLOCK_LEAVES;
    let good = leaves.is_power_of_two()
        && (BLOCK_LEAVES..=most).contains(&leaves)
        && first.is_multiple_of(leaves)
        && first.checked_add(leaves).is_some();
    match u8::try_from(leaves.trailing_zeros()) {
        Ok(level) if good => Ok(level),
        _ => Err(SegmentError::Range),
    }
}
