//! Our engine: decisions, and the swap of a slice.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgeward_identity::{AttestationState, Tier, Timestamp};
use edgeward_policy::{
    ActionId, CompiledPolicy, Engine, InterfaceIndex, Link, PeerIndex, Request, Slice, SourceFile,
    Standing, StatedProfiles, Subject, Target,
};

use crate::plant::{self, GROUPS_PER_INTERFACE, NOW, ROWS_PER_INTERFACE};
use crate::timing::{Times, mean, micros, resident};

/// One node with so many rules on it, a hundred to an interface.
pub fn decide(rules: usize) {
    let interfaces = rules.div_ceil(ROWS_PER_INTERFACE);
    let files = plant::hub(interfaces, ROWS_PER_INTERFACE, GROUPS_PER_INTERFACE);
    let slice = slice(
        files,
        plant::hub_fleet(GROUPS_PER_INTERFACE * interfaces.min(50), 1),
    );
    let before = resident();
    let start = Instant::now();
    let engine = Engine::new(slice).expect("a sound slice");
    let build = start.elapsed();
    // What is measured as a miss is neither the first of its class nor remembered: every standing is new.
    let ask = question(&engine, interfaces);
    for index in 0..20_000.max(4 * interfaces * GROUPS_PER_INTERFACE) {
        black_box(ask(index, index as u64));
    }
    let hit = mean(2_000_000, || {
        black_box(ask(1, 1));
    });
    let misses = Times::of(50_000, |index| {
        black_box(ask(index.wrapping_mul(7919), 1_000_000 + index as u64));
    });
    println!(
        "| {rules} | edgeward | {} | {} | {} | {} | {:.0} MiB |",
        micros(hit),
        misses.at(50),
        misses.at(99),
        micros(build),
        resident() - before
    );
}

/// One interface with so many rows, of which so many are about whoever asks.
pub fn rows(rows: usize, about: usize) {
    let groups = (rows / about).max(1);
    let slice = slice(plant::hub(1, rows, groups), plant::hub_fleet(groups, 1));
    let engine = Engine::new(slice).expect("a sound slice");
    let ask = question(&engine, 1);
    let first = Instant::now();
    black_box(ask(0, 0));
    let first = first.elapsed();
    for index in 0..5_000 {
        black_box(ask(index, index as u64));
    }
    let hit = mean(2_000_000, || {
        black_box(ask(1, 1));
    });
    let misses = Times::of(50_000, |index| {
        black_box(ask(index, 1_000_000 + index as u64));
    });
    println!(
        "| {rows} | {about} | {} | {} | {} | {} |",
        micros(hit),
        misses.at(50),
        misses.at(99),
        micros(first)
    );
}

/// A new slice comes: the engine is built, and every peer is decided about again, as the agent does it.
pub fn swap(rows: usize, peers: usize) {
    let groups = 50;
    let interfaces = rows.div_ceil(ROWS_PER_INTERFACE);
    let files = plant::hub(interfaces, ROWS_PER_INTERFACE, groups);
    let slice = slice(files, plant::hub_fleet(groups, peers.div_ceil(groups)));
    let json = slice.to_json();
    for _ in 0..3 {
        let start = Instant::now();
        let parsed = Arc::new(Slice::parse(&json).expect("a sound slice"));
        let parse = start.elapsed();
        let start = Instant::now();
        let engine = Engine::new(parsed).expect("a sound slice");
        let build = start.elapsed();
        let swap = Instant::now();
        let known = engine.slice().peers.len() as u32;
        let met = (0..known).filter(|peer| {
            let now = Timestamp::from_secs(NOW);
            engine
                .meet(PeerIndex(*peer), standing(now), Link::Online, now)
                .is_allow()
        });
        let met = met.count();
        println!(
            "| {rows} | {known} | {:.1} MiB | {} | {} | {} ({met} met) |",
            json.len() as f64 / 1048576.0,
            micros(parse),
            micros(build),
            micros(swap.elapsed())
        );
    }
}

pub fn standing(last_pass: Timestamp) -> Standing {
    Standing {
        state: AttestationState::Trusted,
        tier: Some(Tier::Hardware),
        last_pass: Some(last_pass),
        profiles: Some(StatedProfiles::NONE),
    }
}

/// Asks by the number of the question; each `version` of a standing is new to the engine.
fn question(engine: &Engine, interfaces: usize) -> impl Fn(usize, u64) -> bool {
    let peers = engine.slice().peers.len();
    move |index, version| {
        let now = Timestamp::from_secs(NOW);
        let last_pass = now.minus(Duration::from_millis(version % 500_000));
        engine
            .decide(&Request {
                subject: Subject::Peer(PeerIndex((index % peers) as u32)),
                standing: standing(last_pass),
                target: Target::Interface(InterfaceIndex((index / peers % interfaces) as u32)),
                action: ActionId::CONNECT,
                link: Link::Online,
                now,
            })
            .is_allow()
    }
}

fn slice(files: Vec<SourceFile>, fleet: edgeward_policy::Fleet) -> Arc<Slice> {
    let policy = CompiledPolicy::compile(&files, 1).unwrap_or_else(|report| {
        panic!("{:?}", report.diagnostics.first());
    });
    let end = Timestamp::from_secs(NOW + 30 * 86_400);
    let node = plant::hub_node();
    Arc::new(policy.slice(&node, &fleet, end).expect("the hub's slice"))
}
