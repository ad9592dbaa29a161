//! A profile's life on real parts: recorded from a machine, put into force, outdated by an update, compared, extended by
//! what the group shows, and in force again. Its name is what a rule asks for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use edgeward_evidence::testing::BootLogBuilder;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::QUICKSTART_POLICY;
use edgeward_tests::measured::MeasuredFile;
use serde_json::Value;

use crate::traffic::{await_reach, serve};

const STATUS: u16 = 8080;
/// One attestation interval with its jitter, the answer, and a slow machine.
const SECONDS: Duration = Duration::from_secs(20);

/// What is asked for so that logs come and nobody is refused yet.
const TRIAL: &str = "
[profile.trial]
tier = [\"virtual\"]
secure_boot = true
ima = { allow = \"trial.allow\" }
mode = \"monitor\"
";

#[test]
fn a_profile_goes_from_a_machine_through_an_update_and_back_into_force() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions {
        attest_interval: "2s",
        ..CloudOptions::default()
    })?;
    let policy = lab.folder().join("policy");
    begin(&policy)?;
    apply(&lab, &policy)?;
    let a = lab.member("a", "gateway")?;
    let old = BootLogBuilder::typical(true);
    let mut b = machine(&mut lab, "b", &old)?;
    let mut c = machine(&mut lab, "c", &old)?;
    let _status = serve(&b, STATUS)?;

    // On trial: what does not match is told, and has no consequences.
    let shown = await_shown(&lab, &b, "b is on trial", |shown| {
        shown["state"] == "trusted" && shown.to_string().contains("ima_file_not_allowed")
    })?;
    assert_eq!(
        shown["explained"]["findings"][0]["monitored"], true,
        "{shown:#}"
    );
    assert_eq!(shown["explained"]["secure_boot"], true, "{shown:#}");
    assert_eq!(shown["would_fail"], "ima_file_not_allowed", "{shown:#}");

    record(&lab, &policy, &b)?;
    apply(&lab, &policy)?;
    for node in [&b, &c] {
        await_shown(&lab, node, "the recorded profile is met", |shown| {
            shown["state"] == "trusted" && shown["explained"]["profiles"][0]["name"] == "machine"
        })?;
    }
    // The rule asks for the gateway's profile by name: what results say is what slices ask for.
    await_reach(&a, &b, STATUS)?;

    let new = updated(&old);
    restart(&mut b, &new)?;
    let shown = await_shown(&lab, &b, "b is failed", |shown| shown["state"] == "failed")?;
    assert_eq!(shown["reason"], "profile_pcr_value", "{shown:#}");
    // Whoever takes away does so first; what it saw is written soon after.
    eventually("the difference is shown", SECONDS, || {
        let text = lab.cloud.edgeward(&["profile", "diff", "b"])?;
        for word in [
            "PCR 4 (",
            "~ PCR 4 event",
            "against the profile:",
            "expected",
        ] {
            anyhow::ensure!(text.contains(word), "{word} is not in:\n{text}");
        }
        Ok(())
    })?;

    // One machine alone is named and not followed.
    let alone = propose(&lab, &policy)?;
    assert_eq!(alone["diff"], "", "{alone:#}");
    assert!(alone.to_string().contains("too-few"), "{alone:#}");

    restart(&mut c, &new)?;
    await_shown(&lab, &c, "c is failed", |shown| shown["state"] == "failed")?;
    let diff = eventually("the new value is proposed", SECONDS, || {
        let both = propose(&lab, &policy)?;
        let diff = both["diff"].as_str().context("a diff")?;
        anyhow::ensure!(!diff.is_empty(), "{both:#}");
        Ok(diff.to_owned())
    })?;
    let unchanged = std::fs::read_to_string(policy.join("machine.toml"))?;
    patch(&policy, &diff)?;
    assert_ne!(
        std::fs::read_to_string(policy.join("machine.toml"))?,
        unchanged
    );
    apply(&lab, &policy)?;
    for node in [&b, &c] {
        await_shown(&lab, node, "trusted again", |shown| {
            shown["state"] == "trusted"
        })?;
    }
    await_reach(&a, &b, STATUS)?;
    eventually("the old value may go", SECONDS, || {
        let after = propose(&lab, &policy)?;
        anyhow::ensure!(after.to_string().contains("unused"), "{after:#}");
        anyhow::ensure!(after["diff"] == "", "{after:#}");
        Ok(())
    })?;
    Ok(())
}

