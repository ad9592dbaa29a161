//! What travels, and what does not travel twice.

use std::io::Read as _;

use anyhow::Context as _;
use edgeward_tests::eventually::eventually;
use edgeward_tests::netns::Host;
use edgeward_tests::process::run;

use super::{APP, Plant, SOON, await_note, collector};

const CONTENT_BYTES: usize = 12 << 20;
/// What a megabit link would carry in a second.
const RATE: &str = "24mbit";
/// What sessions, evidence and records cost beside the content.
const SURPLUS_BYTES: u64 = 4 << 20;

/// Bytes that a host has sent so far.
fn sent(host: &Host) -> anyhow::Result<u64> {
    let path = "/sys/class/net/eth0/statistics/tx_bytes";
    Ok(run(host.command("cat").arg(path))?.trim().parse()?)
}

fn noise() -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; CONTENT_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn an_interrupted_download_goes_on_and_an_update_fetches_what_changed() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    let mut content = noise()?;
    plant.publish(
        APP,
        "1.0",
        &collector("whole")?.with_file("data/noise", &content),
    )?;
    plant.apply_collector()?;
    let cloud = plant.lab.cloud.host().clone();
    let shape = [
        "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", RATE, "burst", "64kb", "latency",
        "100ms",
    ];
    run(cloud.command("tc").args(shape))?;
    let mut node = plant.member("a", "gateway")?;
    let before = sent(&cloud)?;
    // The agent dies three times on the way.
    for part in 1..=3u64 {
        let due = before + part * (CONTENT_BYTES as u64) / 4;
        eventually("a part of it has travelled", SOON, || {
            let now = sent(&cloud)?;
            anyhow::ensure!(now >= due, "{now} of {due}");
            Ok(())
        })?;
        node.kill()?;
        node.start()?;
    }
    await_note(&mut node, "whole")?;
    let travelled = sent(&cloud)? - before;
    let most = CONTENT_BYTES as u64 + SURPLUS_BYTES;
    assert!(
        travelled < most,
        "{travelled} bytes travelled for {CONTENT_BYTES}"
    );

    // A release with a change in its middle, and another note.
    run(cloud
        .command("tc")
        .args(["qdisc", "del", "dev", "eth0", "root"]))?;
    content
        .get_mut(CONTENT_BYTES / 2..CONTENT_BYTES / 2 + 100)
        .context("the middle")?
        .fill(7);
    let before = sent(&cloud)?;
    plant.publish(
        APP,
        "1.1",
        &collector("changed")?.with_file("data/noise", &content),
    )?;
    await_note(&mut node, "changed")?;
    let travelled = sent(&cloud)? - before;
    assert!(
        travelled < SURPLUS_BYTES,
        "{travelled} bytes travelled for a change of 100"
    );
    Ok(())
}
