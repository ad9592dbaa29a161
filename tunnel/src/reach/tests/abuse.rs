//! What nobody may do to reach, and what comes of it.

use super::net::{Net, PORT, Packet, id, ip, millis, name};
use super::*;
use crate::reach::message::{Message, Refusal, relayed_header};
use crate::reach::seal::Channel;

/// Two bound hosts, and everything that was said until now.
fn pair() -> Net {
    let mut net = Net::new();
    let (a, b) = (net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"));
    net.bind(a, b);
    net.run(millis(5000));
    net
}

fn at(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), PORT)
}

/// What A, or whoever has A's keys of the bind of 0 and 1, seals for B.
fn as_a(counter: u64, message: &Message) -> Vec<u8> {
    let mut channel = Channel::new(&Secret::new([2; 32]), Role::Initiator).unwrap();
    for _ in 0..counter {
        channel.seal(b"x").unwrap();
    }
    channel.seal(&message.body()).unwrap()
}

fn ping(id: u64) -> Message {
    Message::Ping {
        id,
        body: 0,
        moved: false,
    }
}

#[test]
fn what_was_seen_on_the_wire_cannot_be_said_again() {
    let mut net = pair();
    let recorded: Vec<Packet> = net.sent.iter().map(|(_, packet)| packet.clone()).collect();
    assert!(recorded.len() > 4);
    let before = net.hosts[1].reach.refused();
    let (sent, paths) = (net.sent.len(), net.hosts[1].reach.qualities().len());
    for packet in &recorded {
        for from in [packet.from, at("198.51.100.66")] {
            net.datagram(1, from, &packet.bytes);
        }
    }
    let after = net.hosts[1].reach.refused();
    assert!(after.replayed > before.replayed);
    assert_eq!(net.sent.len(), sent, "nothing is answered");
    assert_eq!(net.hosts[1].reach.qualities().len(), paths);
}

#[test]
fn forged_cut_and_foreign_messages_are_counted_and_dropped() {
    let mut net = pair();
    let genuine = as_a(1000, &ping(1));
    let (sent, from) = (net.sent.len(), at("192.0.2.1"));
    for position in 0..genuine.len() {
        let mut forged = genuine.clone();
        forged[position] ^= 0x10;
        net.datagram(1, from, &forged);
        net.datagram(1, from, &genuine[..position]);
    }
    let mut stranger = Channel::new(&Secret::new([66; 32]), Role::Initiator).unwrap();
    net.datagram(1, from, &stranger.seal(&ping(1).body()).unwrap());
    let refused = net.hosts[1].reach.refused();
    assert_eq!(refused.unopened, 2 * genuine.len() as u64 + 1);
    assert_eq!(net.sent.len(), sent);
    net.datagram(1, from, &genuine);
    assert!(net.sent.len() > sent, "the genuine one is answered");
}

#[test]
fn a_body_that_says_nothing_is_refused_after_it_was_opened() {
    let mut net = pair();
    let mut channel = Channel::new(&Secret::new([2; 32]), Role::Initiator).unwrap();
    for _ in 0..1000 {
        channel.seal(b"x").unwrap();
    }
    net.datagram(1, at("192.0.2.1"), &channel.seal(&[77; 40]).unwrap());
    assert_eq!(net.hosts[1].reach.refused().malformed, 1);
}

#[test]
fn a_flood_of_pings_gets_a_bounded_number_of_answers_none_longer() {
    let mut net = pair();
    let since = net.now;
    let mut channel = Channel::new(&Secret::new([2; 32]), Role::Initiator).unwrap();
    for _ in 0..1000 {
        channel.seal(b"x").unwrap();
    }
    let mut asked = 0;
    for number in 0..1000 {
        let bytes = channel.seal(&ping(number).body()).unwrap();
        asked = bytes.len();
        net.datagram(1, at("192.0.2.1"), &bytes);
    }
    let answers: Vec<usize> = net
        .sent_since(since)
        .map(|packet| packet.bytes.len())
        .collect();
    assert!(answers.len() <= 30, "{}", answers.len());
    assert!(answers.iter().all(|length| *length <= asked));
    assert!(net.hosts[1].reach.refused().over_budget >= 970);
}

