//! Whatever networks, operators and strangers do, in any order: the rules of the ledger hold, nothing panics,
//! and once they leave off every pair that is bound talks again.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use edgeward_tunnel::node::{ArmRefused, PeerConfig, PeerId, Refusal};
use proptest::prelude::*;

use crate::random::Draw;
use crate::wire::{Datagram, Faults};
use crate::world::{Armed, World, inner};

const NODES: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Send {
        from: usize,
        to: usize,
        count: u8,
    },
    Wait {
        millis: u32,
    },
    Bind {
        a: usize,
        b: usize,
    },
    BindOneSide {
        at: usize,
        peer: usize,
    },
    Cut {
        at: usize,
        peer: usize,
    },
    Lease {
        at: usize,
        peer: usize,
        seconds: u32,
    },
    Turn {
        a: usize,
        b: usize,
    },
    TurnOneSide {
        at: usize,
        peer: usize,
    },
    Weather {
        loss: u64,
        spread: u64,
    },
    Part {
        a: usize,
        b: usize,
    },
    Heal,
    Move {
        node: usize,
        port: u16,
    },
    Replay {
        which: usize,
        from: Option<u8>,
        times: u8,
    },
    Spoof {
        from: usize,
        to: usize,
        source: [u8; 4],
    },
    Squat {
        at: usize,
        key_of: usize,
    },
    Forge {
        to: usize,
        kind: u8,
        length: usize,
        seed: u64,
    },
    Truncate {
        which: usize,
        keep: usize,
    },
    Extend {
        which: usize,
        by: usize,
    },
    CookieStorm {
        to: usize,
        which: usize,
        count: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        10 => (node(), node(), 1..6u8).prop_map(|(from, to, count)| Step::Send { from, to, count }),
        8 => (0..8_000u32).prop_map(|millis| Step::Wait { millis }),
        1 => (120_000..400_000u32).prop_map(|millis| Step::Wait { millis }),
        5 => (node(), node()).prop_map(|(a, b)| Step::Bind { a, b }),
        1 => (node(), node()).prop_map(|(at, peer)| Step::BindOneSide { at, peer }),
        2 => (node(), node()).prop_map(|(at, peer)| Step::Cut { at, peer }),
        1 => (node(), node(), 0..30u32).prop_map(|(at, peer, seconds)| Step::Lease { at, peer, seconds }),
        3 => (node(), node()).prop_map(|(a, b)| Step::Turn { a, b }),
        1 => (node(), node()).prop_map(|(at, peer)| Step::TurnOneSide { at, peer }),
        2 => (0..400u64, 0..300u64).prop_map(|(loss, spread)| Step::Weather { loss, spread }),
        1 => (node(), node()).prop_map(|(a, b)| Step::Part { a, b }),
        1 => Just(Step::Heal),
        1 => (node(), 1_024..u16::MAX).prop_map(|(node, port)| Step::Move { node, port }),
        4 => (any::<usize>(), any::<Option<u8>>(), 1..4u8)
            .prop_map(|(which, from, times)| Step::Replay { which, from, times }),
        3 => (node(), node(), prop_oneof![
            any::<[u8; 4]>(),
            (0..NODES).prop_map(|number| inner(number).octets()),
        ]).prop_map(|(from, to, source)| Step::Spoof { from, to, source }),
        1 => (node(), node()).prop_map(|(at, key_of)| Step::Squat { at, key_of }),
        3 => (node(), 0..6u8, prop_oneof![0..200usize, Just(148), Just(92), Just(64), Just(32), 1_400..70_000usize], any::<u64>())
            .prop_map(|(to, kind, length, seed)| Step::Forge { to, kind, length, seed }),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(which, keep)| Step::Truncate { which, keep }),
        1 => (any::<usize>(), 1..70_000usize).prop_map(|(which, by)| Step::Extend { which, by }),
        1 => (node(), any::<usize>(), 50..200u8)
            .prop_map(|(to, which, count)| Step::CookieStorm { to, which, count }),
    ]
}