/// The quickstart's policy with machines on trial, and a rule that asks for the gateways' profile.
fn begin(policy: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(policy)?;
    let read = |name: &str| std::fs::read_to_string(Path::new(QUICKSTART_POLICY).join(name));
    let fleet = read("fleet.toml")?;
    let (before, after) = fleet
        .split_once("[group.machines]")
        .context("no group of machines")?;
    let after = after.replacen("\"simulated\"", "\"trial\"", 1);
    let fleet = format!("{before}[group.machines]{after}{TRIAL}");
    std::fs::write(policy.join("fleet.toml"), fleet)?;
    let line = read("line.toml")?;
    let asking = line.replacen(
        "id     = \"gateways-read-status\"",
        "id     = \"gateways-read-status\"\nprofile = [\"simulated\"]",
        1,
    );
    anyhow::ensure!(asking != line, "no rule of that name");
    std::fs::write(policy.join("line.toml"), asking)?;
    let nothing = format!("sha256:{}\n", "00".repeat(32));
    Ok(std::fs::write(policy.join("trial.allow"), nothing)?)
}

/// Writes the profile of a machine and gives it to the group.
fn record(lab: &Lab, policy: &Path, node: &Node) -> anyhow::Result<()> {
    let out = policy.join("machine.toml");
    let words = [
        "profile",
        "record",
        node.name(),
        "--name",
        "machine",
        "--pcr",
        "0,4,7",
        "--ima",
    ];
    lab.cloud
        .edgeward(&[words.as_slice(), &["--out", text(&out)?]].concat())?;
    let again = lab
        .cloud
        .try_edgeward(&[words.as_slice(), &["--out", text(&out)?]].concat())?;
    anyhow::ensure!(!again.status.success(), "a file was written over");
    let list = std::fs::read_to_string(policy.join("machine.allow"))?;
    anyhow::ensure!(list.contains(" /usr/bin/one"), "{list}");
    let fleet = std::fs::read_to_string(policy.join("fleet.toml"))?;
    let fleet = fleet.replacen("\"trial\"", "\"machine\"", 1);
    let fleet = fleet.split("\n[profile.trial]").next().unwrap_or_default();
    std::fs::write(policy.join("fleet.toml"), fleet)?;
    Ok(std::fs::remove_file(policy.join("trial.allow"))?)
}

fn apply(lab: &Lab, policy: &Path) -> anyhow::Result<()> {
    lab.cloud
        .edgeward(&["policy", "apply", text(policy)?])
        .map(|_| ())
}

fn propose(lab: &Lab, policy: &Path) -> anyhow::Result<Value> {
    lab.cloud
        .json(&["profile", "propose", text(policy)?, "--group", "machines"])
}

/// As its reader would apply it.
fn patch(policy: &Path, diff: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut child = Command::new("patch")
        .args(["-p1", "-d", text(policy)?])
        .stdin(Stdio::piped())
        .spawn()
        .context("patch")?;
    child
        .stdin
        .take()
        .context("standard input")?
        .write_all(diff.as_bytes())?;
    anyhow::ensure!(child.wait()?.success(), "patch does not take:\n{diff}");
    Ok(())
}

fn machine(lab: &mut Lab, name: &str, log: &BootLogBuilder) -> anyhow::Result<Node> {
    let node = lab.node(name)?;
    boot(&node, log)?;
    lab.enrolled(node, "machine")
}

fn boot(node: &Node, log: &BootLogBuilder) -> anyhow::Result<()> {
    node.boot_by(&log.build())?;
    measure(node)
}

fn measure(node: &Node) -> anyhow::Result<()> {
    node.measure(&[
        MeasuredFile::new("boot_aggregate", 1),
        MeasuredFile::new("/usr/bin/one", 2),
    ])
}

fn restart(node: &mut Node, log: &BootLogBuilder) -> anyhow::Result<()> {
    node.reboot_by(&log.build())?;
    measure(node)?;
    node.start()
}

/// The same boot with another boot loader.
fn updated(log: &BootLogBuilder) -> BootLogBuilder {
    let mut new = log.clone();
    for event in new.events_mut() {
        if event.measured == b"boot loader 1" {
            event.measured = b"boot loader 2".to_vec();
        }
    }
    new
}

fn await_shown(
    lab: &Lab,
    node: &Node,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    eventually(what, SECONDS, || {
        let shown = lab.cloud.json(&["node", "show", node.name()])?;
        anyhow::ensure!(holds(&shown), "{shown:#}\n{}", node.log_text());
        Ok(shown)
    })
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("not a text: {}", PathBuf::from(path).display()))
}
