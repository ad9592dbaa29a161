//! How fast a release gets from its publisher to a node of a whole installation: uploaded, fetched, checked, staged and
//! running. `apps-deliver [MIB]`, as root. Prints markdown.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement, which waits for other processes"
)]

use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edgeward_tests::apps::Volume;
use edgeward_tests::plant::{APP, Plant, await_note, collector, note};
use edgeward_tests::process::run;

const MIB: usize = 128;
/// Longest time that is waited for the release.
const LONGEST: Duration = Duration::from_secs(600);

fn main() -> anyhow::Result<()> {
    let mib = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => MIB,
    };
    let bytes = mib << 20;
    let mut noise = Vec::with_capacity(bytes);
    let random = std::fs::File::open("/dev/urandom")?;
    random.take(u64::try_from(bytes)?).read_to_end(&mut noise)?;
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("small")?)?;
    plant.apply_collector()?;
    let room = u32::try_from(mib.saturating_mul(3).saturating_add(64))?;
    let mut node = plant.member_on("a", "gateway", Volume::Disk(room))?;
    await_note(&mut node, "small")?;
    println!("| {mib} MiB | s | MB/s |\n|---|---:|---:|");
    let row = |what: &str, took: Duration| {
        let (took, bytes) = (took.as_secs_f64(), bytes as f64);
        println!("| {what} | {took:.2} | {:.0} |", bytes / took / 1e6);
    };

    let large = collector("large")?.with_file("data/noise", &noise);
    plant.repository.release(APP, "1.1", &large)?;
    let begun = Instant::now();
    plant.upload()?;
    row("publisher to cloud", begun.elapsed());
    let (begun, mut fetched) = (Instant::now(), None);
    while note(&mut node).ok().as_deref() != Some("large") {
        anyhow::ensure!(begun.elapsed() < LONGEST, "{}", node.log_text());
        let said = node.status()?["apps"]["apps"][APP].clone();
        let whole = said["to_fetch"]
            .as_u64()
            .is_some_and(|all| all > 0 && said["fetched"].as_u64() == Some(all));
        if whole && fetched.is_none() {
            fetched = Some(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if let Some(fetched) = fetched {
        row("of the next: fetched and stored, at the latest", fetched);
    }
    row("cloud to running on a node", begun.elapsed());
    let installed = node.ground()?.volume().join(APP).join("current/data/noise");
    let shown = installed.to_str().context("a path")?.to_owned();
    let begun = Instant::now();
    run(std::process::Command::new("sha256sum").arg(shown))?;
    row("sha256sum of the installed file", begun.elapsed());
    Ok(())
}
