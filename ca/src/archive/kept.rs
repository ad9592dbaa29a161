//! What is in an archive: where its segments are, and whether they are there.

use edgeward_audit::segment::FILE_EXTENSION;

use super::Fault;
use super::storage::{NotArchived, Target};
use crate::config::retention::Archive;
use crate::store::Store;

/// An archive, as its segments are found there.
#[derive(Debug)]
pub(crate) struct Kept {
    /// As it is configured.
    pub(super) name: String,
    pub(super) target: Target,
    /// Of the log.
    pub(super) origin: String,
    store: Store,
}

impl Kept {
    pub(crate) fn new(archive: &Archive, origin: String, store: Store) -> Self {
        Self {
            name: archive.describe(),
            target: Target::new(archive),
            origin,
            store,
        }
    }

    /// As it is configured.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name of the segment from leaf `first` on, below the name of its log. Names are in the order of the log.
    pub(super) fn name_of(&self, first: u64) -> String {
        format!("{}/{first:016}.{FILE_EXTENSION}", self.origin)
    }

    /// Looks whether the segment is there that was written: a disk may be away, or be another one.
    pub(crate) async fn look_for(&self, first: u64) -> Result<(), Fault> {
        let name = self.name_of(first);
        let written = self.store.segment_bytes(&self.name, first).await?;
        let found = self.target.length_of(&name).await?;
        let why = match (found, written) {
            (Some(found), Some(written)) if found != written => {
                format!("{name} has {found} bytes, and {written} were written")
            }
            (Some(_), _) => return Ok(()),
            (None, _) => format!("{name} is gone, which was written there"),
        };
        Err(NotArchived::Elsewhere(why).into())
    }
}
