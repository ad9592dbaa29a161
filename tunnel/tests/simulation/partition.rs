//! Links that are gone for long, and nodes that move.

use std::net::SocketAddr;
use std::time::Duration;

use edgeward_tunnel::node::Event;

use crate::world::{World, inner};

const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);
/// The longest pause between two attempts, with its jitter, and the handshake.
const SOON: Duration = Duration::from_secs(100);

#[test]
fn a_partition_of_thirty_minutes_heals_without_a_bind() {
    for talkative in [true, false] {
        let mut world = World::pair(11);
        let (a, b) = (world.nodes[0].address, world.nodes[1].address);
        world.wire.part(a, b);
        let end = world.now.plus(HALF_AN_HOUR);
        while world.now < end {
            if talkative {
                world.send(0, 1, inner(0), 100);
                world.send(1, 0, inner(1), 100);
            }
            world.run(Duration::from_secs(1));
        }
        if talkative {
            let lost = world.nodes[0].events.iter();
            let lost = lost
                .filter(|event| matches!(event, Event::Lost { .. }))
                .count();
            assert!(lost >= 1, "nobody was told");
        }
        world.wire.heal();
        // Whoever speaks first, the tunnel comes back; what waits in it is bounded and may be lost.
        let healed = world.now;
        let mut back = false;
        while !back && world.now < healed.plus(SOON) {
            back = world.passes(1, 0) && world.passes(0, 1);
        }
        assert!(back, "still parted after {SOON:?} (talkative: {talkative})");
    }
}

#[test]
fn a_node_that_moves_takes_its_tunnel_along() {
    let roamed = |world: &World, at: usize| {
        let events = world.nodes[at].events.iter();
        events
            .filter(|event| matches!(event, Event::Roamed { .. }))
            .count()
    };
    let mut world = World::pair(12);
    let before = (roamed(&world, 0), roamed(&world, 1));
    for number in 0..20u16 {
        let moved: SocketAddr = format!("198.51.100.{}:{}", number % 3 + 1, 1_024 + number)
            .parse()
            .unwrap();
        let mover = usize::from(number % 2);
        world.nodes[mover].address = moved;
        // It speaks, and is answered at its new address at once.
        assert!(world.passes(mover, 1 - mover), "move {number}");
        assert!(world.passes(1 - mover, mover), "move {number}");
    }
    let after = (roamed(&world, 0), roamed(&world, 1));
    assert_eq!(after, (before.0 + 10, before.1 + 10));
}
