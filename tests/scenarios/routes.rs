//! Two machines lead to networks of the very same addresses; a gateway reaches what policy opens in each, by addresses
//! of the overlay, and nothing else in either.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::netns::Host;
use edgeward_tests::process::{Process, run};

const SOON: Duration = Duration::from_secs(60);
pub(crate) const ROUTER: &str = "192.168.77.1";
const PLC: &str = "192.168.77.17";
/// What is sent at once, in bytes: many segments in one frame of the device.
const MUCH: usize = 8 << 20;

const NETWORKS: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["quickstart"] }

[route.cell]
on     = "machines"
net    = "cell0"
prefix = "192.168.77.0/24"
as     = "per-node"

[service.cell]
on = "machines"

  [service.cell.interface.feed]
  net   = "mesh"
  l4    = "tcp/2600"
  route = "cell"

  [service.cell.interface.telemetry]
  net   = "mesh"
  l4    = "udp/2600"
  route = "cell"

[[test]]
name   = "a gateway may not speak with another port of the network"
from   = { groups = ["machines"] }
to     = "cell/feed"
do     = "connect"
expect = "deny"
"#;

pub(crate) const RULE: &str = r#"
[[rule]]
id     = "gateways-read-cells"
effect = "allow"
from   = ["group:gateways"]
to     = ["cell/feed", "cell/telemetry"]
do     = ["connect"]
"#;

/// TCP on 2600 and 2601: says its name and who asks, then sends back what it is sent. UDP on 2600: the same in one
/// datagram.
pub(crate) const SERVER: &str = r#"
import socket, sys, threading
def tcp(port):
    s = socket.create_server(("0.0.0.0", port))
    while True:
        c, peer = s.accept()
        threading.Thread(target=serve, args=(c, peer), daemon=True).start()
def serve(c, peer):
    with c:
        c.sendall(f"{sys.argv[1]} {peer[0]}\n".encode())
        while data := c.recv(65536):
            c.sendall(data)
for port in (2600, 2601):
    threading.Thread(target=tcp, args=(port,), daemon=True).start()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("0.0.0.0", 2600))
while True:
    data, peer = u.recvfrom(65536)
    u.sendto(f"{sys.argv[1]} {peer[0]} ".encode() + data, peer)
"#;

/// Connects, prints what it is told, sends much and compares what comes back.
const CLIENT: &str = r#"
import os, socket, sys, threading
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_connection((address, port), timeout=3) as s:
    s.settimeout(20)
    f = s.makefile("rb")
    print(f.readline().decode().strip())
    data = os.urandom(count)
    threading.Thread(target=s.sendall, args=(data,), daemon=True).start()
    back = f.read(count)
    sys.exit(0 if back == data else "changed on the way")
"#;

pub(crate) const DATAGRAM: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(6)
s.sendto(b"x" * 900, (sys.argv[1], 2600))
data = s.recv(2000)
name, peer, rest = data.split(b" ", 2)
print(name.decode(), peer.decode())
sys.exit(0 if rest == b"x" * 900 else "changed on the way")
"#;

/// Asked again and again on one connection, until it is not answered.
const LIVE: &str = r#"
import socket, sys, time
with socket.create_connection((sys.argv[1], 2600), timeout=3) as s:
    s.settimeout(5)
    f = s.makefile("rb")
    f.readline()
    while True:
        s.sendall(b"?\n")
        if f.readline() != b"?\n":
            sys.exit("closed")
        print("answered", flush=True)
        time.sleep(0.1)
"#;

pub(crate) struct Cells {
    pub(crate) lab: Lab,
    pub(crate) gateway: Node,
    pub(crate) machines: Vec<Node>,
    plcs: Vec<Host>,
    _servers: Vec<Process>,
}

impl Cells {
    fn new() -> anyhow::Result<Self> {
        Self::with("", "")
    }

