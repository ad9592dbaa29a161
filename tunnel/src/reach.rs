//! Reach: how two bound nodes find, keep and change the way between them. No I/O.
//!
//! A node knows several ways to a peer: addresses that the directory tells, addresses from which the peer was heard,
//! routes through relays, a channel through the cloud. All of them are probed ([`path`]), the best one is used
//! ([`Output::UsePath`]), and WireGuard and the bind's QUIC follow without noticing. What the two tell each other is
//! sealed under a key of their bind ([`seal`], [`message`]): nobody without a bind learns or moves anything.
//!
//! - [`path`]: one way: loss, latency, the largest packet that gets through.
//! - [`keepalive`]: how often a NAT's mapping needs something; [`mapping`]: is there one, and of what kind.
//! - [`relay`]: what this node carries for others, if policy lets it.
//! - [`Reach`]: all of it; [`interface`]: what goes in and comes out.
//!
//! A relayed datagram carries any other datagram of two nodes that are bound with the relay, or will be with each
//! other: to WireGuard and QUIC the far end looks like an address of `100::/64` ([`crate::shell::detour`]), so they
//! run through relays end to end. Relays are never chained.

mod budget;
mod carrying;
mod detours;
pub mod interface;
pub mod keepalive;
pub mod mapping;
pub mod message;
pub mod path;
mod peer;
mod probing;
pub mod relay;
mod relaying;
pub mod seal;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{BootTime, Secret, SpiffeId};
use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;

pub use interface::{Config, Input, Kind, MayRelay, NotRelayed, Output, Quality};
pub use mapping::Nat;
pub use message::RouteId;
pub use peer::{ACTIVE_FOR, MAX_PATHS, PROBE_CHOSEN};
pub use seal::Tag;

use crate::bind::Role;
use crate::node::{Endpoint, PeerId, Random};
use detours::Detour;
use mapping::Mapping;
use peer::Peer;
use relay::Relays;
use relaying::Ask;
use seal::Channel;

/// How long a path that answered may not be replaced by one that just appears.
pub const PROVEN_FOR: Duration = Duration::from_secs(3);
/// Most addresses of a peer that are taken from the directory.
pub const MAX_CANDIDATES: usize = 8;
/// Most detours: routes and channels through which this node can be reached.
pub const MAX_DETOURS: usize = 4096;
/// Most relays tried for a peer.
pub const MAX_RELAYS: usize = 16;
/// How far apart idle peers are probed after a change of the network.
const SPREAD: Duration = Duration::from_secs(5);
/// How often routes of a relay are looked over.
const SWEEP: Duration = Duration::from_secs(10);

/// The ways to all bound peers.
pub struct Reach {
    config: Config,
    random: Box<dyn Random>,
    may: Arc<dyn MayRelay>,
    /// Shared with the thread that carries.
    relays: Arc<Mutex<Relays>>,
    peers: HashMap<PeerId, Peer>,
    names: HashMap<SpiffeId, PeerId>,
    tags: HashMap<Tag, Vec<PeerId>>,
    due: BTreeSet<(BootTime, PeerId)>,
    mapping: Mapping,
    /// Routes through relays, by the address they look like.
    detours: BTreeMap<SocketAddr, Detour>,
    /// Channels, by the address they look like.
    channels: HashMap<SocketAddr, SpiffeId>,
    next_detour: u64,
    asks: BTreeMap<u32, Ask>,
    next_ask: u32,
    /// Policy's relays, best first.
    known_relays: Vec<SpiffeId>,
    sweep: BootTime,
    refused: Refused,
}

/// Reach messages that were not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Of no bind, forged or damaged.
    pub unopened: u64,
    pub replayed: u64,
    pub malformed: u64,
    /// More than the peer may send.
    pub over_budget: u64,
    /// Answers to nothing, routes that are not the sender's.
    pub out_of_turn: u64,
}

/// The bytes of `100::/64` (RFC 6666): routers discard what is sent there.
const DISCARD_PREFIX: [u16; 4] = [0x100, 0, 0, 0];
/// The port of every detour.
const DETOUR_PORT: u16 = 6;

/// Whether this address stands for a relay or a channel. No packet of a network comes from one.
pub fn is_detour(address: &SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V6(ip) => ip.segments().starts_with(&DISCARD_PREFIX),
        IpAddr::V4(_) => false,
    }
}

