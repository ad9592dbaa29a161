//! Identities for processes on a node: a real agent, processes of different users, and clients of the SPIFFE Workload
//! API that were written elsewhere (the crate `spiffe`, PyPI's `spiffe`).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context;
use edgeward_identity::SvidLeaf;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::output;
use edgeward_tests::{Lab, bin_dir};
use serde_json::Value;

const COLLECTOR_UID: u32 = 39_990;
const OTHER_UID: u32 = 39_991;
const COLLECTOR: &str = "spiffe://plant.example/workload/line/collector";

#[test]
fn a_process_gets_the_identity_that_its_user_is_registered_for_and_rotations_are_pushed()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let policy = register(&lab, &by_user(), "1m")?;
    let node = lab.member("a", "gateway")?;
    let client = Rust::in_lab(&lab)?;

    // Nobody else: not another user, and not root.
    for uid in [OTHER_UID, 0] {
        let refused = client.run(&node, uid, &[])?;
        anyhow::ensure!(!refused.status.success(), "{uid} got an identity");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        anyhow::ensure!(is_refusal(&told), "{uid} was told: {told}");
    }
    let events = lab.cloud.events(&["--type", "workload.issued"])?;
    anyhow::ensure!(events.is_empty(), "issued to nobody: {events:?}");

    let told = lines(&client.run(&node, COLLECTOR_UID, &["watch"])?)?;
    let [first, second] = told.as_slice() else {
        anyhow::bail!("not two lines: {told:?}");
    };
    check(first)?;
    let (before, after) = (leaf(first)?, leaf(second)?);
    anyhow::ensure!(before.serial != after.serial, "the same certificate again");
    anyhow::ensure!(before.key != after.key, "the same key again");
    // Both serials are in the log, each with the node that asked.
    let issued = lab.cloud.events(&["--type", "workload.issued"])?;
    for leaf in [&before, &after] {
        let named = issued
            .iter()
            .any(|event| event.to_string().contains(&leaf.serial));
        anyhow::ensure!(named, "{} is not in the log", leaf.serial);
    }
    let status = node.status()?.to_string();
    anyhow::ensure!(status.contains(&after.serial), "status: {status}");

    // Taken out of the policy, the identity is gone at once.
    std::fs::remove_file(policy.join("workloads.toml"))?;
    lab.cloud.edgeward(&["policy", "apply", &text(&policy)])?;
    eventually("the identity is gone", Duration::from_secs(20), || {
        let refused = client.run(&node, COLLECTOR_UID, &[])?;
        anyhow::ensure!(!refused.status.success(), "still has an identity");
        Ok(())
    })
}

#[test]
fn a_process_is_known_by_its_program_and_a_client_in_python_gets_its_rotation() -> anyhow::Result<()>
{
    let python = python()?;
    let program = std::fs::canonicalize(&python)?;
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let selectors = format!(
        "uid = 0, path = \"{}\", digest = \"sha256:{}\"",
        program.display(),
        digest_of(&program)?
    );
    register(&lab, &selectors, "1m")?;
    let node = lab.member("a", "gateway")?;
    // The same user with another program is somebody else.
    let client = Rust::in_lab(&lab)?;
    let refused = client.run(&node, 0, &[])?;
    anyhow::ensure!(!refused.status.success(), "another program got it");

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/workload.py");
    let mut command = Command::new(&python);
    command.args([script, &text(&socket(&node)), "historian", "watch"]);
    let told = lines(&output(&mut command)?)?;
    let [first, second] = told.as_slice() else {
        anyhow::bail!("not two lines: {told:?}");
    };
    check(first)?;
    anyhow::ensure!(leaf(first)?.serial != leaf(second)?.serial);
    Ok(())
}

