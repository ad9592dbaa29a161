//! A growing tree, kept as the roots of its complete subtrees.

use crate::digest::{DIGEST_BYTES, Digest};

use super::{EMPTY_ROOT, node_hash};

/// The complete subtrees of a tree, largest first: one for each bit of its size. Enough to append and to give the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

/// Stored bytes are no frontier, or the tree is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    #[error("number of subtrees does not fit the tree size {size}: {found}")]
    Peaks { size: u64, found: usize },
    #[error("frontier bytes are truncated or have trailing bytes")]
    Length,
    #[error("tree is full")]
    Full,
}

impl Frontier {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn from_parts(size: u64, peaks: Vec<Digest>) -> Result<Self, FrontierError> {
        if u32::try_from(peaks.len()) == Ok(size.count_ones()) {
            Ok(Self { size, peaks })
        } else {
            Err(FrontierError::Peaks {
                size,
                found: peaks.len(),
            })
        }
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// Appends a leaf hash and returns its index.
    pub fn append(&mut self, leaf: Digest) -> Result<u64, FrontierError> {
        self.append_visiting(leaf, |_, _, _| ())
    }

    /// As [`Frontier::append`]; shows each node that is now complete: its level (0: leaves), index and hash.
    pub fn append_visiting(
        &mut self,
        leaf: Digest,
        mut completed: impl FnMut(u8, u64, Digest),
    ) -> Result<u64, FrontierError> {
        let index = self.size;
        let size = index.checked_add(1).ok_or(FrontierError::Full)?;
        let mut node = leaf;
        let mut at = index;
        let mut level = 0;
        completed(level, at, node);
        while at & 1 == 1 {
            // An odd index has a complete left neighbour, which is the last peak.
            let left = self.peaks.pop().ok_or(FrontierError::Peaks {
                size: index,
                found: 0,
            })?;
            node = node_hash(&left, &node);
            at >>= 1;
            level += 1;
            completed(level, at, node);
        }
        self.peaks.push(node);
        self.size = size;
        Ok(index)
    }

    pub fn root(&self) -> Digest {
        self.peaks
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or(EMPTY_ROOT)
    }

    /// Size (u64, big-endian), then the peaks.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        for peak in &self.peaks {
            bytes.extend_from_slice(peak.as_bytes());
        }
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, FrontierError> {
        let (size, rest) = bytes
            .split_first_chunk::<8>()
            .ok_or(FrontierError::Length)?;
        let (peaks, tail) = rest.as_chunks::<DIGEST_BYTES>();
        if !tail.is_empty() || peaks.len() > 64 {
            return Err(FrontierError::Length);
        }
        Self::from_parts(
            u64::from_be_bytes(*size),
            peaks.iter().copied().map(Digest::from_bytes).collect(),
        )
    }
}
