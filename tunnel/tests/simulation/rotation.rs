//! Turns of the epoch under a counted stream.

use std::time::Duration;

use edgeward_tunnel::node::Refusal;

use crate::random::Draw;
use crate::wire::Faults;
use crate::world::{World, inner};

const TURNS: u64 = 1_000;

/// Sends both ways every `every` for `turns` turns of the epoch, each after a drawn time and not before the last
/// one is confirmed: the bind has one turn under way at a time.
fn stream(world: &mut World, turns: u64, every: Duration, seed: u64) {
    let mut draw = Draw(seed);
    for _ in 0..turns {
        world.turn(&[(1, 0), (0, 1)]);
        let until = world.now.plus(Duration::from_millis(50 + draw.below(200)));
        let epoch = world.nodes[0].armed[&1].epoch;
        let waiting = |world: &World| {
            let [a, b] = &world.nodes[..] else {
                panic!("two nodes")
            };
            a.opened.get(&1) != Some(&epoch) || b.opened.get(&0) != Some(&epoch)
        };
        while world.now < until || waiting(world) {
            world.send(0, 1, inner(0), 100 + draw.below(1_300) as usize);
            world.send(1, 0, inner(1), 100 + draw.below(1_300) as usize);
            world.run(every);
        }
    }
    world.run(Duration::from_secs(5));
}

#[test]
fn a_thousand_turns_lose_nothing_that_the_wire_does_not_lose() {
    let mut world = World::pair(1);
    world.wire.faults = Faults {
        data_loss: 20,
        handshake_loss: 100,
        duplicate: 20,
        delay: Duration::from_millis(5),
        spread: Duration::from_millis(30),
    };
    let before = world.ledger.sent();
    stream(&mut world, TURNS, Duration::from_millis(20), 2);
    let sent = world.ledger.sent() - before;
    assert!(sent > 10_000, "{sent} packets");
    assert!(
        world.wire.lost.len() > 200,
        "the wire lost too little to prove anything"
    );
    let own: Vec<u64> = world
        .ledger
        .missing()
        .into_iter()
        .filter(|number| !world.wire.lost.contains(number))
        .collect();
    assert_eq!(own, Vec::<u64>::new(), "the tunnel lost packets of its own");

    world.wire.faults = Faults::none();
    world.run(Duration::from_secs(30));
    assert!(world.passes(0, 1) && world.passes(1, 0));
    for side in &world.nodes {
        let status = &side.node.status()[0];
        assert_eq!(status.epoch, 1 + TURNS);
        assert_eq!(status.open, Some(1 + TURNS), "an old epoch is still in use");
    }
}

#[test]
fn turns_on_a_plain_wire_lose_nothing_at_all_and_refuse_nothing() {
    let mut world = World::pair(3);
    stream(&mut world, 200, Duration::from_millis(5), 4);
    assert_eq!(world.ledger.missing(), Vec::<u64>::new());
    for side in &world.nodes {
        let refusals = side.node.refusals();
        for refusal in [
            Refusal::NotAuthentic,
            Refusal::WrongSource,
            Refusal::Malformed,
        ] {
            assert_eq!(refusals.get(refusal), 0, "{refusal:?}");
        }
    }
}

#[test]
fn a_turn_that_only_one_side_made_costs_nothing_until_the_next() {
    let mut world = World::pair(5);
    for (round, side) in [(1, 0), (0, 1), (1, 0), (0, 1)].into_iter().enumerate() {
        world.turn(&[side]);
        for _ in 0..200 {
            world.send(0, 1, inner(0), 200);
            world.send(1, 0, inner(1), 200);
            world.run(Duration::from_millis(100));
        }
        // Both again, as the bind does when a turn failed: from where each is.
        world.turn(&[(1, 0), (0, 1)]);
        world.run(Duration::from_secs(10));
        assert!(world.passes(0, 1) && world.passes(1, 0), "round {round}");
    }
    assert_eq!(world.ledger.missing(), Vec::<u64>::new());
}

