//! The cloud is gone, the rule is closed, and people open what was sealed beforehand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::{CloudOptions, clean_environment};
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::copy_folder;
use edgeward_tests::process::{output, run};
use edgeward_tests::{Lab, bin_dir};

use crate::traffic::{await_reach, reaches, serve};

const ADMIN: u16 = 8081;
/// How long the glass stays open: enough to bind and to restart an agent.
const TTL: Duration = Duration::from_secs(75);

const POLICY: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["quickstart"], role = ["machine"] }

[operator-group.oncall]
members = ["operator/li", "operator/wu", "operator/yi"]

[service.line]
on = "machines"
[service.line.interface.admin]
net = "mesh"
l4  = "tcp/8081"

[window.later]
tz   = "UTC"
days = ["DAY"]
from = "00:00"
to   = "00:01"

[[rule]]
id      = "maintenance"
effect  = "allow"
from    = ["group:gateways"]
to      = ["line/admin"]
do      = ["connect"]
when    = { window = "later" }
offline = "0s"

[break-glass.line]
grants = ["maintenance"]
by     = ["operator-group:oncall"]
quorum = 2
ttl    = "75s"
"#;

/// A sealed file and its code.
struct Envelope {
    file: PathBuf,
    code: String,
}

#[test]
fn what_was_sealed_opens_once_for_enough_people_with_the_cloud_gone() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    apply(&lab)?;
    for name in ["li", "wu", "zhou"] {
        let out = lab.folder().join(name);
        let out = out.to_str().context("a path")?;
        lab.cloud
            .edgeward(&["operator", "add", name, "--role", "operator", "--out", out])?;
    }
    let a = lab.member("a", "gateway")?;
    let mut b = lab.member("b", "machine")?;
    let _admin = serve(&b, ADMIN)?;
    let of_a = issue(&lab, "a")?;
    let of_b = issue(&lab, "b")?;
    let second_of_b = issue(&lab, "b")?;
    let third_of_b = issue(&lab, "b")?;
    assert!(!reaches(&a, &b, ADMIN, 3)?, "the window is closed");

    lab.cloud.kill()?;
    std::thread::sleep(Duration::from_secs(31));
    assert!(!reaches(&a, &b, ADMIN, 3)?, "the cloud is gone");
    let (for_a, for_b) = (approvals(&lab, &of_a)?, approvals(&lab, &of_b)?);
    assert!(approve(&lab, &of_b, "zhou").is_err(), "zhou is not named");

    // Whatever is missing or wrong opens nothing, and says why.
    let code_of = |node: &Node, envelope: &Envelope, code: &str, given: &[PathBuf]| {
        refused(node, &envelope.file, code, given)
    };
    assert_eq!(code_of(&b, &of_b, "0000-0000", &for_b)?, "glass_code");
    assert_eq!(code_of(&b, &of_b, &of_a.code, &for_b)?, "glass_seal");
    assert_eq!(code_of(&b, &of_b, &of_b.code, &for_b[..1])?, "glass_quorum");
    let twice = [for_b[0].clone(), for_b[0].clone()];
    assert_eq!(
        code_of(&b, &of_b, &of_b.code, &twice)?,
        "glass_same_operator"
    );
    assert_eq!(
        code_of(&b, &of_b, &of_b.code, &for_a)?,
        "glass_approval_other_grant"
    );
    assert_eq!(code_of(&b, &of_a, &of_a.code, &for_a)?, "glass_other_node");
    let altered = altered(&of_b.file)?;
    assert_eq!(refused(&b, &altered, &of_b.code, &for_b)?, "glass_seal");
    assert!(!reaches(&a, &b, ADMIN, 3)?, "nothing was opened");

    // What is opened on one side opens nothing on the other.
    let before = lab.folder().join("before");
    copy_folder(&b.state(), &before)?;
    open(&b, &of_b, &for_b)?;
    assert!(!reaches(&a, &b, ADMIN, 3)?, "the other side is closed");
    open(&a, &of_a, &for_a)?;
    let opened = std::time::Instant::now();
    await_reach(&a, &b, ADMIN)?;
    assert_eq!(b.status()?["glass"][0]["rules"][0], "maintenance");

    // It ends by itself, and a used grant opens nothing.
    eventually("the glass closes", TTL + Duration::from_secs(20), || {
        anyhow::ensure!(!reaches(&a, &b, ADMIN, 2)?, "it does not");
        Ok(())
    })?;
    assert!(opened.elapsed() <= TTL + Duration::from_secs(20));
    assert_eq!(code_of(&b, &of_b, &of_b.code, &for_b)?, "glass_used");
    assert!(!reaches(&a, &b, ADMIN, 3)?, "a used grant opens nothing");

    // What is open survives a restart of the agent, for no longer than it had.
    let second = approvals(&lab, &second_of_b)?;
    open(&b, &second_of_b, &second)?;
    b.stop()?;
    b.start()?;
    eventually("it is open still", Duration::from_secs(30), || {
        let left = b.status()?["glass"][0]["left_secs"].as_u64();
        let left = left.context("nothing is open")?;
        anyhow::ensure!(left < TTL.as_secs(), "{left}");
        Ok(())
    })?;

    // A disk from before the use is behind the TPM: nothing at all is granted on it.
    b.stop()?;
    let after = lab.folder().join("after");
    std::fs::rename(b.state(), &after)?;
    copy_folder(&before, &b.state())?;
    b.start()?;
    let again = approvals(&lab, &third_of_b)?;
    eventually("the agent answers", Duration::from_secs(30), || {
        b.status().map(|_| ())
    })?;
    assert_eq!(code_of(&b, &of_b, &of_b.code, &for_b)?, "held_rollback");
    assert_eq!(
        code_of(&b, &second_of_b, &second_of_b.code, &again)?,
        "held_rollback"
    );
    b.stop()?;
    std::fs::remove_dir_all(b.state())?;
    std::fs::rename(&after, b.state())?;

    // The cloud is back: everybody hears of it, until somebody says that they saw it.
    b.start()?;
    lab.cloud.start()?;
    let event = lab
        .cloud
        .await_event(&["--node", "b", "--type", "break-glass.opened"])?;
    assert_eq!(event["detail"]["by"], "li wu", "{event}");
    eventually("status is loud", Duration::from_secs(90), || {
        let status = lab.cloud.edgeward(&["status"])?;
        anyhow::ensure!(status.matches("BREAK-GLASS").count() == 3, "{status}");
        Ok(())
    })?;
    assert!(
        lab.cloud
            .edgeward(&["node", "show", "b"])?
            .contains("BREAK-GLASS")
    );
    assert!(lab.cloud.log_text().contains("THE GLASS WAS BROKEN"));
    for number in ["1", "2", "3"] {
        lab.cloud
            .edgeward(&["break-glass", "acknowledge", number])?;
    }
    assert!(!lab.cloud.edgeward(&["status"])?.contains("BREAK-GLASS"));

    // What is revoked opens nothing once the node has heard of it.
    lab.cloud.edgeward(&["break-glass", "revoke", "4"])?;
    eventually("the revocation arrives", Duration::from_secs(30), || {
        let code = refused(&b, &third_of_b.file, &third_of_b.code, &again)?;
        anyhow::ensure!(code == "glass_revoked", "{code}");
        Ok(())
    })
}

