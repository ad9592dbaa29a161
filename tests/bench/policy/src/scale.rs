//! The whole way of a large policy in the cloud: check, compile, sort the fleet, cut every node's slice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edgeward_identity::Timestamp;
use edgeward_policy::{CompiledPolicy, Fleet, FleetIndex};

use crate::plant::{self, NOW};
use crate::timing::{micros, resident};

pub fn measure(rules: usize, nodes: usize) {
    let (files, fleet) = plant::sites(rules, nodes);
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    let before = resident();
    let start = Instant::now();
    let policy = CompiledPolicy::compile(&files, 1).unwrap_or_else(|report| {
        panic!("{:?}", report.diagnostics.first());
    });
    let compile = start.elapsed();
    let start = Instant::now();
    let index = policy.index(&fleet);
    let sort = start.elapsed();
    println!(
        "{} rules in {} files ({:.1} MiB), {nodes} nodes; {:.0} MiB resident for the policy",
        policy.report().summary.rules,
        files.len(),
        bytes as f64 / 1048576.0,
        resident() - before
    );
    println!(
        "| threads | check and compile | sort the fleet | cut every slice | and write it | in all |"
    );
    for threads in [1, 2] {
        let (cut, rows, _) = slices(&policy, &index, &fleet, threads, false);
        let (written, _, json) = slices(&policy, &index, &fleet, threads, true);
        println!(
            "| {threads} | {} | {} | {} | {} | {} ({rows} rows, {:.0} MiB) |",
            micros(compile),
            micros(sort),
            micros(cut),
            micros(written),
            micros(compile + sort + written),
            json as f64 / 1048576.0,
        );
    }
}

fn slices(
    policy: &CompiledPolicy,
    index: &FleetIndex,
    fleet: &Fleet,
    threads: usize,
    write: bool,
) -> (Duration, usize, usize) {
    let (rows, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let end = Timestamp::from_secs(NOW + 30 * 86_400);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for nodes in fleet.nodes.chunks(fleet.nodes.len().div_ceil(threads)) {
            let (rows, bytes) = (&rows, &bytes);
            scope.spawn(move || {
                for node in nodes {
                    let slice = policy.slice_of(index, &node.id, end).expect("a slice");
                    let count = slice.interfaces.iter().map(|one| one.rows.len()).sum();
                    rows.fetch_add(count, Ordering::Relaxed);
                    if write {
                        bytes.fetch_add(slice.to_json().len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    (start.elapsed(), rows.into_inner(), bytes.into_inner())
}
