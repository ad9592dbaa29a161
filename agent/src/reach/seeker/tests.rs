use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use edgeward_identity::{Secret, TrustDomain};
use edgeward_tunnel::bind::Role;
use edgeward_tunnel::node::NoRandomness;
use edgeward_tunnel::reach::relay::{Limits, Relays};
use edgeward_tunnel::reach::{Config, MayRelay};
use edgeward_wire::stun;
use parking_lot::Mutex;

use super::*;
use crate::reach::carry::Brought;

struct Counting(AtomicU8);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}

struct Everybody;

impl MayRelay for Everybody {
    fn may_carry(&self, _: &SpiffeId, _: &SpiffeId) -> bool {
        true
    }

    fn may_use(&self, _: &SpiffeId, _: &SpiffeId) -> bool {
        true
    }
}

fn at(millis: u64) -> BootTime {
    BootTime::from_duration(Duration::from_millis(millis))
}

fn node(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{name}")
        .parse()
        .unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const SERVER: &str = "198.51.100.1:7443";
const OUTSIDE: &str = "203.0.113.7:4711";

/// A node that may meet `a` and `r`, which is a relay; with a session to a cloud that answers STUN and relays.
fn seeker() -> Seeker {
    let config = Config {
        trust_domain: TrustDomain::new("plant.example").unwrap(),
        metered: false,
    };
    let relays = Arc::new(Mutex::new(Relays::new(Limits::default())));
    let random = || Box::new(Counting(AtomicU8::new(0)));
    let reach = Reach::new(config, random(), relays, Arc::new(Everybody));
    let mut seeker = Seeker::new(reach, random(), 51820, false);
    seeker.policy([node("a"), node("r")].into(), vec![node("r")], at(0));
    let local = Local {
        addresses: vec!["10.0.0.2".parse().unwrap()],
        towards_cloud: Some("10.0.0.2".parse().unwrap()),
    };
    seeker.local(local, at(0));
    let seen = CloudSeen {
        address: "cloud:7443".to_owned(),
        seen_from: Some(address("203.0.113.7:999")),
        cloud: Some(address(SERVER)),
        stun: Some(address(SERVER)),
        relays: true,
    };
    seeker.session(seen, at(0));
    seeker
}

/// The question that was sent last, answered.
fn answer_stun(seeker: &mut Seeker, acts: &[Act], now: BootTime) {
    let question = acts.iter().rev().find_map(|act| match act {
        Act::Send { bytes, .. } => match stun::Message::parse(bytes) {
            Ok(stun::Message::Request(id)) => Some(id),
            _ => None,
        },
        _ => None,
    });
    let answer = stun::success(&question.expect("asked"), address(OUTSIDE));
    seeker.stun(address(SERVER), &answer, now);
}

fn called(from: &str, relays: &[&str], answer: bool) -> v1::Called {
    v1::Called {
        spiffe_id: format!("spiffe://plant.example/node/{from}"),
        endpoints: vec!["192.0.2.9:5000".to_owned(), "127.0.0.1:1".to_owned()],
        relays: relays.iter().map(|relay| (*relay).to_owned()).collect(),
        answer,
    }
}

fn calls(acts: &[Act]) -> Vec<&v1::Call> {
    acts.iter()
        .filter_map(|act| match act {
            Act::Call(call) => Some(call),
            _ => None,
        })
        .collect()
}

fn bound_at(at: &str) -> NewlyBound {
    NewlyBound {
        peer: node("a"),
        key: Secret::new([7; 32]),
        role: Role::Initiator,
        at: Endpoint {
            remote: address(at),
            local_ip: None,
        },
    }
}

#[test]
fn whoever_policy_does_not_permit_calls_in_vain() {
    let mut seeker = seeker();
    seeker.take_acts();
    for from in ["b", "", "a/../a"] {
        seeker.called(
            &called(from, &["spiffe://plant.example/cloud/c"], false),
            at(1),
        );
    }
    seeker.tick(at(2));
    let acts = seeker.take_acts();
    let knocks = acts.iter().any(|act| match act {
        Act::Send { to, .. } => *to != address(SERVER),
        _ => false,
    });
    assert!(!knocks);
    assert!(calls(&acts).is_empty());
    let opened = |act: &Act| matches!(act, Act::OpenChannel { .. } | Act::Carry(_));
    assert!(!acts.iter().any(opened));
}

#[test]
fn a_forged_answer_of_stun_is_not_believed() {
    let mut seeker = seeker();
    seeker.take_acts();
    let forged = stun::success(&[0xee; 12], address("192.0.2.66:1"));
    seeker.stun(address(SERVER), &forged, at(1));
    // The right number from the wrong place.
    let elsewhere = stun::success(&[0; 12], address("192.0.2.66:1"));
    seeker.stun(address("192.0.2.66:7443"), &elsewhere, at(1));
    seeker.stun(address(SERVER), b"noise", at(1));
    assert_eq!(seeker.known().reflexive, None);
}

#[test]
fn datagrams_through_the_cloud_from_somebody_else_are_thrown_away() {
    let mut seeker = seeker();
    let from = |name: &str| Brought::Datagrams {
        from: node(name),
        datagrams: vec![vec![1]],
    };
    assert_eq!(seeker.brought(&from("stranger"), at(1)), None);
    let refused = Brought::Refused {
        to: node("a"),
        code: "relay_absent".to_owned(),
    };
    assert_eq!(seeker.brought(&refused, at(1)), None);
    assert!(seeker.brought(&from("a"), at(1)).is_some());
}

#[test]
fn a_peer_that_policy_takes_away_loses_its_channel() {
    let mut seeker = seeker();
    seeker.called(
        &called("a", &["spiffe://plant.example/cloud/c"], true),
        at(1),
    );
    seeker.take_acts();
    seeker.policy([node("r")].into(), vec![node("r")], at(2));
    let acts = seeker.take_acts();
    assert!(
        acts.iter()
            .any(|act| matches!(act, Act::CloseChannel { .. }))
    );
    assert!(acts.iter().any(|act| matches!(act, Act::Carry(false))));
}

#[test]
fn a_node_without_udp_to_the_cloud_calls_all_the_same() {
    let mut seeker = seeker();
    seeker.wanted([(node("a"), Vec::new())].into(), at(0));
    let mut called = Vec::new();
    while let Some(next) = seeker.deadline().filter(|next| *next < at(6_500)) {
        seeker.tick(next);
        let acts = seeker.take_acts();
        called.extend(calls(&acts).into_iter().cloned());
    }
    assert!(!called.is_empty());
    assert!(
        called
            .iter()
            .all(|call| call.endpoints.contains(&"10.0.0.2:51820".to_owned()))
    );
    assert_eq!(seeker.known().reflexive, None);
}

#[test]
fn a_call_waits_for_this_nodes_own_address_and_says_it() {
    let mut seeker = seeker();
    seeker.wanted([(node("a"), Vec::new())].into(), at(0));
    let acts = seeker.take_acts();
    answer_stun(&mut seeker, &acts, at(30));
    let acts = seeker.take_acts();
    let told = acts.iter().find_map(|act| match act {
        Act::Advertise(endpoints) => Some(endpoints),
        _ => None,
    });
    assert!(told.unwrap().contains(&OUTSIDE.to_owned()));
    seeker.tick(at(900));
    let acts = seeker.take_acts();
    let [call] = calls(&acts)[..] else {
        panic!("{acts:?}")
    };
    assert_eq!(call.spiffe_id, node("a").to_string());
    assert!(call.endpoints.contains(&OUTSIDE.to_owned()));
    assert!(!call.answer);
    // An address that is older is asked for anew before the next call.
    seeker.tick(at(20_000));
    let acts = seeker.take_acts();
    assert!(calls(&acts).is_empty());
    answer_stun(&mut seeker, &acts, at(20_050));
    assert_eq!(calls(&seeker.take_acts()).len(), 1);
}

#[test]
fn a_call_is_answered_with_knocks_and_this_nodes_address() {
    let mut seeker = seeker();
    let acts = seeker.take_acts();
    answer_stun(&mut seeker, &acts, at(30));
    seeker.wanted([(node("a"), Vec::new())].into(), at(40));
    seeker.take_acts();
    seeker.called(&called("a", &[], false), at(50));
    seeker.tick(at(50));
    let acts = seeker.take_acts();
    let [answer] = calls(&acts)[..] else {
        panic!("{acts:?}")
    };
    assert!(answer.answer);
    assert!(answer.endpoints.contains(&OUTSIDE.to_owned()));
    let knocked: Vec<SocketAddr> = acts
        .iter()
        .filter_map(|act| match act {
            Act::Send { to, bytes } => {
                assert!(bytes.starts_with(&reach::message::REACH_CLASS));
                Some(*to)
            }
            _ => None,
        })
        .collect();
    assert_eq!(knocked, [address("192.0.2.9:5000")], "never loopback");
    // It is wanted and not bound: it is dialled there as well.
    let dialled = acts.iter().any(|act| match act {
        Act::Dial { peer, addresses } => {
            *peer == node("a") && addresses == &[address("192.0.2.9:5000")]
        }
        _ => false,
    });
    assert!(dialled);
    // An answer is not answered.
    seeker.called(&called("a", &[], true), at(60));
    assert!(calls(&seeker.take_acts()).is_empty());
}

#[test]
fn a_relay_that_a_call_names_is_woken_and_nobody_else() {
    let mut seeker = seeker();
    seeker.take_acts();
    let relays = [
        "spiffe://plant.example/node/r",
        "spiffe://plant.example/node/a",
        "nonsense",
    ];
    seeker.called(&called("a", &relays, true), at(1));
    let woken: Vec<SpiffeId> = seeker
        .take_acts()
        .into_iter()
        .filter_map(|act| match act {
            Act::Wake(peer) => Some(peer),
            _ => None,
        })
        .collect();
    assert_eq!(woken, [node("r")]);
}

#[test]
fn the_cloud_carries_where_nothing_else_answers_and_only_as_long_as_somebody_uses_it() {
    let mut seeker = seeker();
    seeker.wanted([(node("a"), Vec::new())].into(), at(0));
    let mut opened = None;
    let mut dialled = Vec::new();
    while let Some(next) = seeker.deadline().filter(|next| *next < at(9_000)) {
        seeker.tick(next);
        for act in seeker.take_acts() {
            match act {
                Act::OpenChannel { address, .. } => opened = Some(address),
                Act::Dial { addresses, .. } => dialled = addresses,
                _ => {}
            }
        }
    }
    let opened = opened.expect("after some seconds");
    assert!(reach::is_detour(&opened));
    assert!(dialled.contains(&opened));
    // Nobody wants the peer any more: the channel goes after a while.
    seeker.wanted(BTreeMap::new(), at(9_000));
    let mut closed = false;
    for seconds in 9..9 + 2 * CHANNEL_FOR.as_secs() {
        seeker.tick(at(seconds * 1000));
        let acts = seeker.take_acts();
        closed |= acts.iter().any(|act| matches!(act, Act::Carry(false)));
    }
    assert!(closed);
}

#[test]
fn a_bound_peers_addresses_go_to_the_core_and_not_to_the_bind() {
    let mut seeker = seeker();
    seeker.wanted([(node("a"), vec![address("192.0.2.1:1")])].into(), at(0));
    seeker.bound(PeerId(1), bound_at("192.0.2.9:5000"), at(10));
    seeker.take_acts();
    seeker.called(&called("a", &[], true), at(20));
    seeker.tick(at(20));
    let acts = seeker.take_acts();
    assert!(!acts.iter().any(|act| matches!(act, Act::Dial { .. })));
    seeker.unbound(PeerId(1), at(30));
    assert_eq!(seeker.ways.by(&node("a")), Some(By::Nothing));
}
