//! One peer: what is fixed while it is armed, and its state behind one lock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edgeward_identity::BootTime;
use ipnet::IpNet;
use parking_lot::Mutex;

use super::path_mtu::PathMtu;
use super::{Endpoint, MAX_CANDIDATES, Outgoing, PeerConfig, PeerId, PeerStatus, Refusal, Role};
use crate::wireguard::{
    self, CookieJar, Door, Initiator, Psk, ReplayGate, Session, SessionIndex, StampClock,
};

/// Most packets that wait for a session, per peer.
pub(super) const MAX_QUEUED_PACKETS: usize = 64;
/// Most bytes that wait for a session, per peer.
pub(super) const MAX_QUEUED_BYTES: usize = 128 << 10;

/// A way to one peer, for the length of a batch. After a cut it refuses everything.
#[derive(Clone)]
pub struct PeerHandle(pub(super) Arc<Peer>);

pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) public_key: [u8; 32],
    pub(super) door: Arc<Door>,
    /// Unique for every arming: what a cached verdict is tied to.
    pub(super) generation: u64,
    pub(super) allowed_ips: Mutex<Vec<IpNet>>,
    pub(super) path_mtu: PathMtu,
    cut: AtomicBool,
    pub(super) state: Mutex<PeerState>,
}

pub(super) struct PeerState {
    pub(super) psk: Psk,
    pub(super) epoch: u64,
    /// Epoch of the last `Opened` event.
    pub(super) opened: Option<u64>,
    pub(super) valid_until: BootTime,
    pub(super) gate: ReplayGate,
    pub(super) stamps: StampClock,
    pub(super) jar: CookieJar,
    pub(super) last_initiation: Option<BootTime>,
    pub(super) attempt: Option<Attempt>,
    pub(super) current: Option<Keyed>,
    pub(super) previous: Option<Keyed>,
    pub(super) next: Option<Keyed>,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) next_candidate: usize,
    pub(super) persistent_keepalive: Option<Duration>,
    pub(super) last_handshake: Option<BootTime>,
    pub(super) last_sent: BootTime,
    /// When to replace the current session, if we started it.
    pub(super) rekey_at: Option<BootTime>,
    /// The current session is old: replace it at its next use.
    pub(super) rekey_on_use: bool,
    /// When an unanswered packet becomes a dead link.
    pub(super) dead_at: Option<BootTime>,
    /// When received data must have been answered by something.
    pub(super) keepalive_at: Option<BootTime>,
    pub(super) queue: VecDeque<Vec<u8>>,
    pub(super) queued_bytes: usize,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// Time under which the peer stands in the schedule.
    pub(super) registered: Option<BootTime>,
}

/// A handshake that waits for its answer.
pub(super) struct Attempt {
    pub(super) initiator: Initiator,
    pub(super) epoch: u64,
    pub(super) started: BootTime,
    pub(super) retry_at: BootTime,
    pub(super) tries: u32,
    pub(super) lost: bool,
}

/// A session with its dates.
pub(super) struct Keyed {
    pub(super) session: Session,
    pub(super) epoch: u64,
    pub(super) expires: BootTime,
    /// We started its handshake.
    pub(super) ours: bool,
    pub(super) used: bool,
}

impl PeerHandle {
    pub fn id(&self) -> PeerId {
        self.0.id
    }

    /// Unique for every arming of a peer: a verdict cached under another generation is void.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Whether the peer was taken away: nothing made for it may leave any more.
    pub fn is_cut(&self) -> bool {
        self.0.is_cut()
    }

