//! Blocks: 256 consecutive leaves as a store keeps them, small, searchable and erasable.
//!
//! * [`Places`]: which of the 256.
//! * [`Term`]: a value that filters ask for, as a keyed hash: an index of terms tells nothing to whoever lacks the key.
//! * [`PartWriter`]: makes the two halves of a *part*, the events of a block that one key seals. [`Columns`] is what
//!   filters and charts ask, [`Bodies`] the records' own bytes. Each is one compressed text, to be sealed by the store.
//!
//! A body comes back exactly as it went in; its hash says so to whoever holds the leaf. What is read here was written
//! by this crate and sealed by the store, and is read as strictly as if a stranger had sent it.

mod bodies;
mod bytes;
mod columns;
mod form;
mod places;
mod squeeze;
mod terms;
mod writer;

#[cfg(test)]
mod tests;

pub use bodies::Bodies;
pub use columns::{Columns, Row};
pub use places::Places;
pub use terms::{BlockTerms, Term, TermKey, terms_of, terms_wanted};
pub use writer::{EncodedPart, PartWriter};

use crate::record::MAX_RECORD_BYTES;

/// Leaves of one block: those of one C2SP entry bundle.
pub const BLOCK_LEAVES: u64 = 256;
/// The same, as the most events of a part.
pub const MAX_PART_EVENTS: usize = 256;
/// Most bytes of the records of a part, before compression.
pub const MAX_BODIES_BYTES: usize = MAX_PART_EVENTS * MAX_RECORD_BYTES;
/// Most bytes of the columns of a part, before compression: five names of each event, and its numbers.
pub const MAX_COLUMNS_BYTES: usize = 2 * 1024 * 1024;

/// Why bytes are no part of a block, or a part cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("part is of another format: {0}")]
    Format(u8),
    #[error("part ends early")]
    Short,
    #[error("bytes follow the part: {0}")]
    Trailing(usize),
    #[error("part is larger than the limit in bytes: {0}")]
    TooLarge(usize),
    #[error("a number is out of its range")]
    Range,
    #[error("a name is not utf-8")]
    Utf8,
    #[error("a name is none that this version writes")]
    Name,
    #[error("places are not ascending, or not in their one encoding")]
    Places,
    #[error("compressed bytes cannot be read")]
    Decompress(#[source] std::io::Error),
    #[error("compression failed")]
    Compress(#[source] std::io::Error),
}
