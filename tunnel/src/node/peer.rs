//! One peer: what is fixed while it is armed, and its state behind one lock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edgeward_identity::BootTime;
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

use super::link::Link;
use super::path_mtu::PathMtu;
use super::pulse::{Moment, Pulse};
use super::timers::{FIRST_RETRY, REKEY_TIMEOUT};
use super::{Endpoint, MAX_CANDIDATES, Outgoing, PeerConfig, PeerId, PeerStatus, Refusal, Role};
use crate::wireguard::{self, CookieJar, Door, Initiator, Psk, ReplayGate, StampClock};

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
    pub(super) public_key: [u8; 32],
    pub(super) door: Arc<Door>,
    /// Unique for every arming: what a cached verdict is tied to.
    pub(super) generation: u64,
    pub(super) allowed_ips: Mutex<Vec<IpNet>>,
    pub(super) path_mtu: PathMtu,
    cut: AtomicBool,
    /// No packet passes at or after this time.
    pub(super) valid_until: Moment,
    pub(super) pulse: Pulse,
    /// Locked after `state`, where both are.
    pub(super) link: RwLock<Link>,
    /// Handshakes and timers; the data path locks it only to change something.
    pub(super) state: Mutex<PeerState>,
}

pub(super) struct PeerState {
    /// Another bind may turn it around.
    pub(super) role: Role,
    pub(super) psk: Psk,
    pub(super) epoch: u64,
    /// Epoch of the last `Opened` event.
    pub(super) opened: Option<u64>,
    pub(super) gate: ReplayGate,
    pub(super) stamps: StampClock,
    pub(super) jar: CookieJar,
    pub(super) last_initiation: Option<BootTime>,
    pub(super) attempt: Option<Box<Attempt>>,
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) next_candidate: usize,
    pub(super) persistent_keepalive: Option<Duration>,
    pub(super) last_handshake: Option<BootTime>,
    /// When to replace the current session.
    pub(super) rekey_at: Option<BootTime>,
    /// The responder was not heard yet under the epoch that we opened.
    pub(super) confirm: Option<Confirm>,
    pub(super) queue: VecDeque<Vec<u8>>,
    pub(super) queued_bytes: usize,
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

/// The first message under an epoch, to be said again.
#[derive(Clone, Copy)]
pub(super) struct Confirm {
    pub(super) at: BootTime,
    tries: u32,
}

/// How often the first message under an epoch is said, the first time included: for half a minute.
const MAX_CONFIRMATIONS: u32 = 9;

impl Confirm {
    pub(super) fn first(now: BootTime) -> Self {
        Self {
            at: now.plus(FIRST_RETRY),
            tries: 1,
        }
    }

    /// After it was said once more.
    pub(super) fn next(self, now: BootTime) -> Option<Self> {
        let pause = FIRST_RETRY.saturating_mul(1 << self.tries.min(8));
        let again = Self {
            at: now.plus(pause.min(REKEY_TIMEOUT)),
            tries: self.tries.saturating_add(1),
        };
        (again.tries <= MAX_CONFIRMATIONS).then_some(again)
    }
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
            role: config.role,
            psk: config.psk,
            epoch: config.epoch,
            opened: None,
            gate: ReplayGate::default(),
            stamps: StampClock::default(),
            jar: CookieJar::default(),
            last_initiation: None,
            attempt: None,
            candidates: config.endpoints,
            next_candidate: 0,
            persistent_keepalive: config.persistent_keepalive,
            last_handshake: None,
            rekey_at: None,
            confirm: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
        };
        let pulse = Pulse::default();
        pulse.last_sent.set(Some(now));
        Self {
            id: config.id,
            name: config.name,
            public_key: config.public_key,
            door,
            generation,
            allowed_ips: Mutex::new(config.allowed_ips),
            path_mtu: PathMtu::default(),
            cut: AtomicBool::new(false),
            valid_until: Moment::at(config.valid_until),
            pulse,
            link: RwLock::default(),
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
    pub(super) fn check_live(&self, now: BootTime) -> Result<(), Refusal> {
        if self.is_cut() {
            Err(Refusal::Cut)
        } else if self.valid_until.is_due(now) {
            Err(Refusal::LeaseEnded)
        } else {
            Ok(())
        }
    }

    pub(super) fn status(&self) -> PeerStatus {
        let allowed_ips = self.allowed_ips.lock().clone();
        let state = self.state.lock();
        let endpoint = self.target(&state).map(|endpoint| endpoint.remote);
        let (received_bytes, sent_bytes) = self.pulse.bytes();
        PeerStatus {
            id: self.id,
            name: self.name.clone(),
            role: state.role,
            public_key: self.public_key,
            endpoint,
            allowed_ips,
            epoch: state.epoch,
            open: self.link.read().current.as_ref().map(|keyed| keyed.epoch),
            last_handshake: state.last_handshake,
            valid_until: self.valid_until.get().unwrap_or_default(),
            received_bytes,
            sent_bytes,
            persistent_keepalive: state.persistent_keepalive,
        }
    }

    /// Where to send: the last authenticated endpoint, or a candidate.
    pub(super) fn target(&self, state: &PeerState) -> Option<Endpoint> {
        let known = self.link.read().endpoint;
        known.or_else(|| state.candidate(state.next_candidate))
    }

    /// Where to send a repeated initiation: every place known, in turn.
    pub(super) fn next_target(&self, state: &mut PeerState) -> Option<Endpoint> {
        let known = self.link.read().endpoint;
        let places = state.candidates.len() + usize::from(known.is_some());
        state.next_candidate = state.next_candidate.checked_add(1)?.checked_rem(places)?;
        match known {
            Some(endpoint) if state.next_candidate == 0 => Some(endpoint),
            Some(_) => state.candidate(state.next_candidate - 1),
            None => state.candidate(state.next_candidate),
        }
    }

    /// The next try goes to the first of them, at once if something waits for an answer.
    pub(super) fn set_candidates(&self, state: &mut PeerState, endpoints: &[SocketAddr]) {
        let (known, open) = {
            let link = self.link.read();
            (link.endpoint.is_some(), link.current.is_some())
        };
        state.candidates = endpoints.iter().copied().take(MAX_CANDIDATES).collect();
        let places = state.candidates.len() + usize::from(known);
        state.next_candidate = places.saturating_sub(1);
        match &mut state.attempt {
            Some(attempt) => attempt.retry_at = BootTime::default(),
            None if !open && state.opened != Some(state.epoch) => {
                state.rekey_at = Some(BootTime::default());
            }
            None => {}
        }
    }

    /// Seals one packet that is not part of a batch, or a keepalive (empty).
    pub(super) fn seal_single(&self, packet: &[u8], mtu: usize, now: BootTime) -> Option<Outgoing> {
        let link = self.link.read();
        let to = link.endpoint?;
        let keyed = link.sending(now)?;
        let mut plain = packet.to_vec();
        plain.resize(wireguard::padded_length(packet.len(), mtu), 0);
        let mut bytes = vec![0; plain.len() + wireguard::DATA_OVERHEAD_BYTES];
        keyed.session.seal(&plain, &mut bytes).ok()?;
        if packet.is_empty() {
            self.pulse.last_sent.set(Some(now));
            self.pulse.keepalive_at.set(None);
        } else {
            self.pulse.sent(packet.len() as u64, now);
        }
        Some(Outgoing { to, bytes })
    }
}

impl PeerState {
    /// Whether we may start a handshake under the present key: the responder of a bind only once the initiator has
    /// shown that it has the key too.
    pub(super) fn may_start(&self) -> bool {
        self.role != Role::Responder || self.opened == Some(self.epoch)
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
}
