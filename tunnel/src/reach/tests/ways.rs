//! Ways between hosts: found, measured, changed, relayed, kept.

use super::net::{NatKind, Net, PORT, id, ip, millis, name};
use super::*;
use crate::reach::peer::ACTIVE_FOR;

fn at(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), PORT)
}

fn candidates(net: &mut Net, own: usize, other: usize, addresses: &[&str]) {
    let addresses = addresses.iter().map(|text| at(text)).collect();
    let peer = id(other);
    net.give(own, Input::Candidates { peer, addresses });
}

#[test]
fn nobody_without_a_bind_is_sent_anything() {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    candidates(&mut net, a, b, &["192.0.2.2"]);
    net.give(
        a,
        Input::Roamed {
            peer: id(b),
            to: at("192.0.2.2"),
        },
    );
    net.talk(a, b);
    net.run(Duration::from_secs(60));
    assert!(net.sent.is_empty());
    net.bind(a, b);
    net.run(millis(100));
    assert!(!net.sent.is_empty());
    net.give(a, Input::Unbound(id(b)));
    net.give(b, Input::Unbound(id(a)));
    let since = net.now;
    net.run(Duration::from_secs(60));
    assert_eq!(net.sent_since(since).count(), 0);
    assert!(net.hosts[a].reach.deadline().is_none());
}

#[test]
fn a_path_is_measured_and_without_nat_an_idle_one_costs_nothing() {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    net.bind(a, b);
    net.run_talking(a, b, Duration::from_secs(20));
    let path = net.chosen(a, b);
    assert_eq!((path.kind, path.address), (Kind::Direct, at("192.0.2.2")));
    assert_eq!(path.rtt, Some(millis(20)));
    assert_eq!((path.loss_percent, path.keepalive), (0, None));
    assert_eq!(path.largest_datagram, Some(1472));
    net.run(ACTIVE_FOR + Duration::from_secs(5));
    let since = net.now;
    net.run(Duration::from_secs(3600));
    assert_eq!(net.sent_since(since).count(), 0);
}

#[test]
fn loss_is_told_and_the_largest_packet_found_on_a_narrow_path() {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    let mut count = 0;
    net.wire = Box::new(move |packet| {
        count += 1;
        (packet.bytes.len() <= 1400 && count % 10 != 0).then_some(millis(10))
    });
    net.bind(a, b);
    net.run_talking(a, b, Duration::from_secs(120));
    let path = net.chosen(a, b);
    assert!(path.alive);
    assert!(
        (5..50).contains(&path.loss_percent),
        "{}",
        path.loss_percent
    );
    assert_eq!(path.largest_datagram, Some(1420 - 28));
}

#[test]
fn a_dead_path_is_left_within_seconds_and_taken_again_when_it_is_better() {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    net.bind(a, b);
    // B can be reached at a second address, which is slower.
    let dead = Arc::new(Mutex::new(false));
    let switch = Arc::clone(&dead);
    net.wire = Box::new(move |packet| {
        let fast = packet.to == at("192.0.2.2") || packet.from == at("192.0.2.2");
        (!(fast && *switch.lock())).then_some(if fast { millis(10) } else { millis(40) })
    });
    candidates(&mut net, a, b, &["192.0.2.2", "192.0.2.22"]);
    net.run_talking(a, b, Duration::from_secs(20));
    assert_eq!(net.chosen(a, b).address, at("192.0.2.2"));
    *dead.lock() = true;
    // The host answers at its other address now.
    net.hosts[b].address = ip("192.0.2.22");
    let before = net.now;
    while net.chosen(a, b).address == at("192.0.2.2") {
        net.run_talking(a, b, millis(100));
        assert!(net.now.since(before) < Duration::from_secs(6), "too late");
    }
    assert_eq!(net.hosts[a].used[&id(b)], at("192.0.2.22"));
    *dead.lock() = false;
    net.hosts[b].address = ip("192.0.2.2");
    net.run_talking(a, b, Duration::from_secs(90));
    assert_eq!(net.chosen(a, b).address, at("192.0.2.2"));
}

#[test]
fn two_ways_of_the_same_worth_are_not_taken_in_turns() {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    net.bind(a, b);
    let mut count = 0u64;
    net.wire = Box::new(move |_| {
        count += 7;
        Some(millis(10 + count % 5))
    });
    // The same host, spelled otherwise: both work.
    net.hosts[b].nat = None;
    candidates(&mut net, a, b, &["192.0.2.2"]);
    net.run_talking(a, b, Duration::from_secs(300));
    let switches = |net: &Net| {
        let told = net.hosts[a].told.iter();
        told.filter(|told| matches!(told, Output::Switched { .. }))
            .count()
    };
    assert_eq!(switches(&net), 0);
}

