//! A network with NATs and relays in memory, on a turned clock.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::*;
use crate::node::NoRandomness;
use crate::reach::message::{self, relayed_header};

pub(super) const PORT: u16 = 51820;

/// Repeatable randomness (xorshift).
struct Seeded(Mutex<u64>);

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        let mut state = self.0.lock();
        for byte in bytes {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *byte = state.to_le_bytes()[3];
        }
        Ok(())
    }
}

/// Who may relay, turned by hand.
#[derive(Default)]
pub(super) struct Policy {
    pub(super) forbidden: Mutex<HashSet<SpiffeId>>,
    pub(super) relays: Mutex<HashSet<SpiffeId>>,
    pub(super) own: Mutex<Option<SpiffeId>>,
}

impl MayRelay for Policy {
    fn may_carry(&self, from: &SpiffeId, to: &SpiffeId) -> bool {
        let forbidden = self.forbidden.lock();
        let own = self.own.lock().clone();
        own.is_some_and(|own| self.relays.lock().contains(&own))
            && !forbidden.contains(from)
            && !forbidden.contains(to)
    }

    fn may_use(&self, relay: &SpiffeId, peer: &SpiffeId) -> bool {
        self.relays.lock().contains(relay) && !self.forbidden.lock().contains(peer)
    }
}

/// How a NAT maps and filters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NatKind {
    /// The same port for everybody, but only who was spoken to gets in.
    PortRestricted,
    /// Another port for everybody.
    Symmetric,
}

pub(super) struct Nat {
    pub(super) public: IpAddr,
    pub(super) kind: NatKind,
    /// Destination to port.
    holes: HashMap<SocketAddr, u16>,
}

