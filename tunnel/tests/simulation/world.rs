//! Nodes, the wire between them, one clock, and the operator's hands.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{BootTime, Secret};
use edgeward_tunnel::node::{
    Endpoint, Event, Inbound, Node, NodeConfig, Outgoing, PeerConfig, PeerId, Role,
};
use edgeward_tunnel::wireguard::{DATA_OVERHEAD_BYTES, StaticKeys, padded_length};
use ipnet::IpNet;

use crate::ledger::Ledger;
use crate::random::Seeded;
use crate::wire::{Datagram, Wire};

pub const MTU: usize = 1420;
/// More steps of the clock than any healthy run needs: without end is a failure.
const MAX_STEPS: usize = 5_000_000;
/// Nothing ends by itself.
pub const FOR_EVER: Duration = Duration::from_secs(1_000_000_000);

pub struct World {
    pub now: BootTime,
    pub wire: Wire,
    pub ledger: Ledger,
    pub nodes: Vec<Simulated>,
    batch: Inbound,
    psks: u64,
}

pub struct Simulated {
    pub node: Node,
    pub keys: Arc<StaticKeys>,
    /// As others see it; changes when it roams or its NAT forgets it.
    pub address: SocketAddr,
    /// Peers that this node may talk to now.
    pub armed: BTreeMap<usize, Armed>,
    /// Opened or not, by the last event of each peer.
    pub opened: BTreeMap<usize, u64>,
    pub events: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    pub epoch: u64,
    pub psk: u64,
    pub until: BootTime,
    pub role: Role,
}

impl World {
    pub fn new(count: usize, seed: u64) -> Self {
        let nodes = (0..count)
            .map(|number| Simulated::new(number, seed))
            .collect();
        Self {
            now: BootTime::from_duration(Duration::from_secs(1_000)),
            wire: Wire::new(seed),
            ledger: Ledger::default(),
            nodes,
            batch: Inbound::with_capacity(1 << 16),
            psks: 0,
        }
    }

    /// Two nodes with an open tunnel.
    pub fn pair(seed: u64) -> Self {
        let mut world = Self::new(2, seed);
        world.bind(0, 1);
        world.run(Duration::from_secs(1));
        assert!(world.passes(0, 1) && world.passes(1, 0));
        world
    }

    /// What the bind does at its end: the responder arms first. The lower number initiates.
    pub fn bind(&mut self, a: usize, b: usize) {
        self.psks += 1;
        let psk = self.psks;
        let (low, high) = (a.min(b), a.max(b));
        self.arm(high, low, psk);
        self.arm(low, high, psk);
    }

    pub fn arm(&mut self, at: usize, peer: usize, psk: u64) {
        let role = if at < peer {
            Role::Initiator
        } else {
            Role::Responder
        };
        let armed = Armed {
            epoch: 1,
            psk,
            until: self.now.plus(FOR_EVER),
            role,
        };
        let config = self.config(at, peer, armed);
        let mut out = Vec::new();
        let node = &mut self.nodes[at];
        match node.node.arm(config, self.now, &mut out) {
            Ok(()) => {
                assert!(!node.armed.contains_key(&peer), "armed twice");
                node.armed.insert(peer, armed);
                node.opened.remove(&peer);
            }
            Err(refused) => assert!(node.armed.contains_key(&peer), "{refused}"),
        }
        self.send_all(at, out, None);
    }

    pub fn config(&self, at: usize, peer: usize, armed: Armed) -> PeerConfig {
        PeerConfig {
            id: PeerId(peer as u64),
            name: format!("node {peer}"),
            role: armed.role,
            public_key: self.nodes[peer].keys.public(),
            keys: Arc::clone(&self.nodes[at].keys),
            psk: psk(armed.psk),
            epoch: armed.epoch,
            allowed_ips: prefixes(peer),
            endpoints: vec![self.nodes[peer].address],
            valid_until: armed.until,
            persistent_keepalive: None,
        }
    }

