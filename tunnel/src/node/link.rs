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
    /// Only receive, the newest first: what the current one replaced, and an answer that another one followed before it
    /// was confirmed. The peer may still send in either.
    pub(super) older: [Option<Keyed>; 2],
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

    /// The session with this index, if it may still receive.
    pub(super) fn receiving(&self, index: SessionIndex, now: BootTime) -> Option<&Keyed> {
        self.sessions()
            .find(|keyed| keyed.session.index() == index)
            .filter(|keyed| now < keyed.expires)
    }

    pub(super) fn is_current(&self, index: SessionIndex) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|keyed| keyed.session.index() == index)
    }

    /// Whether a message of this session makes it the current one: an answer of ours that waits for it, also if another
    /// one followed. An epoch that was turned does not come back.
    pub(super) fn is_confirmed_by(&self, index: SessionIndex) -> bool {
        let current = self.current.as_ref().map(|keyed| keyed.epoch);
        let is = |keyed: &Keyed| keyed.session.index() == index;
        let next = self
            .next
            .iter()
            .any(|next| is(next) && Some(next.epoch) >= current);
        let mut older = self.older.iter().flatten();
        next || older.any(|older| is(older) && Some(older.epoch) > current)
    }

    /// Takes out the session that [`Self::is_confirmed_by`] a message of it.
    pub(super) fn take_confirmed(&mut self, index: SessionIndex) -> Option<Keyed> {
        if !self.is_confirmed_by(index) {
            return None;
        }
        let mut slots = self.slots().into_iter();
        slots.find_map(|slot| slot.take_if(|keyed| keyed.session.index() == index))
    }

    /// Puts an answer in the place of the one before; the index that is free again. What the initiator may have begun
    /// to use goes on receiving: all but the answer to an earlier message of the same attempt.
    pub(super) fn answer(&mut self, fresh: Keyed) -> Option<SessionIndex> {
        let before = self.next.replace(fresh)?;
        let next = self.next.as_ref();
        if next.is_some_and(|next| next.session.answers_same_attempt(&before.session)) {
            return Some(before.session.index());
        }
        self.set_aside(before)
    }

    /// Keeps a session for receiving; the index that is free again for it.
    pub(super) fn set_aside(&mut self, keyed: Keyed) -> Option<SessionIndex> {
        let [newest, oldest] = &mut self.older;
        let gone = std::mem::replace(oldest, newest.replace(keyed));
        gone.map(|gone| gone.session.index())
    }

    /// Has sessions of epochs before the current one end by then.
    pub(super) fn end_older_epochs(&mut self, by: BootTime) {
        let Some(epoch) = self.current.as_ref().map(|keyed| keyed.epoch) else {
            return;
        };
        for keyed in self.older.iter_mut().flatten() {
            if keyed.epoch < epoch {
                keyed.expires = keyed.expires.min(by);
            }
        }
    }

    /// Whether an authenticated message from there moves the peer. A path that answered just now stays: what comes
    /// over another one, a relay's above all, says where the peer can send from, not what is the better way back.
    pub(super) fn moves_to(&self, from: Endpoint, now: BootTime) -> bool {
        self.endpoint != Some(from) && (self.endpoint.is_none() || now >= self.proven_until)
    }

    /// Takes out what has expired; the indices that are free again.
    pub(super) fn expire(&mut self, now: BootTime) -> Vec<SessionIndex> {
        let gone = |slot: &mut Option<Keyed>| slot.take_if(|keyed| keyed.expires <= now);
        let expired = self.slots().into_iter().filter_map(gone);
        expired.map(|keyed| keyed.session.index()).collect()
    }

    pub(super) fn has_expired(&self, now: BootTime) -> bool {
        self.sessions().any(|keyed| keyed.expires <= now)
    }

    /// Takes everything out.
    pub(super) fn wipe(&mut self) -> Vec<SessionIndex> {
        let all = self.slots().into_iter().filter_map(Option::take);
        all.map(|keyed| keyed.session.index()).collect()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Keyed> {
        let [newest, oldest] = &self.older;
        [&self.current, &self.next, newest, oldest]
            .into_iter()
            .flatten()
    }

    fn slots(&mut self) -> [&mut Option<Keyed>; 4] {
        let [newest, oldest] = &mut self.older;
        [&mut self.current, &mut self.next, newest, oldest]
    }
}
