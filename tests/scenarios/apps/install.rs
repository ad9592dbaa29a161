//! From a publisher's keys to a running process, and what is recorded on the way.

use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use edgeward_tests::apps::Volume;
use edgeward_tests::eventually::eventually;
use edgeward_tests::publisher::{Holders, Program};

use super::{
    APP, Plant, SOON, apps, assigned, await_note, await_nothing_runs, collector, kinds, note, told,
};

/// More than the smallest volume here holds.
const TOO_MUCH_BYTES: u64 = 30 << 20;
/// How long is watched that something does not happen.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn a_release_runs_where_the_policy_says_and_nowhere_else() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    let first = plant.publish(APP, "1.0", &collector("first")?)?;
    plant.apply_collector()?;
    let mut gateway = plant.member("a", "gateway")?;
    let mut machine = plant.member("b", "machine")?;
    await_note(&mut gateway, "first")?;

    // What ran was recorded before it ran, in this order.
    plant
        .lab
        .cloud
        .await_event(&["--type", "app.started", "--node", "a"])?;
    let told_kinds = kinds(&plant, "a")?;
    let at = |kind: &str| {
        told_kinds
            .iter()
            .position(|told| told == kind)
            .with_context(|| format!("no {kind} among {told_kinds:?}"))
    };
    assert!(
        at("app.installing")? < at("app.installed")?,
        "{told_kinds:?}"
    );
    assert!(at("app.installed")? < at("app.started")?, "{told_kinds:?}");
    let receipt = plant
        .lab
        .cloud
        .await_event(&["--type", "app.installed", "--node", "a"])?;
    assert!(
        receipt.to_string().contains(&first.digest.to_string()),
        "the receipt names the manifest: {receipt:#}"
    );
    // The release itself was recorded before any node heard of it.
    plant.lab.cloud.await_event(&["--type", "app.published"])?;

    // A node that no rule names has nothing, and a running app is not root.
    assert!(machine.ground()?.processes("")?.is_empty());
    assert!(note(&mut machine).is_err());
    let pid = *gateway
        .ground()?
        .processes("")?
        .first()
        .context("no process")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ids = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .context("ids")?;
    assert!(ids.split_whitespace().skip(1).all(|id| id != "0"), "{ids}");

    // The next release takes its place; what is assigned no more ends.
    plant.publish(APP, "1.1", &collector("second")?)?;
    await_note(&mut gateway, "second")?;
    let listed = told(&apps(&gateway, &["list"])?);
    assert!(listed.contains("1.1"), "{listed}");
    plant.apply("")?;
    await_nothing_runs(&mut gateway)?;
    plant
        .lab
        .cloud
        .await_event(&["--type", "app.removed", "--node", "a"])?;
    Ok(())
}

#[test]
fn a_dynamic_program_runs_with_nothing_but_its_own_libraries_from_a_disk() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    let words = ["-n", "-r", "\"jq \" + (1 + 1 | tostring)"];
    let jq = Program::dynamic("/usr/bin/jq", &words)?;
    assert!(
        !jq.host_libraries,
        "the machine's libraries are not shown to it"
    );
    plant.publish(APP, "1.6", &jq)?;
    plant.apply_collector()?;
    let node = plant.member_on("a", "gateway", Volume::Disk(128))?;
    eventually("jq has run", SOON, || {
        anyhow::ensure!(node.log_text().contains("jq 2"), "{}", node.log_text());
        Ok(())
    })
}

#[test]
fn a_script_runs_by_the_interpreter_that_its_release_brings() -> anyhow::Result<()> {
    let script = "import time\nwhile True:\n    open('/state/note', 'w').write('python\\n')\n    time.sleep(0.2)\n";
    let mut plant = Plant::new()?;
    plant.publish(APP, "3.11", &Program::python(script)?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "python")
}

#[test]
fn a_named_version_stays_when_a_newer_one_is_published() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("named")?)?;
    plant.publish(APP, "2.0", &collector("newer")?)?;
    plant.apply(&assigned("1.0"))?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "named")?;
    // A way back that nobody ordered is none: the policy that names the older one again is not obeyed.
    plant.apply(&assigned("2.0"))?;
    await_note(&mut node, "newer")?;
    plant.apply(&assigned("1.0"))?;
    let watched = std::time::Instant::now();
    while watched.elapsed() < WATCHED {
        assert_eq!(note(&mut node)?, "newer");
        assert!(!node.ground()?.processes("")?.is_empty(), "it runs on");
        std::thread::sleep(Duration::from_millis(100));
    }
    // An operator's order leads exactly there.
    plant.lab.cloud.edgeward(&[
        "app", "back", APP, "--group", "gateways", "--reason", "it leaks",
    ])?;
    await_note(&mut node, "named")
}

#[test]
fn a_node_that_slept_through_three_roots_follows_them() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("before")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "before")?;
    node.stop()?;
    for _ in 0..3 {
        plant.repository.turn_offline_keys(Holders::new(2, 3)?)?;
        plant.submit("root")?;
        plant.submit("targets")?;
    }
    plant.publish(APP, "1.1", &collector("after")?)?;
    node.start()?;
    await_note(&mut node, "after")
}

#[test]
fn a_full_volume_refuses_the_release_and_keeps_the_one_before() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("small")?)?;
    plant.apply_collector()?;
    let mut node = plant.member_on("a", "gateway", Volume::Disk(24))?;
    await_note(&mut node, "small")?;
    let mut noise = Vec::new();
    std::fs::File::open("/dev/urandom")?
        .take(TOO_MUCH_BYTES)
        .read_to_end(&mut noise)?;
    plant.publish(
        APP,
        "1.1",
        &collector("large")?.with_file("data/noise", &noise),
    )?;
    eventually("the node says why it has not the newer one", SOON, || {
        let told = node.status()?["apps"]["apps"][APP].clone();
        let full =
            told["wanted"] == "1.1" && told["code"].as_str().is_some_and(|code| !code.is_empty());
        anyhow::ensure!(full, "{told:#}");
        Ok(())
    })?;
    assert_eq!(note(&mut node)?, "small");
    Ok(())
}
