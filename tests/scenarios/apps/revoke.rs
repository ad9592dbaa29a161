//! Revocation: from the operator's word to the end of the process.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use edgeward_tests::apps::is_alive;
use serde_json::json;

use super::{APP, Plant, SOON, await_note, await_nothing_runs, collector};

/// Longest time from the command's end to the death of the last process, while connected. The machine is busy with
/// other tests; what it takes on a quiet one is in tests/bench.
const BOUND: Duration = Duration::from_secs(5);
/// How long is watched that something does not happen.
const WATCHED: Duration = Duration::from_secs(5);
const HOUR: i64 = 3600;

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
    let told = plant.lab.cloud.json(&revoke)?;
    let took = begun.elapsed();
    for node in [&mut first, &mut second] {
        // It was said that it has ended.
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
    edgeward_tests::eventually::eventually("no app runs", Duration::from_secs(90), || {
        anyhow::ensure!(ground.processes("")?.is_empty(), "it runs");
        Ok(())
    })
    .context("first contact")
}

/// The node's last moment is the one in which the first of its processes has gone.
#[test]
fn a_power_cut_at_the_first_sign_of_a_revocation_does_not_bring_the_release_back()
-> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("bad")?)?;
    plant.publish("acme/other", "1.0", &collector("fine")?)?;
    let installed = |name: &str| format!("{{ publisher = \"acme\", name = \"{name}\" }}");
    plant.apply(&format!(
        "[apps.gateways]\nallow = [{{ publisher = \"acme\" }}]\ninstall = [{}, {}]\n",
        installed("collector"),
        installed("other")
    ))?;
    let mut node = plant.member("a", "gateway")?;
    await_runs(&mut node, "collector")?;
    await_runs(&mut node, "other")?;
    let processes = lasting(&mut node, "collector")?;
    let release = format!("{APP}@1.0");
    std::thread::scope(|scope| {
        let cloud = &plant.lab.cloud;
        let revoking =
            scope.spawn(move || cloud.edgeward(&["app", "revoke", &release, "--reason", "stolen"]));
        await_first_death(&processes)?;
        node.kill()?;
        node.power_off()?;
        let revoked = revoking
            .join()
            .map_err(|_| anyhow::anyhow!("it panicked"))?;
        revoked.map(drop)
    })?;
    plant.lab.cloud.kill()?;
    node.tpm.power_on()?;
    node.ground()?.start()?;
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

fn await_runs(node: &mut edgeward_tests::agent::Node, app: &str) -> anyhow::Result<()> {
    let up = edgeward_tests::eventually::eventually(&format!("{app} runs"), SOON, || {
        anyhow::ensure!(!node.ground()?.processes(app)?.is_empty(), "it does not");
        Ok(())
    });
    up.with_context(|| node.log_text())
}

/// Those of an app that do not come and go.
fn lasting(node: &mut edgeward_tests::agent::Node, app: &str) -> anyhow::Result<Vec<i32>> {
    let first = node.ground()?.processes(app)?;
    std::thread::sleep(Duration::from_secs(1));
    let now = node.ground()?.processes(app)?;
    let lasting: Vec<i32> = first.into_iter().filter(|pid| now.contains(pid)).collect();
    anyhow::ensure!(!lasting.is_empty(), "nothing of {app} lasts");
    Ok(lasting)
}

fn await_first_death(processes: &[i32]) -> anyhow::Result<()> {
    let due = Instant::now() + SOON;
    while processes.iter().all(|pid| is_alive(*pid)) {
        anyhow::ensure!(Instant::now() < due, "{processes:?} run on");
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
