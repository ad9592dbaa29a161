//! Revocation: from the operator's word to the end of the process.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use edgeward_tests::agent::Node;
use edgeward_tests::apps::is_alive;
use edgeward_tests::eventually::eventually;
use serde_json::json;

use super::{APP, Plant, SOON, await_note, await_nothing_runs, collector};

/// Longest time from the command's begin to the death of the last process, while connected. The machine is busy with
/// other tests; what it takes on a quiet one is in tests/bench.
const BOUND: Duration = Duration::from_secs(5);
/// How long is watched that something does not happen.
const WATCHED: Duration = Duration::from_secs(5);
const HOUR: i64 = 3600;
/// What an agent says of a word that its disk takes too long for.
const NOT_ON_DISK: &str = "the word that ends it is not on disk yet";
/// Most power cuts at which that may be so.
const ROUNDS: u32 = 4;

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
    let wait = SOON.as_secs().to_string();
    let revoke = [
        "app",
        "revoke",
        &release,
        "--reason",
        "a stolen key",
        "--wait",
        &wait,
    ];
    let (told, took) = std::thread::scope(|scope| {
        let cloud = &plant.lab.cloud;
        let revoking = scope.spawn(move || cloud.json(&revoke));
        for node in [&mut first, &mut second] {
            await_nothing_runs(node)?;
        }
        let took = begun.elapsed();
        let told = revoking
            .join()
            .map_err(|_| anyhow::anyhow!("it panicked"))?;
        anyhow::Ok((told?, took))
    })?;
    for node in [&mut first, &mut second] {
        assert!(node.ground()?.processes("")?.is_empty(), "{told:#}");
    }
    assert!(took < BOUND, "{took:?}");
    let nodes = &told["nodes"];
    assert_eq!(nodes["ended"], 2, "{told:#}");
    assert_eq!((&nodes["told"], &nodes["away"]), (&json!(0), &json!(0)));
    // The nodes' own records may be there as soon as the cloud's.
    let events = plant.lab.cloud.events(&["--type", "app.revoked"])?;
    let names_the_reason = |event: &serde_json::Value| event.to_string().contains("a stolen key");
    assert!(events.iter().any(names_the_reason), "{events:#?}");

    // It does not come back by a reboot.
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
    let revoke = ["app", "revoke", &release, "--reason", "a stolen key"];
    let told = plant.lab.cloud.json(&revoke)?;
    // Nobody has said that it has ended, so nobody is told so.
    assert_eq!(told["nodes"]["ended"], 0, "{told:#}");
    std::thread::sleep(WATCHED);
    assert!(
        !node.ground()?.processes("")?.is_empty(),
        "a node that is cut off goes on until its lease ends"
    );
    plant.lab.network.link(node.host(), true)?;
    // A session that was cut is taken for dead after twenty seconds, and called again within ten more.
    let ground = node.ground()?;
    eventually("no app runs", Duration::from_secs(90), || {
        anyhow::ensure!(ground.processes("")?.is_empty(), "it runs");
        Ok(())
    })
    .context("first contact")
}

