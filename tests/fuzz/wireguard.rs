//! Targets for the messages of WireGuard, and for sessions and peers on their way to another process. The first
//! authenticator is made right, so that what stands behind it is reached.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use edgeward_identity::{BootTime, Secret};
use edgeward_tunnel::node::{
    Endpoint, Inbound, MovedPeer, Node, NodeConfig, Outgoing, PeerConfig, PeerId, Role,
};
use edgeward_tunnel::wireguard::{
    CookieJar, Door, Initiator, Mood, NoRandomness, Random, Seed, SessionIndex, SessionState,
    StampClock, StaticKeys,
};

const MTU: usize = 1420;
/// The index of a handshake of ours.
const ANSWERED: u32 = 0x0403_0201;
/// Inputs that cost key agreements, for each target, when all targets are run one after the other.
const COSTLY_INPUTS: u32 = 5_000;

/// The same bytes at every start, so that a finding repeats.
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        for byte in bytes {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            *byte = (count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        }
        Ok(())
    }
}

fn random(seed: u64) -> Counting {
    Counting(seed.wrapping_mul(1 << 20).into())
}

fn keys(seed: u8) -> Arc<StaticKeys> {
    Arc::new(StaticKeys::new(Secret::new([seed; 32])))
}

fn place(port: u16) -> SocketAddr {
    SocketAddr::new([192, 0, 2, 1].into(), port)
}

fn now() -> BootTime {
    BootTime::from_duration(Duration::from_secs(1000))
}

/// Two nodes with a session between them, and what one said to the other meanwhile.
struct Pair {
    a: Node,
    b: Node,
    said: Vec<Vec<u8>>,
}

fn config(ours: u8, theirs: u8, role: Role) -> PeerConfig {
    PeerConfig {
        id: PeerId(theirs.into()),
        name: "spiffe://plant.example/node/a".to_owned(),
        role,
        public_key: keys(theirs).public(),
        keys: keys(ours),
        psk: Secret::new([7; 32]),
        epoch: 1,
        allowed_ips: vec![format!("10.0.0.{theirs}/32").parse().expect("a prefix")],
        endpoints: vec![place(theirs.into())],
        valid_until: now().plus(Duration::from_secs(3600)),
        persistent_keepalive: None,
    }
}

fn pair() -> Pair {
    let node = |seed| {
        let config = NodeConfig {
            mtu: MTU,
            allow_zero_psk: false,
        };
        Node::new(config, Box::new(random(seed)))
    };
    let (a, b) = (node(1), node(2));
    let mut to_b = Vec::new();
    b.arm(config(2, 1, Role::Responder), now(), &mut Vec::new())
        .expect("armed");
    a.arm(config(1, 2, Role::Initiator), now(), &mut to_b)
        .expect("armed");
    let mut said = Vec::new();
    for _ in 0..4 {
        let to_a = deliver(&b, 1, &to_b);
        said.extend(
            to_b.iter()
                .chain(&to_a)
                .map(|outgoing| outgoing.bytes.clone()),
        );
        to_b = deliver(&a, 2, &to_a);
    }
    Pair { a, b, said }
}

fn deliver(node: &Node, from: u16, datagrams: &[Outgoing]) -> Vec<Outgoing> {
    let mut batch = Inbound::with_capacity(1 << 16);
    for datagram in datagrams {
        receive(node, from, &datagram.bytes, &mut batch);
    }
    std::mem::take(&mut batch.outgoing)
}

fn receive(node: &Node, from: u16, bytes: &[u8], batch: &mut Inbound) {
    let from = Endpoint {
        remote: place(from),
        local_ip: None,
    };
    node.receive(from, bytes, bytes.len().max(1), now(), batch);
}

thread_local! {
    static PAIR: RefCell<Pair> = RefCell::new(pair());
    static DOOR: Door = Door::new(keys(2));
    static HANDSHAKE: RefCell<Initiator> = RefCell::new(handshake());
}

/// A handshake of ours that waits for its answer; none that is refused ends it.
fn handshake() -> Initiator {
    let (door, random) = (Door::new(keys(1)), random(4));
    let index = SessionIndex::from_random(ANSWERED);
    let mut handshake = Initiator::new(&door, &keys(2).public(), &Secret::new([7; 32]), index);
    let seed = Seed::draw(&random).expect("never fails");
    let stamp = StampClock::default().next(Duration::from_secs(1));
    assert!(handshake.initiate(seed, stamp).is_ok());
    handshake
}

/// Whether there is time for a costly input: always, when one target is driven alone.
fn affordable(spent: &AtomicU32) -> bool {
    std::env::var_os("EDGEWARD_FUZZ_TARGET").is_some()
        || spent.fetch_add(1, Ordering::Relaxed) < COSTLY_INPUTS
}

fn of_length(kind: u8, length: usize, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(bytes);
    message.resize(length, 0);
    message
}

