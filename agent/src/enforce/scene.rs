//! The one place where the picture changes: its parts, the decider that answers from it, the filter's epoch.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use edgeward_identity::{Clock, SpiffeId};
use edgeward_tunnel::filter::Filter;
use parking_lot::Mutex;

use super::decide::{Anchor, BoundPeer, Decider, Picture, PictureParts};

/// How long what a peer said is kept for a bind that is still opening.
const OPENS_WITHIN: Duration = Duration::from_secs(60);

/// What a change does to verdicts that the filter keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// They are void: the next packet of each flow asks again.
    Void,
    /// They hold: nothing that was allowed may now be denied before its verdict ends.
    Hold,
}

/// Parts, decider and filter, changed together.
pub(super) struct Scene {
    parts: Mutex<PictureParts>,
    decider: Arc<Decider>,
    filter: Arc<Filter>,
    epoch: AtomicU64,
    /// Verdicts of the program before this one hold until there is a policy to ask by.
    holds: AtomicBool,
    clock: Arc<dyn Clock>,
}

impl Scene {
    pub(super) fn new(
        parts: PictureParts,
        decider: Arc<Decider>,
        filter: Arc<Filter>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            parts: Mutex::new(parts),
            decider,
            filter,
            epoch: AtomicU64::new(0),
            holds: AtomicBool::new(false),
            clock,
        }
    }

    /// No change voids verdicts from here on, until [`Self::hold_no_more`]. A cut does, as always.
    pub(super) fn hold(&self) {
        self.holds.store(true, Ordering::Release);
    }

    /// From now on verdicts rest on the present picture: all are asked for again.
    pub(super) fn hold_no_more(&self) {
        if self.holds.swap(false, Ordering::AcqRel) {
            self.change(Kept::Void, |_| ());
        }
    }

    /// Changes the parts; when this returns, decisions rest on the new picture.
    pub(super) fn change<T>(&self, kept: Kept, change: impl FnOnce(&mut PictureParts) -> T) -> T {
        let mut parts = self.parts.lock();
        let result = change(&mut parts);
        parts.anchor = Anchor {
            wall: self.clock.now(),
            boot: self.clock.boottime(),
        };
        self.decider.replace(Arc::new(Picture::new(parts.clone())));
        if kept == Kept::Void && !self.holds.load(Ordering::Acquire) {
            let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
            self.filter.set_policy_epoch(epoch);
        }
        result
    }

    pub(super) fn picture(&self) -> Arc<Picture> {
        self.decider.picture()
    }

    pub(super) fn decider(&self) -> &Arc<Decider> {
        &self.decider
    }

    /// Puts newer evidence of bound peers into the picture. Flows are asked about anew where it says something else.
    pub(super) fn renew(&self, newer: HashMap<SpiffeId, BoundPeer>) {
        let is_newer = |peer: &BoundPeer| {
            newer.get(&peer.id).filter(|seen| {
                seen.spki == peer.spki && seen.evidence.last_pass > peer.evidence.last_pass
            })
        };
        let (some, otherwise) = {
            let parts = self.parts.lock();
            let renewed = || parts.bound.values().filter_map(|p| Some((p, is_newer(p)?)));
            let otherwise = renewed().any(|(peer, seen)| !seen.says_as(peer));
            (renewed().next().is_some(), otherwise)
        };
        if some {
            let kept = if otherwise { Kept::Void } else { Kept::Hold };
            self.change(kept, |parts| {
                for peer in parts.bound.values_mut() {
                    if let Some(seen) = is_newer(peer) {
                        *peer = seen.clone();
                    }
                }
            });
        }
        self.keep_early(newer);
    }

    /// A peer whose bind is still opening may have said it already: its bind opens with what it offered before.
    fn keep_early(&self, mut newer: HashMap<SpiffeId, BoundPeer>) {
        let now = self.clock.now();
        {
            let parts = self.parts.lock();
            for peer in parts.bound.values() {
                // With another key it is another bind, which may be the one that opens.
                if newer
                    .get(&peer.id)
                    .is_some_and(|seen| seen.spki == peer.spki)
                {
                    newer.remove(&peer.id);
                }
            }
        }
        newer.retain(|_, seen| {
            let passed = seen.evidence.last_pass.unwrap_or_default();
            now.since(passed) < OPENS_WITHIN
        });
        if !newer.is_empty() {
            self.decider.see_again(newer);
        }
    }
}

#[cfg(test)]
mod tests;
