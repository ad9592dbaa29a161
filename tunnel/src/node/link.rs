//! What the data path reads of a peer: its sessions, and where it is. Both directions only read, a batch at a time;
//! handshakes, timers and a cut write, and so wait for the batches under way.

use std::sync::Arc;

use edgeward_identity::BootTime;

use super::Endpoint;
use crate::wireguard::{Session, SessionIndex};

#[derive(Default)]
pub(super) struct Link {
    /// Sends and receives.
    pub(super) current: Option<Keyed>,
    /// Only receives.
    pub(super) previous: Option<Keyed>,
    /// Waits for the initiator's first message.
    pub(super) next: Option<Keyed>,
    /// Where the peer was authenticated last.
    pub(super) endpoint: Option<Endpoint>,
    /// Until then the endpoint is not given up for another one ([`Node::use_path`](super::Node::use_path)).
    pub(super) proven_until: BootTime,
}

/// A session with its dates.
pub(super) struct Keyed {
    pub(super) session: Arc<Session>,
    pub(super) epoch: u64,
    pub(super) expires: BootTime,
    /// We started its handshake.
    pub(super) ours: bool,
}

impl Link {
    /// The session that may send now.
    pub(super) fn sending(&self, now: BootTime) -> Option<&Keyed> {
        self.current.as_ref().filter(|keyed| now < keyed.expires)
    }

    /// The session with this index, if it may still receive, and whether it waits for its first message.
    pub(super) fn receiving(&self, index: SessionIndex, now: BootTime) -> Option<(&Keyed, bool)> {
        let slots = [
            (&self.current, false),
            (&self.next, true),
            (&self.previous, false),
        ];
        slots
            .into_iter()
            .filter_map(|(slot, is_next)| Some((slot.as_ref()?, is_next)))
            .find(|(keyed, _)| keyed.session.index() == index)
            .filter(|(keyed, _)| now < keyed.expires)
    }

    /// Whether an authenticated message from there moves the peer. A path that answered just now stays: what comes
    /// over another one, a relay's above all, says where the peer can send from, not what is the better way back.
    pub(super) fn moves_to(&self, from: Endpoint, now: BootTime) -> bool {
        self.endpoint != Some(from) && (self.endpoint.is_none() || now >= self.proven_until)
    }

    /// Takes out what has expired; the indices that are free again.
    pub(super) fn expire(&mut self, now: BootTime) -> Vec<SessionIndex> {
        let slots = [&mut self.current, &mut self.previous, &mut self.next];
        let gone = |slot: &mut Option<Keyed>| slot.take_if(|keyed| keyed.expires <= now);
        let expired = slots.into_iter().filter_map(gone);
        expired.map(|keyed| keyed.session.index()).collect()
    }

    pub(super) fn has_expired(&self, now: BootTime) -> bool {
        self.sessions().any(|keyed| keyed.expires <= now)
    }

    /// Takes everything out.
    pub(super) fn wipe(&mut self) -> Vec<SessionIndex> {
        let all = [self.current.take(), self.previous.take(), self.next.take()];
        all.iter()
            .flatten()
            .map(|keyed| keyed.session.index())
            .collect()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Keyed> {
        [&self.current, &self.previous, &self.next]
            .into_iter()
            .flatten()
    }
}
