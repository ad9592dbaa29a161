//! Coming back: after an outage that outlasted the certificate, a cleared TPM, a replaced TPM, an old disk; and what becomes
//! of a copy.

use std::process::Output;
use std::time::Duration;

use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::copy_folder;
use edgeward_tests::process::output;
use serde_json::Value;

use crate::traffic::{await_reach, reaches, serve};

const STATUS: u16 = 8080;
const DAY: i64 = 86_400;
const SOON: Duration = Duration::from_secs(30);
/// A quarantined node's agent waits up to ten seconds, and a session that is taken for dead lingers for twenty.
const LATER: Duration = Duration::from_secs(60);

fn lab() -> anyhow::Result<Lab> {
    Lab::with_policy(&CloudOptions {
        attest_interval: "2s",
        ..CloudOptions::default()
    })
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(node: &Node, verb: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    output(node.command(verb).args(arguments))
}

fn shown(lab: &Lab, name: &str) -> anyhow::Result<Value> {
    lab.cloud.json(&["node", "show", name])
}

fn await_shown(
    lab: &Lab,
    name: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    eventually(what, LATER, || {
        let node = shown(lab, name)?;
        anyhow::ensure!(wanted(&node), "{node:#}");
        Ok(node)
    })
}

#[test]
fn a_node_that_was_off_past_its_certificates_end_comes_back_by_itself() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let mut a = lab.node("a")?;
    a.clock()?;
    let mut a = lab.enrolled(a, "gateway")?;
    let mut b = lab.node("b")?;
    b.clock()?;
    let mut b = lab.enrolled(b, "machine")?;
    let before = shown(&lab, "a")?;
    a.stop()?;
    b.stop()?;
    lab.cloud.stop()?;

    // Three days later the certificates have ended.
    lab.cloud.clock()?.turn(3 * DAY)?;
    lab.cloud.start()?;
    for node in [&mut a, &mut b] {
        node.clock()?.turn(3 * DAY)?;
        node.clock()?.boot()?;
        node.reboot()?;
        node.start()?;
    }
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let event = lab
        .cloud
        .await_event(&["--type", "node.recovered", "--node", "a"])?;
    assert!(
        event.to_string().contains("\"0\""),
        "the first of its kind: {event:#}"
    );
    lab.cloud
        .await_event(&["--type", "agent.recovered", "--node", "a"])?;
    let after = shown(&lab, "a")?;
    for field in ["spiffe_id", "ipv4", "ipv6", "root"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    Ok(())
}

#[test]
fn a_node_whose_tpm_was_cleared_comes_back_by_itself() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let mut a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let before = shown(&lab, "a")?;
    a.stop()?;
    a.tpm.clear()?;

    // A token is not asked for, and one that is there is not spent by mistake.
    let token = lab.cloud.token(&["--name", "a"])?;
    let refused = a.try_enrol(&token)?;
    assert!(!refused.status.success());
    assert!(
        told(&refused).contains("edgeward-agent recover"),
        "{}",
        told(&refused)
    );

    a.start()?;
    a.await_ready()?;
    await_reach(&a, &b, STATUS)?;
    let after = shown(&lab, "a")?;
    for field in ["spiffe_id", "ipv4", "ipv6", "root"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    let event = lab
        .cloud
        .await_event(&["--type", "agent.recovered", "--node", "a"])?;
    assert!(event.to_string().contains("lost_state_key"), "{event:#}");

    // Cleared under a running agent: it ends, and the next one comes back.
    a.tpm.clear()?;
    lab.cloud.stop()?;
    lab.cloud.start()?;
    eventually("the agent ends", LATER, || {
        anyhow::ensure!(a.process()?.ended()?.is_some(), "it runs");
        Ok(())
    })?;
    a.kill()?;
    a.start()?;
    await_reach(&a, &b, STATUS)
}

#[test]
fn a_cleared_tpm_waits_for_a_cloud_that_is_not_there_and_says_so() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let mut a = lab.member("a", "gateway")?;
    a.stop()?;
    a.tpm.clear()?;
    lab.cloud.stop()?;
    a.start()?;
    eventually("status says what is lost", SOON, || {
        let status = run(&a, "status", &[])?;
        let told = told(&status);
        anyhow::ensure!(told.contains("lost its identity"), "{told}");
        Ok(())
    })?;
    lab.cloud.start()?;
    a.await_ready()
}