#[test]
fn holes_are_punched_between_nats_that_map_alike_for_all() {
    let mut net = Net::new();
    let kind = NatKind::PortRestricted;
    let a = net.host_with("a", "10.0.0.1", Some(("198.51.100.1", kind)), false);
    let b = net.host_with("b", "10.0.0.1", Some(("198.51.100.2", kind)), false);
    // Bound through something that leads nowhere any more.
    net.bind_at(a, b, at("203.0.113.9"), at("203.0.113.9"));
    candidates(&mut net, a, b, &["198.51.100.2", "10.0.0.1"]);
    candidates(&mut net, b, a, &["198.51.100.1", "10.0.0.1"]);
    net.run_talking(a, b, Duration::from_secs(10));
    for (own, other, address) in [(a, b, "198.51.100.2"), (b, a, "198.51.100.1")] {
        let path = net.chosen(own, other);
        assert_eq!((path.address, path.alive), (at(address), true));
        assert!(path.keepalive.is_some(), "a mapping to keep");
    }
    let seen = net.hosts[a].told.iter().any(
        |told| matches!(told, Output::Observed { address, .. } if *address == at("198.51.100.1")),
    );
    assert!(seen);
}

#[test]
fn an_idle_mapping_is_kept_at_growing_intervals_unless_metered() {
    for metered in [false, true] {
        let mut net = Net::new();
        let kind = NatKind::PortRestricted;
        let a = net.host_with("a", "10.0.0.1", Some(("198.51.100.1", kind)), metered);
        let b = net.host_with("b", "192.0.2.2", None, metered);
        net.bind(a, b);
        net.run_talking(a, b, Duration::from_secs(10));
        net.run(Duration::from_secs(60));
        let since = net.now;
        net.run(Duration::from_secs(3600));
        let pings = net
            .sent_since(since)
            .filter(|packet| packet.from.ip() == ip("198.51.100.1"))
            .count();
        if metered {
            assert_eq!(pings, 0);
        } else {
            assert!((20..40).contains(&pings), "{pings} in an hour");
            assert_eq!(
                net.chosen(a, b).keepalive,
                Some(keepalive::LONGEST_INTERVAL)
            );
        }
    }
}

/// A behind a symmetric NAT, B behind another, R in the open: bound with both.
fn apart() -> Net {
    let mut net = Net::new();
    let kind = NatKind::Symmetric;
    net.host_with("a", "10.0.0.1", Some(("198.51.100.1", kind)), false);
    net.host_with("b", "10.0.0.1", Some(("198.51.100.2", kind)), false);
    net.host("r", "192.0.2.3");
    net.relay(2);
    for end in [0, 1] {
        net.bind(end, 2);
    }
    net.run(millis(3000));
    net.bind_at(0, 1, at("198.51.100.2"), at("198.51.100.1"));
    candidates(&mut net, 0, 1, &["198.51.100.2"]);
    candidates(&mut net, 1, 0, &["198.51.100.1"]);
    net
}

#[test]
fn where_no_hole_can_be_punched_a_relay_carries() {
    let mut net = apart();
    net.run_talking(0, 1, Duration::from_secs(20));
    for (own, other) in [(0, 1), (1, 0)] {
        let path = net.chosen(own, other);
        assert_eq!(path.kind, Kind::Relay(name("r")), "{own}");
        assert!(path.alive && is_detour(&path.address));
        assert_eq!(net.hosts[own].used[&id(other)], path.address);
    }
    let accounts = net.hosts[2].relays.lock().accounts();
    assert_eq!(accounts.len(), 1);
    assert_eq!(accounts[0].ends, [name("a"), name("b")]);
    assert!(accounts[0].datagrams > 10 && accounts[0].over_budget == 0);
    assert_eq!(
        net.hosts[0].reach.nat(net.now),
        Nat::Unknown,
        "one observer"
    );
}

#[test]
fn a_direct_way_is_taken_back_from_a_relay() {
    let mut net = apart();
    net.run_talking(0, 1, Duration::from_secs(20));
    assert_eq!(net.chosen(0, 1).kind, Kind::Relay(name("r")));
    // B's site gets a plain address.
    net.hosts[1].nat = None;
    net.hosts[1].address = ip("192.0.2.2");
    net.give(1, Input::Local(vec![ip("192.0.2.2")]));
    candidates(&mut net, 0, 1, &["192.0.2.2"]);
    net.run_talking(0, 1, Duration::from_secs(20));
    assert_eq!(net.chosen(0, 1).kind, Kind::Direct);
    assert_eq!(net.chosen(0, 1).address, at("192.0.2.2"));
    assert_eq!(net.chosen(1, 0).kind, Kind::Direct);
}

#[test]
fn routes_end_with_the_role_the_bind_or_the_traffic() {
    for ending in ["role", "bind", "idle"] {
        let mut net = apart();
        net.run_talking(0, 1, Duration::from_secs(20));
        let lasts = match ending {
            "role" => {
                net.hosts[2].policy.relays.lock().clear();
                net.give(2, Input::Recheck);
                1
            }
            "bind" => {
                net.give(2, Input::Unbound(id(1)));
                1
            }
            _ => 300,
        };
        net.run(Duration::from_secs(lasts));
        assert!(net.hosts[2].relays.lock().is_empty(), "{ending}");
        assert!(net.hosts[0].detours.is_empty(), "{ending}");
        assert_ne!(
            net.chosen_kind(0, 1),
            Some(Kind::Relay(name("r"))),
            "{ending}"
        );
    }
}

