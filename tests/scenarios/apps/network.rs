//! What an app reaches: what it was given of its node's rights, and nothing else.

use std::collections::BTreeSet;

use edgeward_tests::agent::Node;
use edgeward_tests::apps::Volume;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, output, run};
use edgeward_tests::publisher::Program;

use super::{APP, Plant, SOON, await_note};
use crate::routes::{EXIT, EXIT_RULE, SERVER, ask};
use crate::traffic::{await_reach, overlay, serve};

const STORE: u16 = 8090;
const RULES: &str = "[service.store]\non = \"machines\"\n\n\
    \x20 [service.store.interface.data]\n  net = \"mesh\"\n  l4  = \"tcp/8090\"\n\n\
    [[rule]]\nid = \"gateways-store\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\n\
    to = [\"store/data\"]\ndo = [\"connect\"]\n";

/// Fetches the page of the machine over and over, and notes it.
const ASK: &str = r#"
import socket, time
while True:
    note = b"nothing"
    try:
        with socket.create_connection(("ADDRESS", 8090), 2) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := s.recv(4096):
                answer += part
            note = answer.split(b"\r\n\r\n", 1)[1]
    except OSError:
        pass
    with open("/state/note", "wb") as f:
        f.write(note)
    time.sleep(0.3)
"#;

fn policy(reach: &str) -> String {
    format!(
        "[apps.gateways]\nallow = [{{ publisher = \"acme\" }}]\n\
         install = [{{ publisher = \"acme\", name = \"collector\", version = \"latest\", state = \"running\"{reach} }}]\n\n{RULES}"
    )
}

#[test]
fn an_app_reaches_what_it_was_given_and_not_all_that_its_node_reaches() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.apply(&policy(""))?;
    let mut gateway = plant.member("a", "gateway")?;
    let machine = plant.member("b", "machine")?;
    let _store = serve(&machine, STORE)?;
    await_reach(&gateway, &machine, STORE)?;

    let script = ASK.replace("ADDRESS", &overlay(&machine)?.to_string());
    plant.publish(APP, "1.0", &Program::python(&script)?)?;
    await_note(&mut gateway, "nothing")?;
    await_reach(&gateway, &machine, STORE)?;

    plant.apply(&policy(", reach = [\"store/data\"]"))?;
    await_note(&mut gateway, "b")?;
    plant.apply(&policy(""))?;
    await_note(&mut gateway, "nothing")
}

const OTHER: u16 = 8091;
const SOMEBODY: &str = "9.9.9.9";
/// Everything by which bytes could leave a program, one word each for what went out: `PEER` is the machine's address in the
/// overlay, `CLOUD` one on the node's own network, `INTERNET` one behind the exit.
const TRIES: &str = r#"
import ctypes, os, socket, struct, sys, time
P, C, I = "PEER", "CLOUD", "INTERNET"
def tcp(where, port):
    socket.create_connection((where, port), 1).close()
def udp(where, port, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (where, port))
def dns():
    q = struct.pack(">6H", 7, 256, 1, 0, 0, 0) + b"\x07edgward\x04test\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(q, (C, 53))
def multicast():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
        s.sendto(b"x", ("ff02::1", 9))
def broadcast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.sendto(b"x", ("255.255.255.255", 9))
def bound():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        s.sendto(b"x", (C, 9))
def abstract():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0edgeward-scenario")
def child():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.2)
            try: tcp(P, 8091); os._exit(0)
            except OSError: os._exit(1)
        os._exit(os.wait()[1] >> 8)
    if os.waitpid(pid, 0)[1]: raise OSError("no")
def namespace():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ctypes.CDLL(None).unshare(0x50000000) == 0 else 1)
    if os.waitpid(pid, 0)[1]: raise OSError("no")
def group():
    open("/sys/fs/cgroup/cgroup.procs").close()
tries = {
    "lease": lambda: tcp(P, 8090),
    "other": lambda: tcp(P, 8091),
    "lease-udp": lambda: udp(P, 8090, socket.AF_INET6),
    "lan": lambda: tcp(C, 7443),
    "lan-udp": lambda: udp(C, 9),
    "lan-bound": bound,
    "names-elsewhere": dns,
    "multicast": multicast,
    "broadcast": broadcast,
    "loopback": lambda: tcp("127.0.0.1", 9464),
    "loopback-udp": lambda: udp("::1", 9, socket.AF_INET6),
    "internet": lambda: tcp(I, 2600),
    "internet-udp": lambda: udp(I, 2600),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4).close(),
    "abstract": abstract,
    "child": child,
    "namespace": namespace,
    "group": group,
}
def round():
    went = []
    for name, attempt in tries.items():
        try: attempt(); went.append(name)
        except (OSError, AttributeError): pass
    return " ".join(went)
if sys.argv[1:] == ["once"]:
    print(round()); sys.exit()
