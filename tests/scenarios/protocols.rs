//! Protocols at the gateway between two real agents: mosquitto (Debian) behind MQTT with its own clients, pymodbus
//! (PyPI) behind Modbus, and Envoy's authorization service asked by Envoy itself and by its published messages.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, output};
use edgeward_tests::{Lab, bin_dir};

mod ext_authz;
mod modbus;
mod mqtt;

/// The caller in all of them, as services are told.
const CALLER: &str = "spiffe://plant.example/node/a";

/// What machines offer beside the quickstart's status page.
const SERVICES: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["quickstart"], role = ["machine"] }

[service.plant]
on = "machines"

  [service.plant.interface.broker]
  net = "mesh"
  l4  = "tcp/1883"
  l7  = { proto = "mqtt", actions = { publish = ["line3/+/temp"], subscribe = ["cmd/line3/#"] } }

  [service.plant.interface.registers]
  net = "mesh"
  l4  = "tcp/502"
  to  = "127.0.0.1:1502"
  l7  = { proto = "modbus", actions = { read = ["fc:3 addr:0-199 unit:1"], write = ["fc:16 addr:0-49,50-99 unit:1"], identify = ["fc:43"] } }

  # Nothing listens there: a proxy serves it, and asks.
  [service.plant.interface.web]
  net = "mesh"
  l4  = "tcp/8090"
  l7  = { proto = "http", actions = { read = ["GET /status/**"], write = ["POST /config/**"] } }
"#;

/// Rules for the caller's group.
const RULES: &str = r#"
[[rule]]
id     = "gateways-use-plant"
effect = "allow"
from   = ["group:gateways"]
to     = ["plant/broker"]
do     = ["publish", "subscribe"]

[[rule]]
id     = "gateways-use-registers"
effect = "allow"
from   = ["group:gateways"]
to     = ["plant/registers"]
do     = ["read", "write"]

[[rule]]
id     = "gateways-read-web"
effect = "allow"
from   = ["group:gateways"]
to     = ["plant/web"]
do     = ["read"]
"#;

/// Two nodes under that policy; the machine's agent with more in its configuration.
struct Plant {
    lab: Lab,
    caller: Node,
    machine: Node,
}

impl Plant {
    fn new(more_config: &str) -> anyhow::Result<Self> {
        let mut lab = Lab::with_policy(&CloudOptions::default())?;
        lab.policy_with("plant.toml", &format!("{SERVICES}{RULES}"))?;
        let caller = lab.member("a", "gateway")?;
        let machine = lab.node("b")?;
        machine.configure_tables(more_config)?;
        let machine = lab.enrolled(machine, "machine")?;
        Ok(Self {
            lab,
            caller,
            machine,
        })
    }

    /// No rule speaks of these services any more.
    fn take_rules_away(&self) -> anyhow::Result<()> {
        self.lab.policy_with("plant.toml", SERVICES).map(|_| ())
    }

    /// The machine's overlay address.
    fn address(&self) -> anyhow::Result<String> {
        Ok(crate::traffic::overlay(&self.machine)?.to_string())
    }

    /// Starts a program on the machine; its output goes to a file of this name.
    fn serve(&self, name: &str, program: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
        let mut command = self.machine.host().command(program);
        command.args(arguments);
        Process::start(name, command, &self.machine.folder().join(name))
    }

    /// Waits for an event in the cloud's log whose text has all of these.
    fn await_event(&self, kind: &str, parts: &[&str]) -> anyhow::Result<()> {
        let what = format!("{kind} with {parts:?}");
        eventually(&what, Duration::from_secs(30), || {
            let events = self.lab.cloud.events(&["--type", kind])?;
            let found = events.iter().any(|event| {
                let text = event.to_string();
                parts.iter().all(|part| text.contains(part))
            });
            anyhow::ensure!(
                found,
                "not among {} events: {:?}",
                events.len(),
                events.last()
            );
            Ok(())
        })
    }
}

/// Waits until something listens at this port of the machine's loopback.
fn await_listener(node: &Node, port: u16, process: &mut Process) -> anyhow::Result<()> {
    eventually("the service listens", Duration::from_secs(20), || {
        process.check()?;
        let mut command = node.host().command("bash");
        command.args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}")]);
        let tried = output(&mut command)?;
        anyhow::ensure!(tried.status.success(), "nothing at {port}");
        Ok(())
    })
}

/// The interpreter of the environment with the clients that `tests/run` makes.
fn python() -> anyhow::Result<PathBuf> {
    tool("protocols/bin/python")
}

fn tool(path: &str) -> anyhow::Result<PathBuf> {
    let target = bin_dir()?;
    let target = target.parent().context("a target folder")?;
    let tool = target.join("tools").join(path);
    anyhow::ensure!(tool.exists(), "{}: made by tests/run", tool.display());
    Ok(tool)
}

fn client(name: &str) -> String {
    format!("{}/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}