    /// Turns the epoch on both sides, or on one (what a lost message of the bind leaves behind).
    pub fn turn(&mut self, sides: &[(usize, usize)]) {
        self.psks += 1;
        for &(at, peer) in sides {
            let (now, number) = (self.now, self.psks);
            let mut out = Vec::new();
            let side = &mut self.nodes[at];
            let Some(armed) = side.armed.get_mut(&peer) else {
                continue;
            };
            let id = PeerId(peer as u64);
            let again = side
                .node
                .turn_epoch(id, psk(number), armed.epoch, now, &mut out);
            assert!(again.is_err() && out.is_empty(), "an epoch came again");
            let epoch = armed.epoch + 1;
            match side.node.turn_epoch(id, psk(number), epoch, now, &mut out) {
                Ok(()) => (armed.epoch, armed.psk) = (epoch, number),
                Err(_) => assert!(armed.until <= now, "not turned"),
            }
            self.send_all(at, out, None);
        }
    }

    pub fn cut(&mut self, at: usize, peer: usize) {
        let side = &mut self.nodes[at];
        let was_there = side.armed.remove(&peer).is_some();
        let report = side.node.cut(PeerId(peer as u64));
        assert!(report.is_none() || was_there, "cut what was not armed");
        side.opened.remove(&peer);
    }

    pub fn lease(&mut self, at: usize, peer: usize, until: BootTime) {
        let side = &mut self.nodes[at];
        let extended = side.node.extend_lease(PeerId(peer as u64), until);
        if let Some(armed) = side.armed.get_mut(&peer)
            && extended.is_ok()
        {
            armed.until = until;
        }
    }

    /// Sends a packet as the shell would; its number. It goes to whom the sender's prefixes give it.
    pub fn send(&mut self, from: usize, to: usize, source: Ipv4Addr, length: usize) -> u64 {
        let owner = self.nodes[from].owner(inner(to)).unwrap_or(to);
        let ends = ((from, source.octets()), (owner, inner(to).octets()));
        let (number, packet) = self.ledger.packet(ends.0, ends.1, length);
        self.emit(from, to, &packet, Some(number));
        number
    }

    /// Hands any bytes to the tunnel of `from`, as if routed to `to`.
    pub fn emit(&mut self, from: usize, to: usize, packet: &[u8], number: Option<u64>) {
        let (mut out, mut number) = (Vec::new(), number);
        let side = &self.nodes[from];
        if let Some(peer) = side.node.route(IpAddr::V4(inner(to)))
            && let Ok(mut sealer) = peer.sealer(&side.node, self.now)
        {
            match sealer.endpoint() {
                Some(to) => {
                    let mut plain = packet.to_vec();
                    plain.resize(padded_length(packet.len(), MTU), 0);
                    let mut bytes = vec![0; plain.len() + DATA_OVERHEAD_BYTES];
                    if let Ok(length) = sealer.seal(&plain, &mut bytes) {
                        bytes.truncate(length);
                        out.push(Outgoing { to, bytes });
                    }
                }
                None => {
                    // Leaves later, with the others that wait.
                    sealer.hold(packet, &mut out);
                    number = None;
                }
            }
        }
        self.send_all(from, out, number);
    }

    /// Whether a packet gets through now; the network must be quick enough for one second.
    pub fn passes(&mut self, from: usize, to: usize) -> bool {
        let direct = self.nodes[from].owner(inner(to)) == Some(to);
        let number = self.send(from, to, inner(from), 100);
        self.run(Duration::from_secs(1));
        direct && self.ledger.has_arrived(number)
    }

    /// Lets the time pass, with everything that is due in it, in its order.
    pub fn run(&mut self, for_time: Duration) {
        let end = self.now.plus(for_time);
        for _ in 0..MAX_STEPS {
            let timers = self
                .nodes
                .iter()
                .filter_map(|side| side.node.poll_timeout());
            let Some(next) = timers
                .chain(self.wire.next_landing())
                .min()
                .filter(|next| *next <= end)
            else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.tick();
            while let Some(datagram) = self.wire.land(self.now) {
                self.deliver(&datagram);
            }
        }
        panic!("the world does not come to rest");
    }

    fn tick(&mut self) {
        for at in 0..self.nodes.len() {
            let mut out = Vec::new();
            let node = &self.nodes[at].node;
            if node.poll_timeout().is_some_and(|due| due <= self.now) {
                node.handle_timeout(self.now, &mut out);
            }
            self.send_all(at, out, None);
            self.nodes[at].note_events(self.now);
        }
    }