/// The node's last moment is the one in which the first of its processes has gone. Where its disk took longer for the word
/// than an end may wait for it (`docs/apps.md`), nothing is promised of that moment, and there is another one.
#[test]
fn a_power_cut_at_the_first_sign_of_a_revocation_does_not_bring_the_release_back()
-> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish("acme/other", "1.0", &collector("fine")?)?;
    let installed = |name: &str| format!("{{ publisher = \"acme\", name = \"{name}\" }}");
    plant.publish(APP, "1.0", &collector("bad")?)?;
    plant.apply(&format!(
        "[apps.gateways]\nallow = [{{ publisher = \"acme\" }}]\ninstall = [{}, {}]\n",
        installed("collector"),
        installed("other")
    ))?;
    let mut node = plant.member("a", "gateway")?;
    let mut round = 0;
    while !cut_at_the_first_sign(&plant, &mut node, &format!("1.{round}"))? {
        round += 1;
        anyhow::ensure!(round < ROUNDS, "no word was on disk in time");
        node.start()?;
        node.await_ready()?;
        eventually("the cloud's word ends it", SOON, || {
            let left = node.ground()?.processes("collector")?;
            anyhow::ensure!(left.is_empty(), "{left:?} run");
            Ok(())
        })?;
        plant.publish(APP, &format!("1.{round}"), &collector("bad")?)?;
    }
    plant.lab.cloud.kill()?;
    node.start()?;
    // What nobody revoked starts without the cloud, so what does not start is held back by the word alone.
    await_runs(&mut node, "other")?;
    let watched = Instant::now();
    while watched.elapsed() < WATCHED {
        let left = node.ground()?.processes("collector")?;
        assert!(left.is_empty(), "it runs again: {}", node.log_text());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Revokes what runs, and takes the node's power away when it sees that; the power is back, the agent is not started.
/// Whether the word was on disk by then, as the agent said before it ended anything.
fn cut_at_the_first_sign(plant: &Plant, node: &mut Node, version: &str) -> anyhow::Result<bool> {
    await_runs(node, "collector")?;
    await_runs(node, "other")?;
    let process = oldest(node, "collector")?;
    let late = |node: &Node| node.log_text().matches(NOT_ON_DISK).count();
    let before = late(node);
    let release = format!("{APP}@{version}");
    std::thread::scope(|scope| {
        let cloud = &plant.lab.cloud;
        let revoking =
            scope.spawn(move || cloud.edgeward(&["app", "revoke", &release, "--reason", "stolen"]));
        await_death(process)?;
        node.kill()?;
        node.power_off()?;
        let revoked = revoking
            .join()
            .map_err(|_| anyhow::anyhow!("it panicked"))?;
        revoked.map(drop)
    })?;
    let in_time = late(node) == before;
    node.tpm.power_on()?;
    node.ground()?.start()?;
    Ok(in_time)
}

#[test]
fn a_node_that_hears_of_no_revocation_ends_what_runs_with_the_word_that_it_has()
-> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("bad")?)?;
    plant.apply_collector()?;
    let mut node = plant.lab.node("a")?;
    node.ready_for_apps(edgeward_tests::apps::Volume::Memory(256), "")?;
    node.clock()?;
    let mut node = plant.lab.enrolled(node, "gateway")?;
    await_note(&mut node, "bad")?;
    plant.lab.network.link(node.host(), false)?;
    let release = format!("{APP}@1.0");
    plant.lab.cloud.edgeward(&[
        "app", "revoke", &release, "--reason", "stolen", "--wait", "0",
    ])?;
    // A word outlasts the longest `offline` of the node's rules, at least twelve hours, by two more.
    node.clock()?.turn(11 * HOUR)?;
    std::thread::sleep(WATCHED);
    assert!(!node.ground()?.processes("")?.is_empty(), "it has a word");
    node.clock()?.turn(15 * HOUR)?;
    await_nothing_runs(&mut node)?;
    // Whatever happens to the machine, it stays so until somebody says something new.
    node.stop()?;
    node.start()?;
    let watched = Instant::now();
    while watched.elapsed() < WATCHED {
        assert!(node.ground()?.processes("")?.is_empty(), "it runs again");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn await_runs(node: &mut Node, app: &str) -> anyhow::Result<()> {
    let up = eventually(&format!("{app} runs"), SOON, || {
        anyhow::ensure!(!node.ground()?.processes(app)?.is_empty(), "it does not");
        Ok(())
    });
    up.with_context(|| node.log_text())
}

/// The process of an app that was there first: the others come and go.
fn oldest(node: &mut Node, app: &str) -> anyhow::Result<i32> {
    let begun = |pid: i32| -> Option<(u64, i32)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything. Field 22 of them all, 20th after it.
        let after = stat.rsplit(')').next()?.split_whitespace().nth(19)?;
        Some((after.parse().ok()?, pid))
    };
    let processes = node.ground()?.processes(app)?.into_iter();
    let oldest = processes.filter_map(begun).min();
    oldest
        .map(|(_, pid)| pid)
        .with_context(|| format!("nothing of {app} runs"))
}

fn await_death(process: i32) -> anyhow::Result<()> {
    let due = Instant::now() + SOON;
    while is_alive(process) {
        anyhow::ensure!(Instant::now() < due, "{process} runs on");
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