    /// With these lines in the configurations of the gateway and of both machines.
    pub(crate) fn with(gateway: &str, machines_have: &str) -> anyhow::Result<Self> {
        let mut lab = Lab::with_policy(&CloudOptions::default())?;
        let gateway = lab.member_with("a", "gateway", gateway)?;
        let (mut machines, mut plcs, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for name in ["b", "c"] {
            let machine = lab.node(name)?;
            let plc = lab.host(&format!("plc-{name}"))?;
            wire(machine.host(), &plc)?;
            machine.configure(machines_have)?;
            let machine = lab.enrolled(machine, "machine")?;
            let mut server = plc.command("python3");
            server.args(["-c", SERVER, name]);
            servers.push(Process::start(
                "plc",
                server,
                &machine.folder().join("plc"),
            )?);
            machines.push(machine);
            plcs.push(plc);
        }
        Ok(Self {
            lab,
            gateway,
            machines,
            plcs,
            _servers: servers,
        })
    }

    pub(crate) fn apply(&self, rules: &str) -> anyhow::Result<()> {
        let text = format!("{NETWORKS}\n{rules}");
        self.lab.policy_with("cells.toml", &text).map(|_| ())
    }

    /// How the overlay knows the host at this machine.
    pub(crate) fn seen(&self, machine: &str, last: u8) -> anyhow::Result<String> {
        let slice = self
            .lab
            .cloud
            .json(&["policy", "slice", "--node", machine])?;
        let seen = slice["routes"][0]["seen_as"].as_str().unwrap_or_default();
        let (network, length) = seen.split_once('/').unwrap_or_default();
        anyhow::ensure!(length == "120", "{slice}");
        match network.parse()? {
            IpAddr::V6(v6) => {
                let host = v6.to_bits() | u128::from(last);
                Ok(std::net::Ipv6Addr::from_bits(host).to_string())
            }
            IpAddr::V4(_) => anyhow::bail!("{slice}"),
        }
    }
}

/// A cable between the machine and its cell.
fn wire(machine: &Host, plc: &Host) -> anyhow::Result<()> {
    let ip = |host: &Host, words: &[&str]| run(host.command("ip").args(words)).map(|_| ());
    let there = plc.namespace();
    ip(
        machine,
        &[
            "link", "add", "cell0", "type", "veth", "peer", "name", "cell0", "netns", there,
        ],
    )?;
    for (host, address) in [(machine, ROUTER), (plc, PLC)] {
        ip(
            host,
            &["addr", "add", &format!("{address}/24"), "dev", "cell0"],
        )?;
        ip(host, &["link", "set", "cell0", "up"])?;
    }
    Ok(())
}

pub(crate) fn ask(from: &Host, address: &str, port: u16, count: usize) -> anyhow::Result<String> {
    let mut command = from.command("python3");
    command.args(["-c", CLIENT, address, &port.to_string(), &count.to_string()]);
    Ok(run(&mut command)?.trim().to_owned())
}

pub(crate) fn python(from: &Host, program: &str, address: &str) -> Command {
    let mut command = from.command("python3");
    command.args(["-c", program, address]);
    command
}

#[test]
fn a_gateway_reaches_what_policy_opens_behind_two_nodes_with_the_same_addresses()
-> anyhow::Result<()> {
    let cells = Cells::new()?;
    let gateway = cells.gateway.host();
    // Routes alone open nothing.
    cells.apply("")?;
    let (b, c) = (cells.seen("b", 17)?, cells.seen("c", 17)?);
    anyhow::ensure!(b != c, "both are known as {b}");
    anyhow::ensure!(
        ask(gateway, &b, 2600, 1).is_err(),
        "answered without a rule"
    );

    cells.apply(RULE)?;
    for (name, address) in [("b", &b), ("c", &c)] {
        eventually("the cell answers", SOON, || {
            let said = ask(gateway, address, 2600, MUCH)?;
            // The node stands for whoever asks.
            anyhow::ensure!(said == format!("{name} {ROUTER}"), "{said}");
            Ok(())
        })?;
        let said = run(&mut python(gateway, DATAGRAM, address))?;
        anyhow::ensure!(said.trim() == format!("{name} {ROUTER}"), "{said}");
    }
    // Another port, the node's own address there, the addresses as they are, and a machine without a rule.
    anyhow::ensure!(ask(gateway, &b, 2601, 1).is_err(), "another port is open");
    anyhow::ensure!(
        ask(gateway, PLC, 2600, 1).is_err(),
        "reached by its own address"
    );
    anyhow::ensure!(
        ask(cells.machines[1].host(), &b, 2600, 1).is_err(),
        "a machine reaches another's cell"
    );
    // From a cell nobody comes into the overlay or past the machine.
    let overlay =
        run(gateway
            .command("ip")
            .args(["-4", "-o", "addr", "show", &cells.gateway.device()]))?;
    let overlay = overlay
        .split_whitespace()
        .find_map(|word| word.split_once('/').map(|(address, _)| address.to_owned()))
        .unwrap_or_default();
    let plc = &cells.plcs[0];
    for target in [overlay.as_str(), "198.51.100.1"] {
        run(plc
            .command("ip")
            .args(["route", "add", target, "via", ROUTER]))?;
    }
    let mut server = gateway.command("python3");
    server.args(["-m", "http.server", "--bind", "0.0.0.0", "2600"]);
    let _server = Process::start("bait", server, &cells.gateway.folder().join("bait"))?;
    eventually("the bait is out", SOON, || ask_any(gateway, &overlay))?;
    anyhow::ensure!(
        ask_any(plc, &overlay).is_err(),
        "a cell reaches the overlay"
    );

    // The rule goes, and the connection that is open with it.
    let log = cells.gateway.folder().join("live");
    let mut live = Process::start("live", python(gateway, LIVE, &b), &log)?;
    eventually("the connection is answered", SOON, || {
        anyhow::ensure!(live.log_text().contains("answered"));
        Ok(())
    })?;
    cells.apply("")?;
    eventually("the open connection ends", SOON, || {
        anyhow::ensure!(live.ended()?.is_some(), "it is still answered");
        Ok(())
    })?;
    anyhow::ensure!(ask(gateway, &b, 2600, 1).is_err());
    Ok(())
}

fn ask_any(from: &Host, address: &str) -> anyhow::Result<()> {
    let connect = "import socket,sys; socket.create_connection((sys.argv[1], 2600), timeout=2)";
    run(&mut python(from, connect, address)).map(|_| ())
}

#[test]
fn a_node_that_ends_leaves_no_forwarding_behind() -> anyhow::Result<()> {
    let mut cells = Cells::new()?;
    cells.apply(RULE)?;
    let b = cells.seen("b", 17)?;
    eventually("the cell answers", SOON, || {
        ask(cells.gateway.host(), &b, 2600, 1).map(|_| ())
    })?;
    let forwarding = |machine: &Node, device: &str| -> anyhow::Result<String> {
        let path = format!("/proc/sys/net/ipv4/conf/{device}/forwarding");
        Ok(run(machine.host().command("cat").arg(path))?
            .trim()
            .to_owned())
    };
    anyhow::ensure!(forwarding(&cells.machines[0], "cell0")? == "1");
    anyhow::ensure!(
        forwarding(&cells.machines[0], "eth0")? == "0",
        "too much is forwarded"
    );
    cells.machines[0].stop()?;
    anyhow::ensure!(forwarding(&cells.machines[0], "cell0")? == "0");
    let tables = run(cells.machines[0]
        .host()
        .command("nft")
        .args(["list", "tables"]))?;
    anyhow::ensure!(!tables.contains("_routes"), "{tables}");
    // And after a crash it is the agent's own again.
    cells.machines[0].start()?;
    cells.machines[0].await_ready()?;
    eventually("the cell answers again", SOON, || {
        ask(cells.gateway.host(), &b, 2600, 1).map(|_| ())
    })?;
    cells.machines[0].kill()?;
    anyhow::ensure!(forwarding(&cells.machines[0], "cell0")? == "1");
    cells.machines[0].start()?;
    cells.machines[0].await_ready()?;
    eventually("the cell answers again", SOON, || {
        ask(cells.gateway.host(), &b, 2600, 1).map(|_| ())
    })?;
    cells.machines[0].stop()?;
    anyhow::ensure!(
        forwarding(&cells.machines[0], "cell0")? == "0",
        "left on after a crash"
    );
    Ok(())
}

pub(crate) const EXIT: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["quickstart"] }

