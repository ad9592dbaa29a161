//! Names of the mesh, asked for as programs ask: by getent over resolv.conf and over systemd-resolved, and by hand.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::cloud::{CloudOptions, TRUST_DOMAIN};
use edgeward_tests::eventually::eventually;
use edgeward_tests::netns::Host;
use edgeward_tests::process::{Process, run};

use crate::traffic::{await_reach, overlay, serve};

const STATUS: u16 = 8080;
const SOON: Duration = Duration::from_secs(30);
const LISTEN: &str = "127.0.0.55";
const METRICS: &str = "http://127.0.0.1:9464/metrics";

/// Asks for one name and type; prints the response code, the number of answers, and who is pointed at.
const ASK: &str = r#"
import socket, struct, sys
server, name, kind = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in server else socket.AF_INET
labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
with socket.socket(family, socket.SOCK_DGRAM) as udp:
    udp.settimeout(2)
    udp.sendto(question, (server, 53))
    by_datagram = udp.recv(4096)
with socket.create_connection((server, 53), timeout=2) as tcp:
    tcp.sendall(struct.pack(">H", len(question)) + question)
    length = struct.unpack(">H", tcp.recv(2, socket.MSG_WAITALL))[0]
    by_stream = tcp.recv(length, socket.MSG_WAITALL)
said = [(m[3] & 15, struct.unpack(">H", m[6:8])[0]) for m in (by_datagram, by_stream)]
assert said[0] == said[1], said
print(*said[0])
"#;

/// The world's name server: every name has one address, and all that is asked is written down.
const WORLD: &str = r#"
import socket, struct, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    asked, peer = udp.recvfrom(4096)
    end = asked.index(0, 12) + 5
    labels, at = [], 12
    while asked[at]:
        labels.append(asked[at + 1 : at + 1 + asked[at]].decode())
        at += 1 + asked[at]
    print(".".join(labels), flush=True)
    ipv4 = asked[end - 4 : end - 2] == b"\0\1"
    head = asked[:2] + struct.pack(">HHHHH", 0x8180, 1, ipv4, 0, 0)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + bytes([198, 51, 100, 7]) if ipv4 else b""
    udp.sendto(head + asked[12:end] + record, peer)
"#;

/// A device behind `b`, and what it may reach there.
const DEVICE: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["quickstart"] }

[group.plcs]
match = { site = ["quickstart"], kind = ["plc"] }
via   = "machines"

[device.plc-1]
node      = "b"
interface = "lan0"
labels    = { site = "quickstart", kind = "plc" }
match     = { mac = "02:00:00:00:00:11", ip = "192.0.2.77" }

[service.floor]
on = "machines"

  [service.floor.interface.feed]
  net = "lan0"
  l4  = "tcp/2600"

[[rule]]
id     = "plcs-feed"
effect = "allow"
from   = ["group:plcs"]
to     = ["floor/feed"]
do     = ["connect"]
"#;

fn ask(host: &Host, server: &str, name: &str, kind: u16) -> anyhow::Result<String> {
    let mut command = host.command("python3");
    command.args(["-c", ASK, server, name, &kind.to_string()]);
    Ok(run(&mut command)?.trim().to_owned())
}

fn getent(host: &Host, name: &str) -> anyhow::Result<String> {
    run(host.command("getent").args(["ahosts", name]))
}

fn name_of(node: &str) -> String {
    format!("{node}.{TRUST_DOMAIN}")
}

/// What `ip netns exec` mounts over `/etc/resolv.conf` for everything that runs on a host.
struct MountedConf(PathBuf);

impl MountedConf {
    fn new(host: &Host, text: &str) -> anyhow::Result<Self> {
        let folder = Path::new("/etc/netns").join(host.namespace());
        std::fs::create_dir_all(&folder)?;
        let conf = Self(folder);
        std::fs::write(conf.path(), text)?;
        Ok(conf)
    }

    fn path(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.path())?)
    }
}

