//! What an operator asks and orders, and what the commands answer: the negative first, each with its exit code and what
//! to do; then the same in JSON, for scripts.

use std::process::Command;

use anyhow::Context as _;
use edgeward_tests::agent::Node;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::output;
use serde_json::Value;

use super::{APP, Plant, SOON, apps, await_note, collector, told};

/// Refused by the cloud or the command, with exit code 1 and these words.
fn refused(plant: &Plant, line: &[&str], words: &[&str]) -> anyhow::Result<()> {
    let done = plant.lab.cloud.try_edgeward(line)?;
    let text = told(&done);
    anyhow::ensure!(done.status.code() == Some(1), "{line:?}: {text}");
    anyhow::ensure!(
        words.iter().all(|word| text.contains(word)),
        "{line:?}: {text}"
    );
    Ok(())
}

fn state_on(plant: &Plant, node: &str) -> anyhow::Result<Value> {
    let nodes = plant.lab.cloud.json(&["app", "nodes", APP])?;
    let nodes = nodes.as_array().context("no array")?;
    let found = nodes.iter().find(|row| row["node"] == node);
    Ok(found.cloned().unwrap_or_default())
}

fn await_state(plant: &Plant, version: &str) -> anyhow::Result<Value> {
    let what = format!("the cloud knows that {version} runs");
    eventually(&what, SOON, || {
        let row = state_on(plant, "a")?;
        let there = row["state"] == "running" && row["version"] == version;
        anyhow::ensure!(there, "{row}");
        Ok(row)
    })
}

#[test]
fn what_cannot_be_done_is_told_with_its_code_and_what_to_do() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("first")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "first")?;
    await_state(&plant, "1.0")?;

    let folder = plant.lab.folder();
    let (stick, file) = (folder.join("stick"), folder.join("file"));
    std::fs::write(&file, "no folder")?;
    let stick = stick.to_str().context("a path")?;
    let file = file.to_str().context("a path")?;
    let export = |release, node, to| {
        [
            "app", "export", "--app", release, "--node", node, "--to", to,
        ]
    };
    for (line, words) in [
        (
            &["app", "show", "acme/collector@9.9"][..],
            &["no such release", "not_found"][..],
        ),
        (&["app", "show", "acme/other@1.0"], &["no such release"]),
        (
            &["app", "revoke", "acme/collector@9.9", "--reason", "x"],
            &["no such release"],
        ),
        (
            &["app", "back", APP, "--node", "a", "--reason", "x"],
            &["app-no-way-back", "hint:", "edgeward app nodes"],
        ),
        (
            &["app", "back", APP, "--node", "nobody", "--reason", "x"],
            &["app-no-way-back"],
        ),
        (
            &["app", "back", APP, "--group", "nobodies", "--reason", "x"],
            &["app-no-way-back"],
        ),
        (
            &export("acme/collector@1.0", "nobody", stick),
            &["no such node"],
        ),
        (
            &export("acme/collector@9.9", "a", stick),
            &["acme/collector"],
        ),
        (
            &export("other/collector@1.0", "a", stick),
            &["no publisher other"],
        ),
        (&export("acme/collector@1.0", "a", file), &[file]),
    ] {
        refused(&plant, line, words)?;
    }
    // What is not there is no error where a list is asked for, and is said.
    let listed = plant.lab.cloud.json(&["app", "list", "other"])?;
    anyhow::ensure!(listed == serde_json::json!([]), "{listed}");
    let nodes = plant
        .lab
        .cloud
        .try_edgeward(&["app", "nodes", "acme/other"])?;
    anyhow::ensure!(nodes.status.success(), "{}", told(&nodes));
    anyhow::ensure!(
        told(&nodes).contains("no node says anything"),
        "{}",
        told(&nodes)
    );
    let seen = plant.lab.cloud.json(&["app", "observed", "a"])?;
    anyhow::ensure!(seen == serde_json::json!([]), "{seen}");

    // On the node: nothing there to import, and a file that somebody changed.
    for (words, expected) in [
        (["import", "/nonexistent"], "/nonexistent"),
        (["import", folder.to_str().context("a path")?], "image"),
    ] {
        let done = apps(&node, &words)?;
        let text = told(&done);
        anyhow::ensure!(
            done.status.code() == Some(1) && text.contains(expected),
            "{text}"
        );
    }
    verify_finds_a_changed_file(&mut node)
}