/// Nobody waits for anybody: the next turn may come while the answer of the last one, its confirmation, or what was
/// sealed under it is still on the way.
#[test]
fn turns_that_outrun_their_confirmation_lose_nothing() {
    for (seed, spread, handshake_loss) in [(7, 0, 0), (8, 20, 0), (9, 20, 150)] {
        let mut world = World::pair(seed);
        world.wire.faults = Faults {
            spread: Duration::from_millis(spread),
            handshake_loss,
            ..Faults::none()
        };
        let mut draw = Draw(seed);
        for _ in 0..400 {
            world.turn(&[(1, 0), (0, 1)]);
            let until = world.now.plus(Duration::from_millis(draw.below(90)));
            while world.now < until {
                world.send(0, 1, inner(0), 200);
                world.send(1, 0, inner(1), 200);
                world.run(Duration::from_millis(3));
            }
        }
        world.run(Duration::from_secs(10));
        assert_eq!(world.ledger.missing(), Vec::<u64>::new(), "seed {seed}");
        assert!(world.passes(0, 1) && world.passes(1, 0));
        let open = world.nodes.iter().map(|side| side.node.status()[0].open);
        assert_eq!(open.collect::<Vec<_>>(), [Some(401); 2]);
    }
}

/// The responder learns only from the initiator's first message that the epoch is open, and the initiator may have
/// nothing to say.
#[test]
fn a_confirmation_that_was_lost_is_repeated_though_nobody_speaks() {
    let silence = Faults {
        data_loss: 1_000,
        ..Faults::none()
    };
    let mut first = World::new(2, 51);
    first.wire.faults = silence;
    first.bind(0, 1);
    let mut later = World::pair(52);
    later.wire.faults = silence;
    later.turn(&[(1, 0), (0, 1)]);
    for mut world in [first, later] {
        world.run(Duration::from_millis(300));
        let epoch = world.nodes[0].armed[&1].epoch;
        assert_eq!(world.nodes[0].opened.get(&1), Some(&epoch));
        assert_ne!(world.nodes[1].opened.get(&0), Some(&epoch));
        world.wire.faults = Faults::none();
        world.run(Duration::from_secs(2));
        assert_eq!(world.nodes[1].opened.get(&0), Some(&epoch));
        // Said and heard: from then on both are silent.
        let sent = world.wire.sent();
        world.run(Duration::from_secs(60));
        assert_eq!(world.wire.sent(), sent);
    }
}

/// Telemetry: one side speaks, the other only listens, and what confirms a turn is lost like anything else.
#[test]
fn a_stream_in_one_direction_loses_nothing_that_the_wire_does_not_lose() {
    for from in [0, 1] {
        let mut world = World::pair(53 + from as u64);
        world.wire.faults = Faults {
            data_loss: 300,
            handshake_loss: 100,
            ..Faults::none()
        };
        for _ in 0..60 {
            world.turn(&[(1, 0), (0, 1)]);
            // For longer than the old keys linger.
            for _ in 0..300 {
                world.send(from, 1 - from, inner(from), 200);
                world.run(Duration::from_millis(50));
            }
        }
        world.run(Duration::from_secs(5));
        let own: Vec<u64> = world.ledger.missing();
        let own: Vec<u64> = own
            .into_iter()
            .filter(|number| !world.wire.lost.contains(number))
            .collect();
        assert_eq!(own, Vec::<u64>::new(), "node {from} spoke");
    }
}

/// The keys of WireGuard itself, replaced every two minutes, with no turn at all.
#[test]
fn an_hour_of_rekeys_loses_nothing() {
    let mut world = World::pair(6);
    for _ in 0..36_000 {
        world.send(0, 1, inner(0), 200);
        world.send(1, 0, inner(1), 200);
        world.run(Duration::from_millis(100));
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.ledger.missing(), Vec::<u64>::new());
}
