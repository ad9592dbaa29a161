//! May this flow be, may this bind be: one picture of everything that a decision rests on, asked without I/O.
//!
//! A [`Picture`] is replaced as a whole. Whatever is missing in it (policy, peer, standing) is a denial with its own
//! reason: nothing here is optional. The filter asks once for each flow; the bind asks at every step and re-check.

mod devices;
mod grant;
mod guests;
mod named;
mod picture;
mod reason;
mod rules;
mod tally;
mod who;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edgeward_identity::{BootTime, SpiffeId, Timestamp, VerifiedPeer};
use edgeward_tunnel::bind::claims::PeerClaims;
use edgeward_tunnel::bind::policy::{Grant, MayBind, NotGranted};
use edgeward_tunnel::filter::{Decide, Direction, FlowKey, FlowVerdict};
use edgeward_tunnel::node::{MAX_PEERS, PeerId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use devices::{Devices, Sighting};
pub use grant::Candidate;
pub use named::Named;
pub use picture::{Anchor, BoundPeer, Picture, PictureParts};
pub use reason::{Label, Nothing};
pub use rules::{Forwarded, Rules, Spot};
pub use tally::{Allowed, MAX_ALLOWED, Tally};
pub use who::{Ruling, Who};

/// Answers the filter and the bind from the newest picture.
pub struct Decider {
    picture: ArcSwap<Picture>,
    allowed: Tally,
    /// What the bind saw of peers' evidence since it was last asked for: new results come over open binds.
    seen: Mutex<HashMap<SpiffeId, BoundPeer>>,
    /// Some of it says something else than the picture does.
    otherwise: Notify,
    /// Counts pictures.
    changes: watch::Sender<u64>,
}

impl Decider {
    pub fn new(picture: Picture) -> Self {
        Self {
            picture: ArcSwap::from_pointee(picture),
            allowed: Tally::default(),
            seen: Mutex::default(),
            otherwise: Notify::new(),
            changes: watch::Sender::new(0),
        }
    }

    /// From now on decisions rest on this. Verdicts that the filter keeps are void only after
    /// [`edgeward_tunnel::filter::Filter::set_policy_epoch`].
    pub fn replace(&self, picture: Arc<Picture>) {
        self.picture.store(picture);
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells of every new picture.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn picture(&self) -> Arc<Picture> {
        self.picture.load_full()
    }

    /// What the bind saw of peers' evidence since the last call. At most [`MAX_PEERS`].
    pub fn take_seen(&self) -> HashMap<SpiffeId, BoundPeer> {
        std::mem::take(&mut *self.seen.lock())
    }

    /// Returns once evidence came that says something else than the picture does of its peer.
    pub async fn saw_otherwise(&self) {
        self.otherwise.notified().await;
    }

    /// What was seen of peers whose bind is still opening. What came meanwhile is newer.
    pub fn see_again(&self, early: HashMap<SpiffeId, BoundPeer>) {
        let mut seen = self.seen.lock();
        for (id, peer) in early {
            if seen.len() < MAX_PEERS {
                seen.entry(id).or_insert(peer);
            }
        }
    }

    pub(super) fn see(&self, peer: BoundPeer) {
        // A boot statement is no evidence of its own.
        if peer.by_boot_statement {
            return;
        }
        let picture = self.picture.load();
        let known = picture.bound_peer(&peer.id);
        let otherwise = known.is_some_and(|known| !known.says_as(&peer));
        let mut seen = self.seen.lock();
        if seen.len() < MAX_PEERS || seen.contains_key(&peer.id) {
            seen.insert(peer.id.clone(), peer);
        }
        drop(seen);
        if otherwise {
            self.otherwise.notify_one();
        }
    }

    /// What was allowed since the last call, and how many verdicts did not fit.
    pub fn take_allowed(&self) -> (Vec<Allowed>, u64) {
        self.allowed.take()
    }
}

impl Decide for Decider {
    fn decide(
        &self,
        flow: &FlowKey,
        peer: PeerId,
        direction: Direction,
        now: BootTime,
    ) -> FlowVerdict {
        let picture = self.picture.load();
        let verdict = picture.flow(flow, peer, direction, now);
        if verdict.allow {
            let beyond = picture.beyond(flow.destination, direction);
            let device = picture.device_of_flow(flow.source, direction);
            let ends = (device.map(|_| flow.source), beyond);
            self.allowed
                .count(peer, direction, flow, ends, &verdict.rule);
        }
        verdict
    }
}

impl MayBind for Decider {
    fn may_bind(
        &self,
        peer: &VerifiedPeer,
        claims: &PeerClaims,
        now: Timestamp,
    ) -> Result<Grant, NotGranted> {
        let picture = self.picture.load();
        let runs = claims.runs().map(Arc::as_ref);
        let rules = picture.parts().rules.as_deref();
        let candidate = Candidate {
            id: peer.id(),
            standing: picture::running(picture::standing_of(claims), runs, rules),
            by_boot_statement: claims.by_boot_statement(),
        };
        let grant = picture.grant(&candidate, now)?;
        self.see(BoundPeer::new(peer.id().clone(), peer.spki_hash(), claims));
        Ok(grant)
    }
}

#[cfg(test)]
mod tests;
