//! Figures that need a whole installation: cloud, swtpm, agents, namespaces. Needs root.
//!
//! `tests/bench/control/run` builds and runs it. By hand: `control-live enrol|idle|cut|fall [ROUNDS]`; `echo` and `probe`
//! are what `cut` and `fall` start inside the nodes' namespaces.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "prints its figures; waits for other processes, so has no clock to turn"
)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::{CloudOptions, TRUST_DOMAIN};
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::Process;

mod pair;
mod usage;

/// Open by the quickstart's policy, for gateways.
const PORT: u16 = 8080;
/// How often the probe sends, and how fine the cut is seen.
const PROBE_EVERY: Duration = Duration::from_millis(1);
/// Nothing for so long: the peer is dark.
const SILENCE: Duration = Duration::from_secs(1);
/// Traffic that must flow before a round's order.
const STEADY: Duration = Duration::from_millis(300);
/// How long a probe may take to connect: release, bind and handshake included.
const CONNECT: Duration = Duration::from_secs(60);
/// How long processes idle before they are looked at.
const IDLE: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["echo"] => echo(),
        ["probe", address] => probe(address.parse()?),
        ["enrol", ref rest @ ..] => figures(enrol, rest, 10),
        ["idle", ref rest @ ..] => figures(idle, rest, 2),
        ["cut", ref rest @ ..] => figures(cut, rest, 100),
        ["fall", ref rest @ ..] => figures(pair::fall, rest, 20),
        _ => anyhow::bail!("control-live enrol|idle|cut|fall [ROUNDS]"),
    }
}

fn figures(
    what: impl Fn(usize) -> anyhow::Result<()>,
    rest: &[&str],
    rounds: usize,
) -> anyhow::Result<()> {
    let rounds = rest.first().map_or(Ok(rounds), |text| text.parse())?;
    println!("# load average {}", usage::load_average());
    what(rounds)?;
    println!("# load average {}", usage::load_average());
    Ok(())
}

/// Wall time of `edgeward-agent enrol`, from its start to its end: keys made in the TPM, credential activated, certify and
/// quote signed, certificate stored.
fn enrol(rounds: usize) -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut took = Vec::new();
    for round in 0..rounds {
        let name = format!("n{round}");
        let node = lab.node(&name)?;
        let token = token(&lab, &name, "machine")?;
        let started = Instant::now();
        node.enrol(&token)?;
        took.push(started.elapsed());
    }
    print_spread("enrolment on swtpm", took);
    Ok(())
}

/// Memory and processor time of cloud and agents that have nothing to do but attest every minute.
fn idle(nodes: usize) -> anyhow::Result<()> {
    let options = CloudOptions {
        attest_interval: "60s",
        ..CloudOptions::default()
    };
    let mut lab = Lab::with_policy(&options)?;
    let mut agents = Vec::new();
    for number in 0..nodes {
        agents.push(lab.member(&format!("n{number}"), "machine")?);
    }
    let mut pids = vec![("cloud".to_owned(), lab.cloud.process()?.pid())];
    for agent in &mut agents {
        let pid = agent.process()?.pid();
        pids.push((format!("agent {}", agent.name()), pid));
    }
    std::thread::sleep(IDLE);
    let before: Vec<f64> = pids
        .iter()
        .map(|(_, pid)| usage::cpu_seconds(*pid))
        .collect::<anyhow::Result<_>>()?;
    std::thread::sleep(IDLE);
    for ((name, pid), before) in pids.iter().zip(before) {
        println!(
            "{name}: rss {:.1} MiB, {:.0} ms cpu in {} s",
            usage::rss_mib(*pid)?,
            (usage::cpu_seconds(*pid)? - before) * 1000.0,
            IDLE.as_secs()
        );
    }
    Ok(())
}

