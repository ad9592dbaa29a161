//! Where segments go. What is put there is read back and compared before it counts as archived: what is pruned later
//! exists nowhere else.

use bytes::Bytes;

use crate::config::retention::Archive;

mod folder;
mod s3;
#[cfg(test)]
mod tests;

use folder::Folder;
use s3::Storage;

/// An archive.
#[derive(Debug)]
pub(super) enum Target {
    Folder(Folder),
    S3(Box<Storage>),
}

/// A segment is not in the archive. All are tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotArchived {
    /// The operator's: credentials, or who they are for.
    #[error("refused: {0}")]
    Refused(String),
    /// The disk's, the receiver's, or the way's.
    #[error("{0}")]
    Down(String),
    /// The receiver's: it says that it took the segment, and gives back another.
    #[error("{0}: what was read back is not what was written")]
    Changed(String),
    /// The operator's: this is not where the segments before went.
    #[error("{0}: the disk is not mounted, or this is other storage")]
    Elsewhere(String),
}

impl Target {
    pub(super) fn new(archive: &Archive) -> Self {
        match archive {
            Archive::Folder(path) => Self::Folder(Folder::new(path.clone())),
            Archive::S3(s3) => Self::S3(Box::new(Storage::new(s3.as_ref().clone()))),
        }
    }

    /// Puts a segment there under its name (parts with slashes between), over one that an interrupted try left, and
    /// reads it back.
    pub(super) async fn put(&self, name: &str, segment: Bytes) -> Result<(), NotArchived> {
        match self {
            Self::Folder(folder) => folder.put(name, segment).await,
            Self::S3(storage) => storage.put(name, segment).await,
        }
    }

    /// How long what is there under a name is, in bytes; none if nothing is.
    pub(super) async fn length_of(&self, name: &str) -> Result<Option<u64>, NotArchived> {
        match self {
            Self::Folder(folder) => folder.length_of(name).await,
            Self::S3(storage) => storage.length_of(name).await,
        }
    }
}
