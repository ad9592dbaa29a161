//! The WireGuard core against an independent implementation: Debian's `wireguard-go`, both as initiator and as
//! responder, over IPv4 and IPv6 inside, with the right and with a wrong pre-shared key.
//!
//! Needs root, `iproute2`, `wireguard-tools` and `wireguard-go`. Everything happens in two network namespaces of
//! its own, joined by a veth.

#![expect(
    clippy::disallowed_methods,
    reason = "a daemon tells nobody when its socket is open or its process gone: looked at in bounded loops"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// How long a daemon may take to open its control socket.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first packet may take: a lost first handshake is repeated after five seconds.
const FIRST_PACKET: Duration = Duration::from_secs(15);
/// How long a daemon may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Implementation {
    Edgeward,
    WireguardGo,
}

/// One namespace with one daemon.
struct Side {
    namespace: String,
    interface: String,
    outer: &'static str,
    inner4: &'static str,
    inner6: &'static str,
    daemon: Option<Child>,
    public_key: String,
}

/// Both sides; everything is taken away when dropped.
struct Network {
    a: Side,
    b: Side,
    folder: PathBuf,
}

#[test]
fn we_initiate_to_wireguard_go() -> Result<()> {
    let network = Network::new([Implementation::Edgeward, Implementation::WireguardGo])?;
    network.configure("right", "right")?;
    network.a.ping_until_answered(network.b.inner4)?;
    network.a.ping(network.b.inner6, 3)?;
    network.b.ping(network.a.inner4, 3)?;
    network.a.ping_sized(network.b.inner4, 8000)?;
    ensure!(
        network.a.has_handshake()? && network.b.has_handshake()?,
        "wg show has no handshake"
    );
    Ok(())
}

#[test]
fn wireguard_go_initiates_to_us() -> Result<()> {
    let network = Network::new([Implementation::WireguardGo, Implementation::Edgeward])?;
    network.configure("right", "right")?;
    network.a.ping_until_answered(network.b.inner4)?;
    network.a.ping(network.b.inner6, 3)?;
    network.b.ping(network.a.inner4, 3)?;
    network.b.ping_sized(network.a.inner4, 8000)?;
    ensure!(
        network.a.has_handshake()? && network.b.has_handshake()?,
        "wg show has no handshake"
    );
    Ok(())
}

#[test]
fn without_a_pre_shared_key_we_speak_plain_wireguard() -> Result<()> {
    let network = Network::new([Implementation::Edgeward, Implementation::WireguardGo])?;
    network.configure("", "")?;
    network.a.ping_until_answered(network.b.inner4)?;
    network.b.ping(network.a.inner4, 3)
}

#[test]
fn a_wrong_pre_shared_key_lets_nothing_through_whoever_initiates() -> Result<()> {
    for order in [
        [Implementation::Edgeward, Implementation::WireguardGo],
        [Implementation::WireguardGo, Implementation::Edgeward],
    ] {
        let network = Network::new(order)?;
        network.configure("right", "wrong")?;
        let answered = network.a.try_ping(network.b.inner4, 3, 2)?;
        ensure!(!answered, "{order:?}: a packet passed under different keys");
        let ours = if order[0] == Implementation::Edgeward {
            &network.a
        } else {
            &network.b
        };
        ensure!(
            !ours.has_handshake()?,
            "{order:?}: a handshake completed under different keys"
        );
    }
    Ok(())
}

#[test]
fn a_removed_peer_is_dark_at_once_and_stays_so() -> Result<()> {
    let network = Network::new([Implementation::WireguardGo, Implementation::Edgeward])?;
    network.configure("right", "right")?;
    network.a.ping_until_answered(network.b.inner4)?;
    // What `wg setconf` sends: replace_peers without naming the peer.
    network.b.set_config(&network.folder, "[Interface]\n")?;
    ensure!(
        !network.a.try_ping(network.b.inner4, 5, 1)?,
        "answered after the removal"
    );
    ensure!(
        network.b.show("peers")?.trim().is_empty(),
        "the peer is still shown"
    );
    Ok(())
}

