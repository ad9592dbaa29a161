//! Handshake messages, both ways.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edgeward_identity::BootTime;

use super::link::{Keyed, Link};
use super::peer::{Attempt, Confirm, Peer, PeerState};
use super::timers::{REJECT_AFTER_TIME, REKEY_AFTER_TIME};
use super::{Endpoint, Event, NoRandomness, Node, OLD_EPOCH_LINGER, Outgoing, Refusal, Role};
use crate::wireguard::{Admission, Door, Initiator, Message, Mood, Refused, Seed, SessionIndex};

/// Shortest time between two initiations of one peer that are answered (the kernel's 50 a second).
pub(super) const MIN_INITIATION_INTERVAL: Duration = Duration::from_millis(20);
/// How often a random index may be taken already before we give up.
const MAX_INDEX_TRIES: usize = 16;

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
            Message::Cookie(index) => self.handle_cookie(index, datagram, now),
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
        if !state.may_start() || state.attempt.is_some() || peer.check_live(now).is_err() {
            return;
        }
        let Some(to) = peer.target(state) else {
            self.counters.count(Refusal::NoEndpoint);
            return;
        };
        let Ok(index) = self.take_index(peer) else {
            self.counters.count(Refusal::NoRandomness);
            return;
        };
        let first = is_first(state);
        state.attempt = Some(Box::new(Attempt {
            initiator: Initiator::new(&peer.door, &peer.public_key, &state.psk, index),
            epoch: state.epoch,
            started: now,
            retry_at: now.plus(self.retry_interval(1, Duration::ZERO, first)),
            tries: 1,
            lost: false,
        }));
        self.send_initiation(peer, state, to, now, out);
    }

    pub(super) fn repeat_handshake(
        &self,
        peer: &Peer,
        state: &mut PeerState,
        now: BootTime,
        elapsed: Duration,
        out: &mut Vec<Outgoing>,
    ) {
        let first = is_first(state);
        let to = peer.next_target(state);
        let Some(attempt) = &mut state.attempt else {
            return;
        };
        attempt.tries = attempt.tries.saturating_add(1);
        attempt.retry_at = now.plus(self.retry_interval(attempt.tries, elapsed, first));
        match to {
            Some(to) => self.send_initiation(peer, state, to, now, out),
            None => self.counters.count(Refusal::NoEndpoint),
        }
    }

    /// Sends the next initiation of the handshake under way; one that cannot be made is repeated later.
    fn send_initiation(
        &self,
        peer: &Peer,
        state: &mut PeerState,
        to: Endpoint,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) {
        let Some(attempt) = &mut state.attempt else {
            return;
        };
        let stamp = state.stamps.next(self.wall_clock(now));
        let message = Seed::draw(&*self.random)
            .map_err(Refused::from)
            .and_then(|seed| attempt.initiator.initiate(seed, stamp));
        match message {
            Ok(mut message) => {
                state.jar.sign(&peer.public_key, &mut message, now);
                out.push(Outgoing {
                    to,
                    bytes: message.to_vec(),
                });
            }
            Err(refused) => self.counters.count(refused.into()),
        }
        peer.pulse.last_sent.set(Some(now));
    }

    pub(super) fn drop_attempt(&self, state: &mut PeerState) {
        if let Some(attempt) = state.attempt.take() {
            self.sessions.write().remove(&attempt.initiator.index());
        }
    }

    /// Makes `fresh` the session that sends; those it replaces still receive for a while. Whether it is the first of
    /// its epoch.
    pub(super) fn promote(
        &self,
        peer: &Peer,
        state: &mut PeerState,
        link: &mut Link,
        fresh: Keyed,
        now: BootTime,
    ) -> bool {
        let (epoch, ours) = (fresh.epoch, fresh.ours);
        state.rekey_at = ours.then(|| now.plus(REKEY_AFTER_TIME));
        peer.pulse.rekey_on_use.store(false, Ordering::Release);
        if let Some(replaced) = link.current.replace(fresh)
            && let Some(gone) = link.set_aside(replaced)
        {
            self.sessions.write().remove(&gone);
        }
        state.last_handshake = Some(now);
        let first = state.opened != Some(epoch);
        if first {
            state.opened = Some(epoch);
            self.event(Event::Opened {
                peer: peer.id,
                epoch,
            });
        }
        if ours && first && state.role == Role::Initiator {
            // Until the responder is heard under it, it may send under what was before.
            peer.pulse.unheard.store(true, Ordering::Release);
            state.confirm = Some(Confirm::first(now));
        } else {
            peer.pulse.unheard.store(false, Ordering::Release);
            link.end_older_epochs(now.plus(OLD_EPOCH_LINGER));
        }
        first
    }

    /// Sends what waited for a session.
    pub(super) fn flush_queue(
        &self,
        peer: &Peer,
        state: &mut PeerState,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) {
        state.queued_bytes = 0;
        // Given back, not only emptied: a peer that idles keeps no room for what may wait some day.
        for packet in std::mem::take(&mut state.queue) {
            match peer.seal_single(&packet, self.config.mtu, now) {
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
        let busy = self.load.lock().arrive(now);
        let random = &*self.random;
        let mood = if busy {
            Mood::Busy { now, random }
        } else {
            Mood::Calm
        };
        for door in doors.into_iter().rev() {
            match door.admit(from.remote, datagram, mood) {
                Admission::Refused(Refused::WrongMac) => {}
                Admission::Refused(refused) => return Err(refused.into()),
                Admission::Answer(reply) => {
                    out.push(Outgoing {
                        to: from,
                        bytes: reply.to_vec(),
                    });
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
        let seed = Seed::draw(&*self.random).map_err(Refused::from)?;
        let received = door.read(datagram, seed)?;
        let peer = self.table.read().by_key.get(received.sender()).cloned();
        let peer = peer
            .filter(|peer| Arc::ptr_eq(&peer.door, door))
            .ok_or(Refusal::UnknownPeer)?;
        let mut state = peer.state.lock();
        peer.check_live(now)?;
        if state
            .last_initiation
            .is_some_and(|last| now.since(last) < MIN_INITIATION_INTERVAL)
        {
            return Err(Refusal::Busy);
        }
        state.gate.pass(received.stamp())?;
        state.last_initiation = Some(now);
        let index = self
            .take_index(&peer)
            .map_err(|NoRandomness| Refusal::NoRandomness)?;
        let (session, mut response) = match received.answer(&state.psk, index) {
            Ok(answered) => answered,
            Err(refused) => {
                self.sessions.write().remove(&index);
                return Err(refused.into());
            }
        };
        state.jar.sign(&peer.public_key, &mut response, now);
        {
            let mut link = peer.link.write();
            let gone = link.answer(Keyed {
                session: Arc::new(session),
                epoch: state.epoch,
                expires: now.plus(REJECT_AFTER_TIME),
                ours: false,
            });
            if let Some(gone) = gone {
                self.sessions.write().remove(&gone);
            }
        }
        // The answer goes to where the question came from; the endpoint moves only once the session is confirmed.
        out.push(Outgoing {
            to: from,
            bytes: response.to_vec(),
        });
        self.reschedule(&peer, &state);
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
        peer.check_live(now)?;
        let attempt = state
            .attempt
            .as_mut()
            .filter(|attempt| attempt.initiator.index() == index)
            .ok_or(Refusal::NoSession)?;
        let session = attempt.initiator.complete(datagram)?;
        let epoch = attempt.epoch;
        state.attempt = None;
        let fresh = Keyed {
            session: Arc::new(session),
            epoch,
            expires: now.plus(REJECT_AFTER_TIME),
            ours: true,
        };
        {
            let mut link = peer.link.write();
            self.promote(&peer, &mut state, &mut link, fresh, now);
            self.roam(&peer, &mut link, from, now);
        }
        peer.pulse.dead_at.set(None);
        // Confirms the session to the responder, whether anything waits or not.
        out.extend(peer.seal_single(&[], self.config.mtu, now));
        self.flush_queue(&peer, &mut state, now, out);
        self.reschedule(&peer, &state);
        Ok(())
    }

    /// The index is that of a handshake under way, or of an answer that is not confirmed yet.
    fn handle_cookie(
        &self,
        index: SessionIndex,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Refusal> {
        let peer = self.session_owner(index).ok_or(Refusal::NoSession)?;
        let mut state = peer.state.lock();
        peer.check_live(now)?;
        state.jar.take(&peer.public_key, datagram, now)?;
        Ok(())
    }

    /// Only after an authenticated message.
    pub(super) fn roam(&self, peer: &Peer, link: &mut Link, to: Endpoint, now: BootTime) {
        if !link.moves_to(to, now) {
            return;
        }
        let moved = link
            .endpoint
            .is_none_or(|endpoint| endpoint.remote != to.remote);
        link.endpoint = Some(to);
        if moved {
            peer.path_mtu.forget();
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
fn is_first(state: &PeerState) -> bool {
    state.role == Role::Initiator && state.opened != Some(state.epoch)
}
