//! Merkle trees of RFC 6962, section 2.1 (SHA-256): the log's root, inclusion and consistency proofs.
//!
//! What is made here is for trees whose nodes the caller can look up ([`Nodes`]); what is checked here needs nothing but
//! the proof. [`Frontier`] grows a tree in O(log n) memory.

use crate::digest::Digest;

mod frontier;
mod proof;

#[cfg(test)]
mod tests;

pub use frontier::{Frontier, FrontierError};
pub use proof::{
    MAX_PROOF_HASHES, Nodes, ProofError, consistency_proof, inclusion_proof, root,
    verify_consistency, verify_inclusion,
};

/// The root of the empty tree: SHA-256 of nothing.
pub const EMPTY_ROOT: Digest = Digest::from_bytes([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Hash of a leaf: SHA-256 of a zero byte and the entry. The entry of an audit record is its hash.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    Digest::of(&[&[0], entry])
}

/// Hash of an inner node: SHA-256 of a one byte and both children.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest::of(&[&[1], left.as_bytes(), right.as_bytes()])
}
