//! Exact timers (WireGuard protocol, section 6, with jitter and backoff): a peer is looked at when it is due, and
//! never otherwise.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edgeward_identity::BootTime;
use foldhash::HashMap;

use super::peer::{Peer, PeerState};
use super::{Event, Node, OLD_EPOCH_LINGER, Outgoing, Role};

/// Age at which the initiator replaces a session.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Age at which a session is of no use any more.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Time without an answer after which a handshake is repeated.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without an answer after which an initiator repeats the first handshake of an epoch; twice as long each
/// time, up to [`REKEY_TIMEOUT`]. The bind waits for this handshake, and the responder cannot start one.
pub const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Time of repeating after which the peer counts as lost.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Time after which received data is answered by a keepalive at least.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest pause between two handshakes to a lost peer, before jitter.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Spread of repeated handshakes.
const RETRY_JITTER: Duration = Duration::from_millis(333);

/// Who is due when.
#[derive(Default)]
pub(super) struct Schedule {
    queue: BTreeMap<(BootTime, u64), Arc<Peer>>,
    due: HashMap<u64, BootTime>,
}

impl Node {
    /// When [`Self::handle_timeout`] has something to do next. Cheap: one atomic load.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        match self.next_due.load(Ordering::Acquire) {
            u64::MAX => None,
            nanos => Some(BootTime::from_duration(Duration::from_nanos(nanos))),
        }
    }

    /// Does what is due: handshakes, keepalives, expiry of sessions and leases.
    pub fn handle_timeout(&self, now: BootTime, out: &mut Vec<Outgoing>) {
        let due = {
            let mut schedule = self.schedule.lock();
            let due = schedule.take_due(now);
            self.publish(&schedule);
            due
        };
        for peer in due {
            self.tick(&peer, now, out);
        }
    }

    /// Makes sure that the peer is looked at no later than it needs.
    pub(super) fn reschedule(&self, peer: &Arc<Peer>, state: &PeerState) {
        let due = due(peer, state);
        let registered = peer.pulse.registered.get();
        if peer.is_cut() || registered.is_some_and(|registered| registered <= due) {
            return;
        }
        let mut schedule = self.schedule.lock();
        schedule.set(peer, due);
        peer.pulse.registered.set(Some(due));
        self.publish(&schedule);
    }

    /// The same after a batch, which holds no lock: nothing to do in the usual case.
    pub(super) fn due_by(&self, peer: &Arc<Peer>, at: BootTime) {
        let registered = peer.pulse.registered.get();
        if registered.is_none_or(|registered| registered > at) {
            let state = peer.state.lock();
            self.reschedule(peer, &state);
        }
    }

    /// Has the session replaced by the timer thread.
    pub(super) fn rekey_now(&self, peer: &Arc<Peer>, now: BootTime) {
        let mut state = peer.state.lock();
        state.rekey_at = Some(now);
        self.reschedule(peer, &state);
    }

    /// `first` says whether it is an initiator's first handshake of an epoch.
    pub(super) fn retry_interval(&self, tries: u32, elapsed: Duration, first: bool) -> Duration {
        let early = FIRST_RETRY.saturating_mul(1 << tries.saturating_sub(1).min(8));
        if first && early < REKEY_TIMEOUT {
            return early + self.jitter(early / 4);
        }
        if elapsed < REKEY_ATTEMPT_TIME {
            return REKEY_TIMEOUT + self.jitter(RETRY_JITTER);
        }
        // After 90 s about 17 tries were made, or 20; from then on each pause is twice the last one.
        let doublings = tries.saturating_sub(17).min(8);
        let pause = REKEY_TIMEOUT
            .saturating_mul(1 << doublings)
            .min(MAX_BACKOFF);
        pause + self.jitter(pause / 4)
    }

    fn tick(&self, peer: &Arc<Peer>, now: BootTime, out: &mut Vec<Outgoing>) {
        let mut state = peer.state.lock();
        let pulse = &peer.pulse;
        pulse.registered.set(None);
        if peer.is_cut() {
            return;
        }
        if peer.valid_until.is_due(now) {
            drop(state);
            if self.cut_peer(peer).is_some() {
                self.event(Event::LeaseEnded { peer: peer.id });
            }
            return;
        }
        self.expire(peer, now);
        self.retry(peer, &mut state, now, out);
        self.confirm(peer, &mut state, now, out);
        if state.rekey_at.is_some_and(|at| at <= now) {
            state.rekey_at = None;
            if is_lively(peer, &state, now) {
                self.start_handshake(peer, &mut state, now, out);
            } else {
                pulse.rekey_on_use.store(true, Ordering::Release);
            }
        }
        if pulse.dead_at.is_due(now) {
            pulse.dead_at.set(None);
            self.start_handshake(peer, &mut state, now, out);
        }
        self.keep_alive(peer, &mut state, now, out);
        self.reschedule(peer, &state);
    }

    fn expire(&self, peer: &Peer, now: BootTime) {
        if !peer.link.read().has_expired(now) {
            return;
        }
        let expired = peer.link.write().expire(now);
        let mut sessions = self.sessions.write();
        for index in expired {
            sessions.remove(&index);
        }
    }

    fn retry(
        &self,
        peer: &Arc<Peer>,
        state: &mut PeerState,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) {
        let Some(attempt) = &mut state.attempt else {
            // An initiator opens every epoch itself, and tries for as long as the peer is armed.
            if state.role == Role::Initiator && state.opened != Some(state.epoch) {
                self.start_handshake(peer, state, now, out);
            }
            return;
        };
        if attempt.retry_at > now {
            return;
        }
        let elapsed = now.since(attempt.started);
        if elapsed >= REKEY_ATTEMPT_TIME && !attempt.lost {
            attempt.lost = true;
            state.queue = VecDeque::new();
            state.queued_bytes = 0;
            self.event(Event::Lost { peer: peer.id });
            if state.role != Role::Initiator {
                self.drop_attempt(state);
                return;
            }
        }
        self.repeat_handshake(peer, state, now, elapsed, out);
    }

    /// The responder opens an epoch with the initiator's first message under it, which may get lost like any other.
    fn confirm(&self, peer: &Peer, state: &mut PeerState, now: BootTime, out: &mut Vec<Outgoing>) {
        let Some(confirm) = state.confirm.filter(|confirm| confirm.at <= now) else {
            return;
        };
        state.confirm = None;
        if peer.pulse.unheard.load(Ordering::Acquire) {
            out.extend(peer.seal_single(&[], self.config.mtu, now));
            state.confirm = confirm.next(now);
        }
        if state.confirm.is_none() {
            peer.link
                .write()
                .end_older_epochs(now.plus(OLD_EPOCH_LINGER));
        }
    }

    fn keep_alive(
        &self,
        peer: &Arc<Peer>,
        state: &mut PeerState,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) {
        let pulse = &peer.pulse;
        let persistent = state.persistent_keepalive.is_some_and(|interval| {
            let last = pulse.last_sent.get();
            last.is_none_or(|last| last.plus(interval) <= now)
        });
        if !persistent && !pulse.keepalive_at.is_due(now) {
            return;
        }
        pulse.keepalive_at.set(None);
        match peer.seal_single(&[], self.config.mtu, now) {
            Some(keepalive) => out.push(keepalive),
            None => {
                pulse.last_sent.set(Some(now));
                self.start_handshake(peer, state, now, out);
            }
        }
    }

    fn publish(&self, schedule: &Schedule) {
        let nanos = schedule.first().map_or(u64::MAX, |first| {
            u64::try_from(first.as_duration().as_nanos()).unwrap_or(u64::MAX - 1)
        });
        self.next_due.store(nanos, Ordering::Release);
    }
}