/// Any datagram at both ends of a live session; the session must survive it.
pub fn datagram(bytes: &[u8]) {
    PAIR.with_borrow(|pair| {
        let mut batch = Inbound::with_capacity(1 << 16);
        for node in [&pair.a, &pair.b] {
            receive(node, 9, bytes, &mut batch);
            node.check_sources(&mut batch);
            assert!(
                node.status()
                    .first()
                    .is_some_and(|peer| peer.open == Some(1))
            );
        }
    });
}

/// A run of datagrams of one length, as the kernel joins them.
pub fn joined(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else {
        return;
    };
    PAIR.with_borrow(|pair| {
        let mut batch = Inbound::with_capacity(1 << 12);
        let from = Endpoint {
            remote: place(9),
            local_ip: None,
        };
        let stride = usize::from(*length);
        pair.b.receive(from, rest, stride, now(), &mut batch);
        pair.b.check_sources(&mut batch);
    });
}

/// Behind the right first authenticator: the door, its cookies, and the Noise message.
pub fn initiation(bytes: &[u8]) {
    static SPENT: AtomicU32 = AtomicU32::new(0);
    if affordable(&SPENT) {
        DOOR.with(|door| behind_the_door(door, bytes));
    }
}

fn behind_the_door(door: &Door, bytes: &[u8]) {
    let mut message = of_length(1, 148, bytes);
    CookieJar::default().sign(&door.keys().public(), &mut message, now());
    let random = random(3);
    for mood in [
        Mood::Calm,
        Mood::Busy {
            now: now(),
            random: &random,
        },
    ] {
        let _ = door.admit(place(1), &message, mood);
    }
    let seed = Seed::draw(&random).expect("never fails");
    if let Ok(received) = door.read(&message, seed) {
        let known = PAIR.with_borrow(|pair| pair.b.status());
        let known = known
            .iter()
            .any(|peer| &peer.public_key == received.sender());
        assert!(known, "only the seed's own sender has its key");
    }
}

/// An answer to a handshake of ours.
pub fn response(bytes: &[u8]) {
    static SPENT: AtomicU32 = AtomicU32::new(0);
    if affordable(&SPENT) {
        let mut message = of_length(2, 92, bytes);
        message[8..12].copy_from_slice(&ANSWERED.to_le_bytes());
        HANDSHAKE.with_borrow_mut(|handshake| assert!(handshake.complete(&message).is_err()));
    }
}

pub fn cookie(bytes: &[u8]) {
    let (mut jar, peer) = (CookieJar::default(), [9; 32]);
    jar.sign(&peer, &mut [0; 148], now());
    assert!(jar.take(&peer, &of_length(3, 64, bytes), now()).is_err());
}

/// What is read is what was written.
pub fn session(bytes: &[u8]) {
    if let Ok(state) = SessionState::decode(bytes) {
        assert!(state.encode()[..] == *bytes);
    }
}

/// A peer that another process gives: read, written again, armed, and looked at by the timer.
pub fn moved_peer(bytes: &[u8]) {
    let Ok(moved) = MovedPeer::decode(bytes) else {
        return;
    };
    assert!(moved.encode()[..] == *bytes);
    static SPENT: AtomicU32 = AtomicU32::new(0);
    if !affordable(&SPENT) {
        return;
    }
    let config = NodeConfig {
        mtu: MTU,
        allow_zero_psk: false,
    };
    let node = Node::new(config, Box::new(random(5)));
    if node.import(moved, now()).is_ok() {
        let mut out = Vec::new();
        node.handle_timeout(now(), &mut out);
        assert_eq!(node.status().len(), 1);
    }
}

pub fn messages() -> Vec<Vec<u8>> {
    let mut said = pair().said;
    said.push([&[4, 0, 0, 0][..], &[1; 60]].concat());
    said
}

pub fn joined_messages() -> Vec<Vec<u8>> {
    messages()
        .into_iter()
        .filter_map(|message| {
            let length = u8::try_from(message.len()).ok()?;
            Some([&[length][..], &message, &message].concat())
        })
        .collect()
}

pub fn bodies() -> Vec<Vec<u8>> {
    messages()
        .iter()
        .map(|message| message[4..].to_vec())
        .collect()
}

pub fn moved_peers() -> Vec<Vec<u8>> {
    let pair = pair();
    let peers = pair.a.export().into_iter().chain(pair.b.export());
    peers.map(|peer| peer.encode().to_vec()).collect()
}

pub fn sessions() -> Vec<Vec<u8>> {
    // The last thing of a peer is its sessions, and the last of these its state; an empty queue follows.
    let length = edgeward_tunnel::wireguard::SESSION_STATE_BYTES;
    moved_peers()
        .iter()
        .map(|peer| peer[peer.len() - 4 - length..peer.len() - 4].to_vec())
        .collect()
}