    fn deliver(&mut self, datagram: &Datagram) {
        let at = self
            .nodes
            .iter()
            .position(|side| side.address == datagram.to);
        if let Some(at) = at {
            self.receive(at, datagram.from, &datagram.bytes, datagram.bytes.len());
        }
    }

    /// Gives a node a run of datagrams, as its socket would, and holds what comes out against the ledger.
    pub fn receive(&mut self, at: usize, from: SocketAddr, bytes: &[u8], stride: usize) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        let from = Endpoint {
            remote: from,
            local_ip: None,
        };
        let side = &self.nodes[at];
        side.node
            .receive(from, bytes, stride.max(1), self.now, &mut batch);
        side.node.check_sources(&mut batch);
        for run in batch.runs() {
            let peer = run.peer.id().0 as usize;
            for packet in batch.packets(run).filter(|packet| !packet.is_empty()) {
                let armed = side
                    .armed
                    .get(&peer)
                    .expect("a packet of a peer that is not armed");
                assert!(
                    self.now < armed.until,
                    "a packet after the end of the lease"
                );
                let source: [u8; 4] = packet[12..16].try_into().unwrap();
                let owner = side.owner(source.into());
                assert_eq!(owner, Some(peer), "node {peer} spoke for somebody else");
                self.ledger.arrived(at, peer, packet);
            }
        }
        let out = std::mem::take(&mut batch.outgoing);
        self.batch = batch;
        self.nodes[at].note_events(self.now);
        self.send_all(at, out, None);
    }

    fn send_all(&mut self, at: usize, out: Vec<Outgoing>, packet: Option<u64>) {
        let from = self.nodes[at].address;
        for Outgoing { to, bytes } in out {
            let datagram = Datagram {
                from,
                to: to.remote,
                bytes,
                packet,
            };
            self.wire.send(datagram, self.now);
        }
    }
}

impl Simulated {
    fn new(number: usize, seed: u64) -> Self {
        let config = NodeConfig {
            mtu: MTU,
            allow_zero_psk: false,
        };
        let random = Seeded::new(seed.wrapping_mul(31).wrapping_add(number as u64));
        Self {
            node: Node::new(config, Box::new(random)),
            keys: Arc::new(StaticKeys::new(Secret::new([number as u8 + 1; 32]))),
            address: SocketAddr::new(Ipv4Addr::new(192, 0, 2, number as u8 + 1).into(), 51_820),
            armed: BTreeMap::new(),
            opened: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Whose an inner address is at this node, by what policy gave to the peers that are armed.
    pub fn owner(&self, address: Ipv4Addr) -> Option<usize> {
        let mut armed = self.armed.keys().copied();
        armed
            .find(|peer| inner(*peer) == address)
            .or_else(|| (address.octets()[0] == 10 && self.armed.contains_key(&0)).then_some(0))
    }

    /// An epoch opens only when it is the armed one, later than the one before.
    fn note_events(&mut self, now: BootTime) {
        while let Some(event) = self.node.poll_event() {
            match &event {
                Event::Opened { peer, epoch } => {
                    let peer = peer.0 as usize;
                    if let Some(armed) = self.armed.get(&peer) {
                        assert!(*epoch <= armed.epoch, "an epoch that is not armed yet");
                        let before = self.opened.insert(peer, *epoch);
                        assert!(before < Some(*epoch), "{before:?} was open before {epoch}");
                    }
                }
                Event::LeaseEnded { peer } => {
                    let armed = self.armed.remove(&(peer.0 as usize));
                    assert!(armed.is_none_or(|armed| armed.until <= now), "ended early");
                    self.opened.remove(&(peer.0 as usize));
                }
                _ => {}
            }
            self.events.push(event);
        }
    }
}

/// Where a node is in the tunnel.
pub fn inner(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number as u8 + 1)
}

/// What policy gives a node: its address; node 0 also has all of 10.0.0.0/8, so that everybody's address is a
/// part of its prefix.
pub fn prefixes(number: usize) -> Vec<IpNet> {
    let mut prefixes = vec![IpNet::new(inner(number).into(), 32).unwrap()];
    if number == 0 {
        prefixes.push("10.0.0.0/8".parse().unwrap());
    }
    prefixes
}

fn psk(number: u64) -> Secret<[u8; 32]> {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Secret::new(bytes)
}
