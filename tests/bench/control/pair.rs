//! A fall of a real node, in the company of simulated ones: from the arrival of the first bad quote at the cloud until the
//! last byte that either end of an open flow received.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use edgeward_evidence::testing::BootLogBuilder;
use edgeward_evidence::tpm::HashAlg;
use edgeward_tests::Lab;
use edgeward_tests::cloud::{CloudOptions, PORT as CLOUD_PORT};
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::QUICKSTART_POLICY;
use edgeward_tests::process::Process;

use super::{CONNECT, PORT, STEADY, inside, last_line, overlay, print_spread};

/// Simulated machines with a session.
const CROWD: usize = 1000;
/// How long they take to enrol and attach.
const GATHERING: Duration = Duration::from_secs(300);
/// A challenge comes within this time, and its verdict.
const CHALLENGED: Duration = Duration::from_secs(60);
/// The register that goes bad, and is compared.
const REGISTER: u8 = 4;

pub fn fall(rounds: usize) -> anyhow::Result<()> {
    let options = CloudOptions {
        attest_interval: "10s",
        ..CloudOptions::default()
    };
    let mut lab = Lab::with_policy(&options)?;
    let good = BootLogBuilder::typical(true);
    require(&lab, &good)?;
    let _crowd = crowd(&lab)?;
    let from = lab.member("a", "gateway")?;
    let to = lab.node("b")?;
    to.boot_by(&good.build())?;
    let mut to = lab.enrolled(to, "machine")?;
    let echoed = to.folder().join("echo");
    let _echo = Process::start("echo", inside(&to, &["echo"])?, &echoed)?;
    let (mut dark, mut fallen) = (Vec::new(), 0);
    for round in 0..rounds {
        let seen = from.folder().join(format!("probe-{round}"));
        let address = format!("[{}]:{PORT}", overlay(&to)?);
        let mut probe = Process::start("probe", inside(&from, &["probe", &address])?, &seen)?;
        eventually("the probe is connected", CONNECT, || {
            probe.check()?;
            last_line(&seen, "connected").map(|_| ())
        })?;
        std::thread::sleep(STEADY);
        to.tpm.extend(REGISTER, &"5a".repeat(32))?;
        let received = eventually("b falls", CHALLENGED, || {
            let falls = falls(&lab)?;
            anyhow::ensure!(falls.len() > fallen, "it has not");
            fallen = falls.len();
            falls.into_iter().max().context("a fall")
        })?;
        eventually("the probe sees silence", CONNECT, || {
            last_line(&seen, "last").map(|_| ())
        })?;
        let served = eventually("the echo sees silence", CONNECT, || {
            let last = last_line(&echoed, "last")?;
            last.checked_sub(received.saturating_sub(CHALLENGED))
                .context("that was the round before")?;
            Ok(last)
        })?;
        let last = last_line(&seen, "last")?.max(served);
        dark.push(last.saturating_sub(received));
        drop(probe);
        to.reboot_by(&good.build())?;
        to.start()?;
    }
    print_spread(
        &format!("first bad quote at the cloud to the last byte, {CROWD} simulated sessions"),
        dark,
    );
    Ok(())
}

/// When the evidence came by which `b` fell, each time.
fn falls(lab: &Lab) -> anyhow::Result<Vec<Duration>> {
    let text = lab.cloud.edgeward(&[
        "audit",
        "query",
        "--type",
        "attestation.failed",
        "-o",
        "json",
    ])?;
    Ok(text
        .split("received_ms")
        .skip(1)
        .filter_map(|rest| {
            let digits: String = rest
                .chars()
                .skip_while(|letter| !letter.is_ascii_digit())
                .take_while(char::is_ascii_digit)
                .collect();
            digits.parse().ok().map(Duration::from_millis)
        })
        .collect())
}

/// Starts the simulated machines inside the cloud's namespace, and waits for their sessions.
fn crowd(lab: &Lab) -> anyhow::Result<Process> {
    let folder = lab.folder().join("crowd");
    std::fs::create_dir_all(&folder)?;
    let program = std::env::current_exe()?.with_file_name("control-load");
    let mut command: Command = lab.cloud.host().command(program);
    command
        .args(["crowd", "--nodes", &CROWD.to_string(), "--folder"])
        .arg(&folder)
        .args(["--address", &format!("127.0.0.1:{CLOUD_PORT}")])
        .args(["--boot-log", "20000", "--ima-list", "0"]);
    let mut crowd = Process::start("crowd", command, &folder.join("log"))?;
    let listed = folder.join("listed");
    eventually("the crowd has keys", GATHERING, || {
        crowd.check()?;
        anyhow::ensure!(listed.exists(), "not yet");
        Ok(())
    })?;
    std::fs::copy(&listed, lab.cloud.folder().join("ek/listed.txt"))?;
    // Until the cloud has looked.
    std::thread::sleep(Duration::from_secs(15));
    let token = lab
        .cloud
        .token(&["--name", "m-*", "--uses", "100000", "--label", "role=crowd"])?;
    std::fs::write(folder.join("token.new"), token)?;
    std::fs::rename(folder.join("token.new"), folder.join("token"))?;
    eventually("the crowd is attached", GATHERING, || {
        crowd.check()?;
        anyhow::ensure!(folder.join("attached").exists(), "not yet");
        Ok(())
    })?;
    Ok(crowd)
}

/// The quickstart's policy, in which machines must have booted by this log.
fn require(lab: &Lab, log: &BootLogBuilder) -> anyhow::Result<()> {
    let folder = lab.folder().join("policy");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(QUICKSTART_POLICY)? {
        let path = entry?.path();
        let mut text = std::fs::read_to_string(&path)?;
        if path.ends_with("fleet.toml") {
            let (before, after) = text
                .split_once("[group.machines]")
                .context("no group of machines")?;
            let after = after.replacen("\"simulated\"", "\"measured\"", 1);
            text = format!(
                "{before}[group.machines]{after}\n[profile.measured]\ntier = [\"virtual\"]\npcr_bank = \"sha256\"\n"
            );
            for (index, value) in log.quoted(HashAlg::Sha256, &[REGISTER, 7]) {
                let value = hex::encode(value);
                text.push_str(&format!("pcr.{index} = [\"sha256:{value}\"]\n"));
            }
        }
        std::fs::write(folder.join(path.file_name().unwrap_or_default()), text)?;
    }
    apply(lab, &folder)
}

fn apply(lab: &Lab, folder: &Path) -> anyhow::Result<()> {
    let folder = folder.to_str().context("a path that is text")?;
    lab.cloud.edgeward(&["policy", "apply", folder]).map(|_| ())
}