#[test]
fn a_spoofed_source_is_probed_a_few_times_and_forgotten() {
    let mut net = pair();
    let victim = at("198.51.100.66");
    // Somebody on the way takes a ping of A's and lets the victim seem to be its sender.
    let taken = Arc::new(Mutex::new(None));
    let hand = Arc::clone(&taken);
    net.wire = Box::new(move |packet| {
        let mut taken = hand.lock();
        if taken.is_none() && packet.to == at("192.0.2.2") {
            *taken = Some(packet.bytes.clone());
            return None;
        }
        Some(millis(10))
    });
    net.run_talking(0, 1, Duration::from_secs(4));
    let bytes = taken.lock().clone().unwrap();
    let since = net.now;
    net.datagram(1, victim, &bytes);
    assert!(
        net.hosts[1]
            .reach
            .qualities()
            .iter()
            .any(|path| path.address == victim)
    );
    net.run_talking(0, 1, Duration::from_secs(120));
    let hits = net
        .sent_since(since)
        .filter(|packet| packet.to == victim)
        .count();
    assert!(hits <= 8, "{hits} datagrams to somebody who did not ask");
    assert_eq!(net.chosen(1, 0).address, at("192.0.2.1"));
    let known = net.hosts[1].reach.qualities();
    assert!(known.iter().all(|quality| quality.address != victim));
}

#[test]
fn a_move_that_somebody_on_the_way_bends_lasts_for_seconds() {
    let mut net = pair();
    let victim = at("198.51.100.66");
    net.run_talking(0, 1, Duration::from_secs(10));
    // A gets a second address; its first goes on working. One of its words goes a wrong way.
    let bent = Arc::new(Mutex::new(0));
    let count = Arc::clone(&bent);
    net.wire = Box::new(move |packet| {
        let mut count = count.lock();
        let to_b = packet.to == at("192.0.2.2") && packet.from != at("198.51.100.66");
        *count += u32::from(to_b);
        (!to_b || *count > 1).then_some(millis(10))
    });
    let addresses = vec![ip("192.0.2.1"), ip("203.0.113.1")];
    net.give(0, Input::Local(addresses));
    let word = net
        .sent
        .last()
        .map(|(_, packet)| packet.bytes.clone())
        .unwrap();
    net.put(Packet {
        from: victim,
        to: at("192.0.2.2"),
        bytes: word,
    });
    net.run(millis(15));
    assert_eq!(net.hosts[1].used[&id(0)], victim, "bent");
    net.run_talking(0, 1, Duration::from_secs(5));
    assert_eq!(net.hosts[1].used[&id(0)], at("192.0.2.1"), "and back");
    assert_eq!(net.chosen(1, 0).address, at("192.0.2.1"));
}

#[test]
fn many_sources_do_not_push_out_what_works() {
    let mut net = pair();
    for last in 0..60 {
        net.hosts[0].address = ip(&format!("198.51.100.{last}"));
        net.run_talking(0, 1, millis(2100));
        net.hosts[0].address = ip("192.0.2.1");
        net.run_talking(0, 1, millis(4000));
        assert!(net.hosts[1].reach.qualities().len() <= MAX_PATHS);
    }
    assert_eq!(net.chosen(1, 0).address, at("192.0.2.1"));
    assert!(net.chosen(1, 0).alive);
}

#[test]
fn answers_to_nothing_and_routes_of_others_have_no_effect() {
    let mut net = pair();
    let from = at("192.0.2.1");
    let observed = at("198.51.100.9");
    let messages = [
        Message::Pong {
            id: 999_999,
            size: 30,
            observed,
        },
        Message::Granted {
            ask: 1,
            route: RouteId(5),
        },
        Message::Refused {
            ask: 1,
            code: Refusal::Busy,
        },
        Message::End { route: RouteId(5) },
        // A peer that is no relay offers a route.
        Message::Offer {
            route: RouteId(5),
            from: "c".into(),
        },
    ];
    for (number, message) in messages.iter().enumerate() {
        net.datagram(1, from, &as_a(1000 + number as u64, message));
    }
    assert_eq!(net.hosts[1].reach.refused().out_of_turn, 5);
    assert!(net.hosts[1].detours.is_empty());
    let told = &net.hosts[1].told;
    assert!(
        !told
            .iter()
            .any(|told| matches!(told, Output::Offered { .. }))
    );
    let lies = told
        .iter()
        .any(|told| matches!(told, Output::Observed { address, .. } if *address == observed));
    assert!(!lies);
}

/// A and B, both bound with R, which policy may or may not let carry.
fn with_relay(permitted: bool) -> Net {
    let mut net = Net::new();
    net.host("a", "192.0.2.1");
    net.host("b", "192.0.2.2");
    net.host("r", "192.0.2.3");
    if permitted {
        net.relay(2);
    }
    net.bind(0, 2);
    net.bind(1, 2);
    net.run(millis(3000));
    net
}

fn not_granted(net: &Net, code: NotRelayed) -> bool {
    let expected = Output::NotGranted {
        relay: name("r"),
        to: name("b"),
        code,
    };
    net.hosts[0].told.contains(&expected)
}

