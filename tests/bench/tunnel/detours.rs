//! What a detour costs: the same streams straight, through a node that relays, through the cloud's relay, and to networks
//! behind a node whose addresses are mapped; real agents, one run, in turns. Needs root and iperf3.
//!
//! `tests/bench/tunnel/detours` builds and runs it.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "prints its figures; waits for other processes, so has no clock to turn"
)]

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::{CloudOptions, TRUST_DOMAIN};
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::{QUICKSTART_POLICY, copy_folder};
use edgeward_tests::nat::Nat;
use edgeward_tests::netns::Host;
use edgeward_tests::process::{Process, run};
use serde_json::Value;

#[path = "../control/usage.rs"]
mod usage;

/// Open by the quickstart's policy, for gateways, and by ours behind machines.
const PORT: &str = "8080";
const SOON: Duration = Duration::from_secs(90);
/// Far above what any way reaches: the limits are not what is measured.
const CLOUD: &str = "[relay]\nbytes_per_second = 1000000000";
const HUB: &str = "\n[relay]\nbytes_per_second_pair = 2000000000\nbytes_per_second_node = 4000000000\nbytes_per_second = 8000000000\n";

const POLICY: &str = r#"
schema = "edgeward-policy/1"
owner  = "platform"
scope  = { site = ["quickstart"] }

[group.hubs]
match   = { site = ["quickstart"], role = ["hub"] }
profile = "simulated"

[role]
relay = ["hubs"]

[group.leader]
match   = { site = ["quickstart"], lead = ["yes"] }
profile = "simulated"

[route.plain]
on     = "leader"
net    = "plain0"
prefix = "192.168.70.0/24"

[route.mapped]
on     = "leader"
net    = "mapped0"
prefix = "192.168.71.0/24"
as     = "10.71.0.0/24"

[route.behind]
on     = "leader"
net    = "behind0"
prefix = "192.168.72.0/24"
as     = "per-node"

[service.cell]
on = "leader"

  [service.cell.interface.plain]
  net   = "mesh"
  l4    = "tcp/8080"
  route = "plain"

  [service.cell.interface.mapped]
  net   = "mesh"
  l4    = "tcp/8080"
  route = "mapped"

  [service.cell.interface.behind]
  net   = "mesh"
  l4    = "tcp/8080"
  route = "behind"

[[rule]]
id     = "gateways-read-cells"
effect = "allow"
from   = ["group:gateways"]
to     = ["cell/plain", "cell/mapped", "cell/behind"]
do     = ["connect"]
"#;