#[test]
fn without_the_cloud_what_is_held_serves_and_nothing_new_is_issued() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    register(&lab, &by_user(), "1h")?;
    let node = lab.member("a", "gateway")?;
    let client = Rust::in_lab(&lab)?;
    let before = lines(&client.run(&node, COLLECTOR_UID, &[])?)?;
    lab.cloud.stop()?;
    eventually("the session is down", Duration::from_secs(30), || {
        let status = node.status()?;
        anyhow::ensure!(status["connected"] == false, "{status}");
        Ok(())
    })?;
    // Token and certificate are both in the first half of their lives.
    let after = lines(&client.run(&node, COLLECTOR_UID, &[])?)?;
    anyhow::ensure!(leaf(&before[0])?.serial == leaf(&after[0])?.serial);
    // A token for somebody new needs the cloud, and the process is told so.
    let mut fresh = client.for_audience(&node, COLLECTOR_UID, "never-asked-before");
    let refused = output(&mut fresh)?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    anyhow::ensure!(
        !refused.status.success() && told.contains("cloud_unreachable"),
        "{told}"
    );
    Ok(())
}

/// Applies the quickstart's policy with one workload more; returns its folder.
fn register(lab: &Lab, selectors: &str, ttl: &str) -> anyhow::Result<PathBuf> {
    let text_of = format!(
        "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = {{ site = [\"quickstart\"] }}\n\n\
         [workload.\"line/collector\"]\non = \"gateways\"\nmatch = {{ {selectors} }}\nttl = \"{ttl}\"\n"
    );
    lab.policy_with("workloads.toml", &text_of)
}

fn by_user() -> String {
    format!("uid = {COLLECTOR_UID}, gid = {COLLECTOR_UID}")
}

/// What a client says of its identity must be whole, and good for what it is.
fn check(told: &Value) -> anyhow::Result<()> {
    let good = told["ids"] == serde_json::json!([COLLECTOR])
        && told["token_id"] == COLLECTOR
        && told["validated"] == COLLECTOR
        && told["chain"] == 2
        && told["roots"] == 1
        && told["other_audience_refused"] == true
        && told["other_identity_refused"] == true
        && told["key_known"] == true;
    anyhow::ensure!(good, "told: {told}");
    let leaf = leaf(told)?;
    anyhow::ensure!(leaf.id.to_string() == COLLECTOR, "leaf of {}", leaf.id);
    Ok(())
}

fn leaf(told: &Value) -> anyhow::Result<SvidLeaf> {
    let hex = told["leaf"].as_str().context("no leaf")?;
    Ok(SvidLeaf::parse(&hex::decode(hex)?)?)
}

/// The client of the crate `spiffe`, copied to where every user may run it.
struct Rust(PathBuf);

impl Rust {
    fn in_lab(lab: &Lab) -> anyhow::Result<Self> {
        let built = bin_dir()?.join("examples/workload-client");
        let copy = lab.folder().join("workload-client");
        std::fs::copy(&built, &copy).with_context(|| {
            format!(
                "{}: cargo build --examples -p edgeward-tests",
                built.display()
            )
        })?;
        Ok(Self(copy))
    }

    fn run(&self, node: &Node, uid: u32, more: &[&str]) -> anyhow::Result<Output> {
        output(self.for_audience(node, uid, "historian").args(more))
    }

    /// As this user and its group.
    fn for_audience(&self, node: &Node, uid: u32, audience: &str) -> Command {
        let mut command = Command::new("setpriv");
        let id = uid.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.arg(&self.0).arg(socket(node)).arg(audience);
        command
    }
}

/// The interpreter of the environment that `tests/run` makes.
fn python() -> anyhow::Result<PathBuf> {
    let target = bin_dir()?;
    let target = target.parent().context("a target folder")?;
    let python = target.join("tools/spiffe/bin/python");
    anyhow::ensure!(python.exists(), "{}: made by tests/run", python.display());
    Ok(python)
}

fn socket(node: &Node) -> PathBuf {
    node.folder().join("run/workload.sock")
}

fn lines(output: &Output) -> anyhow::Result<Vec<Value>> {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "the client failed: {told}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

fn is_refusal(told: &str) -> bool {
    told.contains("PermissionDenied")
        || told.contains("Permission denied")
        || told.contains("no_identity")
}

fn digest_of(path: &Path) -> anyhow::Result<String> {
    let told = output(Command::new("sha256sum").arg(path))?;
    let text = String::from_utf8(told.stdout)?;
    let digest = text.split_whitespace().next().context("no digest")?;
    Ok(digest.to_owned())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