impl Drop for MountedConf {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_node_names_what_it_may_reach_and_nobody_else() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    lab.policy_with("plc.toml", DEVICE)?;
    let a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let (a, b) = (a.host(), b.host());
    eventually("b's name is known to a", SOON, || {
        anyhow::ensure!(ask(a, LISTEN, &name_of("b"), 28)? == "0 1");
        Ok(())
    })?;
    eventually("b's device is known to b", SOON, || {
        anyhow::ensure!(ask(b, LISTEN, &name_of("plc-1.b"), 1)? == "0 1");
        Ok(())
    })?;
    for (host, name, kind, said) in [
        // b may not reach a, which is there, and knows no more of it than of who is not.
        (b, name_of("a"), 28, "3 0"),
        (b, name_of("z"), 28, "3 0"),
        (a, name_of("plc-1.b"), 1, "3 0"),
        (a, TRUST_DOMAIN.to_owned(), 252, "5 0"),
        (a, name_of("b"), 255, "5 0"),
        (a, "www.example.com".to_owned(), 1, "5 0"),
        (a, name_of("B"), 28, "0 1"),
        (a, name_of("b"), 16, "0 0"),
        (b, name_of("b"), 28, "0 1"),
    ] {
        assert_eq!(ask(host, LISTEN, &name, kind)?, said, "{name} {kind}");
    }
    Ok(())
}

#[test]
fn resolv_conf_leads_here_and_is_put_back_even_after_a_crash() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let world = lab.host("world")?;
    let mut command = world.command("python3");
    command.args(["-c", WORLD, &world.ipv4()]);
    let world_log = lab.folder().join("world.log");
    let server = Process::start("world", command, &world_log)?;
    let node = lab.node("a")?;
    let text = format!(
        "# by hand\nnameserver {}\noptions timeout:1 attempts:2",
        world.ipv4()
    );
    let conf = MountedConf::new(node.host(), &text)?;
    node.configure("names = \"resolv.conf\"")?;
    let mut a = lab.enrolled(node, "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let b_address = overlay(&b)?.to_string();
    eventually("getent finds b", SOON, || {
        let found = getent(a.host(), &name_of("b"))?;
        anyhow::ensure!(found.contains(&b_address), "{found}");
        Ok(())
    })?;
    assert!(conf.text()?.contains(&format!("nameserver {LISTEN}\n")));
    let page = format!("http://{}:{STATUS}/", name_of("b"));
    let page = run(a
        .host()
        .command("curl")
        .args(["-sSf", "--max-time", "5", &page]))?;
    assert_eq!(page, "b");
    assert!(getent(a.host(), &name_of("z")).is_err());
    assert!(getent(a.host(), "www.other.example")?.contains("198.51.100.7"));
    let heard = server.log_text();
    assert!(heard.contains("www.other.example"), "{heard}");
    assert!(!heard.contains(TRUST_DOMAIN), "of the mesh: {heard}");

    // With the agent dead the machine still finds names, its cloud's among them.
    a.kill()?;
    assert!(getent(a.host(), "after.other.example")?.contains("198.51.100.7"));
    a.start()?;
    eventually("getent finds b again", SOON, || {
        anyhow::ensure!(getent(a.host(), &name_of("b"))?.contains(&b_address));
        Ok(())
    })?;
    a.stop()?;
    assert_eq!(conf.text()?, text);
    Ok(())
}

/// A bus and systemd-resolved of one host, as on a machine of its own.
struct Resolved {
    _bus: Process,
    _resolved: Process,
    address: String,
}

