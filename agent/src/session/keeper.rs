//! Keeps the state files in step with what is in force.

use std::sync::Arc;

use edgeward_identity::Clock;

use crate::boot::Boot;
use crate::clock::NodeClock;
use crate::journal::Marked;
use crate::root::Root;
use crate::state::{Recent, StateError, StateFolder, Stored};

/// The stored state, as it is to be written next.
pub struct Keeper {
    pub folder: StateFolder,
    pub root: Arc<dyn Root>,
    pub boot: Arc<Boot>,
    pub clock: Arc<NodeClock>,
    pub stored: Stored,
    pub recent: Recent,
    /// The newest record that the journal has on disk.
    pub marked: Marked,
    /// `stored` has changed since it was written.
    pub dirty: bool,
}

impl Keeper {
    /// Something was taken away or newly allowed: the state before this must not come back. Whether it is stored so.
    pub async fn store_new_epoch(&mut self) -> bool {
        self.stamp();
        let written = self
            .folder
            .write_new_epoch(self.root.as_ref(), &self.stored, &self.recent)
            .await;
        let stored = self.told(written);
        if stored {
            self.dirty = false;
        }
        stored
    }

    /// Writes what has changed; always the floor.
    pub fn store(&mut self) {
        if self.dirty {
            self.store_held();
        }
        self.store_recent();
    }

    /// Writes the large file, within the present epoch. Whether it is stored.
    pub fn store_held(&mut self) -> bool {
        let written = tokio::task::block_in_place(|| self.folder.write_held(&self.stored));
        let stored = self.told(written);
        if stored {
            self.dirty = false;
        }
        stored
    }

    /// Writes the small file.
    pub fn store_recent(&mut self) {
        self.stamp();
        let written = tokio::task::block_in_place(|| self.folder.write_recent(&self.recent));
        let _ = self.told(written);
    }

    fn stamp(&mut self) {
        self.recent.stamp(
            self.clock.floor(),
            self.boot.kernel(),
            self.clock.boottime(),
        );
        if let Some(mark) = self.marked.get() {
            self.recent.journal = Some(mark);
        }
    }

    /// A state that cannot be written loses nothing that is in force; after a restart less is held.
    fn told(&mut self, written: Result<(), StateError>) -> bool {
        if let Err(error) = &written {
            self.dirty = true;
            metrics::counter!("edgeward_state_write_failures_total").increment(1);
            tracing::error!(%error, "the state cannot be stored");
        }
        written.is_ok()
    }
}
