//! Tiles as the nodes of a tree: which of them a proof needs, and the proof from them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::digest::Digest;
use crate::merkle::{
    EMPTY_ROOT, Nodes, ProofError, consistency_proof, inclusion_proof, node_hash, root,
};

use super::{MAX_TILE_LEVEL, TILE_HEIGHT, TILE_WIDTH};

/// Names a hash tile of whatever width: its level and its index.
pub type TileAt = (u8, u64);

/// Hash tiles in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TileNodes {
    tiles: BTreeMap<TileAt, Vec<Digest>>,
}

impl TileNodes {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn insert(&mut self, at: TileAt, hashes: Vec<Digest>) {
        self.tiles.insert(at, hashes);
    }

    pub fn get(&self, at: TileAt) -> Option<&[Digest]> {
        self.tiles.get(&at).map(Vec::as_slice)
    }

    pub(super) fn entry(&mut self, at: TileAt) -> &mut Vec<Digest> {
        self.tiles.entry(at).or_default()
    }

    pub(super) fn retain(&mut self, keep: impl Fn(TileAt) -> bool) {
        self.tiles.retain(|at, _| keep(*at));
    }
}

impl Nodes for TileNodes {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        let (at, range) = place_of(level, index)?;
        subtree_root(self.get(at)?.get(range)?)
    }
}

/// The tiles from which the root of a tree of `size` leaves is derived without reading its leaves: its right edge.
pub fn tiles_of_root(size: u64) -> BTreeSet<TileAt> {
    wanted(|nodes| root(nodes, size).map(drop)).unwrap_or_default()
}

/// The tiles that [`inclusion_proof`] needs for this leaf of a tree of this size.
pub fn tiles_of_inclusion(index: u64, size: u64) -> Result<BTreeSet<TileAt>, ProofError> {
    wanted(|nodes| inclusion_proof(nodes, index, size).map(drop))
}

/// The tiles that [`consistency_proof`] needs between these sizes.
pub fn tiles_of_consistency(from: u64, to: u64) -> Result<BTreeSet<TileAt>, ProofError> {
    wanted(|nodes| consistency_proof(nodes, from, to).map(drop))
}

/// The root of a perfect subtree with these nodes at its bottom; none unless their number is a power of two.
pub fn subtree_root(hashes: &[Digest]) -> Option<Digest> {
    if !hashes.len().is_power_of_two() {
        return None;
    }
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| node_hash(left, right))
            .collect();
    }
    row.first().copied()
}

/// Where a node of the tree (level 0: leaves) is found: the tile, and which of its hashes lie under the node.
fn place_of(level: u8, index: u64) -> Option<(TileAt, Range<usize>)> {
    let row = level / TILE_HEIGHT;
    if row > MAX_TILE_LEVEL {
        return None;
    }
    let count = 1_u64 << (level % TILE_HEIGHT);
    let first = index.checked_mul(count)?;
    let width = u64::from(TILE_WIDTH);
    let start = usize::try_from(first % width).ok()?;
    let end = start.checked_add(usize::try_from(count).ok()?)?;
    Some(((row, first / width), start..end))
}

/// Notes which tiles are asked for; the hashes that it answers with mean nothing.
#[derive(Default)]
struct Wanted(RefCell<BTreeSet<TileAt>>);

impl Nodes for Wanted {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        let (at, _) = place_of(level, index)?;
        self.0.borrow_mut().insert(at);
        Some(EMPTY_ROOT)
    }
}

fn wanted(
    prove: impl FnOnce(&Wanted) -> Result<(), ProofError>,
) -> Result<BTreeSet<TileAt>, ProofError> {
    let nodes = Wanted::default();
    prove(&nodes)?;
    Ok(nodes.0.into_inner())
}
