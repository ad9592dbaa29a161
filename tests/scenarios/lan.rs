//! A LAN interface that nothing stands in front of: the kernel lets in the device that policy names, and nobody else.

use std::process::Command;
use std::time::Duration;

use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::netns::Host;
use edgeward_tests::process::{Process, run};

const SOON: Duration = Duration::from_secs(60);

const SERVICE: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["quickstart"] }

[group.plcs]
match = { site = ["quickstart"], kind = ["plc"] }
via   = "machines"

[service.line]
on = "machines"

  [service.line.interface.feed]
  net = "lan0"
  l4  = "tcp/2600"
"#;

/// Answers every line with itself.
const SERVER: &str = r#"
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
Server(("0.0.0.0", 2600), Echo).serve_forever()
"#;

/// One connection, asked again and again; says so while it is answered, and when it is not any more.
const CLIENT: &str = r#"
import socket, sys, time
with socket.create_connection((sys.argv[1], 2600), timeout=3) as s:
    s.settimeout(3)
    for _ in range(int(sys.argv[2])):
        s.sendall(b"?\n")
        if s.recv(2) != b"?\n":
            sys.exit("closed")
        print("answered", flush=True)
        time.sleep(0.1)
"#;

struct Floor {
    lab: Lab,
    machine: Node,
    plc: Host,
    other: Host,
    _server: Process,
}

impl Floor {
    fn new() -> anyhow::Result<Self> {
        let mut lab = Lab::with_policy(&CloudOptions::default())?;
        let machine = lab.node("b")?;
        machine.configure_tables("[interfaces]\nlan0 = \"eth0\"")?;
        let machine = lab.enrolled(machine, "machine")?;
        let (plc, other) = (lab.host("plc")?, lab.host("other")?);
        let mut server = machine.host().command("python3");
        server.args(["-c", SERVER]);
        let server = Process::start("echo", server, &machine.folder().join("echo"))?;
        Ok(Self {
            lab,
            machine,
            plc,
            other,
            _server: server,
        })
    }

    /// Applies the service, the device, and what rules there are.
    fn apply(&self, rules: &str) -> anyhow::Result<()> {
        let mac = run(self.plc.command("cat").arg("/sys/class/net/eth0/address"))?;
        let device = format!(
            "[device.plc-1]\nnode = \"b\"\ninterface = \"lan0\"\nlabels = {{ site = \"quickstart\", kind = \"plc\" }}\n\
             match = {{ mac = \"{}\", ip = \"{}\" }}\n",
            mac.trim(),
            self.plc.ipv4()
        );
        let text = format!("{SERVICE}\n{device}\n{rules}");
        self.lab.policy_with("line.toml", &text).map(|_| ())
    }

    fn client(&self, from: &Host, times: u32) -> Command {
        let mut command = from.command("python3");
        command.args([
            "-c",
            CLIENT,
            &self.machine.host().ipv4(),
            &times.to_string(),
        ]);
        command
    }

    fn reaches(&self, from: &Host) -> anyhow::Result<()> {
        run(&mut self.client(from, 1)).map(|_| ())
    }

    fn await_reach(&self, from: &Host) -> anyhow::Result<()> {
        eventually("the device is answered", SOON, || self.reaches(from))
    }

    /// A connection that goes on, and is answered.
    fn live(&self, name: &str) -> anyhow::Result<Process> {
        let log = self.machine.folder().join(name);
        let live = Process::start(name, self.client(&self.plc, 100_000), &log)?;
        eventually("the connection is answered", SOON, || {
            anyhow::ensure!(live.log_text().contains("answered"));
            Ok(())
        })?;
        Ok(live)
    }

    fn await_event(&self, kind: &str, parts: &[&str]) -> anyhow::Result<()> {
        eventually(&format!("{kind} with {parts:?}"), SOON, || {
            let events = self.lab.cloud.events(&["--type", kind])?;
            let found = events.iter().any(|event| {
                let text = event.to_string();
                parts.iter().all(|part| text.contains(part))
            });
            anyhow::ensure!(found, "the last of {}: {:?}", events.len(), events.last());
            Ok(())
        })
    }
}

fn rule(more: &str) -> String {
    format!(
        "[[rule]]\nid = \"plcs-feed\"\neffect = \"allow\"\nfrom = [\"group:plcs\"]\nto = [\"line/feed\"]\ndo = [\"connect\"]\n{more}\n"
    )
}

fn await_end(live: &mut Process, within: Duration) -> anyhow::Result<()> {
    eventually("the open connection ends", within, || {
        anyhow::ensure!(live.ended()?.is_some(), "it is still answered");
        Ok(())
    })
}

#[test]
fn applying_a_policy_opens_and_closes_a_lan_interface_to_the_device_it_names() -> anyhow::Result<()>
{
    let floor = Floor::new()?;
    // A port that no policy names is not ours.
    floor.await_reach(&floor.other)?;
    floor.apply(&rule(""))?;
    eventually("the port is guarded", SOON, || {
        anyhow::ensure!(
            floor.reaches(&floor.other).is_err(),
            "a stranger is answered"
        );
        Ok(())
    })?;
    floor.await_reach(&floor.plc)?;
    let mut live = floor.live("live")?;

    let status = floor.machine.status()?;
    let device = &status["lan"]["devices"][0];
    anyhow::ensure!(
        device["id"] == "spiffe://plant.example/device/plc-1",
        "{status}"
    );
    anyhow::ensure!(device["allowed"][0] == "line/feed", "{status}");
    floor.await_event(
        "flow.allowed",
        &["device/plc-1", "plcs-feed", "\"lan\"", "vouched"],
    )?;
    floor.await_event(
        "flow.denied",
        &[&floor.other.ipv4(), "unknown-subject", "line/feed"],
    )?;

    // The rule is taken away: the connection that is open dies with it.
    floor.apply("")?;
    await_end(&mut live, SOON)?;
    anyhow::ensure!(floor.reaches(&floor.plc).is_err());
    floor.await_event("flow.denied", &["device/plc-1", "no-rule", "line/feed"])?;
    floor.apply(&rule(""))?;
    floor.await_reach(&floor.plc)
}

#[test]
fn an_agent_that_hangs_or_dies_does_not_keep_a_lan_interface_open() -> anyhow::Result<()> {
    let mut floor = Floor::new()?;
    let until = run(Command::new("date").args(["-u", "-d", "+45 seconds", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    floor.apply(&rule(&format!("when = {{ until = {} }}", until.trim())))?;
    floor.await_reach(&floor.plc)?;
    let mut live = floor.live("live")?;
    floor.machine.process()?.signal("STOP")?;
    anyhow::ensure!(live.ended()?.is_none(), "ended too early");
    await_end(&mut live, SOON)?;
    anyhow::ensure!(
        floor.reaches(&floor.plc).is_err(),
        "answered after the lease"
    );
    floor.machine.process()?.signal("CONT")?;

    // The table stays when the agent dies: who had no lease gets none.
    floor.apply(&rule(""))?;
    floor.await_reach(&floor.plc)?;
    floor.machine.kill()?;
    anyhow::ensure!(
        floor.reaches(&floor.other).is_err(),
        "a stranger is answered"
    );
    floor.reaches(&floor.plc)
}
