//! Roots, keys and deny-list.
//!
//! Roots and key set change together or not at all: a node that held roots under which its own key set does not verify
//! could not start again without the cloud.

use std::sync::Arc;

use edgeward_audit::EventKind;
use edgeward_identity::{Clock, KeySet, TrustBundle, TrustView};
use edgeward_wire::v1;

use super::Holder;
use crate::accept::{self, NotAccepted};
use crate::state::Blob;

/// A set of roots that may be put into force.
struct NewRoots {
    bundle: TrustBundle,
    keys: KeySet,
    key_set: Blob,
}

impl Holder {
    /// Roots, keys and deny-list; each as far as it is acceptable.
    pub async fn trust(&mut self, update: v1::TrustUpdate) {
        let now = self.keeper.clock.now();
        let mut view = TrustView::clone(&self.publisher.trust.load());
        let mut changed = self.roots(&update, &mut view).await;
        if !update.key_set.is_empty() {
            let held = self.publisher.keys.borrow().number();
            match accept::key_set(&update.key_set, &view.bundle, held, now) {
                Ok(keys) => {
                    changed |= keys.number() > held;
                    self.keeper.stored.key_set = update.key_set.into();
                    self.publisher.keys.send_replace(Arc::new(keys));
                }
                Err(error) => self.refused("key set", &error),
            }
        }
        if !update.deny_list.is_empty() {
            let keys = self.publisher.keys.borrow().clone();
            let held = view.deny.number();
            let domain = view.bundle.trust_domain().clone();
            match accept::deny_list(&update.deny_list, &keys, &domain, held, now) {
                Ok(deny) => {
                    changed |= deny.number() > held;
                    view.deny = deny;
                    self.keeper.stored.deny_list = update.deny_list.into();
                }
                Err(error) => self.refused("deny-list", &error),
            }
        }
        self.keeper.dirty = true;
        if !changed {
            return;
        }
        let number = view.deny.number();
        let raised = number > self.publisher.trust.load().deny.number();
        self.publisher.set_trust(view);
        if raised {
            let event = self
                .event(EventKind::DenyListRaised)
                .detail("number", number);
            self.recorder.record_after(event);
        }
        self.unsettled = true;
    }

    /// Sequence of the trust bundle in force.
    pub fn bundle_sequence(&self) -> u64 {
        self.publisher.trust.load().bundle.sequence()
    }

    /// The sequence to say to the cloud, which counts on it from then on: what is said is stored.
    pub fn say_bundle_sequence(&mut self) -> u64 {
        self.told = self.bundle_sequence();
        self.told
    }

    /// Whether the cloud does not know yet which trust bundle this node holds.
    pub fn has_untold_roots(&self) -> bool {
        self.told != self.bundle_sequence()
    }

    /// Puts signed roots into force; a root is recorded before it counts. Returns whether anything changed.
    async fn roots(&mut self, update: &v1::TrustUpdate, view: &mut TrustView) -> bool {
        let new = match self.accept_roots(update, &view.bundle) {
            Ok(Some(new)) => new,
            Ok(None) => return false,
            Err(error) => {
                self.refused("roots", &error);
                return false;
            }
        };
        let held = view.bundle.roots();
        let added = new.bundle.roots().iter().any(|root| !held.contains(root));
        let event = self
            .event(EventKind::RootsChanged)
            .allowed()
            .detail("sequence", new.bundle.sequence())
            .detail("roots", names(&new.bundle));
        match added {
            true => {
                if let Err(error) = self.recorder.record(event).await {
                    tracing::error!(%error, "new roots are not put into force: they could not be recorded");
                    return false;
                }
            }
            false => self.recorder.record_after(event),
        }
        tracing::info!(
            sequence = new.bundle.sequence(),
            roots = names(&new.bundle),
            "roots changed"
        );
        self.keeper.stored.trust_bundle = Blob(new.bundle.to_spiffe_json());
        self.keeper.stored.key_set = new.key_set;
        self.publisher.keys.send_replace(Arc::new(new.keys));
        view.bundle = new.bundle;
        true
    }

    fn accept_roots(
        &self,
        update: &v1::TrustUpdate,
        held: &TrustBundle,
    ) -> Result<Option<NewRoots>, NotAccepted> {
        let now = self.keeper.clock.now();
        let bundle = accept::authorities(&update.authorities, held, now)?;
        if !update.trust_bundle.is_empty() {
            accept::bundle(&update.trust_bundle, &bundle)?;
        }
        if bundle == *held {
            return Ok(None);
        }
        let number = self.publisher.keys.borrow().number();
        let known = &self.keeper.stored.key_set;
        // The one that is held counts as of its issue: an expired one is no reason to stay with old roots.
        let sets = [(&update.key_set, now), (&known.0, known.issued().min(now))];
        let (keys, bytes) = sets
            .into_iter()
            .find_map(|(bytes, at)| {
                let keys = accept::key_set(bytes, &bundle, number, at).ok()?;
                Some((keys, bytes.clone()))
            })
            .ok_or(NotAccepted::Stranded)?;
        Ok(Some(NewRoots {
            bundle,
            keys,
            key_set: Blob(bytes),
        }))
    }
}

/// Their keys, shortened, for people.
fn names(bundle: &TrustBundle) -> String {
    let names: Vec<String> = bundle
        .root_keys()
        .iter()
        .map(|key| key.spki_hash().to_string().chars().take(16).collect())
        .collect();
    names.join(" ")
}
