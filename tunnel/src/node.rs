//! The WireGuard node: peers that the bind armed, their sessions, leases, timers and cuts. No I/O.
//!
//! A peer exists here only while it is armed: with a static key, a pre-shared key of one *epoch*, prefixes that
//! policy gave it, and a lease. Data flows once a handshake under that key has completed, and only until the
//! lease ends or [`Node::cut`] takes the peer away. The responder of a bind arms first and never starts a
//! handshake; the initiator does, and keeps the session fresh.
//!
//! Sessions follow the kernel's scheme: *current* sends, *previous* only receives, *next* waits for the
//! initiator's first message. An epoch is turned the same way: the session under the new key is made beside the
//! old one, which is dropped [`OLD_EPOCH_LINGER`] after the new one carries data.
//!
//! Locks: a peer's state is locked once per batch and never across a system call; the table is never locked
//! while waiting for a peer. Time is [`BootTime`], told by the caller; [`Node::poll_timeout`] says when
//! [`Node::handle_timeout`] has something to do.

mod counters;
mod handshakes;
mod inbound;
mod load;
mod outbound;
mod peer;
mod timers;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_identity::BootTime;
use foldhash::HashMap;
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

pub use counters::{Refusal, Refusals};
pub use inbound::{Inbound, InboundRun};
pub use outbound::Sealer;
pub use peer::PeerHandle;
pub use timers::{
    KEEPALIVE_TIMEOUT, MAX_BACKOFF, REJECT_AFTER_TIME, REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME,
    REKEY_TIMEOUT,
};

use crate::routes::{RouteRefused, Routes};
use crate::wireguard::{Door, Psk, SessionIndex, StaticKeys};
use counters::Counters;
use load::Load;
use peer::{Peer, PeerState};
use timers::Schedule;

/// Most peers of one node.
pub const MAX_PEERS: usize = 16_384;
/// Most prefixes of one peer.
pub const MAX_PREFIXES_PER_PEER: usize = 1024;
/// Most endpoint candidates of one peer.
pub const MAX_CANDIDATES: usize = 8;
/// Most of our static keys in use at once: the present one, and those of peers not bound anew yet.
pub const MAX_STATIC_KEYS: usize = 4;
/// Most events waiting for the caller; further ones are counted and dropped.
pub const MAX_EVENTS: usize = 4096;
/// How long the session of an old epoch still receives after the new one carries data.
pub const OLD_EPOCH_LINGER: Duration = Duration::from_secs(10);

/// A peer's number in the caller's books. Never used for another identity while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// Who starts handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We start them, and keep the session fresh even when idle: the other side cannot.
    Initiator,
    /// We only answer.
    Responder,
    /// Plain WireGuard: whoever has something to send.
    Either,
}

/// Where a peer is, and which of our addresses it knows us by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub remote: SocketAddr,
    pub local_ip: Option<IpAddr>,
}

/// What the node needs to know of a peer to talk to it.
pub struct PeerConfig {
    pub id: PeerId,
    /// For status output: the SPIFFE ID.
    pub name: String,
    pub role: Role,
    /// The peer's static key. One key belongs to one peer.
    pub public_key: [u8; 32],
    /// Our static key for this peer.
    pub keys: Arc<StaticKeys>,
    pub psk: Psk,
    /// Number of the pre-shared key; grows with every turn.
    pub epoch: u64,
    /// From policy, never from the peer. At most [`MAX_PREFIXES_PER_PEER`].
    pub allowed_ips: Vec<IpNet>,
    /// Where to look for the peer, best first. At most [`MAX_CANDIDATES`].
    pub endpoints: Vec<SocketAddr>,
    /// No packet passes at or after this time.
    pub valid_until: BootTime,
    pub persistent_keepalive: Option<Duration>,
}

