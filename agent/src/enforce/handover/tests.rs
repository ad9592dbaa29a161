use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{Secret, SpkiHash};
use edgeward_policy::Standing as Evidence;
use edgeward_tunnel::filter::{FlowKey, MovedFlows};
use edgeward_tunnel::node::{MovedPeer, PeerConfig, Role};

use super::*;
use crate::enforce::books::Armed;
use crate::enforce::testing::{PEER, evidence, id};

const LEASE: Duration = Duration::from_secs(600);

fn key(byte: u8) -> Secret<[u8; 32]> {
    Secret::new([byte; 32])
}

fn public(byte: u8) -> [u8; 32] {
    StaticKeys::new(key(byte)).public()
}

/// A peer as a node gives it away, with a lease of `lease` from now.
fn peer(lease: Duration) -> MovedPeer {
    let (node, now) = (new_node(1420), SystemClock.boottime());
    let config = PeerConfig {
        id: PEER,
        name: id("b").to_string(),
        role: Role::Responder,
        public_key: public(2),
        keys: Arc::new(StaticKeys::new(key(1))),
        psk: key(3),
        epoch: 1 << 24,
        allowed_ips: vec!["fd00::b/128".parse().unwrap()],
        endpoints: Vec::new(),
        valid_until: now.plus(lease),
        persistent_keepalive: None,
    };
    node.arm(config, now, &mut Vec::new()).unwrap();
    node.export().pop().unwrap()
}

fn armed(lease: Duration) -> Armed {
    Armed {
        number: PEER,
        keys: [public(1), public(2)],
        until: SystemClock.boottime().plus(lease),
        allowed_ips: vec!["fd00::b/128".parse().unwrap()],
        open_since: Some(SystemClock.boottime()),
        handed: false,
    }
}

fn bound() -> BoundPeer {
    BoundPeer {
        id: id("b"),
        spki: SpkiHash::from_bytes([9; 32]),
        evidence: Evidence {
            last_pass: Some(TEST_NOW),
            ..evidence(TEST_NOW)
        },
        runs: None,
        by_boot_statement: false,
    }
}

fn paper(lease: Duration) -> Paper {
    let number = PEER.0;
    Paper {
        version: "1.0.0".to_owned(),
        uid: nix::unistd::geteuid().as_raw(),
        node: id("a"),
        v6: "fd00::a".parse().unwrap(),
        v4: None,
        device: "edgeward0".parse().unwrap(),
        mtu: 1420,
        listen: "[::]:51820".parse().unwrap(),
        offload: true,
        udp_offload: true,
        table: None,
        keys_since: Nanos::of(SystemClock.boottime()),
        heard: None,
        online: true,
        next_number: number + 1,
        numbers: BTreeMap::from([(3, id("former")), (number, id("b"))]),
        armed: vec![ArmedPaper::of(&armed(lease))],
        bound: vec![BoundPaper::of(PEER, &bound())],
    }
}

fn handed() -> Handed {
    Handed {
        paper: paper(LEASE),
        private: key(1),
        flows: MovedFlows::default(),
        peers: vec![peer(LEASE)],
    }
}

fn refused(change: impl FnOnce(&mut Handed)) -> NotHanded {
    let mut handed = handed();
    change(&mut handed);
    Handed::parse(&handed.write().unwrap())
        .map(|_| ())
        .unwrap_err()
}

#[test]
fn what_is_cut_longer_of_another_form_or_contradicts_itself_is_refused() {
    let good = handed().write().unwrap();
    assert!(Handed::parse(&good).is_ok());
    for length in 0..good.len() {
        assert!(Handed::parse(&good[..length]).is_err(), "{length}");
    }
    assert!(Handed::parse(&[&good[..], &[0]].concat()).is_err());
    let mut other = good.to_vec();
    other[16] ^= 3;
    assert_eq!(
        Handed::parse(&other).map(|_| ()),
        Err(NotHanded::Format(FORMAT ^ 3))
    );
    let odd: [fn(&mut Handed); 9] = [
        |handed| handed.peers.clear(),
        |handed| handed.paper.armed.clear(),
        |handed| handed.paper.armed.push(handed.paper.armed[0].clone()),
        |handed| handed.paper.numbers.clear(),
        |handed| drop(handed.paper.numbers.insert(PEER.0, id("c"))),
        |handed| drop(handed.paper.numbers.insert(1, id("b"))),
        |handed| handed.paper.next_number = PEER.0,
        |handed| handed.paper.bound.push(handed.paper.bound[0].clone()),
        |handed| handed.paper.bound = vec![BoundPaper::of(PeerId(3), &bound())],
    ];
    for (number, change) in odd.into_iter().enumerate() {
        assert!(matches!(refused(change), NotHanded::Odd(_)), "{number}");
    }
}

#[test]
fn what_is_read_is_what_was_written() {
    let handed = handed();
    let read = Handed::parse(&handed.write().unwrap()).unwrap();
    assert_eq!(read.paper, handed.paper);
    let [(name, armed)] = &read.paper.armed()[..] else {
        panic!("{:?}", read.paper);
    };
    assert_eq!((name, armed.keys), (&id("b"), [public(1), public(2)]));
    assert!(armed.handed, "nobody has bound it here");
    assert_eq!(read.paper.bound(), [(PEER, bound())]);
    assert!(!format!("{:?}", read.paper).contains(&hex::encode([1; 32])));
}

fn taken_in(paper: Duration, wireguard: Duration) -> (Node, Books) {
    let (node, told) = (new_node(1420), self::paper(paper));
    let mut books = Books::of(told.next_number, &told.numbers, told.armed());
    let now = SystemClock.boottime();
    take_in(&node, vec![peer(wireguard)], &mut books, now).unwrap();
    (node, books)
}

#[test]
fn a_lease_is_the_shorter_of_those_that_were_told_and_never_begins_anew() {
    let minute = Duration::from_secs(60);
    for (paper, wireguard) in [(minute, LEASE), (LEASE, minute)] {
        let (node, books) = taken_in(paper, wireguard);
        let left = |until: BootTime| until.since(SystemClock.boottime());
        let armed = &books.armed[&id("b")];
        assert!(left(armed.until) <= minute && left(armed.until) > minute / 2);
        let [status] = &node.status()[..] else {
            panic!("not armed");
        };
        assert_eq!(status.valid_until, armed.until);
    }
    let (node, books) = taken_in(Duration::ZERO, LEASE);
    assert!(node.status().is_empty() && books.armed.is_empty());
}

#[test]
fn numbers_of_peers_go_on() {
    let (_, mut books) = taken_in(LEASE, LEASE);
    assert_eq!(books.number(&id("b")), PEER);
    assert_eq!(books.number(&id("former")), PeerId(3));
    assert!(books.number(&id("new")) > PEER);
}

#[test]
fn without_a_policy_nothing_new_is_granted() {
    let parts = without_policy(
        &paper(LEASE),
        HashMap::from([(PEER, bound())]),
        &SystemClock,
    );
    let flow = FlowKey {
        protocol: 6,
        source: "fd00::b".parse().unwrap(),
        destination: "fd00::a".parse().unwrap(),
        source_port: 1,
        destination_port: 502,
    };
    let verdict = Picture::new(parts).flow(
        &flow,
        PEER,
        edgeward_tunnel::filter::Direction::In,
        SystemClock.boottime(),
    );
    assert!(!verdict.allow);
}
