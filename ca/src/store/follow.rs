//! Who waits for new audit events is woken after the commit that appended them.

use std::sync::Arc;

use tokio::sync::watch;

/// One per process; wakes every follower after a commit that appended events.
#[derive(Clone, Debug)]
pub(super) struct Committed(Arc<watch::Sender<u64>>);

impl Default for Committed {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Committed {
    pub(super) fn wake(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
