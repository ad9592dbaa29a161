//! How long a revoked app lives: from the start of the operator's command to the death of its last process, on a node of
//! a whole installation. `apps-revoke [ROUNDS]`, as root. Prints markdown.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement, which waits for other processes"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edgeward_tests::plant::{APP, Plant, await_note, collector};

const ROUNDS: usize = 30;
/// Longest time that is waited for an end.
const LONGEST: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => ROUNDS,
    };
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("round 0")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    let (mut whole, mut after) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let said = format!("round {round}");
        plant.publish(APP, &format!("1.{round}"), &collector(&said)?)?;
        await_note(&mut node, &said)?;
        let processes = node.ground()?.processes("")?;
        anyhow::ensure!(!processes.is_empty(), "nothing runs");
        let release = format!("{APP}@1.{round}");
        let watch = std::thread::spawn(move || ended(&processes));
        let begun = Instant::now();
        let revoke = ["app", "revoke", &release, "--reason", "measured"];
        plant.lab.cloud.edgeward(&revoke)?;
        let told = Instant::now();
        let end = watch
            .join()
            .map_err(|_| anyhow::anyhow!("the watch panicked"))?
            .context("a process is left")?;
        whole.push(end - begun);
        after.push(end.saturating_duration_since(told));
    }
    println!("| {rounds} rounds, ms | p50 | p99 | most |\n|---|---:|---:|---:|");
    row("from the command's start", whole);
    row("after the command's end", after);
    Ok(())
}

/// When the last of them was gone.
fn ended(processes: &[i32]) -> Option<Instant> {
    let due = Instant::now() + LONGEST;
    while Instant::now() < due {
        let left = |pid: &i32| Path::new("/proc").join(pid.to_string()).exists();
        if !processes.iter().any(left) {
            return Some(Instant::now());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    None
}

fn row(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |percent: usize| {
        let index = (took.len() * percent).div_ceil(100).saturating_sub(1);
        took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    println!(
        "| {what} | {:.0} | {:.0} | {:.0} |",
        at(50),
        at(99),
        at(100)
    );
}
