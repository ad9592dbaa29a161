//! The log in its public form, read by somebody else's code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::cloud::{CloudOptions, PORT};
use edgeward_tests::eventually::eventually;
use serde_json::Value;

/// Where Debian's package python3-cryptography is.
const PYTHON: &str = "/usr/bin/python3";
const READER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/scenarios/audit_log/read_log.py"
);
/// From stored to covered by a checkpoint that is served.
const BOUND: Duration = Duration::from_secs(2);

#[test]
fn an_auditor_derives_the_signed_root_from_tiles_and_finds_every_event_under_it()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let _a = lab.member("a", "gateway")?;
    let key = auditor_key(&lab)?;
    let first = read(&lab, &key, None)?;
    // Something happens: it is under a checkpoint within the bound.
    let begun = Instant::now();
    lab.cloud
        .edgeward(&["token", "create", "--name", "b", "--ttl", "1h"])?;
    let events = lab.cloud.events(&["--type", "token.created"])?;
    let newest = events.last().expect("the event of the token");
    let (index, hash) = (newest["index"].as_u64().unwrap_or(0), &newest["hash"]);
    let second = eventually("the event is covered", BOUND * 5, || {
        let read = read(&lab, &key, Some(&first))?;
        let entry = read["entries"].get(usize::try_from(index)?);
        anyhow::ensure!(entry == Some(hash), "not yet: {}", read["size"]);
        Ok(read)
    })?;
    let took = begun.elapsed();
    println!(
        "an event was served under a checkpoint after {took:?}, two commands and a reading included"
    );
    // What a node wrote is under it as well, once it has arrived.
    let second = eventually("the node's own event is covered", BOUND * 10, || {
        let of_node = lab
            .cloud
            .events(&["--node", "a", "--type", "journal.opened"])?;
        let started = of_node.first().context("it has not arrived")?;
        let read = read(&lab, &key, Some(&second))?;
        let place = usize::try_from(started["index"].as_u64().unwrap_or(u64::MAX))?;
        let entry = read["entries"].get(place);
        anyhow::ensure!(entry == Some(&started["hash"]), "not yet: {}", read["size"]);
        Ok(read)
    })?;
    // The cloud agrees with itself, and a new process goes on with the same tree.
    let checked = lab.cloud.json(&["audit", "self-check"])?;
    assert_eq!(checked["fault"], Value::Null, "{checked}");
    assert_eq!(checked["from"], 0);
    lab.cloud.kill()?;
    lab.cloud.start()?;
    let third = eventually("the log goes on", Duration::from_secs(20), || {
        read(&lab, &key, Some(&second))
    })?;
    assert!(third["size"].as_u64() > second["size"].as_u64());
    Ok(())
}

/// An auditor's API key, in a file that holds nothing else.
pub fn auditor_key(lab: &Lab) -> anyhow::Result<PathBuf> {
    let key = lab.cloud.folder().join("auditor.key");
    let made = lab
        .cloud
        .edgeward(&["apikey", "create", "auditor", "--role", "auditor"])?;
    fs::write(&key, made.trim())?;
    // The command takes no key that others can read.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    Ok(key)
}

/// Reads and checks the whole log; it must continue `earlier`. Of what was pruned the hashes of its tree are left.
pub fn read(lab: &Lab, key: &Path, earlier: Option<&Value>) -> anyhow::Result<Value> {
    let host = lab.cloud.host();
    let mut command = lab.cloud.beside(Path::new(PYTHON));
    command
        .args([READER, &host.ipv4().to_string(), &PORT.to_string()])
        .arg(lab.cloud.folder().join("data/keys/root.crt"))
        .arg(key);
    if let Some(earlier) = earlier {
        command.arg(earlier["size"].to_string());
        command.arg(earlier["root"].as_str().unwrap_or_default());
    }
    let output = command.output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{complaint}");
    Ok(serde_json::from_slice(&output.stdout)?)
}