/// How the node behaves.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig {
    /// MTU of the tunnel device, in bytes: padding stops there.
    pub mtu: usize,
    /// Whether a peer without pre-shared key (all zeros) may be armed: plain WireGuard only.
    pub allow_zero_psk: bool,
}

/// Randomness, handed in by the shell. An error refuses what needed it.
pub trait Random: Send + Sync {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The source of randomness failed. Our fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no randomness")]
pub struct NoRandomness;

/// A datagram to send that is not part of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub to: Endpoint,
    pub bytes: Vec<u8>,
}

/// What happened to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first handshake under this epoch completed: packets flow.
    Opened { peer: PeerId, epoch: u64 },
    /// It was authenticated at another address.
    Roamed { peer: PeerId, to: SocketAddr },
    /// No answer for 90 s. An initiator goes on trying, at growing intervals.
    Lost { peer: PeerId },
    /// The lease ended, and the peer was taken away.
    LeaseEnded { peer: PeerId },
}

/// What a cut took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutReport {
    /// Sessions whose keys are gone.
    pub sessions: usize,
    /// Packets that waited for a session.
    pub packets: usize,
    /// Prefixes given back.
    pub prefixes: usize,
}

/// A peer, as shown to people. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    pub id: PeerId,
    pub name: String,
    pub role: Role,
    pub public_key: [u8; 32],
    pub endpoint: Option<SocketAddr>,
    pub allowed_ips: Vec<IpNet>,
    pub epoch: u64,
    /// Epoch of the session that carries data now.
    pub open: Option<u64>,
    pub last_handshake: Option<BootTime>,
    pub valid_until: BootTime,
    /// Inner bytes.
    pub received_bytes: u64,
    /// Inner bytes.
    pub sent_bytes: u64,
    pub persistent_keepalive: Option<Duration>,
}