impl World {
    fn perform(&mut self, step: Step) {
        match step {
            Step::Send { from, to, count } if from != to => {
                for number in 0..count {
                    self.send(from, to, inner(from), 60 + 97 * usize::from(number));
                }
            }
            Step::Wait { millis } => self.run(Duration::from_millis(millis.into())),
            Step::Bind { a, b } if a != b && !self.bound(a, b) && !self.bound(b, a) => {
                self.bind(a, b)
            }
            // The bind died between the two ends: keys that nobody else has.
            Step::BindOneSide { at, peer } if at != peer && !self.bound(at, peer) => {
                self.arm(at, peer, u64::MAX);
            }
            Step::Cut { at, peer } => self.cut(at, peer),
            Step::Lease { at, peer, seconds } => {
                let until = self.now.plus(Duration::from_secs(seconds.into()));
                self.lease(at, peer, until);
            }
            Step::Turn { a, b } if self.bound(a, b) && self.bound(b, a) => {
                self.turn(&[(a.max(b), a.min(b)), (a.min(b), a.max(b))]);
            }
            Step::TurnOneSide { at, peer } => self.turn(&[(at, peer)]),
            Step::Weather { loss, spread } => {
                self.wire.faults = Faults {
                    data_loss: loss,
                    handshake_loss: loss,
                    duplicate: loss / 2,
                    delay: Duration::from_millis(5),
                    spread: Duration::from_millis(spread),
                };
            }
            Step::Part { a, b } => {
                let (a, b) = (self.nodes[a].address, self.nodes[b].address);
                self.wire.part(a, b);
            }
            Step::Heal => self.wire.heal(),
            Step::Move { node, port } => {
                let ip = Ipv4Addr::new(203, 0, 113, node as u8 + 1);
                self.nodes[node].address = SocketAddr::new(ip.into(), port);
            }
            other => self.attack(other),
        }
    }

    fn attack(&mut self, step: Step) {
        let stranger = |number: u8| -> SocketAddr {
            SocketAddr::new(Ipv4Addr::new(198, 51, 100, number).into(), 9_999)
        };
        match step {
            Step::Replay { which, from, times } => {
                if let Some(mut datagram) = self.wire.recorded(which).cloned() {
                    datagram.from = from.map_or(datagram.from, stranger);
                    for _ in 0..times {
                        self.wire.fly(datagram.clone(), self.now);
                    }
                }
            }
            // A bound peer speaks for anybody: what comes out is held against what policy gave it.
            Step::Spoof { from, to, source } if from != to => {
                self.send(from, to, source.into(), 100);
            }
            Step::Squat { at, key_of } => self.squat(at, key_of),
            Step::Forge {
                to,
                kind,
                length,
                seed,
            } => {
                let mut bytes = noise(length, seed);
                if let Some(prefix) = bytes.get_mut(..4) {
                    prefix.copy_from_slice(&[kind, 0, 0, 0]);
                }
                self.inject(stranger(1), to, bytes);
            }
            Step::Truncate { which, keep } => {
                if let Some(mut datagram) = self.wire.recorded(which).cloned() {
                    datagram.bytes.truncate(keep % datagram.bytes.len().max(1));
                    self.wire.fly(datagram, self.now);
                }
            }
            Step::Extend { which, by } => {
                if let Some(mut datagram) = self.wire.recorded(which).cloned() {
                    datagram.bytes.extend(noise(by, which as u64));
                    self.wire.fly(datagram, self.now);
                }
            }
            Step::CookieStorm { to, which, count } => {
                let recorded = self.wire.recordings().iter();
                let initiations: Vec<Vec<u8>> = recorded
                    .filter(|datagram| datagram.bytes.first() == Some(&1))
                    .map(|datagram| datagram.bytes.clone())
                    .collect();
                let Some(index) = which.checked_rem(initiations.len()) else {
                    return;
                };
                for number in 0..count {
                    self.inject(stranger(number), to, initiations[index].clone());
                }
            }
            _ => {}
        }
    }

    /// Somebody claims the WireGuard key of a node that is bound, or the node's own.
    fn squat(&mut self, at: usize, key_of: usize) {
        let squatter = Armed {
            epoch: 1,
            psk: 666,
            until: self.now.plus(Duration::from_secs(60)),
            role: edgeward_tunnel::node::Role::Responder,
        };
        let config = PeerConfig {
            id: PeerId(900),
            allowed_ips: vec!["10.0.9.9/32".parse().unwrap()],
            ..self.config(at, key_of, squatter)
        };
        let refused = self.nodes[at].node.arm(config, self.now, &mut Vec::new());
        if at == key_of {
            assert_eq!(refused, Err(ArmRefused::BadKey));
        } else if self.bound(at, key_of) {
            assert_eq!(refused, Err(ArmRefused::KeyTaken));
        } else {
            assert_eq!(refused, Ok(()));
            assert!(self.nodes[at].node.cut(PeerId(900)).is_some());
        }
    }

    fn inject(&mut self, from: SocketAddr, to: usize, bytes: Vec<u8>) {
        let to = self.nodes[to].address;
        let datagram = Datagram {
            from,
            to,
            bytes,
            packet: None,
        };
        self.wire.fly(datagram, self.now);
    }

    fn bound(&self, at: usize, peer: usize) -> bool {
        self.nodes[at].armed.contains_key(&peer)
    }