#[test]
fn who_is_no_relay_for_us_is_not_asked_and_does_not_carry() {
    let mut net = with_relay(false);
    let want = || Input::WantRelay {
        relay: name("r"),
        to: name("b"),
    };
    net.give(0, want());
    assert!(not_granted(&net, NotRelayed::NotPermitted));
    // A believes it may; R does not.
    net.hosts[0].policy.relays.lock().insert(name("r"));
    net.give(0, want());
    net.run(millis(1000));
    assert!(not_granted(
        &net,
        NotRelayed::Refused(Refusal::NotPermitted)
    ));
    assert!(net.hosts[2].relays.lock().is_empty());
    assert!(net.hosts[1].detours.is_empty());
}

#[test]
fn a_route_that_one_end_may_not_use_leads_nowhere() {
    let mut net = with_relay(true);
    net.hosts[1].policy.forbidden.lock().insert(name("a"));
    net.give(
        0,
        Input::WantRelay {
            relay: name("r"),
            to: name("b"),
        },
    );
    net.run(millis(1000));
    assert_eq!(net.hosts[2].relays.lock().len(), 1, "the relay may");
    assert!(net.hosts[1].detours.is_empty(), "B takes nothing from it");
}

#[test]
fn peers_that_the_relay_does_not_know_or_that_are_unbound_get_no_route() {
    let mut net = with_relay(true);
    net.give(2, Input::Unbound(id(1)));
    net.give(
        0,
        Input::WantRelay {
            relay: name("r"),
            to: name("b"),
        },
    );
    net.run(millis(1000));
    assert!(not_granted(&net, NotRelayed::Refused(Refusal::NotBound)));
}

#[test]
fn a_silent_relay_is_given_up_after_a_few_asks() {
    let mut net = with_relay(true);
    net.wire = Box::new(|_| None);
    let since = net.now;
    net.give(
        0,
        Input::WantRelay {
            relay: name("r"),
            to: name("b"),
        },
    );
    net.run(Duration::from_secs(60));
    assert!(not_granted(&net, NotRelayed::Silent));
    assert!(net.sent_since(since).count() < 60);
}

#[test]
fn a_flood_of_asks_is_bounded() {
    let mut net = with_relay(true);
    let since = net.now;
    // A's keys of its bind with R: hosts 0 and 2.
    let mut channel = Channel::new(&Secret::new([3; 32]), Role::Initiator).unwrap();
    for _ in 0..1000 {
        channel.seal(b"x").unwrap();
    }
    for ask in 0..1000 {
        let to = "b".to_owned();
        let bytes = channel.seal(&Message::Ask { ask, to }.body()).unwrap();
        net.datagram(2, at("192.0.2.1"), &bytes);
    }
    let sent = net.sent_since(since).count();
    assert!(sent <= 24, "{sent} answers and offers");
    assert!(net.hosts[2].reach.refused().over_budget >= 980);
    assert_eq!(net.hosts[2].relays.lock().len(), 1, "one route for a pair");
}

#[test]
fn a_relay_sends_nothing_on_for_strangers_or_in_circles() {
    let mut net = with_relay(true);
    net.give(
        0,
        Input::WantRelay {
            relay: name("r"),
            to: name("b"),
        },
    );
    net.run(millis(1000));
    let route = net.hosts[0].detours.values().next().unwrap().2;
    let (since, relay) = (net.now, at("192.0.2.3"));
    let wrap = |inner: &[u8]| [relayed_header(route).as_slice(), inner].concat();
    for (from, bytes) in [
        ("198.51.100.1", wrap(&[4, 0, 0, 0, 1])),
        ("192.0.2.9", wrap(&[0x40; 30])),
        ("192.0.2.1", wrap(&wrap(&[4, 0, 0, 0, 1]))),
        (
            "192.0.2.1",
            [relayed_header(RouteId(1)).as_slice(), &[4]].concat(),
        ),
    ] {
        net.put(Packet {
            from: at(from),
            to: relay,
            bytes,
        });
    }
    net.run(millis(100));
    let carried = net
        .sent_since(since)
        .filter(|packet| packet.from == relay && packet.bytes.starts_with(&[6, 0, 0, 0]))
        .count();
    assert_eq!(carried, 0);
    net.put(Packet {
        from: at("192.0.2.1"),
        to: relay,
        bytes: wrap(&[4, 0, 0, 0, 1]),
    });
    net.run(millis(100));
    let carried = net
        .sent_since(since)
        .filter(|packet| packet.from == relay && packet.to == at("192.0.2.2"))
        .count();
    assert_eq!(carried, 1, "an end's own is carried");
}
