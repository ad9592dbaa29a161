//! The WireGuard node: peers that the bind armed, their sessions, leases, timers and cuts. No I/O.
//!
//! A peer exists here only while it is armed: with a static key, a pre-shared key of one *epoch*, prefixes that
//! policy gave it, and a lease. Data flows once a handshake under that key has completed, and only until the
//! lease ends or [`Node::cut`] takes the peer away. The responder of a bind arms first and does not start the
//! handshake that opens an epoch; the initiator does. Once it is open, either side starts what it needs: a session
//! that carries data is replaced in time, an idle one is let go, and the next packet makes another. A peer that
//! idles holds no session keys and stands in the schedule with its lease only.
//!
//! Sessions follow the kernel's scheme: *current* sends, *next* waits for the initiator's first message, two *older*
//! ones only receive. An epoch is turned the same way: the session under the new key is made beside the
//! old one, which is dropped [`OLD_EPOCH_LINGER`] after both ends are known to use the new one. The initiator says its
//! first message again until it hears the responder under that key.
//!
//! Locks, in this order: the table, a peer's `state` (handshakes and timers), its `link` (what the data path reads).
//! A batch holds the `link` for reading, so that sealing, opening and other batches go on beside it, and never across
//! a system call; a cut takes it for writing, and so ends after the batches under way. Time is [`BootTime`], told by the caller; [`Node::poll_timeout`] says when
//! [`Node::handle_timeout`] has something to do.

mod arming;
mod counters;
mod handover;
mod handshakes;
mod inbound;
mod knock;
mod link;
mod load;
mod outbound;
mod path;
mod path_mtu;
mod peer;
mod pulse;
mod table;
mod timers;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edgeward_identity::{BootTime, Timestamp};
use foldhash::HashMap;
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

pub use arming::{ArmRefused, NotArmed, PeerConfig, Role, TurnRefused};
pub use counters::{Refusal, Refusals};
pub use handover::{MAX_MOVED_BYTES, MovedPeer, NotAPeer};
pub use inbound::{Inbound, InboundRun};
pub use knock::{
    HOLD_TIME, Held, KNOCK_AGAIN, Knock, MAX_HELD_BYTES, MAX_HELD_BYTES_IN_ALL, MAX_HELD_PACKETS,
    MAX_WAITED_FOR,
};
pub use outbound::Sealer;
pub use path_mtu::{MIN_DATAGRAM_BYTES, PATH_MTU_AGE, outer_headers};
pub use peer::PeerHandle;
pub use timers::{
    FIRST_RETRY, KEEPALIVE_TIMEOUT, MAX_BACKOFF, REJECT_AFTER_TIME, REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME, REKEY_TIMEOUT,
};

pub use crate::wireguard::{NoRandomness, Random};
use crate::wireguard::{Psk, ReplayGate, SessionIndex, StaticKeys};
use counters::Counters;
use knock::Knocks;
use load::Load;
use peer::{Peer, PeerState};
use table::Table;
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
/// How long the session of an old epoch still receives after both ends are known to use the new one.
pub const OLD_EPOCH_LINGER: Duration = Duration::from_secs(10);

/// A peer's number in the caller's books. Never used for another identity while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// Where a peer is, and which of our addresses it knows us by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub remote: SocketAddr,
    pub local_ip: Option<IpAddr>,
}

/// How the node behaves.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig {
    /// MTU of the tunnel device, in bytes: padding stops there.
    pub mtu: usize,
    /// Whether a peer without pre-shared key (all zeros) may be armed: plain WireGuard only.
    pub allow_zero_psk: bool,
}

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
    /// A packet waits for a peer that sleeps ([`Node::set_sleepers`]).
    Knocked { peer: PeerId },
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

