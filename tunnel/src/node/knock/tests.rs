use super::*;
use crate::node::{NoRandomness, NodeConfig, Random};

const PACKET: [u8; 1000] = [0x45; 1000];

struct Nothing;

impl Random for Nothing {
    fn fill(&self, _bytes: &mut [u8]) -> Result<(), NoRandomness> {
        Err(NoRandomness)
    }
}

fn node(sleepers: &[(&str, u64)]) -> Node {
    let config = NodeConfig {
        mtu: 1420,
        allow_zero_psk: false,
    };
    let node = Node::new(config, Box::new(Nothing));
    let sleepers = sleepers
        .iter()
        .map(|(prefix, peer)| (prefix.parse().unwrap(), PeerId(*peer)));
    assert_eq!(node.set_sleepers(sleepers), 0);
    node
}

fn at(millis: u64) -> BootTime {
    BootTime::from_duration(Duration::from_millis(100_000 + millis))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn knocks(node: &Node) -> usize {
    std::iter::from_fn(|| node.poll_event()).count()
}

#[test]
fn a_packet_to_nobody_is_not_held() {
    let node = node(&[("fd00::2/128", 2)]);
    assert_eq!(node.knock(ip("fd00::3"), &PACKET, at(0)), Knock::Nobody);
    assert_eq!(node.held(), (0, 0));
    assert_eq!(knocks(&node), 0);
}

#[test]
fn one_knock_is_told_and_told_again_only_after_a_second() {
    let node = node(&[("fd00::2/128", 2), ("10.9.0.0/24", 2)]);
    for _ in 0..5 {
        assert_eq!(node.knock(ip("fd00::2"), &PACKET, at(0)), Knock::Held);
        assert_eq!(node.knock(ip("10.9.0.7"), &PACKET, at(0)), Knock::Held);
    }
    assert_eq!(node.poll_event(), Some(Event::Knocked { peer: PeerId(2) }));
    assert_eq!(knocks(&node), 0);
    node.knock(ip("fd00::2"), &PACKET, at(999));
    assert_eq!(knocks(&node), 0);
    node.knock(ip("fd00::2"), &PACKET, at(1000));
    assert_eq!(knocks(&node), 1);
}

#[test]
fn what_waits_for_one_peer_is_bounded_by_packets_and_by_bytes() {
    let node = node(&[("fd00::2/128", 2), ("fd00::3/128", 3)]);
    for _ in 0..MAX_HELD_PACKETS {
        assert_eq!(node.knock(ip("fd00::2"), &[0x60; 40], at(0)), Knock::Held);
    }
    assert_eq!(node.knock(ip("fd00::2"), &[0x60; 40], at(1)), Knock::Full);
    let big = vec![0x60; MAX_HELD_BYTES];
    assert_eq!(node.knock(ip("fd00::3"), &big, at(0)), Knock::Held);
    assert_eq!(node.knock(ip("fd00::3"), &[0x60], at(0)), Knock::Full);
    assert_eq!(node.refusals().get(Refusal::QueueFull), 2);
}

#[test]
fn what_waits_for_all_peers_together_is_bounded() {
    let sleepers: Vec<(IpNet, PeerId)> = (1..3000_u32)
        .map(|number| {
            (
                IpNet::from(IpAddr::V4(number.into())),
                PeerId(number.into()),
            )
        })
        .collect();
    let node = node(&[]);
    assert_eq!(node.set_sleepers(sleepers), 0);
    let big = vec![0x45; MAX_HELD_BYTES];
    for number in 1..3000_u32 {
        node.knock(IpAddr::V4(number.into()), &big, at(0));
    }
    assert_eq!(node.held().1, MAX_HELD_BYTES_IN_ALL);
    node.expire_held(at(6000));
    assert_eq!(node.held(), (0, 0));
    for number in 1..3000_u32 {
        node.knock(IpAddr::V4(number.into()), &[0x45], at(6000));
    }
    assert_eq!(node.held().0, MAX_WAITED_FOR);
    // Their places are free again once they have waited too long.
    assert_eq!(
        node.knock(IpAddr::V4(2999.into()), &[0x45], at(12_000)),
        Knock::Held
    );
    assert_eq!(node.held(), (1, 1));
}

#[test]
fn packets_are_handed_back_in_order_and_only_while_they_are_young() {
    let node = node(&[("fd00::2/128", 2)]);
    node.knock(ip("fd00::2"), &[1], at(0));
    node.knock(ip("fd00::2"), &[2], at(1000));
    node.knock(ip("fd00::2"), &[3], at(2000));
    assert_eq!(node.take_held(PeerId(3), at(2000)), Held::default());
    assert_eq!(
        node.take_held(PeerId(2), at(6000)).outward,
        [vec![2], vec![3]]
    );
    assert_eq!(node.take_held(PeerId(2), at(6000)), Held::default());
    assert_eq!(node.held(), (0, 0));
}

#[test]
fn what_waits_for_a_peer_that_may_not_be_woken_any_more_is_dropped() {
    let node = node(&[("fd00::2/128", 2), ("fd00::3/128", 3)]);
    node.knock(ip("fd00::2"), &PACKET, at(0));
    node.knock(ip("fd00::3"), &PACKET, at(0));
    node.set_sleepers([(ip("fd00::3").into(), PeerId(3))]);
    assert_eq!(node.held(), (1, PACKET.len()));
    assert!(!node.is_asleep(ip("fd00::2")));
    assert_eq!(node.take_held(PeerId(2), at(0)), Held::default());
}

#[test]
fn a_prefix_belongs_to_whom_it_was_given_first() {
    let node = node(&[]);
    let prefix: IpNet = "10.0.0.0/24".parse().unwrap();
    assert_eq!(
        node.set_sleepers([(prefix, PeerId(1)), (prefix, PeerId(2))]),
        1
    );
    node.knock(ip("10.0.0.9"), &PACKET, at(0));
    assert_eq!(knocks(&node), 1);
    assert_eq!(node.take_held(PeerId(1), at(0)).outward.len(), 1);
}

#[test]
fn whoever_reads_events_is_woken_by_each() {
    let node = node(&[("fd00::2/128", 2)]);
    let woken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&woken);
    node.on_event(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    node.knock(ip("fd00::2"), &PACKET, at(0));
    assert_eq!(woken.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_peer_is_awaited_from_the_first_packet_until_what_waited_is_taken_or_too_old() {
    let node = node(&[("fd00::2/128", 2), ("fd00::3/128", 3)]);
    assert!(!node.awaits(PeerId(2)));
    node.knock(ip("fd00::2"), &PACKET, at(0));
    assert!(node.awaits(PeerId(2)));
    assert!(!node.awaits(PeerId(3)));
    node.take_held(PeerId(2), at(1));
    assert!(!node.awaits(PeerId(2)));
    node.knock(ip("fd00::2"), &PACKET, at(2));
    node.expire_held(at(5002));
    assert!(node.awaits(PeerId(2)));
    node.expire_held(at(5003));
    assert!(!node.awaits(PeerId(2)));
}

#[test]
fn what_a_peer_sends_before_packets_may_pass_waits_until_they_may() {
    let node = node(&[]);
    node.await_open(PeerId(2));
    assert!(node.awaits(PeerId(2)));
    for number in 0..=u8::try_from(MAX_HELD_PACKETS).unwrap() {
        node.keep_inward(PeerId(2), &[number], at(0));
    }
    assert_eq!(node.refusals().get(Refusal::QueueFull), 1);
    let held = node.take_held(PeerId(2), at(10));
    assert_eq!(held.inward.len(), MAX_HELD_PACKETS);
    assert_eq!(held.inward[0], [0]);
    assert!(!node.awaits(PeerId(2)));
}

#[test]
fn a_peer_that_never_opens_leaves_nothing_behind() {
    let node = node(&[]);
    node.await_open(PeerId(2));
    node.keep_inward(PeerId(2), &PACKET, at(0));
    node.expire_held(at(6000));
    assert!(node.awaits(PeerId(2)), "it is still not open");
    node.keep_inward(PeerId(2), &PACKET, at(6000));
    node.await_no_longer(PeerId(2));
    assert!(!node.awaits(PeerId(2)));
    assert_eq!(node.take_held(PeerId(2), at(6000)), Held::default());
}

#[test]
fn a_routed_network_knocks_at_its_peer_also_inside_a_larger_one_of_somebody_awake() {
    let node = node(&[("10.7.3.0/24", 3), ("fd00::3/128", 3)]);
    assert_eq!(node.knock(ip("10.7.4.1"), &PACKET, at(0)), Knock::Nobody);
    assert!(
        node.sleeper_within(ip("10.7.3.9"), 8),
        "10.0.0.0/8 is somebody else's"
    );
    assert!(
        node.sleeper_within(ip("fd00::3"), 0),
        "the way to the internet is somebody else's"
    );
    assert!(!node.sleeper_within(ip("10.7.3.9"), 24));
    assert!(!node.sleeper_within(ip("10.7.3.9"), 32));
    assert!(!node.sleeper_within(ip("10.7.4.1"), 8));
    assert_eq!(node.knock(ip("10.7.3.9"), &PACKET, at(0)), Knock::Held);
    assert_eq!(node.poll_event(), Some(Event::Knocked { peer: PeerId(3) }));
}
