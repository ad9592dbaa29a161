//! How long a revoked app lives, on a node of a whole installation, from the start of the operator's command: until the word
//! is at the node, until its last process is dead, and until the node has said so to the operator. `apps-revoke [ROUNDS]`,
//! as root. Prints markdown.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement, which waits for other processes"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use edgeward_tests::apps::is_alive;
use edgeward_tests::plant::{APP, Plant, await_note, collector};

const ROUNDS: usize = 30;
/// Releases that come into use one right after another; for more an agent that runs on lets the TPM's counter rest.
const AT_ONCE: usize = 7;
/// Longest time that is waited for an end.
const LONGEST: Duration = Duration::from_secs(30);
/// What the agent's log says of the word.
const HEARD: &str = "director's word received";

fn main() -> anyhow::Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => ROUNDS,
    };
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("round 0")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    let (mut heard, mut dead, mut said) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        if round > AT_ONCE && round % AT_ONCE == 1 {
            node.stop()?;
            node.start()?;
            node.await_ready()?;
        }
        let note = format!("round {round}");
        plant.publish(APP, &format!("1.{round}"), &collector(&note)?)?;
        await_note(&mut node, &note)?;
        let processes = node.ground()?.processes("")?;
        anyhow::ensure!(!processes.is_empty(), "nothing runs");
        let words = node.log_text().matches(HEARD).count();
        let release = format!("{APP}@1.{round}");
        let watch = std::thread::spawn(move || ended(&processes));
        let begun = now();
        let revoke = [
            "app", "revoke", &release, "--reason", "measured", "--wait", "30",
        ];
        let told = plant.lab.cloud.json(&revoke)?;
        said.push(now() - begun);
        anyhow::ensure!(told["nodes"]["ended"] == 1, "{told:#}");
        let end = watch
            .join()
            .map_err(|_| anyhow::anyhow!("the watch panicked"))?
            .context("a process is left")?;
        dead.push(end.saturating_sub(begun));
        let log = node.log_text();
        let line = log.lines().filter(|line| line.contains(HEARD)).nth(words);
        let at = line
            .and_then(clock_of)
            .context("the word is not in the log")?;
        heard.push(at.saturating_sub(of_day(begun)));
    }
    println!("| {rounds} rounds, ms | p50 | p99 | most |\n|---|---:|---:|---:|");
    row("the word is at the node", heard);
    row("its last process is dead", dead);
    row("the operator is told so", said);
    Ok(())
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Since midnight, UTC. A round across midnight is none.
fn of_day(at: Duration) -> Duration {
    Duration::new(at.as_secs() % 86_400, at.subsec_nanos())
}

/// The time of a line of the log (`2026-11-22T01:57:39.590066Z`), since midnight.
fn clock_of(line: &str) -> Option<Duration> {
    let clock = line.split_once('T')?.1.split_once('Z')?.0;
    let mut parts = clock.split(':');
    let mut whole = || parts.next()?.parse::<u64>().ok();
    let minutes = whole()? * 60 + whole()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(Duration::from_secs(minutes * 60) + Duration::from_secs_f64(seconds))
}

/// When the last of them was dead.
fn ended(processes: &[i32]) -> Option<Duration> {
    let due = now() + LONGEST;
    while now() < due {
        if !processes.iter().any(|pid| is_alive(*pid)) {
            return Some(now());
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