#[test]
fn a_node_that_changes_its_network_is_followed_at_once() {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    net.bind(a, b);
    net.run_talking(a, b, Duration::from_secs(10));
    net.hosts[a].address = ip("203.0.113.5");
    net.give(a, Input::Local(vec![ip("203.0.113.5")]));
    net.run(millis(30));
    assert_eq!(
        net.hosts[b].used[&id(a)],
        at("203.0.113.5"),
        "after one way"
    );
    net.run_talking(a, b, Duration::from_secs(10));
    assert_eq!(net.chosen(b, a).address, at("203.0.113.5"));
    assert!(net.chosen(b, a).alive && net.chosen(a, b).alive);
}

#[test]
fn a_channel_through_the_cloud_is_the_last_resort() {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    net.bind(a, b);
    net.run_talking(a, b, Duration::from_secs(10));
    let address = net.hosts[a].reach.channel_address().unwrap();
    let peer = name("b");
    net.give(a, Input::Channel { peer, address });
    net.run_talking(a, b, Duration::from_secs(10));
    assert_eq!(net.chosen(a, b).kind, Kind::Direct, "a direct way stays");
    let all = net.hosts[a].reach.qualities();
    assert!(all.iter().any(|path| path.kind == Kind::Cloud));
    net.give(a, Input::ChannelGone { address });
    let all = net.hosts[a].reach.qualities();
    assert!(all.iter().all(|path| path.kind == Kind::Direct));
}

#[test]
fn a_direct_way_is_taken_back_from_the_cloud_soon_however_long_it_was_dead() {
    for dead_for in [10, 60, 600] {
        let mut net = Net::new();
        let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
        net.bind(a, b);
        net.run_talking(a, b, Duration::from_secs(10));
        let dead = Arc::new(Mutex::new(true));
        let switch = Arc::clone(&dead);
        net.wire = Box::new(move |_| (!*switch.lock()).then_some(millis(20)));
        net.channel(a, b);
        net.run_talking(a, b, Duration::from_secs(dead_for));
        assert_eq!(net.chosen(a, b).kind, Kind::Cloud, "{dead_for}");
        *dead.lock() = false;
        net.run_talking(a, b, Duration::from_secs(40));
        for (own, other) in [(a, b), (b, a)] {
            assert_eq!(net.chosen(own, other).kind, Kind::Direct, "{dead_for}");
        }
    }
}

#[test]
fn a_bind_made_anew_keeps_its_paths_and_never_repeats_a_counter() {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    net.bind(a, b);
    net.run_talking(a, b, Duration::from_secs(10));
    net.bind(a, b);
    net.run_talking(a, b, Duration::from_secs(10));
    assert_eq!(net.hosts[b].reach.refused(), Refused::default());
    let mut headers: Vec<[u8; 16]> = net
        .sent
        .iter()
        .map(|(_, packet)| packet.bytes[..16].try_into().unwrap())
        .collect();
    let all = headers.len();
    headers.sort_unstable();
    headers.dedup();
    assert_eq!(headers.len(), all, "a nonce was used twice");
    assert!(net.chosen(a, b).alive);
    assert_eq!(net.chosen(a, b).loss_percent, 0);
}

#[test]
fn a_bind_made_anew_over_a_worse_way_leaves_the_better_one_in_use() {
    let mut net = apart();
    net.hosts[1].nat = None;
    net.hosts[1].address = ip("192.0.2.2");
    net.give(1, Input::Local(vec![ip("192.0.2.2")]));
    candidates(&mut net, 0, 1, &["192.0.2.2"]);
    net.run_talking(0, 1, millis(500));
    net.give(
        0,
        Input::WantRelay {
            relay: name("r"),
            to: name("b"),
        },
    );
    net.run_talking(0, 1, Duration::from_secs(20));
    assert_eq!(net.chosen(0, 1).kind, Kind::Direct);
    let relayed = *net.hosts[0].detours.keys().next().unwrap();
    let back = *net.hosts[1].detours.keys().next().unwrap();
    net.bind_at(0, 1, relayed, back);
    net.run_talking(0, 1, Duration::from_secs(10));
    assert_eq!(net.chosen(0, 1).kind, Kind::Direct);
    assert_eq!(net.hosts[0].used[&id(1)], at("192.0.2.2"));
}

#[test]
fn two_observers_tell_the_kind_of_nat() {
    for (kind, expected) in [
        (NatKind::PortRestricted, Nat::EndpointIndependent),
        (NatKind::Symmetric, Nat::EndpointDependent),
    ] {
        let mut net = Net::new();
        net.host_with("a", "10.0.0.1", Some(("198.51.100.1", kind)), false);
        net.host("b", "192.0.2.2");
        net.host("r", "192.0.2.3");
        net.bind(0, 1);
        net.bind(0, 2);
        net.run(Duration::from_secs(5));
        assert_eq!(net.hosts[0].reach.nat(net.now), expected);
        assert_eq!(net.hosts[1].reach.nat(net.now), Nat::None);
    }
}