/// Why a peer was not armed. The caller's fault, or its peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmRefused {
    #[error("peer is armed already: cut it first")]
    Armed,
    #[error("peer is not armed")]
    NotArmed,
    #[error("static key belongs to another peer")]
    KeyTaken,
    #[error("static key is our own, or agrees on nothing")]
    BadKey,
    #[error("no pre-shared key")]
    NoPsk,
    #[error("lease has ended")]
    LeaseEnded,
    #[error("too many peers, prefixes, candidates or static keys")]
    Limit,
    #[error(transparent)]
    Route(#[from] RouteRefused),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Why an epoch was not turned. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnRefused {
    #[error("peer is not armed")]
    Unknown,
    #[error("epoch is not later than the present one: {0}")]
    NotLater(u64),
    #[error("no pre-shared key")]
    NoPsk,
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// The peer is not armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("peer is not armed")]
pub struct NotArmed;

/// All peers of one tunnel device.
pub struct Node {
    config: NodeConfig,
    random: Box<dyn Random>,
    table: RwLock<Table>,
    sessions: RwLock<HashMap<SessionIndex, Arc<Peer>>>,
    schedule: Mutex<Schedule>,
    /// Copy of the schedule's first entry, in nanoseconds since boot; `u64::MAX` for none.
    next_due: AtomicU64,
    load: Mutex<Load>,
    counters: Counters,
    events: Mutex<VecDeque<Event>>,
    generation: AtomicU64,
}

#[derive(Default)]
struct Table {
    peers: HashMap<PeerId, Arc<Peer>>,
    by_key: HashMap<[u8; 32], Arc<Peer>>,
    routes: Routes<Arc<Peer>>,
    /// One per static key of ours in use; the newest last.
    doors: Vec<Arc<Door>>,
}

impl Node {
    pub fn new(config: NodeConfig, random: Box<dyn Random>) -> Self {
        Self {
            config,
            random,
            table: RwLock::default(),
            sessions: RwLock::default(),
            schedule: Mutex::default(),
            next_due: AtomicU64::new(u64::MAX),
            load: Mutex::default(),
            counters: Counters::default(),
            events: Mutex::default(),
            generation: AtomicU64::new(1),
        }
    }

    pub fn config(&self) -> NodeConfig {
        self.config
    }

    /// Adds a peer. An initiator's first handshake message goes to `out`.
    pub fn arm(
        &self,
        config: PeerConfig,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), ArmRefused> {
        self.check_config(&config, now)?;
        let id = config.id;
        let (key, prefixes, role) = (config.public_key, config.allowed_ips.clone(), config.role);
        let peer = {
            let mut table = self.table.write();
            table.check_free(id, &key, &prefixes)?;
            let door = table.door(&config.keys)?;
            let generation = self.generation.fetch_add(1, Ordering::Relaxed);
            let peer = Arc::new(Peer::new(config, door, generation, now));
            for prefix in prefixes {
                // Cannot fail: the table was checked under the same lock. Refusing half-way would leave routes.
                if let Err(refused) = table.routes.insert(prefix, Arc::clone(&peer)) {
                    table.routes.retain(|owner| owner.id != id);
                    return Err(refused.into());
                }
            }
            table.peers.insert(id, Arc::clone(&peer));
            table.by_key.insert(key, Arc::clone(&peer));
            peer
        };
        let mut state = peer.state.lock();
        if role == Role::Initiator {
            self.start_handshake(&peer, &mut state, now, out);
        }
        self.reschedule(&peer, &mut state);
        Ok(())
    }

    /// Arms the next pre-shared key beside the present session. An initiator starts the handshake under it at
    /// once; a responder answers under it only from now on. The old session carries data until the new one does.
    pub fn turn_epoch(
        &self,
        id: PeerId,
        psk: Psk,
        epoch: u64,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), TurnRefused> {
        if !self.config.allow_zero_psk && psk.matches(&[0; 32]) {
            return Err(TurnRefused::NoPsk);
        }
        let peer = self.peer(id).ok_or(TurnRefused::Unknown)?;
        let mut state = peer.state.lock();
        if peer.is_cut() {
            return Err(TurnRefused::Unknown);
        }
        if epoch <= state.epoch {
            return Err(TurnRefused::NotLater(state.epoch));
        }
        state.psk = psk;
        state.epoch = epoch;
        // Neither a handshake under way nor an unconfirmed answer under the old key may complete any more.
        self.drop_attempt(&mut state);
        self.drop_next(&mut state);
        if peer.role == Role::Initiator {
            self.start_handshake(&peer, &mut state, now, out);
        }
        self.reschedule(&peer, &mut state);
        Ok(())
    }

    /// Sets the end of the lease, later or earlier.
    pub fn extend_lease(&self, id: PeerId, valid_until: BootTime) -> Result<(), NotArmed> {
        let peer = self.peer(id).ok_or(NotArmed)?;
        let mut state = peer.state.lock();
        if peer.is_cut() {
            return Err(NotArmed);
        }
        state.valid_until = valid_until;
        self.reschedule(&peer, &mut state);
        Ok(())
    }

    /// Replaces the prefixes of a peer, all or none.
    pub fn set_allowed_ips(&self, id: PeerId, prefixes: &[IpNet]) -> Result<(), ArmRefused> {
        if prefixes.len() > MAX_PREFIXES_PER_PEER {
            return Err(ArmRefused::Limit);
        }
        let mut table = self.table.write();
        let Some(peer) = table.peers.get(&id).cloned() else {
            return Err(ArmRefused::NotArmed);
        };
        table.check_prefixes(id, prefixes)?;
        table.routes.retain(|owner| owner.id != id);
        for prefix in prefixes {
            table.routes.insert(*prefix, Arc::clone(&peer))?;
        }
        *peer.allowed_ips.lock() = prefixes.to_vec();
        Ok(())
    }

    /// Replaces the places to look for a peer. A handshake that waits for an answer is repeated at the next
    /// [`Self::handle_timeout`], and an initiator without session starts one then.
    pub fn set_endpoints(&self, id: PeerId, endpoints: &[SocketAddr]) -> Result<(), NotArmed> {
        let peer = self.peer(id).ok_or(NotArmed)?;
        let mut state = peer.state.lock();
        if peer.is_cut() {
            return Err(NotArmed);
        }
        state.set_candidates(endpoints);
        self.reschedule(&peer, &mut state);
        Ok(())
    }

    /// Takes a peer away at once: from the first instruction on the data path refuses it, and when this returns
    /// its keys are gone and no packet of it can be sealed or opened any more. `None` if it was not armed.
    pub fn cut(&self, id: PeerId) -> Option<CutReport> {
        let peer = self.peer(id)?;
        self.cut_peer(&peer)
    }

    /// Cuts this arming of a peer, and no later one.
    fn cut_peer(&self, peer: &Arc<Peer>) -> Option<CutReport> {
        peer.refuse();
        let prefixes = {
            let mut table = self.table.write();
            let id = peer.id;
            if !table
                .peers
                .get(&id)
                .is_some_and(|present| Arc::ptr_eq(present, peer))
            {
                return None;
            }
            table.peers.remove(&id);
            table.by_key.remove(&peer.public_key);
            let before = table.routes.len();
            table.routes.retain(|owner| owner.id != id);
            table.drop_unused_doors();
            before.saturating_sub(table.routes.len())
        };
        let mut state = peer.state.lock();
        let packets = state.queue.len();
        let sessions = self.wipe(&mut state);
        self.schedule.lock().remove(peer);
        Some(CutReport {
            sessions,
            packets,
            prefixes,
        })
    }

    /// Makes `keys` our static key from now on. Returns the peers that still use an older one and must be bound
    /// anew: each boot, and at least every 24 hours.
    pub fn replace_keys(&self, keys: &Arc<StaticKeys>) -> Result<Vec<PeerId>, ArmRefused> {
        let mut table = self.table.write();
        let door = table.door(keys)?;
        table.doors.retain(|present| !Arc::ptr_eq(present, &door));
        table.doors.push(Arc::clone(&door));
        let mut older: Vec<PeerId> = table
            .peers
            .values()
            .filter(|peer| !Arc::ptr_eq(&peer.door, &door))
            .map(|peer| peer.id)
            .collect();
        older.sort_unstable();
        Ok(older)
    }

    /// Our newest static key, public half.
    pub fn public_key(&self) -> Option<[u8; 32]> {
        self.table
            .read()
            .doors
            .last()
            .map(|door| door.keys().public())
    }

    /// All peers, by number.
    pub fn status(&self) -> Vec<PeerStatus> {
        let peers: Vec<Arc<Peer>> = self.table.read().peers.values().cloned().collect();
        let mut all: Vec<PeerStatus> = peers.iter().map(|peer| peer.status()).collect();
        all.sort_unstable_by_key(|peer| peer.id);
        all
    }

    /// How often each thing was refused since start.
    pub fn refusals(&self) -> Refusals {
        self.counters.read()
    }

    /// The next thing that happened.
    pub fn poll_event(&self) -> Option<Event> {
        self.events.lock().pop_front()
    }

    /// Whose prefix holds `destination`, for a packet going out.
    pub fn route(&self, destination: IpAddr) -> Option<PeerHandle> {
        let table = self.table.read();
        table
            .routes
            .lookup(destination)
            .map(|peer| PeerHandle(Arc::clone(peer)))
    }

    fn peer(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.table.read().peers.get(&id).cloned()
    }

    fn event(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() < MAX_EVENTS {
            events.push_back(event);
        } else {
            self.counters.count(Refusal::EventQueueFull);
        }
    }

    fn random_u32(&self) -> Result<u32, NoRandomness> {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A duration below `bound`; zero when there is no randomness, which costs spread and nothing else.
    fn jitter(&self, bound: Duration) -> Duration {
        let random = self.random_u32().unwrap_or(0);
        Duration::from_nanos(
            u64::try_from((bound.as_nanos() * u128::from(random)) >> 32).unwrap_or(0),
        )
    }

    /// Removes every session and queued packet of a peer; returns how many sessions had keys.
    fn wipe(&self, state: &mut PeerState) -> usize {
        let attempt = state
            .attempt
            .take()
            .map(|attempt| attempt.initiator.index());
        let keyed = [
            state.current.take(),
            state.previous.take(),
            state.next.take(),
        ];
        let gone = keyed.iter().flatten().count();
        let mut sessions = self.sessions.write();
        for index in attempt
            .into_iter()
            .chain(keyed.iter().flatten().map(|keyed| keyed.session.index()))
        {
            sessions.remove(&index);
        }
        state.queue.clear();
        state.queued_bytes = 0;
        state.psk = Psk::new([0; 32]);
        state.gate = None;
        gone
    }

    fn check_config(&self, config: &PeerConfig, now: BootTime) -> Result<(), ArmRefused> {
        if config.allowed_ips.len() > MAX_PREFIXES_PER_PEER
            || config.endpoints.len() > MAX_CANDIDATES
        {
            return Err(ArmRefused::Limit);
        }
        if config.public_key == config.keys.public()
            || config.keys.agree(&config.public_key).is_none()
        {
            return Err(ArmRefused::BadKey);
        }
        if !self.config.allow_zero_psk && config.psk.matches(&[0; 32]) {
            return Err(ArmRefused::NoPsk);
        }
        if config.valid_until <= now {
            return Err(ArmRefused::LeaseEnded);
        }
        Ok(())
    }
}

impl Table {
    fn check_free(&self, id: PeerId, key: &[u8; 32], prefixes: &[IpNet]) -> Result<(), ArmRefused> {
        if self.peers.len() >= MAX_PEERS {
            return Err(ArmRefused::Limit);
        }
        if self.peers.contains_key(&id) {
            return Err(ArmRefused::Armed);
        }
        if self.by_key.contains_key(key) {
            return Err(ArmRefused::KeyTaken);
        }
        self.check_prefixes(id, prefixes)
    }

    fn check_prefixes(&self, id: PeerId, prefixes: &[IpNet]) -> Result<(), ArmRefused> {
        let mut seen = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            if self.routes.get(*prefix).is_some_and(|owner| owner.id != id) {
                return Err(RouteRefused::Taken(prefix.trunc()).into());
            }
            seen.push(prefix.trunc());
        }
        seen.sort_unstable();
        let twice = seen.iter().zip(seen.iter().skip(1)).find(|(a, b)| a == b);
        match twice {
            Some((twice, _)) => Err(RouteRefused::Taken(*twice).into()),
            None => Ok(()),
        }
    }

    fn door(&mut self, keys: &Arc<StaticKeys>) -> Result<Arc<Door>, ArmRefused> {
        let public = keys.public();
        if let Some(door) = self
            .doors
            .iter()
            .find(|door| door.keys().public() == public)
        {
            return Ok(Arc::clone(door));
        }
        self.drop_unused_doors();
        if self.doors.len() >= MAX_STATIC_KEYS {
            return Err(ArmRefused::Limit);
        }
        let door = Arc::new(Door::new(Arc::clone(keys)));
        self.doors.push(Arc::clone(&door));
        Ok(door)
    }

    /// Forgets static keys that no peer uses, except the newest.
    fn drop_unused_doors(&mut self) {
        let Some(newest) = self.doors.last().cloned() else {
            return;
        };
        let peers = &self.peers;
        self.doors.retain(|door| {
            Arc::ptr_eq(door, &newest) || peers.values().any(|peer| Arc::ptr_eq(&peer.door, door))
        });
    }
}

#[cfg(test)]
mod tests;