/// One way to be measured.
struct Way<'a> {
    name: &'static str,
    from: &'a Host,
    to: String,
    /// Whose processor time is told: the one in the middle.
    middle: Option<u32>,
    mbits: Vec<f64>,
    cpu: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let asked = |name: &str, default: u64| -> anyhow::Result<u64> {
        Ok(std::env::var(name).map_or(Ok(default), |text| text.parse())?)
    };
    let (rounds, seconds) = (asked("ROUNDS", 3)?, asked("SECONDS_EACH", 4)?);
    let mut lab = Lab::with_policy(&CloudOptions {
        attest_interval: "60s",
        ..CloudOptions::default()
    })?;
    lab.cloud.stop()?;
    lab.cloud.configure(CLOUD)?;
    lab.cloud.start()?;
    let policy = lab.folder().join("policy");
    copy_folder(Path::new(QUICKSTART_POLICY), &policy)?;
    std::fs::write(policy.join("detours.toml"), POLICY)?;
    let folder = policy.display().to_string();
    lab.cloud.edgeward(&["policy", "apply", &folder])?;

    let hub = lab.node("hub")?;
    let config = hub.folder().join("agent.toml");
    let before = std::fs::read_to_string(&config)?;
    std::fs::write(&config, before + HUB)?;
    let mut hub = lab.enrolled(hub, "hub")?;
    let (mut left, mut right) = (
        lab.site("left", Nat::Symmetric)?,
        lab.site("right", Nat::Symmetric)?,
    );
    let mut closed = lab.site("closed", Nat::TcpOnly(&[7443]))?;
    let straight = lab.member("a", "gateway")?;
    let behind_left = lab.member_at(&mut left, "al", "gateway")?;
    let behind_tls = lab.member_at(&mut closed, "at", "gateway")?;
    let behind_right = lab.member_at(&mut right, "br", "machine")?;
    let (mut leader, cells) = leader(&mut lab)?;

    let mut servers = Vec::new();
    for (name, host) in [
        ("b", leader.host()),
        ("br", behind_right.host()),
        ("plain", &cells[0]),
        ("mapped", &cells[1]),
        ("behind", &cells[2]),
    ] {
        let mut server = host.command("iperf3");
        server.args(["-s", "-p", PORT]);
        let log = lab.folder().join(format!("iperf-{name}"));
        servers.push(Process::start("iperf3", server, &log)?);
    }
    let cloud = lab.cloud.process()?.pid();
    let leads = leader.process()?.pid();
    let hub_pid = hub.process()?.pid();
    let way = |name, from, to: String, middle| Way {
        name,
        from,
        to,
        middle,
        mbits: Vec::new(),
        cpu: Vec::new(),
    };
    let mut ways = vec![
        way("straight", straight.host(), overlay(&leader)?, Some(leads)),
        way(
            "through a node that relays",
            behind_left.host(),
            overlay(&behind_right)?,
            Some(hub_pid),
        ),
        way(
            "through the cloud's relay",
            behind_tls.host(),
            overlay(&leader)?,
            Some(cloud),
        ),
        way(
            "network behind a node, its own addresses",
            straight.host(),
            "192.168.70.17".to_owned(),
            Some(leads),
        ),
        way(
            "network, mapped 1:1, IPv4 to IPv4",
            straight.host(),
            "10.71.0.17".to_owned(),
            Some(leads),
        ),
        way(
            "network, IPv4 behind IPv6",
            straight.host(),
            seen(&lab, "behind", 17)?,
            Some(leads),
        ),
    ];
    for way in &ways {
        eventually(way.name, SOON, || stream(way.from, &way.to, 1).map(|_| ()))?;
    }
    await_kind(&straight, &leader, "direct")?;
    await_kind(&behind_left, &behind_right, "relay")?;
    await_kind(&behind_tls, &leader, "cloud")?;
    println!("# load average {}", usage::load_average());
    for _ in 0..rounds {
        for way in &mut ways {
            let before = way.middle.map(usage::cpu_seconds).transpose()?;
            let mbits = stream(way.from, &way.to, seconds)?;
            way.mbits.push(mbits);
            if let (Some(pid), Some(before)) = (way.middle, before) {
                let used = usage::cpu_seconds(pid)? - before;
                way.cpu.push(used / (mbits / 1000.0 * seconds as f64));
            }
        }
    }
    await_kind(&behind_left, &behind_right, "relay")?;
    await_kind(&behind_tls, &leader, "cloud")?;
    print(&ways, rounds, seconds);
    println!(
        "# resident: relay {:.1} MiB, cloud {:.1} MiB, leader {:.1} MiB",
        usage::rss_mib(hub_pid)?,
        usage::rss_mib(cloud)?,
        usage::rss_mib(leads)?
    );
    println!("# load average {}", usage::load_average());
    Ok(())
}

