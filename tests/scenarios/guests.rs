//! A device behind one node reaches a service on another: by its own name, from its own address and station, for as long
//! as the node that vouches for it may be there; and nobody beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::{QUICKSTART_POLICY, copy_folder};
use edgeward_tests::netns::Host;
use edgeward_tests::process::{Process, run};

const SOON: Duration = Duration::from_secs(60);
const ROUTER: &str = "192.168.78.1";
const PLC: &str = "192.168.78.17";
const NEIGHBOUR: &str = "192.168.78.18";
/// Of a station that is none of policy's.
const OTHER_MAC: &str = "02:00:00:00:78:99";

const POLICY: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["quickstart"] }

[group.plcs]
match = { site = ["quickstart"], kind = ["plc"] }
via   = "machines"

[route.cell]
on     = "machines"
net    = "cell0"
prefix = "192.168.78.0/24"
as     = "per-node"

[service.store]
on = "gateways"

  [service.store.interface.drop]
  net = "mesh"
  l4  = "tcp/2600"
"#;

const RULE: &str = r#"
[[rule]]
id     = "plcs-deliver"
effect = "allow"
from   = ["group:plcs"]
to     = ["store/drop"]
do     = ["connect"]

[[test]]
name   = "a machine is not its PLC"
from   = { groups = ["machines"] }
to     = "store/drop"
do     = "connect"
expect = "deny"

[[test]]
name   = "a PLC may deliver"
from   = { groups = ["plcs"] }
to     = "store/drop"
do     = "connect"
expect = "allow"
by     = "plcs-deliver"
"#;

/// Says who asks, then answers every line with itself.
const SERVER: &str = r#"
import socket, threading
def serve(c, peer):
    with c:
        c.sendall(f"{peer[0]}\n".encode())
        while data := c.recv(65536):
            c.sendall(data)
s = socket.create_server(("::", 2600), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, peer = s.accept()
    threading.Thread(target=serve, args=(c, peer), daemon=True).start()
"#;

/// Connects from an address, says as whom it was seen, and asks so many times until it is not answered.
const CLIENT: &str = r#"
import socket, sys, time
address, source, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family) as s:
    if source:
        s.bind((source, 0))
    s.settimeout(5)
    s.connect((address, 2600))
    f = s.makefile("rb")
    print(f.readline().decode().strip(), flush=True)
    for _ in range(times):
        s.sendall(b"?\n")
        if f.readline() != b"?\n":
            sys.exit("closed")
        print("answered", flush=True)
        time.sleep(0.1)
"#;

struct Plant {
    lab: Lab,
    policy: PathBuf,
    store: Node,
    machine: Node,
    plc: Host,
    mac: String,
    _server: Process,
}

impl Plant {
    fn new() -> anyhow::Result<Self> {
        let mut lab = Lab::with_policy(&CloudOptions::default())?;
        let policy = lab.folder().join("policy");
        copy_folder(Path::new(QUICKSTART_POLICY), &policy)?;
        let store = lab.member("a", "gateway")?;
        let machine = lab.node("b")?;
        let plc = lab.host("plc")?;
        wire(machine.host(), &plc)?;
        let mac = run(plc.command("cat").arg("/sys/class/net/cell0/address"))?;
        let machine = lab.enrolled(machine, "machine")?;
        let mut server = store.host().command("python3");
        server.args(["-c", SERVER]);
        let server = Process::start("store", server, &store.folder().join("store"))?;
        Ok(Self {
            lab,
            policy,
            store,
            machine,
            plc,
            mac: mac.trim().to_owned(),
            _server: server,
        })
    }

    fn apply(&self, rules: &str) -> anyhow::Result<()> {
        let device = format!(
            "[device.plc-1]\nnode = \"b\"\ninterface = \"cell0\"\n\
             labels = {{ site = \"quickstart\", kind = \"plc\" }}\nmatch = {{ mac = \"{}\", ip = \"{PLC}\" }}\n",
            self.mac
        );
        let text = format!("{POLICY}\n{device}\n{rules}");
        std::fs::write(self.policy.join("plant.toml"), text)?;
        let folder = self.policy.display().to_string();
        self.lab.cloud.edgeward(&["policy", "apply", &folder])?;
        Ok(())
    }

    /// What the device is known as in the overlay, by its node's slice.
    fn seen(&self) -> anyhow::Result<String> {
        let slice = self.lab.cloud.json(&["policy", "slice", "--node", "b"])?;
        let seen = slice["devices"][0]["seen_as"].as_str();
        Ok(seen.ok_or_else(|| anyhow::anyhow!("{slice}"))?.to_owned())
    }

    fn client(
        &self,
        from: &Host,
        source: &str,
        times: u32,
    ) -> anyhow::Result<std::process::Command> {
        let mut command = from.command("python3");
        let there = self.overlay()?;
        command.args(["-c", CLIENT, &there, source, &times.to_string()]);
        Ok(command)
    }

