//! An agent becomes another program in the same process, while counted streams go through its tunnel.

use std::time::Duration;

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, run, run_with_input};

use crate::traffic::{overlay, reaches};

const SOON: Duration = Duration::from_secs(30);
/// One TCP connection may be silent for this long on a machine that is busy with other tests: no time-out of TCP is
/// hidden in it, since those double.
const LONGEST_SILENCE: f64 = 3.0;
/// Full queues lose something now and then, with an upgrade or without; an outage would lose more.
const MOST_SENT_TWICE: u64 = 10;
/// Open by the quickstart's policy, for gateways.
const PORT: u16 = 8080;

/// Answers every line with itself.
const SERVER: &str = r#"
import socket, socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
Server(("::", 8080), Echo).serve_forever()
"#;

/// One connection with numbered lines, each answered once and in order: says the last, the longest silence, and how
/// often TCP had to say anything twice. Beside it, as many bytes as go through in blocks.
const CLIENT: &str = r#"
import socket, struct, sys, threading, time
def load(to):
    block = b"x" * 65535 + b"\n"
    with socket.create_connection((to, 8080), timeout=5) as s:
        s.settimeout(60)
        answers = s.makefile("rb")
        while True:
            s.sendall(block)
            if answers.readline() != block:
                print("a block came back wrong", flush=True)
                return
with socket.create_connection((sys.argv[1], 8080), timeout=5) as s:
    s.settimeout(60)
    if sys.argv[2] == "loaded":
        threading.Thread(target=load, args=(sys.argv[1],), daemon=True).start()
    answers = s.makefile("rb")
    number, longest, last = 0, 0.0, time.monotonic()
    while True:
        s.sendall(b"%d\n" % number)
        if answers.readline() != b"%d\n" % number:
            sys.exit("not answered: %d" % number)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        number += 1
        if number % 20 == 0:
            # tcpi_total_retrans
            twice = struct.unpack_from("I", s.getsockopt(6, 11, 104), 100)[0]
            print(number, round(longest, 3), twice, flush=True)
        time.sleep(0.01)
"#;

/// Every first packet of QUIC is lost, in and out; packets of WireGuard are not.
const DEAF: &str = "
table inet deaf {
    chain in {
        type filter hook input priority 0; policy accept;
        meta l4proto udp @th,64,8 & 0xc0 == 0xc0 counter drop
    }
    chain out {
        type filter hook output priority 0; policy accept;
        meta l4proto udp @th,64,8 & 0xc0 == 0xc0 counter drop
    }
}
";

/// Counted answers of one connection: how many, the longest silence in seconds, segments that were sent twice.
#[derive(Clone, Copy, Debug)]
struct Told {
    answered: u64,
    silence: f64,
    twice: u64,
}

fn told(client: &Process) -> anyhow::Result<Told> {
    let text = client.log_text();
    let line = text.lines().last().context("nothing yet")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [answered, silence, twice] = words[..] else {
        anyhow::bail!("{text}");
    };
    Ok(Told {
        answered: answered.parse()?,
        silence: silence.parse()?,
        twice: twice.parse()?,
    })
}

fn await_more(client: &mut Process) -> anyhow::Result<Told> {
    let before = told(client).map_or(0, |told| told.answered);
    eventually("the connection goes on", SOON, || {
        client.check()?;
        anyhow::ensure!(told(client)?.answered > before + 50);
        Ok(())
    })?;
    told(client)
}

fn client(of: &Node, to: &str, how: &str) -> anyhow::Result<Process> {
    let mut command = of.host().command("python3");
    command.args(["-c", CLIENT, to, how]);
    let mut client = Process::start("client", command, &of.folder().join("client.log"))?;
    await_more(&mut client)?;
    Ok(client)
}

fn server(of: &Node) -> anyhow::Result<Process> {
    let mut command = of.host().command("python3");
    command.args(["-c", SERVER]);
    Process::start("echo", command, &of.folder().join("echo.log"))
}

fn await_server(from: &Node, to: &str) -> anyhow::Result<()> {
    eventually("the server answers", SOON, || {
        let text = "import socket,sys; socket.create_connection((sys.argv[1], 8080), timeout=3)";
        run(from.host().command("python3").args(["-c", text, to])).map(|_| ())
    })
}

fn device_number(node: &Node) -> anyhow::Result<String> {
    let device = node.status()?["device"]
        .as_str()
        .context("no device")?
        .to_owned();
    let path = format!("/sys/class/net/{device}/ifindex");
    run(node.host().command("cat").arg(path))
}

fn starts(node: &Node) -> usize {
    node.log_text().matches("running").count()
}