pub(super) struct Host {
    pub(super) name: SpiffeId,
    pub(super) reach: Reach,
    pub(super) policy: Arc<Policy>,
    pub(super) relays: Arc<Mutex<Relays>>,
    pub(super) address: IpAddr,
    pub(super) nat: Option<Nat>,
    pub(super) detours: HashMap<SocketAddr, (Endpoint, Vec<SocketAddr>, RouteId)>,
    /// Channels through the cloud, and the hosts at their other ends.
    channels: HashMap<SocketAddr, usize>,
    /// By peer: where WireGuard would send.
    pub(super) used: HashMap<PeerId, SocketAddr>,
    pub(super) told: Vec<Output>,
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// What the wire does to a packet: how long it takes, or `None` if it is lost.
type Wire = Box<dyn FnMut(&Packet) -> Option<Duration>>;

pub(super) struct Net {
    pub(super) hosts: Vec<Host>,
    pub(super) now: BootTime,
    pub(super) wire: Wire,
    /// Everything that was sent, with its time.
    pub(super) sent: Vec<(BootTime, Packet)>,
    /// By arrival; with a host, what the cloud carries to it.
    under_way: BTreeMap<(BootTime, u64), (Option<usize>, Packet)>,
    count: u64,
}

pub(super) fn name(text: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{text}")
        .parse()
        .unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// How `to` is known to everybody: its place among the hosts.
pub(super) fn id(to: usize) -> PeerId {
    PeerId(to as u64 + 1)
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Net {
    pub(super) fn new() -> Self {
        Self {
            hosts: Vec::new(),
            now: BootTime::from_duration(Duration::from_secs(1000)),
            wire: Box::new(|_| Some(millis(10))),
            sent: Vec::new(),
            under_way: BTreeMap::new(),
            count: 0,
        }
    }

    pub(super) fn host(&mut self, text: &str, address: &str) -> usize {
        self.host_with(text, address, None, false)
    }

    pub(super) fn host_with(
        &mut self,
        text: &str,
        address: &str,
        nat: Option<(&str, NatKind)>,
        metered: bool,
    ) -> usize {
        let place = self.hosts.len();
        let policy = Arc::new(Policy::default());
        *policy.own.lock() = Some(name(text));
        let relays = Arc::new(Mutex::new(Relays::new(relay::Limits::default())));
        let config = Config {
            trust_domain: name(text).trust_domain().clone(),
            metered,
        };
        let random = Box::new(Seeded(Mutex::new(place as u64 + 99)));
        let mut reach = Reach::new(
            config,
            random,
            Arc::clone(&relays),
            Arc::clone(&policy) as _,
        );
        reach.handle(Input::Local(vec![ip(address)]), self.now);
        self.hosts.push(Host {
            name: name(text),
            reach,
            policy,
            relays,
            address: ip(address),
            nat: nat.map(|(public, kind)| Nat {
                public: ip(public),
                kind,
                holes: HashMap::new(),
            }),
            detours: HashMap::new(),
            channels: HashMap::new(),
            used: HashMap::new(),
            told: Vec::new(),
        });
        place
    }

    pub(super) fn relay(&mut self, relay: usize) {
        for host in &mut self.hosts {
            let relay = name(["a", "b", "r", "s"][relay]);
            host.policy.relays.lock().insert(relay.clone());
        }
        let relay = self.hosts[relay].name.clone();
        for place in 0..self.hosts.len() {
            self.give(place, Input::Relays(vec![relay.clone()]));
        }
    }

    /// Where others see this host, if it kept its port.
    pub(super) fn seen(&self, place: usize) -> SocketAddr {
        let host = &self.hosts[place];
        let ip = host.nat.as_ref().map_or(host.address, |nat| nat.public);
        SocketAddr::new(ip, PORT)
    }

    /// Binds two hosts: each at the other's address, as far as it could know.
    pub(super) fn bind(&mut self, one: usize, two: usize) {
        let (at_one, at_two) = (self.seen(one), self.seen(two));
        self.bind_at(one, two, at_two, at_one);
    }

    pub(super) fn bind_at(
        &mut self,
        one: usize,
        two: usize,
        at_two: SocketAddr,
        at_one: SocketAddr,
    ) {
        let key = [(one * 16 + two) as u8 + 1; 32];
        for (own, other, role, at) in [
            (two, one, Role::Responder, at_one),
            (one, two, Role::Initiator, at_two),
        ] {
            let peer = self.hosts[other].name.clone();
            self.give(
                own,
                Input::Bound {
                    peer,
                    id: id(other),
                    key: Secret::new(key),
                    role,
                    at: Endpoint {
                        remote: at,
                        local_ip: None,
                    },
                },
            );
        }
    }

    /// The cloud carries between two hosts from now on.
    pub(super) fn channel(&mut self, one: usize, two: usize) {
        for (own, other) in [(one, two), (two, one)] {
            let host = &mut self.hosts[own];
            let address = host.reach.channel_address().unwrap();
            host.channels.insert(address, other);
            let peer = self.hosts[other].name.clone();
            self.give(own, Input::Channel { peer, address });
        }
    }

    pub(super) fn give(&mut self, place: usize, input: Input<'_>) {
        let outputs = self.hosts[place].reach.handle(input, self.now);
        self.perform(place, outputs);
    }

    /// Packets pass in both directions between the two, as WireGuard would count them.
    pub(super) fn talk(&mut self, one: usize, two: usize) {
        self.count += 1;
        let bytes = self.count;
        for (own, other) in [(one, two), (two, one)] {
            self.give(
                own,
                Input::Traffic {
                    peer: id(other),
                    sent: bytes,
                    received: bytes,
                },
            );
        }
    }

    /// As `run`, with the two talking all the time.
    pub(super) fn run_talking(&mut self, one: usize, two: usize, duration: Duration) {
        let end = self.now.plus(duration);
        while self.now < end {
            self.talk(one, two);
            let step = end.since(self.now).min(Duration::from_secs(2));
            self.run(step);
        }
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now.plus(duration);
        for _ in 0..1_000_000 {
            let packet = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let timers = self.hosts.iter().filter_map(|host| host.reach.deadline());
            let Some(next) = timers.chain(packet).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if packet == Some(next)
                && let Some((_, (carried_to, packet))) = self.under_way.pop_first()
            {
                match carried_to {
                    Some(place) => self.datagram(place, packet.from, &packet.bytes),
                    None => self.arrive(packet),
                }
                continue;
            }
            for place in 0..self.hosts.len() {
                let due = self.hosts[place].reach.deadline();
                if due.is_some_and(|due| due <= self.now) {
                    self.give(place, Input::Tick);
                }
            }
        }
        panic!("the network does not come to rest");
    }

    pub(super) fn perform(&mut self, place: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, bytes } => self.send(place, to.remote, bytes),
                Output::UsePath { peer, endpoint, .. } => {
                    self.hosts[place].used.insert(peer, endpoint.remote);
                }
                Output::Detour {
                    address,
                    relay,
                    sources,
                    route,
                } => {
                    let host = &mut self.hosts[place];
                    host.detours.insert(address, (relay, sources, route));
                }
                Output::DetourGone { address } => {
                    self.hosts[place].detours.remove(&address);
                }
                Output::Listen(_) | Output::Deafen(_) => {}
                told => self.hosts[place].told.push(told),
            }
        }
    }

