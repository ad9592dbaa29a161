//! Who waits for new audit events is woken after the commit that appended them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

/// One per process; wakes every follower after a commit that appended events.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    appended: Arc<watch::Sender<u64>>,
    covered: Arc<watch::Sender<u64>>,
    /// Events of the log, as far as this process appended them.
    stored: Arc<AtomicU64>,
    /// In tests without a tree: what is stored counts as covered.
    at_once: Arc<AtomicBool>,
}

impl Default for Committed {
    fn default() -> Self {
        Self {
            appended: Arc::new(watch::Sender::new(0)),
            covered: Arc::new(watch::Sender::new(0)),
            stored: Arc::default(),
            at_once: Arc::new(AtomicBool::new(false)),
        }
    }
}

impl Committed {
    /// The log holds `size` events now.
    pub(super) fn wake(&self, size: u64) {
        self.stored.fetch_max(size, Ordering::Relaxed);
        self.appended
            .send_modify(|count| *count = count.wrapping_add(1));
        if self.at_once.load(Ordering::Relaxed) {
            self.cover(size);
        }
    }

    /// A checkpoint covers the first `size` events. What is covered stays so.
    pub(super) fn cover(&self, size: u64) {
        self.covered.send_if_modified(|covered| {
            let is_more = size > *covered;
            *covered = size.max(*covered);
            is_more
        });
    }

    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(super) fn cover_at_once(&self, at_once: bool) {
        self.at_once.store(at_once, Ordering::Relaxed);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    pub(super) fn covered(&self) -> watch::Receiver<u64> {
        self.covered.subscribe()
    }
}