/// Whether a session is worth replacing before anything asks for it: it carried data lately, or it is the first of
/// its epoch, or packets wait, or a mapping is to be kept open. An idle one is let go; the next packet, from either side, makes another.
fn is_lively(peer: &Peer, state: &PeerState, now: BootTime) -> bool {
    let recently = |last: BootTime| now.since(last) < REJECT_AFTER_TIME - REKEY_AFTER_TIME;
    state.opened != Some(state.epoch)
        || !state.queue.is_empty()
        || state.persistent_keepalive.is_some()
        || peer.pulse.last_data.get().is_some_and(recently)
}

/// When something may have to be done next; the end of the lease at the latest.
fn due(peer: &Peer, state: &PeerState) -> BootTime {
    let pulse = &peer.pulse;
    let keepalive = state.persistent_keepalive.and_then(|interval| {
        let last = pulse.last_sent.get()?;
        Some(last.plus(interval))
    });
    let sessions = peer.link.read().sessions().map(|keyed| keyed.expires).min();
    let lease = peer.valid_until.get().unwrap_or_default();
    [
        state.attempt.as_ref().map(|attempt| attempt.retry_at),
        sessions,
        state.rekey_at,
        state.confirm.map(|confirm| confirm.at),
        pulse.dead_at.get(),
        pulse.keepalive_at.get(),
        keepalive,
    ]
    .into_iter()
    .flatten()
    .fold(lease, BootTime::min)
}

impl Schedule {
    pub(super) fn remove(&mut self, peer: &Peer) {
        if let Some(due) = self.due.remove(&peer.generation) {
            self.queue.remove(&(due, peer.generation));
        }
    }

    fn set(&mut self, peer: &Arc<Peer>, due: BootTime) {
        self.remove(peer);
        self.due.insert(peer.generation, due);
        self.queue.insert((due, peer.generation), Arc::clone(peer));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.due.is_empty()
    }

    fn first(&self) -> Option<BootTime> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    fn take_due(&mut self, now: BootTime) -> Vec<Arc<Peer>> {
        let mut due = Vec::new();
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, generation), peer) = entry.remove_entry();
            self.due.remove(&generation);
            due.push(peer);
        }
        due
    }
}