impl Reach {
    pub fn new(
        config: Config,
        random: Box<dyn Random>,
        relays: Arc<Mutex<Relays>>,
        may: Arc<dyn MayRelay>,
    ) -> Self {
        Self {
            config,
            random,
            may,
            relays,
            peers: HashMap::new(),
            names: HashMap::new(),
            tags: HashMap::new(),
            due: BTreeSet::new(),
            mapping: Mapping::default(),
            detours: BTreeMap::new(),
            channels: HashMap::new(),
            next_detour: 1,
            asks: BTreeMap::new(),
            next_ask: 1,
            known_relays: Vec::new(),
            sweep: BootTime::default(),
            refused: Refused::default(),
        }
    }

    /// Takes one thing that happened; says what to do.
    pub fn handle(&mut self, input: Input<'_>, now: BootTime) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Bound {
                peer,
                id,
                key,
                role,
                at,
            } => self.bound(peer, id, key, role, at, now, &mut out),
            Input::Unbound(id) => self.unbound(id, now, &mut out),
            Input::Candidates {
                peer,
                mut addresses,
            } => {
                addresses.retain(is_plausible);
                addresses.truncate(MAX_CANDIDATES);
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.set_candidates(&addresses, now);
                    self.step(peer, now, &mut out);
                }
            }
            Input::Channel { peer, address } => self.channel(peer, address, now, &mut out),
            Input::ChannelGone { address } => {
                self.channels.remove(&address);
                self.drop_path(address, now, &mut out);
            }
            Input::Local(addresses) => self.local(addresses, now, &mut out),
            Input::Relays(mut relays) => {
                relays.truncate(MAX_RELAYS);
                self.known_relays = relays;
            }
            Input::Roamed { peer, to } => self.roamed(peer, to, now, &mut out),
            Input::Traffic {
                peer,
                sent,
                received,
            } => self.traffic(peer, sent, received, now, &mut out),
            Input::Datagram { from, bytes } => self.datagram(from, bytes, now, &mut out),
            Input::WantRelay { relay, to } => self.want_relay(&relay, to, now, &mut out),
            Input::Recheck => self.recheck(now, &mut out),
            Input::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// When [`Input::Tick`] has something to do.
    pub fn deadline(&self) -> Option<BootTime> {
        let peers = self.due.first().map(|(due, _)| *due);
        let asks = self.asks.values().map(|ask| ask.again).min();
        let sweep = (!self.relays.lock().is_empty()).then_some(self.sweep);
        [peers, asks, sweep].into_iter().flatten().min()
    }

    /// A new address for a channel to some peer, if there is room for one.
    pub fn channel_address(&mut self) -> Option<SocketAddr> {
        if self.detours.len() + self.channels.len() >= MAX_DETOURS {
            return None;
        }
        let number = self.next_detour;
        self.next_detour = number.checked_add(1)?;
        let [a, b, c, d] = DISCARD_PREFIX;
        let prefix = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_bits();
        let ip = Ipv6Addr::from_bits(prefix | u128::from(number));
        Some(SocketAddr::new(ip.into(), DETOUR_PORT))
    }

    /// All paths of all bound peers.
    pub fn qualities(&self) -> Vec<Quality> {
        let mut all: Vec<Quality> = self
            .peers
            .values()
            .flat_map(|peer| self.quality(peer))
            .collect();
        all.sort_by(|a, b| (&a.peer, !a.chosen, a.address).cmp(&(&b.peer, !b.chosen, b.address)));
        all
    }

    /// What is known of the NAT between this node and others.
    pub fn nat(&self, now: BootTime) -> Nat {
        self.mapping.nat(now)
    }

    pub fn refused(&self) -> Refused {
        self.refused
    }

    fn quality<'a>(&'a self, peer: &'a Peer) -> impl Iterator<Item = Quality> + 'a {
        let keeps = !self.config.metered;
        peer.paths.iter().map(move |path| {
            let chosen = peer.chosen == Some(path.at.remote);
            let needed = keepalive::is_needed(path.observed, self.mapping.local());
            Quality {
                peer: peer.name.clone(),
                kind: path.kind.clone(),
                address: path.at.remote,
                chosen,
                alive: path.is_alive(),
                rtt: path.rtt(),
                loss_percent: path.loss_percent(),
                largest_datagram: path.largest_datagram_found(),
                keepalive: (chosen && keeps && path.is_direct() && needed)
                    .then(|| peer.keepalive.interval()),
                since: chosen.then_some(peer.since),
            }
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one input, taken apart")]
    fn bound(
        &mut self,
        name: SpiffeId,
        id: PeerId,
        key: Secret<[u8; 32]>,
        role: Role,
        at: Endpoint,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let same = self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.name == name && peer.key.matches(key.expose()));
        if !same {
            // Another number for the same name: the former arming is gone.
            if let Some(former) = self.names.get(&name).copied()
                && former != id
            {
                self.unbound(former, now, out);
            }
            let Ok(channel) = Channel::new(&key, role) else {
                tracing::error!(peer = %name, "no keys for reach");
                return;
            };
            self.replace_channel(&name, id, channel, key, now, out);
        }
        let kind = self.kind_of(at.remote);
        let known: Vec<(SocketAddr, Kind)> = self.detours_of(&name);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // A path that works now is worth more than the one over which the bind was made anew.
        let works = peer.chosen_path().is_some_and(path::Path::is_alive);
        if let Some(kind) = kind
            && peer.learn(at, kind, false, now)
            && !works
        {
            peer.take(at.remote, now);
        }
        for (address, kind) in known {
            let at = Endpoint {
                remote: address,
                local_ip: None,
            };
            peer.learn(at, kind, true, now);
        }
        peer.wake(now);
        peer.probe_all(now);
        self.placed(id, out);
        self.step(id, now, out);
    }

    fn replace_channel(
        &mut self,
        name: &SpiffeId,
        id: PeerId,
        channel: Channel,
        key: Secret<[u8; 32]>,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let tag = channel.tag();
        match self.peers.get_mut(&id) {
            // Bound anew: what is known of its paths stays.
            Some(peer) => {
                let former = peer.channel.tag();
                peer.channel = channel;
                peer.key = key;
                self.deafen(former, id, out);
            }
            None => {
                let peer = Peer::new(id, name.clone(), channel, key, now);
                self.peers.insert(id, peer);
                self.names.insert(name.clone(), id);
            }
        }
        self.tags.entry(tag).or_default().push(id);
        out.push(Output::Listen(tag));
    }

    fn unbound(&mut self, id: PeerId, now: BootTime, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        self.names.remove(&peer.name);
        if let Some(due) = peer.scheduled {
            self.due.remove(&(due, id));
        }
        self.deafen(peer.channel.tag(), id, out);
        self.forget_relay(id, now, out);
    }

    fn deafen(&mut self, tag: Tag, id: PeerId, out: &mut Vec<Output>) {
        if let Some(holders) = self.tags.get_mut(&tag) {
            holders.retain(|holder| *holder != id);
            if holders.is_empty() {
                self.tags.remove(&tag);
                out.push(Output::Deafen(tag));
            }
        }
    }

    /// How this address is reached; `None` for a detour that is not there (any more).
    fn kind_of(&self, address: SocketAddr) -> Option<Kind> {
        if !is_detour(&address) {
            return Some(Kind::Direct);
        }
        if self.channels.contains_key(&address) {
            return Some(Kind::Cloud);
        }
        self.detours
            .get(&address)
            .map(|detour| Kind::Relay(detour.relay_name.clone()))
    }

    fn reschedule(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let due = peer.due();
        if due == peer.scheduled {
            return;
        }
        if let Some(former) = peer.scheduled {
            self.due.remove(&(former, id));
        }
        peer.scheduled = due;
        if let Some(due) = due {
            self.due.insert((due, id));
        }
    }

    fn jitter(&self, bound: Duration) -> Duration {
        let mut bytes = [0; 4];
        // Without randomness there is no spread, and nothing else is lost.
        if self.random.fill(&mut bytes).is_err() {
            return Duration::ZERO;
        }
        bound.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
    }
}

/// Whether a datagram may be sent to this address at all because somebody said so.
pub fn is_plausible(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !broadcast
        && !is_detour(address)
}

#[cfg(test)]
mod tests;