    /// Whether both are the same arming of the same peer.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Peer {
    pub(super) fn new(config: PeerConfig, door: Arc<Door>, generation: u64, now: BootTime) -> Self {
        let state = PeerState {
            psk: config.psk,
            epoch: config.epoch,
            opened: None,
            valid_until: config.valid_until,
            gate: ReplayGate::default(),
            stamps: StampClock::default(),
            jar: CookieJar::default(),
            last_initiation: None,
            attempt: None,
            current: None,
            previous: None,
            next: None,
            endpoint: None,
            candidates: config.endpoints,
            next_candidate: 0,
            persistent_keepalive: config.persistent_keepalive,
            last_handshake: None,
            last_sent: now,
            rekey_at: None,
            rekey_on_use: false,
            dead_at: None,
            keepalive_at: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            received_bytes: 0,
            sent_bytes: 0,
            registered: None,
        };
        Self {
            id: config.id,
            name: config.name,
            role: config.role,
            public_key: config.public_key,
            door,
            generation,
            allowed_ips: Mutex::new(config.allowed_ips),
            path_mtu: PathMtu::default(),
            cut: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(super) fn refuse(&self) {
        self.cut.store(true, Ordering::Release);
    }

    /// Whether data may pass now, either way.
    pub(super) fn check_live(&self, state: &PeerState, now: BootTime) -> Result<(), Refusal> {
        if self.is_cut() {
            Err(Refusal::Cut)
        } else if now >= state.valid_until {
            Err(Refusal::LeaseEnded)
        } else {
            Ok(())
        }
    }

    pub(super) fn status(&self) -> PeerStatus {
        let allowed_ips = self.allowed_ips.lock().clone();
        let state = self.state.lock();
        PeerStatus {
            id: self.id,
            name: self.name.clone(),
            role: self.role,
            public_key: self.public_key,
            endpoint: state.target().map(|endpoint| endpoint.remote),
            allowed_ips,
            epoch: state.epoch,
            open: state.current.as_ref().map(|keyed| keyed.epoch),
            last_handshake: state.last_handshake,
            valid_until: state.valid_until,
            received_bytes: state.received_bytes,
            sent_bytes: state.sent_bytes,
            persistent_keepalive: state.persistent_keepalive,
        }
    }
}

impl PeerState {
    /// Where to send: the last authenticated endpoint, or a candidate.
    pub(super) fn target(&self) -> Option<Endpoint> {
        self.endpoint
            .or_else(|| self.candidate(self.next_candidate))
    }

    /// Where to send a repeated initiation: every place known, in turn.
    pub(super) fn next_target(&mut self) -> Option<Endpoint> {
        let places = self.candidates.len() + usize::from(self.endpoint.is_some());
        self.next_candidate = self.next_candidate.checked_add(1)?.checked_rem(places)?;
        match self.endpoint {
            Some(endpoint) if self.next_candidate == 0 => Some(endpoint),
            Some(_) => self.candidate(self.next_candidate - 1),
            None => self.candidate(self.next_candidate),
        }
    }

    /// The next try goes to the first of them, at once if something waits for an answer.
    pub(super) fn set_candidates(&mut self, endpoints: &[SocketAddr]) {
        self.candidates = endpoints.iter().copied().take(MAX_CANDIDATES).collect();
        let places = self.candidates.len() + usize::from(self.endpoint.is_some());
        self.next_candidate = places.saturating_sub(1);
        match &mut self.attempt {
            Some(attempt) => attempt.retry_at = BootTime::default(),
            None if self.current.is_none() => self.rekey_at = Some(BootTime::default()),
            None => {}
        }
    }

    fn candidate(&self, number: usize) -> Option<Endpoint> {
        let remote = self
            .candidates
            .get(number)
            .or_else(|| self.candidates.first())?;
        Some(Endpoint {
            remote: *remote,
            local_ip: None,
        })
    }

    /// The session with this index, if it may still receive.
    pub(super) fn receiving(
        &mut self,
        index: SessionIndex,
        now: BootTime,
    ) -> Option<(&mut Keyed, bool)> {
        let has = |keyed: &Option<Keyed>| {
            keyed
                .as_ref()
                .is_some_and(|keyed| keyed.session.index() == index)
        };
        let (slot, is_next) = if has(&self.current) {
            (&mut self.current, false)
        } else if has(&self.next) {
            (&mut self.next, true)
        } else if has(&self.previous) {
            (&mut self.previous, false)
        } else {
            return None;
        };
        slot.as_mut()
            .filter(|keyed| now < keyed.expires)
            .map(|keyed| (keyed, is_next))
    }

    /// Puts a packet into the waiting queue; `false` if it is full.
    pub(super) fn enqueue(&mut self, packet: &[u8]) -> bool {
        let bytes = self.queued_bytes.saturating_add(packet.len());
        if self.queue.len() >= MAX_QUEUED_PACKETS || bytes > MAX_QUEUED_BYTES {
            return false;
        }
        self.queue.push_back(packet.to_vec());
        self.queued_bytes = bytes;
        true
    }

    /// Seals one packet that is not part of a batch, or a keepalive (empty).
    pub(super) fn seal_single(
        &mut self,
        packet: &[u8],
        mtu: usize,
        now: BootTime,
    ) -> Option<Outgoing> {
        let to = self.target()?;
        let keyed = self.current.as_mut().filter(|keyed| now < keyed.expires)?;
        let mut plain = packet.to_vec();
        plain.resize(wireguard::padded_length(packet.len(), mtu), 0);
        let mut bytes = vec![0; plain.len() + wireguard::DATA_OVERHEAD_BYTES];
        keyed.session.seal(&plain, &mut bytes).ok()?;
        self.last_sent = now;
        self.keepalive_at = None;
        self.sent_bytes = self.sent_bytes.saturating_add(packet.len() as u64);
        Some(Outgoing { to, bytes })
    }
}