impl Network {
    fn new([first, second]: [Implementation; 2]) -> Result<Self> {
        ensure!(is_root()?, "needs root: network namespaces and TUN devices");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "{}{}",
            std::process::id() % 100_000,
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(format!("edgeward-interop-{unique}"));
        fs::create_dir(&folder)?;
        let side = |letter: char, outer, inner4, inner6| Side {
            namespace: format!("ewi{unique}{letter}"),
            interface: format!("ewi{unique}{letter}w"),
            outer,
            inner4,
            inner6,
            daemon: None,
            public_key: String::new(),
        };
        let mut network = Self {
            a: side('a', "192.0.2.1", "10.98.0.1", "fd98::1"),
            b: side('b', "192.0.2.2", "10.98.0.2", "fd98::2"),
            folder,
        };
        let (a, b) = (network.a.namespace.clone(), network.b.namespace.clone());
        let (veth_a, veth_b) = (format!("{a}v"), format!("{b}v"));
        ip(&["netns", "add", &a])?;
        ip(&["netns", "add", &b])?;
        ip(&[
            "link", "add", &veth_a, "netns", &a, "type", "veth", "peer", "name", &veth_b, "netns",
            &b,
        ])?;
        for (side, veth) in [(&network.a, &veth_a), (&network.b, &veth_b)] {
            ip(&[
                "-n",
                &side.namespace,
                "addr",
                "add",
                &format!("{}/24", side.outer),
                "dev",
                veth,
            ])?;
            ip(&["-n", &side.namespace, "link", "set", veth, "up"])?;
        }
        network.a.start(first, &network.folder)?;
        network.b.start(second, &network.folder)?;
        Ok(network)
    }

    /// Gives both sides each other's key. The keys named alike are alike; an empty name is none. Only A learns
    /// where the other side is, so A initiates.
    fn configure(&self, psk_a: &str, psk_b: &str) -> Result<()> {
        for name in ["right", "wrong"] {
            write_secret(&self.folder.join(name), &pipe("wg", &["genpsk"], &[])?)?;
        }
        self.a.set_peer(&self.b, psk_a, &self.folder, true)?;
        self.b.set_peer(&self.a, psk_b, &self.folder, false)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for side in [&mut self.a, &mut self.b] {
            if let Some(daemon) = side.daemon.take() {
                stop(daemon);
            }
            let _gone_already = ip(&["netns", "del", &side.namespace]);
        }
        let _gone_already = fs::remove_dir_all(&self.folder);
    }
}

