//! Revocation: from the operator's word to the end of the process.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{APP, Plant, await_note, await_nothing_runs, collector};

/// Longest time from the command's end to the death of the last process, while connected. The machine is busy with
/// other tests; what it takes on a quiet one is in tests/bench.
const BOUND: Duration = Duration::from_secs(5);
/// How long is watched that something does not happen.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn a_revoked_release_ends_at_once_on_every_connected_node() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("bad")?)?;
    plant.apply_collector()?;
    let mut first = plant.member("a", "gateway")?;
    let mut second = plant.member("b", "gateway")?;
    for node in [&mut first, &mut second] {
        await_note(node, "bad")?;
    }
    let release = format!("{APP}@1.0");
    let begun = Instant::now();
    plant
        .lab
        .cloud
        .edgeward(&["app", "revoke", &release, "--reason", "a stolen key"])?;
    for node in [&mut first, &mut second] {
        await_nothing_runs(node)?;
    }
    let took = begun.elapsed();
    assert!(took < BOUND, "{took:?}");
    let event = plant.lab.cloud.await_event(&["--type", "app.revoked"])?;
    assert!(event.to_string().contains("a stolen key"), "{event:#}");

    // It does not come back by a reboot, once the node has noted that it is gone.
    plant
        .lab
        .cloud
        .await_event(&["--type", "app.removed", "--node", "a"])?;
    first.reboot()?;
    first.start()?;
    first.await_ready()?;
    let watched = Instant::now();
    while watched.elapsed() < WATCHED {
        assert!(first.ground()?.processes("")?.is_empty(), "it runs again");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The release that mends it runs.
    plant.publish(APP, "1.1", &collector("mended")?)?;
    for node in [&mut first, &mut second] {
        await_note(node, "mended")?;
    }
    Ok(())
}

#[test]
fn a_node_that_was_away_ends_a_revoked_release_at_first_contact() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("bad")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "bad")?;
    plant.lab.network.link(node.host(), false)?;
    let release = format!("{APP}@1.0");
    plant
        .lab
        .cloud
        .edgeward(&["app", "revoke", &release, "--reason", "a stolen key"])?;
    std::thread::sleep(WATCHED);
    assert!(
        !node.ground()?.processes("")?.is_empty(),
        "a node that is cut off goes on until its lease ends"
    );
    plant.lab.network.link(node.host(), true)?;
    // A session that was cut is taken for dead after twenty seconds, and called again within ten more.
    let ground = node.ground()?;
    edgeward_tests::eventually::eventually("no app runs", Duration::from_secs(90), || {
        anyhow::ensure!(ground.processes("")?.is_empty(), "it runs");
        Ok(())
    })
    .context("first contact")
}