    fn deliver(&self, source: &str) -> anyhow::Result<String> {
        let said = run(&mut self.client(&self.plc, source, 1)?)?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    /// The IPv4 address of the store in the overlay.
    fn overlay(&self) -> anyhow::Result<String> {
        let device = device(&self.store)?;
        let shown = run(self
            .store
            .host()
            .command("ip")
            .args(["-4", "-o", "addr", "show", &device]))?;
        let mut words = shown.split_whitespace();
        let address = words.find_map(|word| word.split_once('/'));
        let (address, _) = address.ok_or_else(|| anyhow::anyhow!("no address: {shown}"))?;
        Ok(address.to_owned())
    }
}

/// The name of the node's tunnel device.
fn device(node: &Node) -> anyhow::Result<String> {
    let config = std::fs::read_to_string(node.folder().join("agent.toml"))?;
    let mut lines = config.lines();
    let name = lines.find_map(|line| line.strip_prefix("interface = "));
    let name = name.map(|name| name.trim_matches('"').to_owned());
    name.ok_or_else(|| anyhow::anyhow!("no interface in {config}"))
}

/// A cable between the machine and its cell, in which one host has two addresses.
fn wire(machine: &Host, plc: &Host) -> anyhow::Result<()> {
    let ip = |host: &Host, words: &[&str]| run(host.command("ip").args(words)).map(|_| ());
    let there = plc.namespace();
    ip(
        machine,
        &[
            "link", "add", "cell0", "type", "veth", "peer", "name", "cell0", "netns", there,
        ],
    )?;
    for (host, addresses) in [(machine, &[ROUTER] as &[&str]), (plc, &[PLC, NEIGHBOUR])] {
        for address in addresses {
            ip(
                host,
                &["addr", "add", &format!("{address}/24"), "dev", "cell0"],
            )?;
        }
        ip(host, &["link", "set", "cell0", "up"])?;
    }
    ip(plc, &["route", "add", "100.64.0.0/10", "via", ROUTER])
}

fn become_station(plc: &Host, mac: &str) -> anyhow::Result<()> {
    run(plc
        .command("ip")
        .args(["link", "set", "cell0", "address", mac]))?;
    // The machine asks anew who has the address.
    run(plc
        .command("ping")
        .args(["-c", "1", "-W", "2", "-I", PLC, ROUTER]))
    .map(|_| ())
}

#[test]
fn a_device_behind_a_node_reaches_a_service_on_another_and_its_neighbour_does_not()
-> anyhow::Result<()> {
    let plant = Plant::new()?;
    plant.apply("")?;
    eventually("both nodes are there", SOON, || plant.overlay().map(|_| ()))?;
    anyhow::ensure!(plant.deliver(PLC).is_err(), "answered without a rule");

    plant.apply(RULE)?;
    let seen = plant.seen()?;
    eventually("the device is answered", SOON, || {
        let said = plant.deliver(PLC)?;
        anyhow::ensure!(said == seen, "seen as {said}, not {seen}");
        Ok(())
    })?;
    // The next address of its network, the machine itself, and the device's address at another station.
    anyhow::ensure!(plant.deliver(NEIGHBOUR).is_err(), "a neighbour is answered");
    let mut itself = plant.client(plant.machine.host(), "", 1)?;
    anyhow::ensure!(run(&mut itself).is_err(), "the machine is answered");
    become_station(&plant.plc, OTHER_MAC)?;
    anyhow::ensure!(plant.deliver(PLC).is_err(), "another station is answered");
    become_station(&plant.plc, &plant.mac)?;
    eventually("the device is answered again", SOON, || {
        plant.deliver(PLC).map(|_| ())
    })?;
    // The kernel of the store knows the one address, and nothing else of the network.
    let table = format!("edgeward_{}", device(&plant.store)?.replace('-', "_h"));
    let sets = run(plant
        .store
        .host()
        .command("nft")
        .args(["list", "table", "inet", &table]))?;
    let network = seen.rsplit_once(':').map_or("", |(network, _)| network);
    anyhow::ensure!(
        sets.matches(network).count() == 1 && sets.contains(&seen),
        "{sets}"
    );

    // The records name the device.
    eventually("the delivery is recorded", SOON, || {
        let events = plant.lab.cloud.events(&["--type", "flow.allowed"])?;
        let by = |event: &&serde_json::Value| {
            let text = event.to_string();
            text.contains("device/plc-1") && text.contains("plcs-deliver")
        };
        anyhow::ensure!(events.iter().any(|event| by(&event)), "{events:?}");
        Ok(())
    })?;

    // Its node loses its rights, and the connection that is open ends with them.
    let mut live = Process::start(
        "live",
        plant.client(&plant.plc, PLC, 100_000)?,
        &plant.store.folder().join("live"),
    )?;
    eventually("the connection is answered", SOON, || {
        anyhow::ensure!(live.log_text().contains("answered"));
        Ok(())
    })?;
    plant.lab.cloud.edgeward(&["node", "quarantine", "b"])?;
    eventually("the open connection ends", SOON, || {
        anyhow::ensure!(live.ended()?.is_some(), "it is still answered");
        Ok(())
    })?;
    anyhow::ensure!(
        plant.deliver(PLC).is_err(),
        "answered behind a quarantined node"
    );
    let sets = run(plant
        .store
        .host()
        .command("nft")
        .args(["list", "table", "inet", &table]))?;
    anyhow::ensure!(!sets.contains(&seen), "{sets}");
    Ok(())
}