    /// What the agents do when the storm is over: the directory says where everybody is, and a bind whose ends
    /// disagree is made anew.
    fn settle(&mut self) {
        self.wire.faults = Faults::none();
        self.wire.heal();
        // What the storm left on the wire lands, and the short leases end, before anybody starts anew.
        self.run(Duration::from_secs(40));
        for at in 0..NODES {
            for peer in 0..NODES {
                let endpoint = [self.nodes[peer].address];
                let _not_armed = self.nodes[at]
                    .node
                    .set_endpoints(PeerId(peer as u64), &endpoint);
            }
        }
        for (a, b) in pairs() {
            let (mine, theirs) = (
                self.nodes[a].armed.get(&b).copied(),
                self.nodes[b].armed.get(&a).copied(),
            );
            let agree = mine
                .zip(theirs)
                .is_some_and(|(mine, theirs)| mine.psk == theirs.psk);
            let (mine, theirs) = (mine.is_some(), theirs.is_some());
            if (mine || theirs) && !agree {
                self.cut(a, b);
                self.cut(b, a);
                self.bind(a, b);
            }
        }
        self.run(Duration::from_secs(200));
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut draw = Draw(seed);
    (0..length).map(|_| draw.next() as u8).collect()
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| (a, b)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_whatever_happens(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(NODES, seed);
        world.bind(0, 1);
        world.bind(1, 2);
        world.run(Duration::from_millis(100));
        for step in steps {
            world.perform(step);
        }
        world.settle();
        let bound: BTreeSet<(usize, usize)> = pairs().filter(|(a, b)| world.bound(*a, *b) && world.bound(*b, *a)).collect();
        for (a, b) in pairs() {
            // The first packets may wait for a handshake, which looks for the peer where it was seen last before it
            // looks where the directory says, one retry later.
            let soon = world.now.plus(Duration::from_secs(20));
            while world.now < soon && !(world.passes(a, b) && world.passes(b, a)) {}
            let passes = (world.passes(a, b), world.passes(b, a));
            let expected = bound.contains(&(a, b));
            prop_assert_eq!(passes, (expected, expected), "{} and {}", a, b);
        }
    }
}

#[test]
fn a_storm_of_initiations_is_answered_with_cookies_and_everybody_bound_goes_on() {
    let mut world = World::pair(31);
    let initiation = world
        .wire
        .recordings()
        .iter()
        .find(|datagram| datagram.bytes.first() == Some(&1))
        .unwrap()
        .bytes
        .clone();
    for second in 0..20u8 {
        for number in 0..500u16 {
            let ip = Ipv4Addr::new(198, 51, (number >> 8) as u8 + second, number as u8);
            let from = SocketAddr::new(ip.into(), 1_000 + number);
            world.inject(from, 1, initiation.clone());
        }
        world.send(0, 1, inner(0), 300);
        world.send(1, 0, inner(1), 300);
        // The keys are replaced in the middle of it.
        if second == 10 {
            world.turn(&[(1, 0), (0, 1)]);
        }
        world.run(Duration::from_secs(1));
    }
    world.run(Duration::from_secs(30));
    assert_eq!(
        world.ledger.missing(),
        Vec::<u64>::new(),
        "packets were lost"
    );
    let refusals = world.nodes[1].node.refusals();
    assert!(refusals.get(Refusal::Busy) > 1_000, "no load limit");
    assert_eq!(
        world.nodes[0].node.status()[0].open,
        Some(2),
        "the turn was starved"
    );
}

#[test]
fn every_spoofed_source_is_refused_and_counted() {
    // Node 0 owns 10.0.0.0/8 but for what others own more exactly.
    let mut world = World::new(3, 32);
    world.bind(0, 1);
    world.bind(1, 2);
    world.run(Duration::from_secs(1));
    let refused = |world: &World| world.nodes[1].node.refusals().get(Refusal::WrongSource);
    let before = refused(&world);
    // Of another peer inside its own prefix, of the receiver itself, of everybody else.
    let spoofed = [
        (0, inner(2)),
        (2, inner(0)),
        (2, Ipv4Addr::new(10, 9, 9, 9)),
        (0, Ipv4Addr::new(192, 168, 0, 1)),
    ];
    for (from, source) in spoofed {
        world.send(from, 1, source, 100);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(refused(&world) - before, spoofed.len() as u64);
    // What it does own passes.
    let number = world.send(0, 1, Ipv4Addr::new(10, 9, 9, 9), 100);
    world.run(Duration::from_secs(1));
    assert!(world.ledger.has_arrived(number));
}

#[test]
fn a_wrong_key_opens_nothing_however_long_it_is_tried() {
    let mut world = World::new(2, 33);
    world.arm(1, 0, 1);
    world.arm(0, 1, 2);
    for _ in 0..300 {
        world.send(0, 1, inner(0), 100);
        world.send(1, 0, inner(1), 100);
        world.run(Duration::from_secs(1));
    }
    assert_eq!(world.ledger.missing().len(), 600);
    assert!(world.nodes.iter().all(|side| side.opened.is_empty()));
    assert!(world.nodes[0].node.refusals().get(Refusal::NotAuthentic) > 0);
}