    /// Out of a host: through its detours, then its NAT.
    pub(super) fn send(&mut self, place: usize, to: SocketAddr, bytes: Vec<u8>) {
        let host = &mut self.hosts[place];
        if let Some(other) = host.channels.get(&to).copied() {
            let mut back = self.hosts[other].channels.iter();
            let from = back.find_map(|(address, end)| (*end == place).then_some(*address));
            if let Some(from) = from {
                // The cloud's line has nothing to do with the wire between hosts.
                self.carry(other, Packet { from, to, bytes });
            }
            return;
        }
        if is_detour(&to) {
            let Some((relay, _, route)) = host.detours.get(&to) else {
                return;
            };
            let (relay, wrapped) = (
                relay.remote,
                [relayed_header(*route).to_vec(), bytes].concat(),
            );
            return self.send(place, relay, wrapped);
        }
        let from = match &mut host.nat {
            None => SocketAddr::new(host.address, PORT),
            Some(nat) => {
                let next = 40_000 + nat.holes.len() as u16;
                let port = match nat.kind {
                    NatKind::PortRestricted => PORT,
                    NatKind::Symmetric => next,
                };
                SocketAddr::new(nat.public, *nat.holes.entry(to).or_insert(port))
            }
        };
        self.put(Packet { from, to, bytes });
    }

    fn carry(&mut self, other: usize, packet: Packet) {
        self.count += 1;
        let at = (self.now.plus(millis(25)), self.count);
        self.under_way.insert(at, (Some(other), packet));
    }

    /// Onto the wire, from anywhere.
    pub(super) fn put(&mut self, packet: Packet) {
        self.sent.push((self.now, packet.clone()));
        if let Some(delay) = (self.wire)(&packet) {
            self.count += 1;
            self.under_way
                .insert((self.now.plus(delay), self.count), (None, packet));
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let Packet { from, to, bytes } = packet;
        let place = self.hosts.iter().position(|host| match &host.nat {
            None => host.address == to.ip() && to.port() == PORT,
            // Only through a hole that was made for exactly this sender.
            Some(nat) => nat.public == to.ip() && nat.holes.get(&from) == Some(&to.port()),
        });
        let Some(place) = place else {
            return;
        };
        if let Some((route, inner)) = message::relayed(&bytes) {
            let host = &self.hosts[place];
            let detour = host
                .detours
                .iter()
                .find(|(_, (_, sources, known))| *known == route && sources.contains(&from));
            if let Some((address, _)) = detour {
                let (address, inner) = (*address, inner.to_vec());
                return self.datagram(place, address, &inner);
            }
            let carry = {
                let mut relays = host.relays.lock();
                relays.carry(route, from, 1, bytes.len(), self.now)
            };
            if let Some(carry) = carry {
                self.send(place, carry.to.remote, bytes);
            }
            return;
        }
        self.datagram(place, from, &bytes);
    }

    pub(super) fn datagram(&mut self, place: usize, from: SocketAddr, bytes: &[u8]) {
        let from = Endpoint {
            remote: from,
            local_ip: None,
        };
        self.give(place, Input::Datagram { from, bytes });
    }

    pub(super) fn chosen(&self, own: usize, other: usize) -> Quality {
        let all = self.hosts[own].reach.qualities();
        let name = &self.hosts[other].name;
        all.into_iter()
            .find(|quality| quality.peer == *name && quality.chosen)
            .expect("some path is chosen")
    }

    pub(super) fn chosen_kind(&self, own: usize, other: usize) -> Option<Kind> {
        let all = self.hosts[own].reach.qualities();
        let name = &self.hosts[other].name;
        all.into_iter()
            .find(|quality| quality.peer == *name && quality.chosen)
            .map(|quality| quality.kind)
    }

    /// Packets since some moment.
    pub(super) fn sent_since(&self, since: BootTime) -> impl Iterator<Item = &Packet> {
        self.sent
            .iter()
            .filter(move |(at, _)| *at >= since)
            .map(|(_, packet)| packet)
    }
}