impl Side {
    fn start(&mut self, implementation: Implementation, folder: &Path) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        match implementation {
            Implementation::Edgeward => {
                command
                    .arg(example()?)
                    .args([&self.interface, "--listen-port", "51820"])
            }
            Implementation::WireguardGo => {
                command.args(["wireguard-go", "--foreground", &self.interface])
            }
        };
        let log = fs::File::create(folder.join(format!("{}.log", self.interface)))?;
        let daemon = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("daemon")?;
        self.daemon = Some(daemon);
        let socket = PathBuf::from(format!("/var/run/wireguard/{}.sock", self.interface));
        let deadline = Instant::now() + START_TIMEOUT;
        while !socket.exists() {
            ensure!(
                Instant::now() < deadline,
                "{implementation:?} did not open {}",
                socket.display()
            );
            thread::sleep(Duration::from_millis(20));
        }
        let private = pipe("wg", &["genkey"], &[])?;
        let key_file = folder.join(format!("{}.key", self.interface));
        write_secret(&key_file, &private)?;
        self.public_key = String::from_utf8(pipe("wg", &["pubkey"], &private)?)?
            .trim()
            .to_owned();
        run(
            "wg",
            &[
                "set",
                &self.interface,
                "private-key",
                text(&key_file)?,
                "listen-port",
                "51820",
            ],
        )?;
        for address in [format!("{}/24", self.inner4), format!("{}/64", self.inner6)] {
            ip(&[
                "-n",
                &self.namespace,
                "addr",
                "add",
                &address,
                "dev",
                &self.interface,
                "nodad",
            ])
            .or_else(|_| {
                ip(&[
                    "-n",
                    &self.namespace,
                    "addr",
                    "add",
                    &address,
                    "dev",
                    &self.interface,
                ])
            })?;
        }
        ip(&[
            "-n",
            &self.namespace,
            "link",
            "set",
            &self.interface,
            "mtu",
            "1420",
            "up",
        ])?;
        Ok(())
    }

    fn set_peer(&self, peer: &Self, psk: &str, folder: &Path, with_endpoint: bool) -> Result<()> {
        let allowed = format!("{}/32,{}/128", peer.inner4, peer.inner6);
        let endpoint = format!("{}:51820", peer.outer);
        let psk_file = folder.join(psk);
        let mut arguments = vec!["set", &self.interface, "peer", &peer.public_key];
        if !psk.is_empty() {
            arguments.extend(["preshared-key", text(&psk_file)?]);
        }
        if with_endpoint {
            arguments.extend(["endpoint", &endpoint]);
        }
        arguments.extend(["allowed-ips", &allowed]);
        run("wg", &arguments)
    }

    fn set_config(&self, folder: &Path, config: &str) -> Result<()> {
        let file = folder.join(format!("{}.conf", self.interface));
        write_secret(&file, config.as_bytes())?;
        run("wg", &["setconf", &self.interface, text(&file)?])
    }

    fn show(&self, what: &str) -> Result<String> {
        let output = Command::new("wg")
            .args(["show", &self.interface, what])
            .output()?;
        ensure!(
            output.status.success(),
            "wg show: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    fn has_handshake(&self) -> Result<bool> {
        let shown = self.show("latest-handshakes")?;
        Ok(shown
            .split_whitespace()
            .last()
            .is_some_and(|seconds| seconds != "0"))
    }

    fn ping_until_answered(&self, to: &str) -> Result<()> {
        let deadline = Instant::now() + FIRST_PACKET;
        while Instant::now() < deadline {
            if self.try_ping(to, 1, 1)? {
                return Ok(());
            }
        }
        bail!("{} does not answer through the tunnel", to)
    }

    /// Every one of `count` packets must be answered.
    fn ping(&self, to: &str, count: u32) -> Result<()> {
        for number in 0..count {
            ensure!(
                self.try_ping(to, 1, 2)?,
                "packet {number} to {to} was not answered"
            );
        }
        Ok(())
    }

    /// Larger than the tunnel's MTU: the packet travels in fragments.
    fn ping_sized(&self, to: &str, bytes: u32) -> Result<()> {
        let status = self
            .command()
            .args([
                "ping",
                "-q",
                "-c",
                "2",
                "-i",
                "0.2",
                "-W",
                "2",
                "-s",
                &bytes.to_string(),
                to,
            ])
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "{bytes} bytes to {to} were not answered");
        Ok(())
    }

    /// Whether any of `count` packets was answered within `wait` seconds each.
    fn try_ping(&self, to: &str, count: u32, wait: u32) -> Result<bool> {
        let (count, wait) = (count.to_string(), wait.to_string());
        let status = self
            .command()
            .args(["ping", "-q", "-c", &count, "-i", "0.2", "-W", &wait, to])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        command
    }
}

/// The example binary beside the test's own, built if it is not there.
pub fn example() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own
        .parent()
        .and_then(Path::parent)
        .context("the test binary is in no target folder")?;
    let path = profile.join("examples").join("plain-wireguard");
    if !path.exists() {
        let cargo = option_env!("CARGO").unwrap_or("cargo");
        run(
            cargo,
            &[
                "build",
                "--quiet",
                "-p",
                "edgeward-tunnel",
                "--example",
                "plain-wireguard",
            ],
        )?;
    }
    ensure!(path.exists(), "not found: {}", path.display());
    Ok(path)
}

fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output()?;
    Ok(output.stdout.trim_ascii() == b"0")
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| program.to_owned())?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Runs a program with `input`; its output.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| program.to_owned())?;
    child.stdin.take().context("no input")?.write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{program} failed");
    Ok(output.stdout)
}

fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(bytes)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("path is not text")
}

/// Ends a daemon, by SIGTERM first.
fn stop(mut daemon: Child) {
    let _gone_already = Command::new("kill").arg(daemon.id().to_string()).status();
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if matches!(daemon.try_wait(), Ok(Some(_))) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _gone_already = daemon.kill();
    let _gone_already = daemon.wait();
}