fn print(ways: &[Way<'_>], rounds: u64, seconds: u64) {
    let straight = ways.first().map_or(1.0, |way| median(&way.mbits));
    println!(
        "| one TCP stream, {rounds} x {seconds} s | Mbit/s | of straight | CPU % per Gbit/s of whom |"
    );
    println!("|---|---:|---:|---|");
    let whom = [
        "the receiver",
        "the relay",
        "the cloud",
        "the leader",
        "the leader",
        "the leader",
    ];
    for (way, whom) in ways.iter().zip(whom) {
        let mbits = median(&way.mbits);
        println!(
            "| {} | {mbits:.0} | {:.2} | {:.0}, {whom} |",
            way.name,
            mbits / straight,
            median(&way.cpu) * 100.0
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Mbit/s that arrived.
fn stream(from: &Host, to: &str, seconds: u64) -> anyhow::Result<f64> {
    let mut command = from.command("timeout");
    let (limit, seconds) = ((seconds + 10).to_string(), seconds.to_string());
    command.args([
        &limit,
        "iperf3",
        "--json",
        "--connect-timeout",
        "3000",
        "-p",
        PORT,
    ]);
    command.args(["-t", &seconds, "-c", to]);
    let told: Value = serde_json::from_str(&run(&mut command)?)?;
    told["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .map(|bits| bits / 1e6)
        .with_context(|| format!("no sum: {told}"))
}

/// A machine that leads to three networks, with a host in each.
fn leader(lab: &mut Lab) -> anyhow::Result<(Node, Vec<Host>)> {
    let node = lab.node("b")?;
    let mut cells = Vec::new();
    for (device, third) in [("plain0", 70), ("mapped0", 71), ("behind0", 72)] {
        let cell = lab.host(device)?;
        wire(node.host(), &cell, device, third)?;
        cells.push(cell);
    }
    let token = lab.cloud.token(&[
        "--name",
        "b",
        "--label",
        "site=quickstart",
        "--label",
        "role=machine",
        "--label",
        "lead=yes",
    ])?;
    let mut node = node;
    node.enrol(&token)?;
    node.start()?;
    node.await_ready()?;
    Ok((node, cells))
}

fn wire(machine: &Host, cell: &Host, device: &str, third: u8) -> anyhow::Result<()> {
    let ip = |host: &Host, words: &[&str]| run(host.command("ip").args(words)).map(|_| ());
    let there = cell.namespace();
    ip(
        machine,
        &[
            "link", "add", device, "type", "veth", "peer", "name", device, "netns", there,
        ],
    )?;
    for (host, last) in [(machine, 1), (cell, 17)] {
        let address = format!("192.168.{third}.{last}/24");
        ip(host, &["addr", "add", &address, "dev", device])?;
        ip(host, &["link", "set", device, "up"])?;
    }
    Ok(())
}

/// How the overlay knows a host of a route of the leader.
fn seen(lab: &Lab, route: &str, last: u8) -> anyhow::Result<String> {
    let slice = lab.cloud.json(&["policy", "slice", "--node", "b"])?;
    let routes = slice["routes"].as_array().context("no routes")?;
    let seen = routes
        .iter()
        .find(|told| told["name"] == route)
        .and_then(|told| told["seen_as"].as_str())
        .with_context(|| format!("no route {route}: {slice}"))?;
    let (network, _) = seen.split_once('/').context("no prefix")?;
    match network.parse()? {
        IpAddr::V6(v6) => {
            let host = v6.to_bits() | u128::from(last);
            Ok(std::net::Ipv6Addr::from_bits(host).to_string())
        }
        IpAddr::V4(_) => anyhow::bail!("{slice}"),
    }
}

fn overlay(node: &Node) -> anyhow::Result<String> {
    let id = format!("spiffe://{TRUST_DOMAIN}/node/{}", node.name());
    Ok(edgeward_identity::overlay::ipv6_of(&id.parse()?).to_string())
}

/// Waits until a node's way to a peer is of this kind.
fn await_kind(node: &Node, peer: &Node, kind: &str) -> anyhow::Result<()> {
    let id = format!("spiffe://{TRUST_DOMAIN}/node/{}", peer.name());
    eventually(kind, SOON, || {
        let status = node.status()?;
        let paths = status["reach"]["paths"].as_array().context("no paths")?;
        let used = paths
            .iter()
            .find(|path| path["peer"] == id && path["in_use"] == true);
        let found = used.and_then(|path| path["kind"].as_str());
        anyhow::ensure!(found == Some(kind), "{found:?}, not {kind}");
        Ok(())
    })
}
