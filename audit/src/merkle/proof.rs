//! Inclusion and consistency proofs: RFC 6962, sections 2.1.1 and 2.1.2; checked as RFC 9162, sections 2.1.3.2 and 2.1.4.2.

use crate::digest::Digest;

use super::{EMPTY_ROOT, node_hash};

/// Most hashes in a proof: a tree of 2^64 leaves has 64 levels.
pub const MAX_PROOF_HASHES: usize = 64;

/// Where nodes of complete subtrees are looked up: leaf hashes in memory, tiles, a store.
pub trait Nodes {
    /// The root of the complete subtree with leaves `index * 2^level ..`, if it is known as such.
    fn node(&self, level: u8, index: u64) -> Option<Digest>;
}

/// Why a proof cannot be made, or does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("leaf {index} is not in a tree of size {size}")]
    Index { index: u64, size: u64 },
    #[error("no consistency between sizes {from} and {to}")]
    Sizes { from: u64, to: u64 },
    #[error("node is not known: level {level}, index {index}")]
    Unknown { level: u8, index: u64 },
    #[error("proof has another length than these sizes need: {0}")]
    Length(usize),
    #[error("proof does not lead to the root")]
    Root,
}

/// Leaf hashes in memory.
impl Nodes for [Digest] {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        if level > 0 {
            return None;
        }
        self.get(usize::try_from(index).ok()?).copied()
    }
}

/// The root of the first `size` leaves.
pub fn root<N: Nodes + ?Sized>(nodes: &N, size: u64) -> Result<Digest, ProofError> {
    if size == 0 {
        Ok(EMPTY_ROOT)
    } else {
        subtree(nodes, 0, size)
    }
}

/// The proof that leaf `index` is in the tree of the first `size` leaves (RFC 6962 2.1.1, PATH).
pub fn inclusion_proof<N: Nodes + ?Sized>(
    nodes: &N,
    index: u64,
    size: u64,
) -> Result<Vec<Digest>, ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(subtree(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(subtree(nodes, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `from` leaves is a prefix of that of `to` leaves (RFC 6962 2.1.2, PROOF).
pub fn consistency_proof<N: Nodes + ?Sized>(
    nodes: &N,
    from: u64,
    to: u64,
) -> Result<Vec<Digest>, ProofError> {
    if from == 0 || from > to {
        return Err(ProofError::Sizes { from, to });
    }
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, to);
    while from != end {
        let middle = start + split(end - start);
        if from <= middle {
            proof.push(subtree(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(subtree(nodes, start, middle)?);
            start = middle;
        }
    }
    // Where the old tree is not itself a left subtree, its last complete part begins the proof.
    if start != 0 {
        proof.push(subtree(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the leaf is at `index` of the tree with this size and root.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length(proof.len()));
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length(proof.len()));
    }
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Checks that the tree (`from`, `old_root`) is a prefix of (`to`, `new_root`). Nothing is consistent with size 0 on
/// purpose: that would prove nothing.
pub fn verify_consistency(
    from: u64,
    to: u64,
    proof: &[Digest],
    old_root: &Digest,
    new_root: &Digest,
) -> Result<(), ProofError> {
    if from == 0 || from > to {
        return Err(ProofError::Sizes { from, to });
    }
    if from == to {
        return match (proof.is_empty(), old_root == new_root) {
            (true, true) => Ok(()),
            (true, false) => Err(ProofError::Root),
            (false, _) => Err(ProofError::Length(proof.len())),
        };
    }
    let (mut at, mut last) = (from - 1, to - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let mut rest = proof.iter();
    // An old tree that is one complete subtree is not repeated in the proof.
    let start = if at == 0 {
        *old_root
    } else {
        *rest.next().ok_or(ProofError::Length(0))?
    };
    let (mut old, mut new) = (start, start);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::Length(proof.len()));
        }
        if at & 1 == 1 || at == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length(proof.len()));
    }
    if old == *old_root && new == *new_root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// The root of leaves `start..end`; `start` is a multiple of the smallest power of two not below the length.
fn subtree<N: Nodes + ?Sized>(nodes: &N, start: u64, end: u64) -> Result<Digest, ProofError> {
    let length = end - start;
    if length.is_power_of_two() {
        // A power of two has at most 63 trailing zeros.
        let level = u8::try_from(length.trailing_zeros()).unwrap_or(u8::MAX);
        let index = start >> level;
        match nodes.node(level, index) {
            Some(hash) => return Ok(hash),
            None if level == 0 => return Err(ProofError::Unknown { level, index }),
            None => {}
        }
    }
    let middle = start + split(length);
    Ok(node_hash(
        &subtree(nodes, start, middle)?,
        &subtree(nodes, middle, end)?,
    ))
}

/// The largest power of two below `length` (at least 2).
fn split(length: u64) -> u64 {
    1 << (63 - (length - 1).leading_zeros())
}