fn verify_finds_a_changed_file(node: &mut Node) -> anyhow::Result<()> {
    let verified = apps(node, &["verify"])?;
    anyhow::ensure!(verified.status.success(), "{}", told(&verified));
    let ground = node.ground()?;
    ground.cut()?;
    let changed = ground.volume().join(APP).join("current/etc/note");
    let before = std::fs::read(&changed)?;
    // Where the file system knows files that nobody may change, root takes that back first.
    let mut unlock = Command::new("chattr");
    output(unlock.args(["-f", "-i"]).arg(&changed))?;
    std::fs::write(&changed, b"fIrst\n")?;
    ground.start()?;
    let verified = eventually("the guard answers again", SOON, || {
        let verified = apps(node, &["verify"])?;
        anyhow::ensure!(
            told(&verified).contains("has another content"),
            "{}",
            told(&verified)
        );
        Ok(verified)
    })?;
    let text = told(&verified);
    anyhow::ensure!(verified.status.code() == Some(1), "{text}");
    anyhow::ensure!(text.contains("etc/note has another content"), "{text}");
    anyhow::ensure!(before == b"first\n", "another file was changed");
    Ok(())
}

#[test]
fn lists_releases_nodes_and_a_way_back_are_told_for_scripts() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    let first = plant.publish(APP, "1.0", &collector("first")?)?;
    plant.apply_collector()?;
    let mut node = plant.member("a", "gateway")?;
    await_note(&mut node, "first")?;
    let row = await_state(&plant, "1.0")?;
    anyhow::ensure!(row["control"] == "fanotify", "{row}");
    anyhow::ensure!(row["digest"] == first.digest.to_string(), "{row}");
    plant.publish(APP, "2.0", &collector("second")?)?;
    await_note(&mut node, "second")?;
    await_state(&plant, "2.0")?;

    let shown = plant
        .lab
        .cloud
        .json(&["app", "show", "acme/collector@1.0"])?;
    anyhow::ensure!(
        shown["entry"] == "bin/busybox" && shown["entries"] == 2,
        "{shown}"
    );
    anyhow::ensure!(shown["digest"] == first.digest.to_string(), "{shown}");

    let stick = plant.lab.folder().join("stick");
    let to = stick.to_str().context("a path")?;
    let release = "acme/collector@2.0";
    let export = ["app", "export", "--app", release, "--node", "a", "--to", to];
    let exported = plant.lab.cloud.json(&export)?;
    anyhow::ensure!(exported["chunks"].as_u64() > Some(0), "{exported}");
    anyhow::ensure!(exported["valid_until"].is_string(), "{exported}");
    for part in ["image/metadata/timestamp.json", "director/a.signed"] {
        anyhow::ensure!(stick.join(part).is_file(), "the stick has no {part}");
    }
    // The same again adds nothing and is no error.
    anyhow::ensure!(plant.lab.cloud.json(&export)?["bytes"] == exported["bytes"]);
    let taken = apps(&node, &["import", to])?;
    anyhow::ensure!(taken.status.success(), "{}", told(&taken));

    let back = ["app", "back", APP, "--node", "a", "--reason", "it leaks"];
    let went = plant.lab.cloud.json(&back)?;
    let one = &went["nodes"][0];
    anyhow::ensure!(
        one["node"] == "a" && one["from"] == "2.0" && one["to"] == "1.0",
        "{went}"
    );
    await_note(&mut node, "first")?;
    await_state(&plant, "1.0")?;

    let digest = format!("sha256:{}", first.digest);
    let revoked = plant
        .lab
        .cloud
        .json(&["app", "revoke", &digest, "--reason", "stolen"])?;
    anyhow::ensure!(revoked["digest"] == first.digest.to_string(), "{revoked}");
    let listed = plant.lab.cloud.json(&["app", "list", "acme"])?;
    let versions = &listed[0]["versions"];
    anyhow::ensure!(versions[0]["version"] == "2.0", "{listed}");
    anyhow::ensure!(versions[0]["revoked"].is_null(), "{listed}");
    anyhow::ensure!(versions[1]["revoked"] == "stolen", "{listed}");
    Ok(())
}
