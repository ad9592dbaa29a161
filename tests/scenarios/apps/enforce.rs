//! The volume of apps under the guard of a whole node: what a shell of root's can and cannot run there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use edgeward_tests::agent::Node;
use edgeward_tests::eventually::eventually;

use super::{APP, Plant, SOON, assigned, await_note, await_nothing_runs, collector};

/// A program that nobody signed, put on the volume of apps while no guard is there. Then the guard is.
fn unsigned(node: &mut Node) -> anyhow::Result<PathBuf> {
    let ground = node.ground()?;
    ground.cut()?;
    let path = ground.volume().join("unsigned");
    let mut bytes = std::fs::read("/bin/true")?;
    bytes.extend(b"nobody signed this");
    std::fs::write(&path, bytes)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode)?;
    ground.start()?;
    Ok(path)
}

fn runs(path: &PathBuf) -> bool {
    Command::new(path)
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn a_root_shell_runs_nothing_unsigned_and_is_told_of() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("good")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "good")?;
    let path = unsigned(&mut node)?;
    await_level(&node, "fanotify")?;
    await_note(&mut node, "good")?;
    assert!(!runs(&path), "it runs");
    let more = node.ground()?.volume().join("more");
    assert!(
        std::fs::write(&more, "x").is_err(),
        "something was put there"
    );
    let event = plant
        .lab
        .cloud
        .await_event(&["--type", "app.denied", "--node", "a"])?;
    assert!(
        event.to_string().contains("unsigned"),
        "which file: {event:#}"
    );
    Ok(())
}

#[test]
fn observing_lets_it_run_and_exports_what_would_have_been_refused() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("good")?)?;
    plant.apply(&format!("{}mode = \"observe\"\n", assigned("latest")))?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "good")?;
    let path = unsigned(&mut node)?;
    // Until the guard has its book again it refuses whatever is asked.
    eventually("observing stops nothing", SOON, || {
        anyhow::ensure!(runs(&path), "it does not run");
        Ok(())
    })?;
    await_level(&node, "launcher")?;
    plant
        .lab
        .cloud
        .await_event(&["--type", "app.would_deny", "--node", "a"])?;
    let digest = edgeward_apps::Digest::of(&std::fs::read(&path)?).to_string();
    let exported = eventually("the export names it", SOON, || {
        let text = plant
            .lab
            .cloud
            .edgeward(&["app", "observed", "a", "--policy", "--group", "gateways"])?;
        anyhow::ensure!(text.contains(&digest), "{text}");
        Ok(text)
    })?;
    assert!(exported.contains("[apps.gateways]"), "{exported}");

    // Enforced from now on.
    plant.apply_collector()?;
    eventually("it is refused", SOON, || {
        anyhow::ensure!(!runs(&path), "it runs");
        Ok(())
    })
}

#[test]
fn apps_end_when_both_halves_of_the_guard_are_gone_and_the_level_falls() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("good")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "good")?;
    let supervisor = node.ground()?.supervisor()?.pid();
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let watch = std::fs::read_to_string(children)?;
    // The watch's parent first: it would start another.
    node.ground()?.supervisor()?.kill()?;
    let watch = watch.split_whitespace().next().context("a watch")?;
    edgeward_tests::process::run(Command::new("kill").args(["-KILL", watch]))?;
    await_nothing_runs(&mut node)?;
    eventually("the fall of the level is recorded", SOON, || {
        let events = plant
            .lab
            .cloud
            .events(&["--type", "app.level_changed", "--node", "a"])?;
        let fell = |event: &serde_json::Value| event["detail"]["before"] == "fanotify";
        anyhow::ensure!(events.iter().any(fell), "{events:#?}");
        Ok(())
    })?;
    assert_ne!(node.status()?["apps"]["control"], "fanotify");
    // Its return brings everything back.
    node.ground()?.start()?;
    await_note(&mut node, "good")?;
    await_level(&node, "fanotify")
}

fn await_level(node: &Node, wanted: &str) -> anyhow::Result<()> {
    eventually(&format!("the level is {wanted}"), SOON, || {
        let level = node.status()?["apps"]["control"].clone();
        anyhow::ensure!(level == wanted, "{level}");
        Ok(())
    })
}
