//! Whom the agent wants to be bound with, and when each is dialled. No I/O: told the time, handed its randomness.
//!
//! A peer stands in the queue only while it is to be dialled: one that is bound costs nothing until its bind ends.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId, SpkiHash};
use tokio::sync::watch;

use super::{DIAL_PATIENCE, MAX_BACKOFF, MAX_WANTED, MIN_BACKOFF, PeerTarget};

/// A random number between 0 and 1, all equally likely.
pub(super) type Fraction = f64;

/// The peers that are wanted.
#[derive(Default)]
pub(super) struct WantedPeers {
    peers: HashMap<SpiffeId, Wanted>,
    /// Who is to be dialled when; the number keeps those of one moment apart.
    queue: BTreeMap<(BootTime, u64), SpiffeId>,
    next_place: u64,
    dialling: usize,
}

struct Wanted {
    target: PeerTarget,
    backoff: Duration,
    /// A dial is under way: where to tell it of addresses that are found meanwhile.
    dialling: Option<watch::Sender<Vec<SocketAddr>>>,
    place: Option<(BootTime, u64)>,
}

/// Whom to dial now.
pub(super) struct Due {
    pub(super) target: PeerTarget,
    /// Where else the peer may be, as that becomes known.
    pub(super) found: watch::Receiver<Vec<SocketAddr>>,
}

/// How long to leave the first dial to the other side, if it wants us, too: the one with the smaller key dials at once.
pub(super) fn patience(own: &SpkiHash, peer: &SpkiHash) -> Duration {
    if own < peer {
        Duration::ZERO
    } else {
        DIAL_PATIENCE
    }
}

/// More than [`MAX_WANTED`] peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl WantedPeers {
    /// Wants a peer, or knows better where it is and under which key. One that is new is dialled after `patience`.
    pub(super) fn want(
        &mut self,
        target: PeerTarget,
        patience: Duration,
        now: BootTime,
    ) -> Result<(), TooMany> {
        let id = target.id.clone();
        if let Some(wanted) = self.peers.get_mut(&id) {
            wanted.target = target;
            wanted.backoff = MIN_BACKOFF;
            match &wanted.dialling {
                Some(dial) => {
                    dial.send_replace(wanted.target.endpoints.clone());
                }
                // Whoever had no address may have one now; whoever is bound leaves the queue again at once.
                None if wanted.place.is_none() => self.put(&id, now),
                None => {}
            }
            return Ok(());
        }
        if self.peers.len() >= MAX_WANTED {
            return Err(TooMany);
        }
        let wanted = Wanted {
            target,
            backoff: MIN_BACKOFF,
            dialling: None,
            place: None,
        };
        self.peers.insert(id.clone(), wanted);
        self.put(&id, now.plus(patience));
        Ok(())
    }

    pub(super) fn forget(&mut self, peer: &SpiffeId) {
        let Some(wanted) = self.peers.remove(peer) else {
            return;
        };
        if let Some(place) = wanted.place {
            self.queue.remove(&place);
        }
        if wanted.dialling.is_some() {
            self.dialling = self.dialling.saturating_sub(1);
        }
    }

    /// The dial under way has come to an end.
    pub(super) fn dialled(&mut self, peer: &SpiffeId) {
        if let Some(wanted) = self.peers.get_mut(peer)
            && wanted.dialling.take().is_some()
        {
            self.dialling = self.dialling.saturating_sub(1);
        }
    }

    /// After a failure or the end of a bind: later, and twice as late the next time. The jitter keeps a fleet from
    /// dialling in step.
    pub(super) fn put_off(&mut self, peer: &SpiffeId, now: BootTime, random: Fraction) {
        let Some(wanted) = self.peers.get_mut(peer) else {
            return;
        };
        let wait = wanted.backoff / 2 + (wanted.backoff / 2).mul_f64(random);
        wanted.backoff = (wanted.backoff * 2).min(MAX_BACKOFF);
        self.put(peer, now.plus(wait));
    }

    pub(super) fn succeeded(&mut self, peer: &SpiffeId) {
        if let Some(wanted) = self.peers.get_mut(peer) {
            wanted.backoff = MIN_BACKOFF;
        }
    }

    /// All are to be bound anew, one after the other: each adds so much to the span in which that happens.
    pub(super) fn renew_all(
        &mut self,
        each: Duration,
        now: BootTime,
        mut random: impl FnMut() -> Fraction,
    ) {
        let span = each.saturating_mul(u32::try_from(self.peers.len()).unwrap_or(u32::MAX));
        let all: Vec<SpiffeId> = self.peers.keys().cloned().collect();
        for peer in all {
            self.put(&peer, now.plus(span.mul_f64(random())));
        }
    }

    /// When somebody is to be dialled who is not due yet.
    pub(super) fn next_after(&self, now: BootTime) -> Option<BootTime> {
        use std::ops::Bound::{Excluded, Unbounded};
        let later = (Excluded((now, u64::MAX)), Unbounded);
        self.queue.range(later).next().map(|((at, _), _)| *at)
    }

    /// Whom to dial now, within `most` dials at once. Who is bound already, or has no address, leaves the queue: the
    /// end of the bind or a better address brings it back.
    pub(super) fn take_due(
        &mut self,
        now: BootTime,
        most: usize,
        is_bound: impl Fn(&SpiffeId) -> bool,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        while self.dialling < most
            && let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= now
        {
            let Some(wanted) = self.peers.get_mut(&entry.remove()) else {
                continue;
            };
            wanted.place = None;
            if wanted.dialling.is_some()
                || wanted.target.endpoints.is_empty()
                || is_bound(&wanted.target.id)
            {
                continue;
            }
            let (tell, found) = watch::channel(Vec::new());
            wanted.dialling = Some(tell);
            self.dialling += 1;
            due.push(Due {
                target: wanted.target.clone(),
                found,
            });
        }
        due
    }

    fn put(&mut self, peer: &SpiffeId, at: BootTime) {
        let Some(wanted) = self.peers.get_mut(peer) else {
            return;
        };
        if let Some(place) = wanted.place.take() {
            self.queue.remove(&place);
        }
        self.next_place += 1;
        let place = (at, self.next_place);
        wanted.place = Some(place);
        self.queue.insert(place, peer.clone());
    }
}

#[cfg(test)]
mod tests;
