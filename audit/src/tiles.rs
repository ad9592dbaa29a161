//! Tiles (C2SP tlog-tiles): paths of hash tiles and entry bundles, and their bytes.

use std::fmt;
use std::str::FromStr;

use crate::digest::{DIGEST_BYTES, Digest};

mod growth;
mod nodes;

pub use growth::{Growth, GrowthError, edge_of};
pub use nodes::{
    TileAt, TileNodes, subtree_root, tiles_of_consistency, tiles_of_inclusion, tiles_of_root,
};

/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Levels of the tree that one tile spans.
pub const TILE_HEIGHT: u8 = 8;
/// Highest tile level.
pub const MAX_TILE_LEVEL: u8 = 63;
/// Longest entry, in bytes.
pub const MAX_ENTRY_BYTES: usize = u16::MAX as usize;
/// Longest path of a tile, in bytes.
pub const MAX_TILE_PATH_BYTES: usize = 128;

/// Names a tile: `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    row: Row,
    index: u64,
    width: u16,
}

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Row {
    /// Entries, as a bundle.
    Entries,
    /// Hashes of the tree's level 8 × this.
    Level(u8),
}

/// Why a path or the bytes are no tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    #[error("not a tile path")]
    Path,
    #[error("tile width is not within 1 and 256, or level above 63")]
    Range,
    #[error("tile has another length than its width needs: {0}")]
    Length(usize),
    #[error("entry is longer than 65535 bytes")]
    EntryTooLong,
}

impl Tile {
    pub fn new(row: Row, index: u64, width: u16) -> Result<Self, TileError> {
        let level_fits = match row {
            Row::Entries => true,
            Row::Level(level) => level <= MAX_TILE_LEVEL,
        };
        if level_fits && (1..=TILE_WIDTH).contains(&width) {
            Ok(Self { row, index, width })
        } else {
            Err(TileError::Range)
        }
    }

    pub fn row(&self) -> Row {
        self.row
    }

    pub fn index(&self) -> u64 {
        self.index
    }

    /// Hashes or entries in it, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The tile of this row and index in a tree of `size` leaves; none if the tree does not reach it.
    pub fn in_tree(row: Row, index: u64, size: u64) -> Option<Self> {
        let level = match row {
            Row::Entries => 0,
            Row::Level(level) => level,
        };
        let nodes = size
            .checked_shr(u32::from(level) * u32::from(TILE_HEIGHT))
            .unwrap_or(0);
        let before = index.checked_mul(u64::from(TILE_WIDTH))?;
        let width = nodes.saturating_sub(before).min(u64::from(TILE_WIDTH));
        Self::new(row, index, u16::try_from(width).ok()?).ok()
    }

    /// Reads the hashes of a hash tile.
    pub fn parse_hashes(&self, bytes: &[u8]) -> Result<Vec<Digest>, TileError> {
        let (hashes, rest) = bytes.as_chunks::<DIGEST_BYTES>();
        if !rest.is_empty() || hashes.len() != usize::from(self.width) {
            return Err(TileError::Length(bytes.len()));
        }
        Ok(hashes.iter().copied().map(Digest::from_bytes).collect())
    }

    /// Reads the entries of a bundle: each a length (u16, big-endian) and its bytes.
    pub fn parse_entries<'a>(&self, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, TileError> {
        let mut entries = Vec::with_capacity(usize::from(self.width));
        let mut rest = bytes;
        for _ in 0..self.width {
            let (length, tail) = rest
                .split_first_chunk::<2>()
                .ok_or(TileError::Length(bytes.len()))?;
            let (entry, tail) = tail
                .split_at_checked(usize::from(u16::from_be_bytes(*length)))
                .ok_or(TileError::Length(bytes.len()))?;
            entries.push(entry);
            rest = tail;
        }
        if rest.is_empty() {
            Ok(entries)
        } else {
            Err(TileError::Length(bytes.len()))
        }
    }
}

/// Appends an entry to the bytes of a bundle.
pub fn put_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TileError> {
    let length = u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLong)?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Row::Entries => f.write_str("tile/entries/")?,
            Row::Level(level) => write!(f, "tile/{level}/")?,
        }
        // Groups of three digits, all but the last behind an x: 1234067 is x001/x234/067.
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        f.write_str(&groups.join("/"))?;
        if self.is_full() {
            Ok(())
        } else {
            write!(f, ".p/{}", self.width)
        }
    }
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        if path.len() > MAX_TILE_PATH_BYTES {
            return Err(TileError::Path);
        }
        let rest = path.strip_prefix("tile/").ok_or(TileError::Path)?;
        let (row, rest) = rest.split_once('/').ok_or(TileError::Path)?;
        let row = match row {
            "entries" => Row::Entries,
            level => Row::Level(level.parse().map_err(|_| TileError::Path)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().map_err(|_| TileError::Path)?),
            None => (rest, TILE_WIDTH),
        };
        let digits: String = index
            .split('/')
            .map(|group| group.strip_prefix('x').unwrap_or(group))
            .collect();
        let index = digits.parse().map_err(|_| TileError::Path)?;
        let tile = Self::new(row, index, width)?;
        // Only the one spelling counts.
        if tile.to_string() == path {
            Ok(tile)
        } else {
            Err(TileError::Path)
        }
    }
}

#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod tests;
