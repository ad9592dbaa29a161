//! A cut: at once, completely, and for as long as the other side goes on sending.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edgeward_identity::BootTime;
use edgeward_tunnel::node::{Endpoint, Inbound, PeerId, Refusal};

use crate::world::{World, inner};

/// From the order to the last packet: the fastest cut says what the code needs, the others also what else the
/// machine had to do.
const DARK_WITHIN: Duration = Duration::from_millis(1);
const CUTS: usize = 21;
/// Rounds in which the flood ended before the cut, because the machine did other things, prove nothing.
const MAX_ROUNDS: u64 = 100;
/// Runs of datagrams ready for one round.
const RUNS: usize = 200;
/// Datagrams of one run, as `UDP_GRO` hands them over.
const RUN: usize = 44;

#[test]
fn a_cut_peer_stays_dark_for_as_long_as_it_sends() {
    for at in [0, 1] {
        let peer = 1 - at;
        let mut world = World::pair(21);
        world.cut(at, peer);
        let refused = world.nodes[at].node.refusals().total();
        let before = world.ledger.missing().len();
        // Through three sessions' lives, both sending, the other side trying to come back all the while.
        let mut sent = 0;
        for _ in 0..6_000 {
            world.send(peer, at, inner(peer), 200);
            world.send(at, peer, inner(at), 200);
            sent += 2;
            world.run(Duration::from_millis(100));
        }
        assert_eq!(
            world.ledger.missing().len() - before,
            sent,
            "something passed"
        );
        assert!(world.nodes[at].node.refusals().total() > refused + 1_000);
        assert_eq!(world.nodes[at].node.status(), []);
        // Bound again, it is back: the cut left nothing that blocks.
        world.cut(peer, at);
        world.bind(0, 1);
        world.run(Duration::from_secs(1));
        assert!(world.passes(0, 1) && world.passes(1, 0));
    }
}

#[test]
fn a_lease_that_ends_under_traffic_ends_the_traffic() {
    let mut world = World::pair(22);
    let until = world.now.plus(Duration::from_secs(100));
    world.lease(1, 0, until);
    let mut arrived = (0, 0);
    for _ in 0..2_000 {
        let number = world.send(0, 1, inner(0), 200);
        let before_end = world.now.plus(Duration::from_millis(20)) < until;
        world.run(Duration::from_millis(100));
        let count = if before_end {
            &mut arrived.0
        } else {
            &mut arrived.1
        };
        *count += usize::from(world.ledger.has_arrived(number));
    }
    assert!(arrived.0 > 900 && arrived.1 == 0, "{arrived:?}");
}

/// One thread floods the node with real datagrams, another cuts: nothing comes out after the cut returned.
#[test]
fn under_a_flood_the_last_packet_is_out_within_a_millisecond_of_the_order() {
    let mut took = Vec::with_capacity(CUTS);
    for round in 0..MAX_ROUNDS {
        took.extend(flooded_cut(round));
        if took.len() == CUTS {
            break;
        }
    }
    assert_eq!(took.len(), CUTS, "no flood outlived its cut");
    took.sort_unstable();
    let (fastest, median, worst) = (took[0], took[CUTS / 2], took[CUTS - 1]);
    println!("order to dark: fastest {fastest:?}, median {median:?}, worst {worst:?} of {CUTS}");
    assert!(fastest < DARK_WITHIN, "{fastest:?}");
}

fn flooded_cut(seed: u64) -> Option<Duration> {
    let mut world = World::pair(100 + seed);
    let from = world.nodes[0].address;
    // Enough runs for the whole test, sealed before: the flood must not wait for the sealing.
    let runs: Vec<Vec<u8>> = (0..RUNS).map(|_| sealed_run(&mut world)).collect();
    let now = world.now;
    let node = Arc::new(world.nodes.remove(1).node);
    let (dark, delivered, late) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let flood = std::thread::spawn({
        let (node, dark) = (Arc::clone(&node), Arc::clone(&dark));
        let (delivered, late) = (Arc::clone(&delivered), Arc::clone(&late));
        move || {
            let mut batch = Inbound::with_capacity(1 << 17);
            for run in &runs {
                batch.clear();
                let was_dark = dark.load(Ordering::SeqCst);
                let passed = take(&node, from, run, now, &mut batch);
                let count = if was_dark { &late } else { &delivered };
                count.fetch_add(passed, Ordering::SeqCst);
            }
        }
    });
    while delivered.load(Ordering::SeqCst) < 5 * RUN as u64 && !flood.is_finished() {
        std::hint::spin_loop();
    }
    let ordered = Instant::now();
    node.cut(PeerId(0));
    let took = ordered.elapsed();
    dark.store(true, Ordering::SeqCst);
    flood.join().unwrap();
    assert_eq!(
        late.load(Ordering::SeqCst),
        0,
        "passed after the cut returned"
    );
    let refusals = node.refusals();
    let stopped = refusals.get(Refusal::NoSession) + refusals.get(Refusal::Cut);
    (stopped > 0).then_some(took)
}

fn take(
    node: &edgeward_tunnel::node::Node,
    from: std::net::SocketAddr,
    run: &[u8],
    now: BootTime,
    batch: &mut Inbound,
) -> u64 {
    let from = Endpoint {
        remote: from,
        local_ip: None,
    };
    node.receive(from, run, run.len() / RUN, now, batch);
    node.check_sources(batch);
    let passed = batch.runs().iter().flat_map(|run| batch.packets(run));
    passed.filter(|packet| !packet.is_empty()).count() as u64
}

/// Equal datagrams in one piece.
fn sealed_run(world: &mut World) -> Vec<u8> {
    let mut run = Vec::new();
    for _ in 0..RUN {
        world.send(0, 1, inner(0), 1_400);
        let newest = world.wire.newest().unwrap();
        run.extend_from_slice(&newest.bytes);
    }
    run
}
