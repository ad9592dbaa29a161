//! What the cloud says of a node, read by somebody else's library.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use edgeward_tests::Lab;
use edgeward_tests::cloud::{CloudOptions, PORT};
use edgeward_tests::eventually::eventually;
use serde_json::Value;

/// Where Debian's packages python3-jwt and python3-cryptography are.
const PYTHON: &str = "/usr/bin/python3";
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/results/read_ear.py");

#[test]
fn a_result_of_a_running_cloud_is_verified_and_read_by_a_library_written_elsewhere()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    lab.member("a", "gateway")?;
    // The profile needs no log, so the result of the enrolment says it already.
    eventually("a is trusted", Duration::from_secs(20), || {
        let node = lab.cloud.json(&["node", "show", "a"])?;
        anyhow::ensure!(node["state"] == "trusted", "{node}");
        Ok(())
    })?;
    let token = lab.cloud.edgeward(&["node", "result", "a"])?;
    let claims = read_elsewhere(&lab, token.trim())?;
    let own = lab.cloud.edgeward(&["node", "result", "a", "--decode"])?;
    let own: Value = serde_json::from_str(&own)?;
    assert_eq!(claims["sub"], own["sub"]);
    assert_eq!(claims["edgeward.node"]["state"], "trusted");
    assert_eq!(claims["edgeward.node"]["tier"], "virtual");
    assert_eq!(claims["edgeward.tpm"]["ak"], own["edgeward.tpm"]["ak"]);
    let vector = &claims["submods"]["node"]["ear_trustworthiness_vector"];
    assert_eq!(vector["instance-identity"], 2);
    // A virtual TPM vouches for no hardware.
    assert_eq!(vector.get("hardware"), None);
    println!("a signed result has {} bytes", token.trim().len());

    let none = lab.cloud.try_edgeward(&["node", "result", "b"])?;
    assert_eq!(none.status.code(), Some(1));
    Ok(())
}

fn read_elsewhere(lab: &Lab, token: &str) -> anyhow::Result<Value> {
    let root = lab.cloud.folder().join("data/keys/root.crt");
    let host = lab.cloud.host();
    let mut child = host
        .command(PYTHON)
        .args([READER, &host.ipv4().to_string(), &PORT.to_string()])
        .arg(&root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    input.write_all(token.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{complaint}");
    Ok(serde_json::from_slice(&output.stdout)?)
}
