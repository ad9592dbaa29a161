//! What a journal needs of its storage.

use std::fmt;
use std::io;

/// Names a segment: counts up over all boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

/// Append-only files by number. Implementations do not retry and do not reorder.
pub trait SegmentStore {
    /// All segments, in any order.
    fn list(&self) -> Result<Vec<SegmentId>, StorageError>;
    /// Length of a segment in bytes.
    fn len(&self, id: SegmentId) -> Result<u64, StorageError>;
    /// Reads `length` bytes at `offset`, fewer only at the segment's end.
    fn read(&self, id: SegmentId, offset: u64, length: usize) -> Result<Vec<u8>, StorageError>;
    /// Makes an empty segment; one of that name must not exist. On disk after the next [`SegmentStore::sync`] of it.
    fn create(&mut self, id: SegmentId) -> Result<(), StorageError>;
    /// Appends bytes. On an error any part of them may have been appended.
    fn append(&mut self, id: SegmentId, bytes: &[u8]) -> Result<(), StorageError>;
    /// Cuts a segment to `length` bytes.
    fn truncate(&mut self, id: SegmentId, length: u64) -> Result<(), StorageError>;
    /// Returns when the segment, and its name, are on disk.
    fn sync(&mut self, id: SegmentId) -> Result<(), StorageError>;
    /// Removes a segment.
    fn delete(&mut self, id: SegmentId) -> Result<(), StorageError>;
    /// Occupies so many bytes outside of the segments, unless it does already.
    fn reserve(&mut self, bytes: u64) -> Result<(), StorageError>;
    /// Gives the reserved bytes up.
    fn release_reserve(&mut self) -> Result<(), StorageError>;
}

/// Our storage failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("no space left")]
    NoSpace,
    #[error("another process has this journal open")]
    Locked,
    #[error("i/o failed")]
    Io(#[source] io::Error),
}

impl SegmentId {
    #[must_use]
    pub fn next(self) -> Self {
        // 2^64 segments are never written.
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<io::Error> for StorageError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::NoSpace,
            _ => Self::Io(error),
        }
    }
}
