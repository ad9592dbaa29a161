//! The log for those who consume it: exports, alerts, whoever follows.
//!
//! Only what a checkpoint covers comes out, in the log's order, so that nobody acts on an event that the log could still
//! deny. A consumer keeps its own position (the index of the last event it is done with) and asks for what follows: at
//! least once, never with a gap.

use edgeward_audit::query::{Filter, MAX_LIMIT};
use tokio::sync::watch;

use crate::store::audit::{MAX_PAGE_BYTES, PageLimits, StoredEvent};
use crate::store::{Store, StoreError};

/// Reads covered events in the log's order.
#[derive(Clone, Debug)]
pub struct Feed {
    store: Store,
    covered: watch::Receiver<u64>,
}

impl Feed {
    pub(super) fn new(store: Store, covered: watch::Receiver<u64>) -> Self {
        Self { store, covered }
    }

    /// Number of covered events: the position of the newest plus one.
    pub fn covered(&self) -> u64 {
        *self.covered.borrow()
    }

    /// The next events after position `after` (none: from the first), at most `limit` and about
    /// [`MAX_PAGE_BYTES`]. Waits until there is one; what was erased is passed over. Safe to cancel.
    pub async fn next(
        &mut self,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let limits = PageLimits {
            events: usize::try_from(limit.clamp(1, MAX_LIMIT)).unwrap_or(1),
            bytes: MAX_PAGE_BYTES,
            examined: usize::MAX,
        };
        let mut looked = after;
        loop {
            let first = looked.map_or(0, |index| index.saturating_add(1));
            // The guard of the number may not be held over a wait.
            let covered = self.covered.wait_for(|covered| *covered > first).await;
            let covered = match covered.map(|covered| *covered) {
                Ok(covered) => covered,
                // The cloud is ending: nothing more is ever covered.
                Err(_) => std::future::pending().await,
            };
            let page = self.store.find(&Filter::default(), looked, limits).await?;
            let mut events = page.events;
            events.retain(|event| event.index < covered);
            if !events.is_empty() {
                return Ok(events);
            }
            // All that is covered here was erased.
            looked = page
                .reached
                .map(|reached| reached.min(covered - 1))
                .max(looked);
        }
    }
}