[role]
exit = ["machines"]
"#;

pub(crate) const EXIT_RULE: &str = r#"
[[rule]]
id     = "gateways-leave"
effect = "allow"
from   = ["group:gateways"]
to     = ["exit"]
do     = ["connect"]
"#;

#[test]
fn an_exit_leads_whom_a_rule_lets_to_the_internet_and_to_no_private_address() -> anyhow::Result<()>
{
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let gateway = lab.member_with("a", "gateway", "exit = \"b\"")?;
    let machine = lab.node("b")?;
    let internet = lab.host("internet")?;
    let (public, private) = ("9.9.9.9", "10.99.0.1");
    for address in [public, private] {
        run(internet
            .command("ip")
            .args(["addr", "add", address, "dev", "eth0"]))?;
    }
    let up = internet.ipv4();
    run(machine
        .host()
        .command("ip")
        .args(["route", "add", "default", "via", &up]))?;
    let machine = lab.enrolled(machine, "machine")?;
    let mut server = internet.command("python3");
    server.args(["-c", SERVER, "internet"]);
    let _server = Process::start("internet", server, &lab.folder().join("internet"))?;
    for address in [public, private] {
        let device = gateway.device();
        let via = ["route", "add", address, "dev", &device];
        run(gateway.host().command("ip").args(via))?;
    }
    let apply = |lab: &Lab, rules: &str| -> anyhow::Result<()> {
        let text = format!("{EXIT}\n{rules}");
        lab.policy_with("exit.toml", &text).map(|_| ())
    };
    apply(&lab, "")?;
    eventually("the machine answers for itself", SOON, || {
        ask(machine.host(), public, 2600, 1).map(|_| ())
    })?;
    anyhow::ensure!(
        ask(gateway.host(), public, 2600, 1).is_err(),
        "out without a rule"
    );
    apply(&lab, EXIT_RULE)?;
    eventually("the internet answers", SOON, || {
        let said = ask(gateway.host(), public, 2600, 1 << 20)?;
        anyhow::ensure!(
            said == format!("internet {}", machine.host().ipv4()),
            "{said}"
        );
        Ok(())
    })?;
    anyhow::ensure!(
        ask(gateway.host(), private, 2600, 1).is_err(),
        "a private address is reached through the exit"
    );
    // A stranger is not led anywhere by a machine that forwards for its peers.
    let stranger = lab.host("stranger")?;
    let via = ["route", "add", public, "via", &machine.host().ipv4()];
    run(stranger.command("ip").args(via))?;
    anyhow::ensure!(
        ask(&stranger, public, 2600, 1).is_err(),
        "a stranger is forwarded"
    );
    Ok(())
}