while True:
    note = round()
    with open("/state/new", "w") as f: f.write(note)
    os.rename("/state/new", "/state/note")
"#;

/// What any process of the node comes to, app or not.
const OPEN_TO_ALL: [&str; 16] = [
    "lease",
    "other",
    "lease-udp",
    "lan",
    "lan-udp",
    "lan-bound",
    "names-elsewhere",
    "multicast",
    "loopback",
    "loopback-udp",
    "internet",
    "internet-udp",
    "netlink",
    "abstract",
    "child",
    "namespace",
];
const LISTENS: &str = r#"
import socket, time
s = socket.socket(socket.AF_UNIX); s.bind("\0edgeward-scenario"); s.listen(9)
time.sleep(1000)
"#;
const OTHER_RULES: &str = r#"
[service.other]
on = "machines"

  [service.other.interface.data]
  net = "mesh"
  l4  = "tcp/8091"

[[rule]]
id     = "gateways-other"
effect = "allow"
from   = ["group:gateways"]
to     = ["other/data"]
do     = ["connect"]
"#;

/// What the same attempts come to for a process of the node that is no app.
fn from_node(node: &Node, script: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut command = node.host().command("setpriv");
    command.args(["--reuid", "39993", "--regid", "39993", "--clear-groups"]);
    let tried = output(command.args(["/usr/bin/python3", "-c", script, "once"]))?;
    anyhow::ensure!(tried.status.success(), "{}", super::told(&tried));
    let words = String::from_utf8(tried.stdout)?;
    Ok(words.split_whitespace().map(str::to_owned).collect())
}

/// A gateway that leaves to the internet by the machine, and what it reaches there and on its own ground.
fn leaving_by_an_exit(plant: &mut Plant) -> anyhow::Result<(Node, Node, Vec<Process>)> {
    let folder = plant.lab.folder().to_owned();
    let internet = plant.lab.host("internet")?;
    let address = ["addr", "add", SOMEBODY, "dev", "eth0"];
    run(internet.command("ip").args(address))?;
    let mut server = internet.command("python3");
    server.args(["-c", SERVER, "internet"]);
    let mut servers = vec![Process::start(
        "internet",
        server,
        &folder.join("internet"),
    )?];
    let machine = plant.lab.node("b")?;
    let way = ["route", "add", "default", "via", &internet.ipv4()];
    run(machine.host().command("ip").args(way))?;
    let machine = plant.lab.enrolled(machine, "machine")?;
    for port in [STORE, OTHER] {
        servers.push(serve(&machine, port)?);
    }
    let mut gateway = plant.lab.node("a")?;
    gateway.configure("exit = \"b\"")?;
    gateway.ready_for_apps(Volume::Memory(256), "")?;
    let gateway = plant.lab.enrolled(gateway, "gateway")?;
    let mut listener = gateway.host().command("python3");
    listener.args(["-c", LISTENS]);
    servers.push(Process::start(
        "listener",
        listener,
        &folder.join("listener"),
    )?);
    for port in [STORE, OTHER] {
        await_reach(&gateway, &machine, port)?;
    }
    eventually("the node leaves by the exit", SOON, || {
        ask(gateway.host(), SOMEBODY, 2600, 1).map(|_| ())
    })?;
    Ok((gateway, machine, servers))
}

#[test]
fn what_an_app_tries_beside_its_lease_goes_nowhere_though_its_node_may_and_leaves_by_an_exit()
-> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    let leaves = format!("{EXIT}\n{EXIT_RULE}");
    plant.lab.policy_with("exit.toml", &leaves)?;
    let given = |reach: &str| format!("{}{OTHER_RULES}", policy(reach));
    plant.apply(&given(", reach = [\"store/data\"]"))?;
    let (mut gateway, machine, _servers) = leaving_by_an_exit(&mut plant)?;
    let script = TRIES
        .replace("PEER", &overlay(&machine)?.to_string())
        .replace("CLOUD", &plant.lab.cloud.host().ipv4())
        .replace("INTERNET", SOMEBODY);
    eventually("the node itself may all of it", SOON, || {
        let plain = from_node(&gateway, &script)?;
        let lacks: Vec<_> = OPEN_TO_ALL
            .iter()
            .filter(|name| !plain.contains(**name))
            .collect();
        anyhow::ensure!(lacks.is_empty(), "not even the node: {lacks:?}");
        Ok(())
    })?;

    plant.publish(APP, "1.0", &Program::python(&script)?)?;
    await_note(&mut gateway, "lease")?;
    plant.apply(&given(", reach = [\"store/data\", \"other/data\"]"))?;
    await_note(&mut gateway, "lease other child")?;
    plant.apply(&given(""))?;
    await_note(&mut gateway, "")?;
    eventually("the node itself leaves on", SOON, || {
        ask(gateway.host(), SOMEBODY, 2600, 1).map(|_| ())
    })
}