#[test]
fn a_replaced_tpm_takes_the_name_over_by_an_operators_word_only() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let mut a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let before = shown(&lab, "a")?;
    a.stop()?;
    lab.replace_tpm(&mut a)?;

    // The agent does not start, and says whose state this is; nor does a command bring it back.
    let recovered = run(&a, "recover", &["--timeout", "20s"])?;
    assert!(!recovered.status.success());
    assert!(
        told(&recovered).contains("replace-tpm"),
        "{}",
        told(&recovered)
    );
    // A plain token of that name does not do it either.
    let plain = lab.cloud.token(&["--name", "a"])?;
    let refused = a.try_enrol(&plain)?;
    assert!(told(&refused).contains("replace-tpm"), "{}", told(&refused));

    let text = lab.cloud.edgeward(&["node", "replace-tpm", "a"])?;
    let token = text
        .split_whitespace()
        .find(|word| word.starts_with("edgeward1."))
        .ok_or_else(|| anyhow::anyhow!("no token in: {text}"))?;
    let file = a.folder().join("replacement");
    std::fs::write(&file, token)?;
    let file = file.display().to_string();
    let enrolled = run(&a, "enrol", &["--token-file", &file, "--force"])?;
    anyhow::ensure!(enrolled.status.success(), "{}", told(&enrolled));
    a.start()?;
    a.await_ready()?;
    await_reach(&a, &b, STATUS)?;
    let after = shown(&lab, "a")?;
    for field in ["spiffe_id", "ipv4", "ipv6", "labels"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_ne!(before["root"], after["root"]);
    lab.cloud
        .await_event(&["--type", "node.replaced", "--node", "a"])?;
    Ok(())
}

#[test]
fn a_copied_machine_locks_itself_and_its_original_until_an_operator_has_looked()
-> anyhow::Result<()> {
    let mut lab = lab()?;
    let mut a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;

    let mut copy = lab.copy_of(&a, "copy")?;
    copy.start()?;
    await_shown(&lab, "a", "both are locked", |node| {
        node["status"] == "quarantined" && node["reason"] == "join_behind"
    })?;
    lab.cloud.await_event(&["--type", "node.cloned"])?;
    eventually("nobody reaches b by this identity", SOON, || {
        anyhow::ensure!(!reaches(&a, &b, STATUS, 1)?, "still reached");
        Ok(())
    })?;
    // The copied TPM holds the same EK: that does not help it either.
    eventually("it is told why", LATER, || {
        let status = a.status()?;
        let recovery = status["recovery"].to_string();
        let log = a.log_text();
        let said = log
            .rsplit_once("node_quarantined")
            .map_or(log.as_str(), |(_, after)| after);
        anyhow::ensure!(
            recovery.contains("node_quarantined"),
            "status: {recovery}; its log: {said}"
        );
        Ok(())
    })?;

    // The operator has found the copy.
    copy.kill()?;
    lab.cloud.edgeward(&["node", "release", "a"])?;
    await_reach(&a, &b, STATUS)?;
    a.stop()?;
    a.start()?;
    await_reach(&a, &b, STATUS)
}

#[test]
fn a_disk_that_was_put_back_is_no_clone_and_comes_back() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let mut a = lab.member("a", "gateway")?;
    a.stop()?;
    let backup = lab.folder().join("backup");
    copy_folder(&a.state(), &backup)?;
    for _ in 0..2 {
        a.start()?;
        a.await_ready()?;
        a.stop()?;
    }

    std::fs::remove_dir_all(a.state())?;
    copy_folder(&backup, &a.state())?;
    // While its last session is open nobody comes back in its name, and asks again later.
    await_shown(&lab, "a", "its session is gone", |node| {
        node["connected"] == false
    })?;
    a.start()?;
    let event = lab
        .cloud
        .await_event(&["--type", "agent.recovered", "--node", "a"])?;
    assert!(event.to_string().contains("lost_rollback"), "{event:#}");
    let node = await_shown(&lab, "a", "it is back", |node| node["connected"] == true)?;
    assert_eq!(node["status"], "active", "{node:#}");
    a.await_ready()
}

#[test]
fn whoever_comes_back_too_often_waits_for_an_operator() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let mut a = lab.member("a", "gateway")?;
    a.stop()?;
    let refused = run(&a, "recover", &[])?;
    assert!(
        told(&refused).contains("nothing is lost"),
        "{}",
        told(&refused)
    );
    eventually("its session is gone", SOON, || {
        anyhow::ensure!(shown(&lab, "a")?["connected"] == false, "it is open");
        Ok(())
    })?;
    for _ in 0..3 {
        let recovered = run(&a, "recover", &["--force"])?;
        anyhow::ensure!(recovered.status.success(), "{}", told(&recovered));
    }
    let waits = run(&a, "recover", &["--force", "--timeout", "3s"])?;
    assert!(!waits.status.success());
    assert!(
        told(&waits).contains("edgeward node approve a"),
        "{}",
        told(&waits)
    );
    assert_eq!(shown(&lab, "a")?["status"], "pending");
    lab.cloud.await_event(&["--type", "node.waits"])?;

    lab.cloud.edgeward(&["node", "approve", "a"])?;
    let recovered = run(&a, "recover", &["--force"])?;
    anyhow::ensure!(recovered.status.success(), "{}", told(&recovered));
    a.start()?;
    a.await_ready()
}
