//! Handshake messages, both ways.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::BootTime;

use super::peer::{Attempt, Keyed, Peer, PeerState};
use super::timers::{REJECT_AFTER_TIME, REKEY_AFTER_TIME};
use super::{Endpoint, Event, NoRandomness, Node, OLD_EPOCH_LINGER, Outgoing, Refusal, Role};
use crate::wireguard::{
    Admission, Door, Initiator, MAX_HANDSHAKE_BYTES, Message, ReplayGate, Session, SessionIndex,
};

/// Shortest time between two initiations of one peer that are answered (the kernel's 50 a second).
pub(super) const MIN_INITIATION_INTERVAL: Duration = Duration::from_millis(20);
/// How often a random index may be taken already before we give up.
const MAX_INDEX_TRIES: usize = 16;

type Scratch = [u8; MAX_HANDSHAKE_BYTES];

impl Node {
    /// Takes an initiation, response or cookie reply.
    pub(super) fn handle_handshake(
        &self,
        message: Message,
        from: Endpoint,
        datagram: &[u8],
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), Refusal> {
        match message {
            Message::Initiation => {
                let door = self.admit(from, datagram, now, out)?;
                self.handle_initiation(&door, from, datagram, now, out)
            }
            Message::Response(index) => {
                self.admit(from, datagram, now, out)?;
                self.handle_response(index, from, datagram, now, out)
            }
            Message::Cookie(index) => self.handle_cookie(index, datagram),
            Message::Data(_) => Err(Refusal::Malformed),
        }
    }

    /// Starts a handshake unless one is under way, or we may not, or do not know where to.
    pub(super) fn start_handshake(
        &self,
        peer: &Arc<Peer>,
        state: &mut PeerState,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) {
        if peer.role == Role::Responder
            || state.attempt.is_some()
            || peer.is_cut()
            || now >= state.valid_until
        {
            return;
        }
        let Some(to) = state.target() else {
            self.counters.count(Refusal::NoEndpoint);
            return;
        };
        let Ok(index) = self.take_index(peer) else {
            self.counters.count(Refusal::NoRandomness);
            return;
        };
        let mut initiator = Initiator::new(&peer.door, &peer.public_key, &state.psk, index);
        send_initiation(&mut initiator, to, out);
        state.last_sent = now;
        let first = is_first(peer, state);
        state.attempt = Some(Attempt {
            initiator,
            epoch: state.epoch,
            started: now,
            retry_at: now.plus(self.retry_interval(1, Duration::ZERO, first)),
            tries: 1,
            lost: false,
        });
    }

    pub(super) fn repeat_handshake(
        &self,
        peer: &Peer,
        state: &mut PeerState,
        now: BootTime,
        elapsed: Duration,
        out: &mut Vec<Outgoing>,
    ) {
        let first = is_first(peer, state);
        let to = state.next_target();
        let Some(attempt) = &mut state.attempt else {
            return;
        };
        attempt.tries = attempt.tries.saturating_add(1);
        attempt.retry_at = now.plus(self.retry_interval(attempt.tries, elapsed, first));
        match to {
            Some(to) => send_initiation(&mut attempt.initiator, to, out),
            None => self.counters.count(Refusal::NoEndpoint),
        }
        state.last_sent = now;
    }

    pub(super) fn drop_attempt(&self, state: &mut PeerState) {
        if let Some(attempt) = state.attempt.take() {
            self.sessions.write().remove(&attempt.initiator.index());
        }
    }

    pub(super) fn drop_next(&self, state: &mut PeerState) {
        if let Some(next) = state.next.take() {
            self.sessions.write().remove(&next.session.index());
        }
    }

    /// Makes `fresh` the session that sends; the one it replaces still receives for a while.
    pub(super) fn promote(&self, peer: &Peer, state: &mut PeerState, fresh: Keyed, now: BootTime) {
        let epoch = fresh.epoch;
        state.rekey_at = fresh.ours.then(|| now.plus(REKEY_AFTER_TIME));
        state.rekey_on_use = false;
        let mut replaced = state.current.replace(fresh);
        if let Some(old) = &mut replaced
            && old.epoch != epoch
        {
            old.expires = old.expires.min(now.plus(OLD_EPOCH_LINGER));
        }
        if let Some(older) = std::mem::replace(&mut state.previous, replaced) {
            self.sessions.write().remove(&older.session.index());
        }
        state.last_handshake = Some(now);
        if state.opened != Some(epoch) {
            state.opened = Some(epoch);
            self.event(Event::Opened {
                peer: peer.id,
                epoch,
            });
        }
    }

    /// Sends what waited for a session.
    pub(super) fn flush_queue(
        &self,
        state: &mut PeerState,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) {
        state.queued_bytes = 0;
        while let Some(packet) = state.queue.pop_front() {
            match state.seal_single(&packet, self.config.mtu, now) {
                Some(message) => out.push(message),
                None => self.counters.count(Refusal::NoSession),
            }
        }
    }