/// All peers of one tunnel device.
pub struct Node {
    config: NodeConfig,
    random: Box<dyn Random>,
    /// Wall clock when the time since boot was zero, since 1970.
    booted: Duration,
    table: RwLock<Table>,
    sessions: RwLock<HashMap<SessionIndex, Arc<Peer>>>,
    schedule: Mutex<Schedule>,
    /// Copy of the schedule's first entry, in nanoseconds since boot; `u64::MAX` for none.
    next_due: AtomicU64,
    load: Mutex<Load>,
    counters: Counters,
    events: Mutex<VecDeque<Event>>,
    /// Called after each event, by whichever thread made it.
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    knocks: Knocks,
    generation: AtomicU64,
}

impl Node {
    pub fn new(config: NodeConfig, random: Box<dyn Random>) -> Self {
        Self {
            config,
            random,
            booted: Duration::ZERO,
            table: RwLock::default(),
            sessions: RwLock::default(),
            schedule: Mutex::default(),
            next_due: AtomicU64::new(u64::MAX),
            load: Mutex::default(),
            counters: Counters::default(),
            events: Mutex::default(),
            waker: OnceLock::new(),
            knocks: Knocks::default(),
            generation: AtomicU64::new(1),
        }
    }

    /// Says what the wall clock showed when the time since boot was zero: handshakes carry timestamps that have to
    /// grow for as long as a static key is used. Needed only for keys that outlive a boot.
    #[must_use]
    pub fn booted_at(mut self, wall: Timestamp) -> Self {
        self.booted = Duration::from_millis(wall.millis());
        self
    }

    pub fn config(&self) -> NodeConfig {
        self.config
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
        let sessions = self.wipe(peer, &mut state);
        self.schedule.lock().remove(peer);
        self.await_no_longer(peer.id);
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

    /// Calls `wake` after each event, from the thread that made it and with locks held: it must only wake the reader.
    /// The first caller counts.
    pub fn on_event(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A node has one reader.
        let _first = self.waker.set(Box::new(wake));
    }

    /// Whose prefix holds `destination`, for a packet going out.
    pub fn route(&self, destination: IpAddr) -> Option<PeerHandle> {
        let table = self.table.read();
        table
            .routes
            .lookup(destination)
            .map(|peer| PeerHandle(Arc::clone(peer)))
    }

    /// Whose prefix holds `destination` for a packet going out, unless somebody who sleeps owns a longer one: what lies
    /// within the networks of one peer may be another's, who is only to be woken.
    pub fn route_awake(&self, destination: IpAddr) -> Option<PeerHandle> {
        let (length, peer) = {
            let table = self.table.read();
            let (length, peer) = table.routes.lookup_prefix(destination)?;
            (length, Arc::clone(peer))
        };
        let hosts = if destination.is_ipv4() { 32 } else { 128 };
        // Nothing is longer than a single address: the usual case asks no further.
        let asleep = length < hosts && self.sleeper_within(destination, length);
        (!asleep).then_some(PeerHandle(peer))
    }

    fn is_armed(&self, id: PeerId) -> bool {
        self.table.read().peers.contains_key(&id)
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
        drop(events);
        if let Some(wake) = self.waker.get() {
            wake();
        }
    }

    /// Time since 1970 for timestamps of handshakes: never goes back, whatever is done to the wall clock.
    fn wall_clock(&self, now: BootTime) -> Duration {
        self.booted.saturating_add(now.as_duration())
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

    /// Removes every session and queued packet of a peer; returns how many sessions had keys. Waits for the batches
    /// that are being sealed or opened.
    fn wipe(&self, peer: &Peer, state: &mut PeerState) -> usize {
        let attempt = state.attempt.take();
        let keyed = peer.link.write().wipe();
        let mut sessions = self.sessions.write();
        for index in attempt
            .iter()
            .map(|attempt| attempt.initiator.index())
            .chain(keyed.iter().copied())
        {
            sessions.remove(&index);
        }
        state.queue = VecDeque::new();
        state.queued_bytes = 0;
        state.psk = Psk::new([0; 32]);
        state.gate = ReplayGate::default();
        keyed.len()
    }
}

#[cfg(test)]
mod tests;