fn apply(lab: &Lab) -> anyhow::Result<()> {
    let folder = lab.folder().join("policy");
    copy_folder(Path::new(edgeward_tests::lab::QUICKSTART_POLICY), &folder)?;
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if std::fs::read_to_string(&path)?.contains("[service.line]") {
            std::fs::write(&path, POLICY.replace("DAY", in_three_days()?))?;
        }
    }
    lab.cloud
        .edgeward(&["policy", "apply", folder.to_str().context("a path")?])?;
    Ok(())
}

/// A day of the week on which the test does not run.
fn in_three_days() -> anyhow::Result<&'static str> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    // 1970-01-01 was a Thursday.
    let days = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let day = usize::try_from((since.as_secs() / 86_400 + 3) % 7)?;
    days.get(day).copied().context("a day")
}

fn issue(lab: &Lab, node: &str) -> anyhow::Result<Envelope> {
    let count = std::fs::read_dir(lab.folder())?.count();
    let file = lab.folder().join(format!("{node}-{count}.glass"));
    let out = file.to_str().context("a path")?;
    let text =
        lab.cloud
            .edgeward(&["break-glass", "issue", "line", "--node", node, "--out", out])?;
    let code = text.split_whitespace().next().context("no code")?;
    Ok(Envelope {
        code: code.to_owned(),
        file,
    })
}

/// What li and wu sign, each with their own context and no cloud.
fn approvals(lab: &Lab, envelope: &Envelope) -> anyhow::Result<Vec<PathBuf>> {
    ["li", "wu"]
        .into_iter()
        .map(|name| approve(lab, envelope, name))
        .collect()
}

fn approve(lab: &Lab, envelope: &Envelope, name: &str) -> anyhow::Result<PathBuf> {
    let out = PathBuf::from(format!("{}.{name}", envelope.file.display()));
    let mut command = lab.cloud.host().command(bin_dir()?.join("edgeward"));
    clean_environment(&mut command);
    command
        .arg("--context")
        .arg(lab.folder().join(name))
        .args([
            "break-glass",
            "approve",
            "--yes",
            "--code",
            &envelope.code,
            "--out",
        ])
        .arg(&out)
        .arg(&envelope.file);
    run(&mut command)?;
    Ok(out)
}

fn opening(node: &Node, file: &Path, code: &str, approvals: &[PathBuf]) -> std::process::Command {
    let mut command = node.command("break-glass");
    command.args(["open", "--code", code]).arg(file);
    for approval in approvals {
        command.arg("--approval").arg(approval);
    }
    command
}

fn open(node: &Node, envelope: &Envelope, approvals: &[PathBuf]) -> anyhow::Result<()> {
    run(&mut opening(
        node,
        &envelope.file,
        &envelope.code,
        approvals,
    ))
    .map(|_| ())
}

/// The code of the refusal.
fn refused(node: &Node, file: &Path, code: &str, given: &[PathBuf]) -> anyhow::Result<String> {
    let output = output(&mut opening(node, file, code, given))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(!output.status.success(), "it opened");
    let (_, rest) = said
        .split_once("not opened [")
        .with_context(|| said.clone())?;
    let (code, _) = rest.split_once(']').with_context(|| said.clone())?;
    Ok(code.to_owned())
}

fn altered(file: &Path) -> anyhow::Result<PathBuf> {
    let mut bytes = std::fs::read(file)?;
    *bytes.last_mut().context("an empty file")? ^= 1;
    let path = file.with_extension("altered");
    std::fs::write(&path, bytes)?;
    Ok(path)
}
