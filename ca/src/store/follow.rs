//! Who waits for new audit events is woken after the commit that appended them.

use std::sync::Arc;

use tokio::sync::watch;

/// One per process; wakes every follower after a commit that appended events.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    appended: Arc<watch::Sender<u64>>,
    covered: Arc<watch::Sender<u64>>,
}

impl Default for Committed {
    fn default() -> Self {
        Self {
            appended: Arc::new(watch::Sender::new(0)),
            covered: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Committed {
    /// The log holds `size` events now.
    pub(super) fn wake(&self, size: u64) {
        self.appended
            .send_modify(|count| *count = count.wrapping_add(1));
        // No checkpoint is made yet: what is stored counts as covered.
        self.covered.send_replace(size);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    pub(super) fn covered(&self) -> watch::Receiver<u64> {
        self.covered.subscribe()
    }
}