/// Waits until the next program runs on the tunnels of the one before it.
fn await_upgrade(node: &mut Node, before: usize) -> anyhow::Result<()> {
    eventually("the next program runs", SOON, || {
        node.process()?.check()?;
        anyhow::ensure!(starts(node) > before, "{}", node.log_text());
        let status = node.status()?;
        anyhow::ensure!(status["upgraded"]["tunnels"] == 1, "{status}");
        Ok(())
    })
}

fn await_renewal(node: &Node) -> anyhow::Result<()> {
    eventually("the tunnel is bound anew", SOON, || {
        let status = node.status()?;
        anyhow::ensure!(status["upgraded"]["not_renewed"] == 0, "{status}");
        Ok(())
    })
}

#[test]
fn counted_streams_go_on_while_the_agent_becomes_another_program() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut a = lab.member("a", "gateway")?;
    let mut b = lab.member("b", "machine")?;
    let _server = server(&b)?;
    let to = overlay(&b)?.to_string();
    await_server(&a, &to)?;
    let mut client = client(&a, &to, "loaded")?;
    let (pid, number) = (a.process()?.pid(), device_number(&a)?);

    // A program that would not start with this configuration takes nobody's place.
    let config = a.folder().join("agent.toml");
    let sound = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("mtu = 1\n{sound}"))?;
    a.process()?.signal("HUP")?;
    eventually("it is refused", SOON, || {
        anyhow::ensure!(a.log_text().contains("refuses the configuration"));
        Ok(())
    })?;
    await_more(&mut client)?;
    assert_eq!(starts(&a), 1, "{}", a.log_text());
    std::fs::write(&config, &sound)?;

    // Both ends in turn, so that whoever dials first is upgraded too.
    for node in [&mut a, &mut b] {
        let before = starts(node);
        node.process()?.signal("HUP")?;
        await_upgrade(node, before)?;
        await_more(&mut client)?;
        await_renewal(node)?;
        let after = await_more(&mut client)?;
        println!("{}: {after:?}", node.name());
        assert!(after.silence < LONGEST_SILENCE, "{after:?}");
        assert!(after.twice < MOST_SENT_TWICE, "{after:?}");
    }
    assert_eq!(a.process()?.pid(), pid);
    assert_eq!(device_number(&a)?, number, "the device is another one");
    for node in [&a, &b] {
        assert!(!node.log_text().contains("goodbye"), "{}", node.log_text());
    }
    eventually("the log says so", SOON, || {
        let events = lab.cloud.events(&["--type", "agent.upgraded"])?;
        anyhow::ensure!(events.len() == 2, "{events:?}");
        Ok(())
    })?;
    // What was granted anew is taken away as ever, and the device goes with the agent that ends for good.
    lab.cloud.edgeward(&["node", "quarantine", "b"])?;
    await_dark(&client)?;
    a.stop()?;
    let left = run(a.host().command("ip").args(["-o", "link"]))?;
    assert!(!left.contains("ew-"), "{left}");
    Ok(())
}

/// The bind cannot come back, so nothing but what was handed over carries packets: it must be cut all the same.
#[test]
fn tunnels_that_no_bind_has_renewed_are_cut_by_the_cloud() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _server = server(&b)?;
    let to = overlay(&b)?.to_string();
    await_server(&a, &to)?;
    let mut client = client(&a, &to, "alone")?;
    run_with_input(a.host().command("nft").args(["-f", "-"]), DEAF)?;
    let before = starts(&a);
    a.process()?.signal("HUP")?;
    await_upgrade(&mut a, before)?;
    eventually("the agent talks to the cloud again", SOON, || {
        let status = a.status()?;
        anyhow::ensure!(status["connected"] == true, "{status}");
        Ok(())
    })?;
    let status = a.status()?;
    assert_eq!(status["upgraded"]["not_renewed"], 1, "{status}");
    client.check()?;
    // Soon: after some seconds a channel through the cloud is found, and the bind comes back by that.
    lab.cloud.edgeward(&["node", "quarantine", "b"])?;
    await_dark(&client)?;
    let status = a.status()?;
    assert_eq!(status["upgraded"]["not_renewed"], 0, "{status}");
    assert!(!reaches(&a, &b, PORT, 2)?);
    Ok(())
}

/// No line is answered any more.
fn await_dark(client: &Process) -> anyhow::Result<()> {
    eventually("nothing is answered any more", SOON, || {
        let before = told(client)?.answered;
        std::thread::sleep(Duration::from_secs(2));
        let after = told(client)?.answered;
        anyhow::ensure!(after == before, "{before} {after}");
        Ok(())
    })
}
