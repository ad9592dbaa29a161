//! What a change of a policy costs on the wire, and what a node that joins costs before anything is signed.
//!
//! `cargo run --release -p edgeward-tests --example slices`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench takes the time and prints it"
)]

use std::time::Instant;

use edgeward_evidence::Digest;
use edgeward_identity::{SpiffeId, Tier, Timestamp};
use edgeward_policy::{CompiledPolicy, Fleet, FleetNode, Labels, SourceFile};
use edgeward_wire::slice_delta::{self, Base};
use prost::Message;

fn policy(rules: impl Iterator<Item = usize>, number: u64) -> CompiledPolicy {
    let rules: String = rules
        .map(|n| {
            format!(
                "[[rule]]\nid = \"line-{n:05}\"\neffect = \"allow\"\nfrom = [\"group:g{}\"]\nto = [\"plant/i{}\"]\ndo = [\"connect\"]\n",
                n % 40,
                n / 40
            )
        })
        .collect();
    let groups: String = (0..40)
        .map(|n| format!("[group.g{n}]\nmatch = {{ line = [\"{n}\"] }}\nprofile = \"p\"\n"))
        .collect();
    let interfaces: String = (0..40)
        .map(|n| {
            format!(
                "[service.plant.interface.i{n}]\nnet = \"mesh\"\nl4 = \"tcp/{}\"\n",
                1000 + n
            )
        })
        .collect();
    let text = format!(
        "schema = \"edgeward-policy/1\"\nowner = \"bench\"\nscope = \"any\"\n\
         [profile.p]\ntier = [\"hardware\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{}\"] }}\n\
         {groups}[group.targets]\nmatch = {{ role = [\"target\"] }}\nprofile = \"p\"\n\
         [service.plant]\non = \"targets\"\n{interfaces}{rules}",
        "aa".repeat(32)
    );
    CompiledPolicy::compile(&[SourceFile::new("bench.toml", text)], number)
        .unwrap_or_else(|report| panic!("{:?}", report.diagnostics.first()))
}

fn node(name: &str, label: (&str, &str)) -> FleetNode {
    FleetNode {
        id: format!("spiffe://plant.example/node/{name}")
            .parse()
            .unwrap(),
        labels: Labels::from([(label.0.to_owned(), label.1.to_owned())]),
        tier: Tier::Hardware,
        v4: None,
    }
}

fn fleet(size: usize) -> Fleet {
    let lines = (0..size).map(|n| node(&format!("n{n}"), ("line", &(n % 40).to_string())));
    Fleet {
        nodes: std::iter::once(node("target", ("role", "target")))
            .chain(lines)
            .collect(),
    }
}

fn slice(policy: &CompiledPolicy, fleet: &Fleet, id: &SpiffeId, end: u64) -> Vec<u8> {
    let slice = policy.slice(id, fleet, Timestamp::from_secs(end)).unwrap();
    serde_json::to_vec(&slice).unwrap()
}

fn main() {
    let target: SpiffeId = "spiffe://plant.example/node/target".parse().unwrap();
    let few = fleet(40);
    // A rule in the middle is new; number, hash and end of the slice are others too.
    let before = slice(
        &policy((0..1001).filter(|n| *n != 500), 1),
        &few,
        &target,
        1_800_000_000,
    );
    let after = slice(&policy(0..1001, 2), &few, &target, 1_800_000_100);
    let base = Base {
        digest: *Digest::of(&before).as_bytes(),
        at: 0,
        bytes: &before,
    };
    let begun = Instant::now();
    let delta = slice_delta::make(base, &after).unwrap();
    let made = begun.elapsed();
    let begun = Instant::now();
    assert_eq!(slice_delta::apply(&delta, &before).unwrap(), after);
    println!(
        "one rule more among 1000 rows: whole {} bytes, delta {} bytes in {} steps; made in {made:?}, applied in {:?}",
        after.len(),
        delta.encoded_len(),
        delta.ops.len(),
        begun.elapsed()
    );

    let policy = policy(0..1000, 1);
    for size in [100, 1000, 10_000] {
        let mut fleet = fleet(size);
        let index = policy.index(&fleet);
        let new = node("new", ("line", "7"));
        let begun = Instant::now();
        let mut moved = index.clone();
        moved.put(&policy, &new);
        let one = policy
            .slice_of(&moved, &new.id, Timestamp::default())
            .unwrap();
        let kept = begun.elapsed();
        let begun = Instant::now();
        fleet.nodes.push(new.clone());
        let anew = policy.slice(&new.id, &fleet, Timestamp::default()).unwrap();
        println!(
            "a node that joins {size}: fleet sorted anew {:?}, sorted fleet moved {kept:?}",
            begun.elapsed()
        );
        assert_eq!(one, anew);
    }
}
