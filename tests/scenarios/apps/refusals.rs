//! What a node refuses, whoever carries it: old metadata, stale metadata, metadata put together from two times, a disk
//! from yesterday, and bytes that somebody changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use edgeward_tests::agent::Node;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::copy_folder;

use super::{APP, Plant, SOON, apps, await_note, await_nothing_runs, collector, note, told};

/// How long is watched that something does not happen.
const WATCHED: Duration = Duration::from_secs(5);

/// The repository as an operator carries it to a node, with the director's word for that node.
fn stick(plant: &Plant, node: &Node, version: &str, name: &str) -> anyhow::Result<PathBuf> {
    let folder = plant.lab.folder().join(name);
    let to = folder.to_str().context("a path")?;
    let release = format!("{APP}@{version}");
    plant.lab.cloud.edgeward(&[
        "app",
        "export",
        "--app",
        &release,
        "--node",
        node.name(),
        "--to",
        to,
    ])?;
    Ok(folder)
}

fn import(node: &Node, folder: &Path) -> anyhow::Result<std::process::Output> {
    apps(node, &["import", folder.to_str().context("a path")?])
}

/// `import` changes nothing, and says one of these words.
fn refuses(node: &Node, folder: &Path, words: &[&str]) -> anyhow::Result<()> {
    let text = told(&import(node, folder)?);
    anyhow::ensure!(words.iter().any(|word| text.contains(word)), "{text}");
    Ok(())
}

/// The second release runs before and after.
fn changes_nothing(node: &mut Node, folder: &Path) -> anyhow::Result<()> {
    let told = told(&import(node, folder)?);
    let until = std::time::Instant::now() + WATCHED;
    while std::time::Instant::now() < until {
        anyhow::ensure!(note(node)? == "second", "{told}");
        anyhow::ensure!(!node.ground()?.processes("")?.is_empty(), "{told}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn metadata(stick: &Path, ending: &str) -> anyhow::Result<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(stick.join("image/metadata"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    found.pop().with_context(|| format!("no {ending}"))
}

#[test]
fn a_stick_installs_what_the_cloud_says_while_the_cloud_is_down() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("first")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "first")?;
    let old = stick(&plant, &node, "1.0", "old")?;

    // The node is cut off when the next release comes.
    plant.lab.network.link(node.host(), false)?;
    plant.publish(APP, "2.0", &collector("second")?)?;
    let new = eventually("the director says 2.0", SOON, || {
        let folder = stick(&plant, &node, "2.0", "new");
        if folder.is_err() {
            // A folder that is there already is another reason to refuse.
            let _none = std::fs::remove_dir_all(plant.lab.folder().join("new"));
        }
        folder
    })?;
    plant.lab.cloud.stop()?;

    // Changed on the way, in every kind of file.
    for part in [
        "timestamp.json",
        "snapshot.json",
        "targets.json",
        "acme.json",
    ] {
        let file = metadata(&new, part)?;
        let good = std::fs::read(&file)?;
        let mut bad = good.clone();
        let at = bad
            .iter()
            .rposition(|byte| *byte == b'1')
            .context("a digit")?;
        *bad.get_mut(at).context("there")? = b'2';
        std::fs::write(&file, bad)?;
        refuses(&node, &new, &["unproven", "refused", "malformed"]).with_context(|| part)?;
        std::fs::write(&file, good)?;
    }
    assert_eq!(note(&mut node)?, "first");

    let taken = import(&node, &new)?;
    assert!(taken.status.success(), "{}", told(&taken));
    await_note(&mut node, "second")?;

    // The stick from before: everything on it is signed, and old.
    changes_nothing(&mut node, &old)?;
    // Put together from both: each file is signed, and they never were one repository.
    let mixed = plant.lab.folder().join("mixed");
    copy_folder(&new, &mixed)?;
    std::fs::copy(metadata(&old, "acme.json")?, metadata(&mixed, "acme.json")?)?;
    changes_nothing(&mut node, &mixed)
}

#[test]
fn metadata_past_its_end_installs_nothing() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("first")?)?;
    plant.apply_collector()?;
    let mut node = plant.lab.node("a")?;
    node.clock()?;
    node.ready_for_apps(edgeward_tests::apps::Volume::Memory(256), "")?;
    let mut node = plant.lab.enrolled(node, "gateway")?;
    await_note(&mut node, "first")?;
    plant.publish(APP, "2.0", &collector("second")?)?;
    await_note(&mut node, "second")?;
    let frozen = stick(&plant, &node, "2.0", "frozen")?;
    plant.lab.cloud.stop()?;
    // Days later somebody brings the same stick once more, to hold the node where it is.
    node.clock()?.turn(9 * 86_400)?;
    refuses(&node, &frozen, &["expired", "ended"])
}

#[test]
fn a_disk_from_yesterday_brings_no_old_release_back() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("yesterday")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "yesterday")?;
    node.stop()?;
    let copy = plant.lab.folder().join("yesterday");
    copy_folder(&node.state(), &copy)?;
    node.start()?;
    plant.publish(APP, "2.0", &collector("today")?)?;
    await_note(&mut node, "today")?;
    let old = stick(&plant, &node, "2.0", "today")?;
    node.stop()?;
    node.ground()?.cut()?;
    plant.lab.cloud.stop()?;

    std::fs::remove_dir_all(node.state())?;
    copy_folder(&copy, &node.state())?;
    node.ground()?.start()?;
    node.start()?;
    // The TPM's epoch says that the state is not the last one: nothing is granted until the cloud answers, and a stick
    // is no cloud.
    let until = std::time::Instant::now() + WATCHED;
    while std::time::Instant::now() < until {
        assert!(node.ground()?.processes("")?.is_empty(), "it runs");
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = told(&import(&node, &old)?);
    assert!(!told.contains("running"), "{told}");
    await_nothing_runs(&mut node)?;

    plant.lab.cloud.start()?;
    await_note(&mut node, "today")
}