/// From the order to the last byte that either end of an open flow received.
fn cut(rounds: usize) -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let from = lab.member("a", "gateway")?;
    let mut to = lab.member("b", "machine")?;
    let echoed = to.folder().join("echo");
    let _echo = Process::start("echo", inside(&to, &["echo"])?, &echoed)?;
    let (mut dark, mut command) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let seen = from.folder().join(format!("probe-{round}"));
        let address = format!("[{}]:{PORT}", overlay(&to)?);
        let mut probe = Process::start("probe", inside(&from, &["probe", &address])?, &seen)?;
        eventually("the probe is connected", CONNECT, || {
            probe.check()?;
            last_line(&seen, "connected").map(|_| ())
        })?;
        std::thread::sleep(STEADY);
        let (ordered, started) = (now(), Instant::now());
        lab.cloud.edgeward(&["node", "quarantine", "b"])?;
        command.push(started.elapsed());
        eventually("the probe sees silence", CONNECT, || {
            last_line(&seen, "last").map(|_| ())
        })?;
        let served = eventually("the echo sees silence", CONNECT, || {
            last_line(&echoed, "last")?
                .checked_sub(ordered.saturating_sub(STEADY))
                .context("that was the round before")?;
            last_line(&echoed, "last")
        })?;
        let last = last_line(&seen, "last")?.max(served);
        dark.push(last.saturating_sub(ordered));
        drop(probe);
        lab.cloud.edgeward(&["node", "release", "b"])?;
        // An agent that was refused waits longer each time before it asks again; a new one asks at once.
        to.stop()?;
        to.start()?;
    }
    print_spread(
        "from the start of `edgeward node quarantine` to the last byte",
        dark,
    );
    print_spread("the command itself, start to end", command);
    Ok(())
}

/// Sends back what it gets. Prints when it last got something, once nothing came for [`SILENCE`].
fn echo() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
    loop {
        let (stream, _) = listener.accept()?;
        println!("last {}", traffic(stream, false)?.as_micros());
    }
}

/// Connects, sends every [`PROBE_EVERY`] whether or not anything comes back, and prints when something last did.
fn probe(address: SocketAddr) -> anyhow::Result<()> {
    let stream = eventually("the peer answers", CONNECT, || {
        Ok(TcpStream::connect_timeout(&address, SILENCE)?)
    })?;
    println!("connected {}", now().as_micros());
    println!("last {}", traffic(stream, true)?.as_micros());
    Ok(())
}

/// Reads until nothing comes for [`SILENCE`]; returns when something last came.
fn traffic(mut stream: TcpStream, sends: bool) -> anyhow::Result<Duration> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PROBE_EVERY))?;
    stream.set_write_timeout(Some(PROBE_EVERY))?;
    let (mut last, mut at, mut buffer) = (now(), Instant::now(), [0; 4096]);
    while at.elapsed() < SILENCE {
        // What cannot be sent or read is what this waits for: only silence ends it.
        if sends {
            let _ = stream.write(&[0]);
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                (last, at) = (now(), Instant::now());
                if !sends {
                    let _ = stream.write(buffer.get(..count).unwrap_or_default());
                }
            }
            Err(_) => {}
        }
        if sends {
            std::thread::sleep(PROBE_EVERY);
        }
    }
    Ok(last)
}

fn token(lab: &Lab, name: &str, role: &str) -> anyhow::Result<String> {
    let role = format!("role={role}");
    lab.cloud.token(&[
        "--name",
        name,
        "--label",
        "site=quickstart",
        "--label",
        &role,
    ])
}

/// This program inside a node's namespace.
fn inside(node: &Node, arguments: &[&str]) -> anyhow::Result<Command> {
    let own: PathBuf = std::env::current_exe()?;
    let mut command = node.host().command(own);
    command.args(arguments);
    Ok(command)
}

fn overlay(node: &Node) -> anyhow::Result<Ipv6Addr> {
    let id = format!("spiffe://{TRUST_DOMAIN}/node/{}", node.name());
    Ok(edgeward_identity::overlay::ipv6_of(&id.parse()?))
}

/// The newest line of a log that begins with `word`: the moment it tells.
fn last_line(log: &Path, word: &str) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(log)?;
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(word))
        .with_context(|| format!("no line with {word}: {text}"))?;
    Ok(Duration::from_micros(line.trim().parse()?))
}

/// One clock for all processes of this machine.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn print_spread(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |percent: usize| {
        let index = (took.len() * percent).div_ceil(100).saturating_sub(1);
        took.get(index).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, least {:.1} ms, most {:.1} ms, {} rounds",
        at(50),
        at(99),
        at(0),
        at(100),
        took.len()
    );
}