impl Resolved {
    fn start(host: &Host, folder: &Path) -> anyhow::Result<Self> {
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/resolved/lib");
        let program = [&fetched, Path::new("/lib")]
            .into_iter()
            .map(|lib| lib.join("systemd/systemd-resolved"))
            .find(|program| program.exists())
            .context("no systemd-resolved; tests/run fetches it")?;
        let libraries = format!("../usr/lib/{}-linux-gnu/systemd", std::env::consts::ARCH);
        let libraries = fetched.join(libraries);
        let socket = folder.join("bus");
        let address = format!("unix:path={}", socket.display());
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
             <busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/>\
             </policy></busconfig>"
        );
        std::fs::write(folder.join("bus.conf"), config)?;
        let mut command = Command::new("dbus-daemon");
        command.arg(format!(
            "--config-file={}",
            folder.join("bus.conf").display()
        ));
        command.arg("--nofork");
        let bus = Process::start("dbus-daemon", command, &folder.join("bus.log"))?;
        eventually("the bus is there", SOON, || {
            anyhow::ensure!(socket.exists());
            Ok(())
        })?;
        // It changes to a user that the bus must know too.
        let own = |file: &str| -> anyhow::Result<PathBuf> {
            let text = std::fs::read_to_string(Path::new("/etc").join(file))?;
            let nobody = text
                .lines()
                .find(|line| line.starts_with("nobody:") || line.starts_with("nogroup:"));
            let line = nobody
                .context("nobody is there")?
                .replacen("nobody", "systemd-resolve", 1)
                .replacen("nogroup", "systemd-resolve", 1);
            let path = folder.join(file);
            std::fs::write(&path, format!("{text}{line}\n"))?;
            Ok(path)
        };
        let (users, groups, runs) = (own("passwd")?, own("group")?, folder.join("systemd"));
        std::fs::create_dir_all(&runs)?;
        let script = format!(
            "mkdir -p /run/systemd && mount --bind {} /run/systemd && mount --bind {} /etc/passwd && mount --bind {} /etc/group && \
             exec ip netns exec {} {}",
            runs.display(),
            users.display(),
            groups.display(),
            host.namespace(),
            program.display(),
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]);
        command
            .env("DBUS_SYSTEM_BUS_ADDRESS", &address)
            .env("LD_LIBRARY_PATH", libraries)
            .env("SYSTEMD_LOG_TARGET", "console");
        let resolved = Process::start("systemd-resolved", command, &folder.join("resolved.log"))?;
        Ok(Self {
            _bus: bus,
            _resolved: resolved,
            address,
        })
    }
}

#[test]
fn systemd_resolved_asks_here_for_names_of_the_mesh_only() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut node = lab.node("a")?;
    node.configure("names = \"resolved\"")?;
    let folder = node.folder().join("resolved");
    std::fs::create_dir_all(&folder)?;
    let resolved = Resolved::start(node.host(), &folder)?;
    node.set_environment("DBUS_SYSTEM_BUS_ADDRESS", &resolved.address);
    let mut a = lab.enrolled(node, "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    // 127.0.0.53 is systemd-resolved's.
    eventually("systemd-resolved finds b", SOON, || {
        let said = ask(a.host(), "127.0.0.53", &name_of("b"), 28)?;
        anyhow::ensure!(said == "0 1", "{said}: {:#}", a.status()?["names"]);
        Ok(())
    })?;
    assert_eq!(ask(a.host(), "127.0.0.53", &name_of("z"), 28)?, "3 0");
    // It has nobody to ask for other names, and does not ask us.
    let other = ask(a.host(), "127.0.0.53", "www.other.example", 1);
    assert!(other.is_err() || other.is_ok_and(|said| !said.starts_with('0')));
    let metrics = run(a.host().command("curl").args(["-sSf", METRICS]))?;
    assert!(metrics.contains("edgeward_names_questions_total{outcome=\"found\"}"));
    assert!(!metrics.contains("outcome=\"refused\""), "{metrics}");
    // A peer that asks at the node's overlay address is not answered.
    let own = overlay(&a)?.to_string();
    assert_eq!(ask(a.host(), &own, &name_of("b"), 28)?, "0 1");
    assert!(ask(b.host(), &own, &name_of("b"), 28).is_err());
    a.stop()?;
    eventually("systemd-resolved has forgotten", SOON, || {
        // It asks others, whom nothing leads to.
        let said = ask(a.host(), "127.0.0.53", &name_of("b"), 28);
        anyhow::ensure!(said.as_deref().ok() != Some("0 1"));
        Ok(())
    })
}
