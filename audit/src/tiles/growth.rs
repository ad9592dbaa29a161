//! A tree that grows, kept as tiles.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::merkle::{ProofError, consistency_proof, root};

use super::nodes::{TileAt, TileNodes, subtree_root};
use super::{Row, TILE_HEIGHT, TILE_WIDTH, Tile, TileError};

/// The right edge of a tree in tiles, and what was appended to it since.
#[derive(Clone, Debug)]
pub struct Growth {
    size: u64,
    tiles: TileNodes,
    changed: BTreeSet<TileAt>,
}

/// The tiles are not those of this tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrowthError {
    #[error("tile {index} of level {level} has another width than this size needs: {found}")]
    Width { level: u8, index: u64, found: usize },
    #[error(transparent)]
    Tile(#[from] TileError),
    #[error("tree is full")]
    Full,
}

/// The partial tiles of a tree of `size` leaves: all that growing it needs.
pub fn edge_of(size: u64) -> Vec<Tile> {
    (0..=u8::MAX)
        .map_while(|level| {
            let nodes = nodes_at(level, size);
            (nodes > 0).then_some((level, nodes))
        })
        .filter(|(_, nodes)| !nodes.is_multiple_of(u64::from(TILE_WIDTH)))
        .filter_map(|(level, nodes)| {
            Tile::in_tree(Row::Level(level), nodes / u64::from(TILE_WIDTH), size)
        })
        .collect()
}

impl Growth {
    /// `tiles` holds those of [`edge_of`] this size, exactly.
    pub fn new(size: u64, tiles: TileNodes) -> Result<Self, GrowthError> {
        for tile in edge_of(size) {
            let Row::Level(level) = tile.row() else {
                continue;
            };
            let found = tiles.get((level, tile.index())).map_or(0, <[_]>::len);
            if found != usize::from(tile.width()) {
                let index = tile.index();
                return Err(GrowthError::Width {
                    level,
                    index,
                    found,
                });
            }
        }
        Ok(Self {
            size,
            tiles,
            changed: BTreeSet::new(),
        })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn append(&mut self, leaf: Digest) -> Result<(), GrowthError> {
        let size = self.size.checked_add(1).ok_or(GrowthError::Full)?;
        let width = u64::from(TILE_WIDTH);
        let (mut level, mut index, mut hash) = (0, self.size, leaf);
        loop {
            let at = (level, index / width);
            let tile = self.tiles.entry(at);
            tile.push(hash);
            let found = tile.len();
            self.changed.insert(at);
            if found < usize::from(TILE_WIDTH) {
                break;
            }
            // A full tile is one hash of the level above.
            hash = subtree_root(tile).ok_or(GrowthError::Width {
                level,
                index: at.1,
                found,
            })?;
            (level, index) = (level + 1, at.1);
        }
        self.size = size;
        Ok(())
    }

    pub fn root(&self) -> Result<Digest, ProofError> {
        root(&self.tiles, self.size)
    }

    /// The proof that the tree of `from` leaves, from which this one grew, is a prefix of it.
    pub fn consistency(&self, from: u64) -> Result<Vec<Digest>, ProofError> {
        consistency_proof(&self.tiles, from, self.size)
    }

    /// Tiles that are new or wider than before, in their order.
    pub fn changed(&self) -> impl Iterator<Item = (TileAt, &[Digest])> {
        self.changed
            .iter()
            .filter_map(|at| Some((*at, self.tiles.get(*at)?)))
    }

    /// What changed is stored: only the edge is kept.
    pub fn settle(&mut self) {
        self.changed.clear();
        let size = self.size;
        self.tiles.retain(|(level, index)| {
            let nodes = nodes_at(level, size);
            !nodes.is_multiple_of(u64::from(TILE_WIDTH)) && index == nodes / u64::from(TILE_WIDTH)
        });
    }
}

/// Complete nodes of a tree at a tile level.
fn nodes_at(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT))
        .unwrap_or(0)
}
