//! The director's word, and what the desk of applications wants stored.

use std::sync::Arc;

use edgeward_identity::Clock;

use super::Holder;
use crate::accept;
use crate::apps::floors::AppsOrder;
use crate::state::Blob;

impl Holder {
    /// What applications this node should have. In force at once, whoever acts on it; a word that takes something away
    /// must not be taken back, so it is on disk when this returns, whatever the power does: only the TPM's epoch follows.
    pub fn apps(&mut self, bytes: &[u8]) -> bool {
        let keys = self.publisher.keys.borrow().clone();
        let held = self.publisher.director.borrow().clone();
        let least = held.as_ref().map_or(0, |held| held.number());
        let now = self.keeper.clock.now();
        let word = match accept::director(bytes, &keys, &self.keeper.stored.node, least, now) {
            Ok(word) => word,
            Err(error) => {
                self.refused("director", &error);
                return false;
            }
        };
        if held.as_deref() == Some(&word) {
            return true;
        }
        let takes_away = held.is_some_and(|held| takes_away(held.orders(), word.orders()));
        tracing::info!(
            number = word.number(),
            apps = word.orders().apps.len(),
            "director's word received"
        );
        self.keeper.stored.apps.director = Blob(bytes.to_vec());
        self.keeper.dirty = true;
        self.unsettled |= takes_away;
        self.moved = true;
        self.publisher.director.send_replace(Some(Arc::new(word)));
        if takes_away {
            self.keeper.store_held();
        }
        true
    }

    /// Number of the director's word that is held.
    pub fn director_number(&self) -> u64 {
        let held = self.publisher.director.borrow();
        held.as_ref().map_or(0, |held| held.number())
    }

    /// Serves one order of the desk. Whoever asked may have gone: what was stored stays stored.
    pub async fn ledger(&mut self, order: AppsOrder) {
        match order {
            AppsOrder::Keep { taken, epoch, done } => {
                let before = std::mem::replace(&mut self.keeper.stored.apps.taken, *taken);
                self.keeper.dirty = true;
                let stored = match epoch {
                    true => self.raise().await,
                    false => self.keeper.store_held(),
                };
                if !stored {
                    self.keeper.stored.apps.taken = before;
                }
                let _ = done.send(stored);
            }
            AppsOrder::Settle { done } => {
                let stored = !self.keeper.dirty || self.keeper.store_held();
                let _ = done.send(stored);
            }
            AppsOrder::Word { bytes, done } => {
                let taken = self.apps(&bytes);
                let _ = done.send(taken);
            }
        }
    }
}

/// Whether something that was allowed is not any more.
fn takes_away(
    held: &edgeward_apps::director::Orders,
    word: &edgeward_apps::director::Orders,
) -> bool {
    let gone = held.apps.iter().any(|(app, was)| {
        word.apps
            .get(app)
            .is_none_or(|is| is.digest != was.digest || is.state != was.state)
    });
    gone || !word.denied.is_subset(&held.denied)
}
