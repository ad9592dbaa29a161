//! What an agent pays for peers that policy lets it meet and that it does not talk to: resident memory with none and with
//! many, a real cloud between. Needs root.
//!
//! `tests/bench/tunnel/permitted` builds and runs it.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "prints its figures; waits for other processes, so has no clock to turn"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_evidence::testing::BootLogBuilder;
use edgeward_evidence::tpm::HashAlg;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::{CloudOptions, PORT as CLOUD_PORT, TRUST_DOMAIN};
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::{QUICKSTART_POLICY, copy_folder};
use edgeward_tests::process::{Process, output};

#[path = "../control/usage.rs"]
mod usage;

/// How long all of them may take to enrol.
const GATHERING: Duration = Duration::from_secs(1200);
const SOON: Duration = Duration::from_secs(120);
/// How long an agent idles before it is looked at, and while its processor time is.
const IDLE: Duration = Duration::from_secs(30);
/// Peers that a packet is sent to: they are dialled, do not answer, and sleep again.
const WOKEN: usize = 50;
/// Nobody is dialled any more after this.
const ASLEEP: Duration = Duration::from_secs(45);

fn main() -> anyhow::Result<()> {
    let peers: usize = std::env::var("PEERS").map_or(Ok(10_000), |text| text.parse())?;
    let mut lab = Lab::with_policy(&CloudOptions {
        attest_interval: "60s",
        ..CloudOptions::default()
    })?;
    println!("# load average {}", usage::load_average());
    println!(
        "| permitted peers | RSS MiB | most so far MiB | ms of processor in {} s |",
        IDLE.as_secs()
    );
    println!("|---|---:|---:|---:|");
    let mut agent = lab.member("a", "gateway")?;
    show(&mut agent, "none")?;
    agent.stop()?;

    crowd(&lab, peers)?;
    let policy = lab.folder().join("policy");
    copy_folder(Path::new(QUICKSTART_POLICY), &policy)?;
    std::fs::write(policy.join("crowd.toml"), policy_text())?;
    let begun = Instant::now();
    lab.cloud
        .edgeward(&["policy", "apply", &policy.display().to_string()])?;
    println!("# policy applied in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    agent.start()?;
    eventually("the agent knows them all", SOON, || {
        let status = agent.status()?;
        anyhow::ensure!(
            status["directory"].as_u64() >= Some(u64::try_from(peers)?),
            "{}\n{}",
            status["directory"],
            edgeward_tail(&agent)
        );
        Ok(())
    })?;
    println!("# known after {:.1} s", begun.elapsed().as_secs_f64());
    show(&mut agent, &format!("{peers}, all asleep"))?;
    let state = std::fs::read_dir(agent.state())?
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|file| file.len())
        .sum::<u64>();
    println!("# stored state: {:.2} MB", state as f64 / 1e6);
    for number in 0..WOKEN {
        let mut ping = agent.host().command("ping");
        ping.args(["-c", "1", "-W", "1", &overlay(number)?]);
        output(&mut ping)?;
    }
    show(
        &mut agent,
        &format!("{peers}, {WOKEN} woken one after the other"),
    )?;
    std::thread::sleep(ASLEEP);
    show(&mut agent, &format!("{peers}, all asleep again"))?;
    println!("# load average {}", usage::load_average());
    Ok(())
}

fn show(agent: &mut Node, what: &str) -> anyhow::Result<()> {
    let pid = agent.process()?.pid();
    std::thread::sleep(IDLE);
    let before = usage::cpu_seconds(pid)?;
    std::thread::sleep(IDLE);
    println!(
        "| {what} | {:.1} | {:.1} | {:.0} |",
        usage::rss_mib(pid)?,
        most_mib(pid)?,
        (usage::cpu_seconds(pid)? - before) * 1000.0
    );
    Ok(())
}

fn most_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kib.context("status without VmHWM")?.parse::<f64>()? / 1024.0)
}

/// Enrols machines that then say nothing.
fn crowd(lab: &Lab, peers: usize) -> anyhow::Result<()> {
    let folder = lab.folder().join("crowd");
    std::fs::create_dir_all(&folder)?;
    let program = std::env::current_exe()?.with_file_name("control-load");
    let mut command = lab.cloud.host().command(program);
    command
        .args(["join", "--nodes", &peers.to_string(), "--folder"])
        .arg(&folder)
        .args(["--address", &format!("127.0.0.1:{CLOUD_PORT}")])
        .args(["--boot-log", "0", "--ima-list", "0"]);
    let begun = Instant::now();
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
    eventually("the crowd is enrolled", GATHERING, || {
        anyhow::ensure!(
            folder.join("attached").exists(),
            "not yet: {}",
            crowd.log_tail()
        );
        Ok(())
    })?;
    println!(
        "# {peers} enrolled in {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The gateway may reach every machine of the crowd.
fn policy_text() -> String {
    let log = BootLogBuilder::typical(true);
    let compared: String = log
        .quoted(HashAlg::Sha256, &[7])
        .into_iter()
        .map(|(index, value)| format!("pcr.{index} = [\"sha256:{}\"]\n", hex::encode(value)))
        .collect();
    format!(
        "schema = \"edgeward-policy/1\"\nowner = \"bench\"\nscope = \"any\"\n\
         [profile.crowd]\ntier = [\"listed\"]\npcr_bank = \"sha256\"\nfresh = \"12h\"\n{compared}\
         [group.crowd]\nmatch = {{ role = [\"crowd\"] }}\nprofile = \"crowd\"\n\
         [service.crowd]\non = \"crowd\"\n  [service.crowd.interface.status]\n  net = \"mesh\"\n  l4 = \"tcp/8080\"\n\
         [[rule]]\nid = \"gateways-read-the-crowd\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\n\
         to = [\"crowd/status\"]\ndo = [\"connect\"]\n"
    )
}

fn overlay(number: usize) -> anyhow::Result<String> {
    let id = format!("spiffe://{TRUST_DOMAIN}/node/m-{number}");
    Ok(edgeward_identity::overlay::ipv6_of(&id.parse()?).to_string())
}

fn edgeward_tail(agent: &Node) -> String {
    let log = agent.log_text();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