    /// Authenticators, and a cookie while we are busy.
    fn admit(
        &self,
        from: Endpoint,
        datagram: &[u8],
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> Result<Arc<Door>, Refusal> {
        let source = from.remote.ip();
        let doors = self.table.read().doors.clone();
        let mut reply: Scratch = [0; MAX_HANDSHAKE_BYTES];
        let busy = self.load.lock().arrive(now);
        for door in doors.into_iter().rev() {
            match door.admit(source, datagram, busy, &mut reply) {
                Admission::Refused(crate::wireguard::Refused::WrongMac) => {}
                Admission::Refused(refused) => return Err(refused.into()),
                Admission::Answer(length) => {
                    let bytes = reply.get(..length).unwrap_or_default().to_vec();
                    out.push(Outgoing { to: from, bytes });
                    return Err(Refusal::Busy);
                }
                Admission::Admitted if busy && !self.load.lock().spend(source, now) => {
                    return Err(Refusal::Busy);
                }
                Admission::Admitted => return Ok(door),
            }
        }
        Err(Refusal::WrongMac)
    }

    fn handle_initiation(
        &self,
        door: &Arc<Door>,
        from: Endpoint,
        datagram: &[u8],
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), Refusal> {
        let sender = door.sender(datagram)?;
        let peer = self.table.read().by_key.get(&sender).cloned();
        let peer = peer
            .filter(|peer| Arc::ptr_eq(&peer.door, door))
            .ok_or(Refusal::UnknownPeer)?;
        let mut state = peer.state.lock();
        peer.check_live(&state, now)?;
        if state
            .last_initiation
            .is_some_and(|last| now.since(last) < MIN_INITIATION_INTERVAL)
        {
            return Err(Refusal::Busy);
        }
        let gate = state
            .gate
            .get_or_insert_with(|| ReplayGate::new(door, &peer.public_key));
        gate.pass(datagram)?;
        state.last_initiation = Some(now);
        let index = self
            .take_index(&peer)
            .map_err(|NoRandomness| Refusal::NoRandomness)?;
        let mut response: Scratch = [0; MAX_HANDSHAKE_BYTES];
        let answered = Session::respond(
            door,
            &peer.public_key,
            &state.psk,
            index,
            datagram,
            &mut response,
        );
        let (session, length) = match answered {
            Ok(answered) => answered,
            Err(refused) => {
                self.sessions.write().remove(&index);
                return Err(refused.into());
            }
        };
        self.drop_next(&mut state);
        state.next = Some(Keyed {
            session,
            epoch: state.epoch,
            expires: now.plus(REJECT_AFTER_TIME),
            ours: false,
            used: false,
        });
        // The answer goes to where the question came from; the endpoint moves only once the session is confirmed.
        out.push(Outgoing {
            to: from,
            bytes: response.get(..length).unwrap_or_default().to_vec(),
        });
        self.reschedule(&peer, &mut state);
        Ok(())
    }

    fn handle_response(
        &self,
        index: SessionIndex,
        from: Endpoint,
        datagram: &[u8],
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), Refusal> {
        let peer = self.session_owner(index).ok_or(Refusal::NoSession)?;
        let mut state = peer.state.lock();
        peer.check_live(&state, now)?;
        let attempt = state
            .attempt
            .as_mut()
            .filter(|attempt| attempt.initiator.index() == index)
            .ok_or(Refusal::NoSession)?;
        let mut keepalive: Scratch = [0; MAX_HANDSHAKE_BYTES];
        let length = attempt.initiator.complete(datagram, &mut keepalive)?;
        let Some(attempt) = state.attempt.take() else {
            return Err(Refusal::NoSession);
        };
        let fresh = Keyed {
            session: attempt.initiator.into_session(),
            epoch: attempt.epoch,
            expires: now.plus(REJECT_AFTER_TIME),
            ours: true,
            used: false,
        };
        self.promote(&peer, &mut state, fresh, now);
        self.roam(&peer, &mut state, from);
        state.dead_at = None;
        state.last_sent = now;
        out.push(Outgoing {
            to: from,
            bytes: keepalive.get(..length).unwrap_or_default().to_vec(),
        });
        self.flush_queue(&mut state, now, out);
        self.reschedule(&peer, &mut state);
        Ok(())
    }

    fn handle_cookie(&self, index: SessionIndex, datagram: &[u8]) -> Result<(), Refusal> {
        let peer = self.session_owner(index).ok_or(Refusal::NoSession)?;
        let mut state = peer.state.lock();
        let attempt = state
            .attempt
            .as_mut()
            .filter(|attempt| attempt.initiator.index() == index)
            .ok_or(Refusal::NoSession)?;
        attempt.initiator.take_cookie(datagram)?;
        Ok(())
    }

    /// Only after an authenticated message.
    pub(super) fn roam(&self, peer: &Peer, state: &mut PeerState, to: Endpoint) {
        if state.endpoint == Some(to) {
            return;
        }
        let moved = state
            .endpoint
            .is_none_or(|endpoint| endpoint.remote != to.remote);
        state.endpoint = Some(to);
        if moved {
            self.event(Event::Roamed {
                peer: peer.id,
                to: to.remote,
            });
        }
    }

    pub(super) fn session_owner(&self, index: SessionIndex) -> Option<Arc<Peer>> {
        self.sessions.read().get(&index).cloned()
    }

    /// Reserves a random index that no session uses.
    fn take_index(&self, peer: &Arc<Peer>) -> Result<SessionIndex, NoRandomness> {
        for _ in 0..MAX_INDEX_TRIES {
            let index = SessionIndex::from_random(self.random_u32()?);
            let mut sessions = self.sessions.write();
            if let std::collections::hash_map::Entry::Vacant(entry) = sessions.entry(index) {
                entry.insert(Arc::clone(peer));
                return Ok(index);
            }
        }
        Err(NoRandomness)
    }
}

/// Whether the handshake under way is the initiator's first of this epoch: until it completes, nobody can open.
fn is_first(peer: &Peer, state: &PeerState) -> bool {
    peer.role == Role::Initiator && state.opened != Some(state.epoch)
}

fn send_initiation(initiator: &mut Initiator, to: Endpoint, out: &mut Vec<Outgoing>) {
    let mut message: Scratch = [0; MAX_HANDSHAKE_BYTES];
    // The buffer is as long as the engine asks for, so it cannot refuse.
    if let Ok(length) = initiator.initiate(&mut message) {
        let bytes = message.get(..length).unwrap_or_default().to_vec();
        out.push(Outgoing { to, bytes });
    }
}
