//! Plain WireGuard on Edgeward's tunnel: no bind, no identities, everything allowed.
//!
//! It exists to prove that the WireGuard core speaks the protocol of everybody else, and to be measured beside them.
//! It is configured as other userspace implementations are, with `wg set` or `wg setconf` through the control
//! socket, or from a file of that format.
//!
//! ```text
//! plain-wireguard wg0 --address 10.0.0.1/24 --listen-port 51820 --config wg0.conf
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_identity::{BootTime, Clock, Secret, SystemClock};
use edgeward_tunnel::filter::{Decide, Direction, Filter, FlowKey, FlowVerdict};
use edgeward_tunnel::node::{ArmRefused, Node, NodeConfig, PeerConfig, PeerId, Role};
use edgeward_tunnel::shell::demux::quic_inbox;
use edgeward_tunnel::shell::tun::TunConfig;
use edgeward_tunnel::shell::udp::{UdpOffload, any_address};
use edgeward_tunnel::shell::{Profile, ShellConfig, SystemRandom, Threads, Tunnel};
use edgeward_tunnel::uapi::request::{PeerChange, SetRequest};
use edgeward_tunnel::uapi::{Backend, Interface, UapiServer, show};
use edgeward_tunnel::wireguard::StaticKeys;
use ipnet::IpNet;
use nix::errno::Errno;
use parking_lot::Mutex;

const USAGE: &str =
    "usage: plain-wireguard NAME [--address CIDR]... [--listen-port N] [--config FILE] [--mtu N]
    [--uapi PATH] [--no-tun-offload] [--no-udp-gso] [--no-udp-gro] [--no-linger]
    [--profile throughput|balanced|small] [--threads auto|0|1|2]";
/// The longest file of the `wg setconf` format that is read, in bytes.
const MAX_CONFIG_BYTES: usize = 1 << 20;
/// Nothing ends here by itself.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

struct Arguments {
    shell: ShellConfig,
    config: Option<PathBuf>,
    uapi: PathBuf,
}

/// Everything may pass; this is the difference to an agent.
struct AllowAll;

/// What was configured, and the tunnel it was applied to.
struct Plain {
    tunnel: Arc<Tunnel>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    private_key: Option<Secret<[u8; 32]>>,
    keys: Option<Arc<StaticKeys>>,
    peers: BTreeMap<[u8; 32], Configured>,
    last_id: u64,
}

struct Configured {
    id: PeerId,
    psk: Secret<[u8; 32]>,
    endpoint: Option<SocketAddr>,
    persistent_keepalive: Option<Duration>,
    allowed_ips: Vec<IpNet>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse(std::env::args().skip(1)).context(USAGE)?;
    let change = arguments.config.as_deref().map(read_config).transpose()?;
    let node = Node::new(
        NodeConfig {
            mtu: arguments.shell.tun.mtu.into(),
            allow_zero_psk: true,
        },
        Box::new(SystemRandom::default()),
    )
    .booted_at(
        SystemClock
            .now()
            .minus(SystemClock.boottime().as_duration()),
    );
    let filter = Filter::new(Arc::new(AllowAll));
    let (quic, _nobody) = quic_inbox();
    let clock = Arc::new(SystemClock);
    let tunnel = Tunnel::start(
        &arguments.shell,
        Arc::new(node),
        Arc::new(filter),
        quic,
        clock,
    )?;
    let plain = Arc::new(Plain {
        tunnel: Arc::new(tunnel),
        state: Mutex::default(),
    });
    if let Some(change) = change {
        plain.set(change).context("configuration")?;
    }
    let server = UapiServer::start(&arguments.uapi, Arc::clone(&plain) as Arc<dyn Backend>)
        .context("control socket")?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut watch = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = watch.tick() => if !plain.tunnel.is_running() {
                bail!("the device or the port is gone");
            },
        }
    }
    drop(server);
    plain.tunnel.stop();
    Ok(())
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let name = arguments.next().context("no interface name")?;
        let mut parsed = Self {
            uapi: Path::new("/var/run/wireguard").join(format!("{name}.sock")),
            shell: ShellConfig {
                tun: TunConfig {
                    name,
                    mtu: 1420,
                    ipv4: None,
                    ipv6: Vec::new(),
                    offload: true,
                },
                listen: any_address(0),
                udp: UdpOffload::default(),
                profile: Profile::default(),
                threads: Threads::default(),
                linger: true,
            },
            config: None,
        };
        while let Some(option) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{option} needs a value"))
            };
            let shell = &mut parsed.shell;
            match option.as_str() {
                "--address" => match value()?.parse::<IpNet>()? {
                    IpNet::V4(v4) => shell.tun.ipv4 = Some((v4.addr(), v4.prefix_len())),
                    IpNet::V6(v6) => shell.tun.ipv6.push((v6.addr(), v6.prefix_len())),
                },
                "--listen-port" => shell.listen.set_port(value()?.parse()?),
                "--mtu" => shell.tun.mtu = value()?.parse()?,
                "--config" => parsed.config = Some(value()?.into()),
                "--uapi" => parsed.uapi = value()?.into(),
                "--no-tun-offload" => shell.tun.offload = false,
                "--no-udp-gso" => shell.udp.gso = false,
                "--no-udp-gro" => shell.udp.gro = false,
                "--no-linger" => shell.linger = false,
                "--profile" => {
                    shell.profile = match value()?.as_str() {
                        "throughput" => Profile::Throughput,
                        "balanced" => Profile::Balanced,
                        "small" => Profile::Small,
                        unknown => bail!("unknown profile {unknown}"),
                    }
                }
                "--threads" => {
                    shell.threads = match value()?.as_str() {
                        "auto" => Threads::Auto,
                        "0" => Threads::Shared,
                        "1" => Threads::One,
                        "2" => Threads::Two,
                        unknown => bail!("unknown number of threads: {unknown}"),
                    }
                }
                unknown => bail!("unknown option {unknown}"),
            }
        }
        Ok(parsed)
    }
}

impl Decide for AllowAll {
    fn decide(
        &self,
        _flow: &FlowKey,
        _peer: PeerId,
        _direction: Direction,
        now: BootTime,
    ) -> FlowVerdict {
        FlowVerdict {
            allow: true,
            rule: "allow-all".into(),
            valid_until: now.plus(FOR_EVER),
        }
    }
}

impl Backend for Plain {
    fn get(&self) -> Interface {
        let state = self.state.lock();
        let mut interface = show(&self.tunnel, &SystemClock);
        interface.private_key = state.private_key.clone();
        for peer in &mut interface.peers {
            peer.psk = state
                .peers
                .get(&peer.status.public_key)
                .map(|peer| peer.psk.clone());
        }
        interface
    }

    fn set(&self, change: SetRequest) -> Result<(), Errno> {
        let port = self.tunnel.local_addr().map_or(0, |address| address.port());
        // The port is opened once, at start (0 asks for any); marks are for policy routing, left alone here.
        if change
            .listen_port
            .is_some_and(|wanted| wanted != 0 && wanted != port)
            || change.fwmark.is_some_and(|mark| mark != 0)
        {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if let Some(key) = change.private_key {
            state.set_key(key);
            let peers: Vec<[u8; 32]> = state.peers.keys().copied().collect();
            for peer in peers {
                self.rearm(&mut state, &peer)?;
            }
        }
        if change.replace_peers {
            for peer in std::mem::take(&mut state.peers).into_values() {
                self.tunnel.cut(peer.id);
            }
        }
        for peer in change.peers {
            self.set_peer(&mut state, peer)?;
        }
        Ok(())
    }
}

impl Plain {
    fn set_peer(&self, state: &mut State, change: PeerChange) -> Result<(), Errno> {
        let key = change.public_key;
        if change.remove {
            if let Some(peer) = state.peers.remove(&key) {
                self.tunnel.cut(peer.id);
            }
            return Ok(());
        }
        if change.update_only && !state.peers.contains_key(&key) {
            return Ok(());
        }
        // A prefix given to one peer is taken from the other.
        let moved: Vec<[u8; 32]> = state
            .peers
            .iter_mut()
            .filter(|(other, _)| **other != key)
            .filter_map(|(other, peer)| {
                let before = peer.allowed_ips.len();
                peer.allowed_ips
                    .retain(|prefix| !change.allowed_ips.contains(prefix));
                (peer.allowed_ips.len() < before).then_some(*other)
            })
            .collect();
        for other in moved {
            if let Some(peer) = state.peers.get(&other) {
                let _not_armed = self
                    .tunnel
                    .node()
                    .set_allowed_ips(peer.id, &peer.allowed_ips);
            }
        }
        let peer = state.peers.entry(key).or_insert_with(|| Configured {
            id: PeerId(0),
            psk: Secret::new([0; 32]),
            endpoint: None,
            persistent_keepalive: None,
            allowed_ips: Vec::new(),
        });
        if change.replace_allowed_ips {
            peer.allowed_ips.clear();
        }
        for prefix in change.allowed_ips {
            if !peer.allowed_ips.contains(&prefix.trunc()) {
                peer.allowed_ips.push(prefix.trunc());
            }
        }
        peer.endpoint = change.endpoint.or(peer.endpoint);
        if let Some(psk) = change.psk {
            peer.psk = psk;
        }
        if let Some(interval) = change.persistent_keepalive {
            peer.persistent_keepalive = Some(interval).filter(|interval| !interval.is_zero());
        }
        self.rearm(state, &key)
    }

    /// Takes the peer away and arms it as it is configured now.
    fn rearm(&self, state: &mut State, key: &[u8; 32]) -> Result<(), Errno> {
        state.last_id += 1;
        let (id, keys) = (PeerId(state.last_id), state.keys.clone());
        let Some(peer) = state.peers.get_mut(key) else {
            return Ok(());
        };
        self.tunnel.cut(peer.id);
        peer.id = id;
        let Some(keys) = keys else { return Ok(()) };
        let armed = self.tunnel.arm(PeerConfig {
            id,
            name: STANDARD.encode(key),
            role: Role::Either,
            public_key: *key,
            keys,
            psk: peer.psk.clone(),
            epoch: 1,
            allowed_ips: peer.allowed_ips.clone(),
            endpoints: peer.endpoint.into_iter().collect(),
            valid_until: SystemClock.boottime().plus(FOR_EVER),
            persistent_keepalive: peer.persistent_keepalive,
        });
        match armed {
            // As elsewhere: a peer with our own key is never talked to.
            Ok(()) | Err(ArmRefused::BadKey) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "peer refused");
                Err(Errno::EINVAL)
            }
        }
    }
}

impl State {
    fn set_key(&mut self, key: Secret<[u8; 32]>) {
        if key.matches(&[0; 32]) {
            self.private_key = None;
            self.keys = None;
        } else {
            self.keys = Some(Arc::new(StaticKeys::new(key.clone())));
            self.private_key = Some(key);
        }
    }
}

/// Reads a file of the `wg setconf` format (wg(8), CONFIGURATION FILE FORMAT).
fn read_config(path: &Path) -> anyhow::Result<SetRequest> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if text.len() > MAX_CONFIG_BYTES {
        bail!("{}: longer than {MAX_CONFIG_BYTES} bytes", path.display());
    }
    let mut change = SetRequest {
        replace_peers: true,
        ..SetRequest::default()
    };
    let mut section = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let place = || format!("{}:{}", path.display(), number + 1);
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name.to_ascii_lowercase();
            if section == "peer" {
                change.peers.push(PeerChange::new([0; 32]));
            }
            continue;
        }
        let (key, value) = line.split_once('=').with_context(place)?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        match (section.as_str(), change.peers.last_mut()) {
            ("interface", _) => read_interface(&mut change, &key, value).with_context(place)?,
            ("peer", Some(peer)) => read_peer(peer, &key, value).with_context(place)?,
            _ => bail!("{}: outside a section", place()),
        }
    }
    Ok(change)
}

fn read_interface(change: &mut SetRequest, key: &str, value: &str) -> anyhow::Result<()> {
    match key {
        "privatekey" => change.private_key = Some(read_key(value)?),
        "listenport" => change.listen_port = Some(value.parse()?),
        "fwmark" => change.fwmark = Some(value.parse()?),
        unknown => bail!("unknown key {unknown}"),
    }
    Ok(())
}

fn read_peer(peer: &mut PeerChange, key: &str, value: &str) -> anyhow::Result<()> {
    match key {
        "publickey" => peer.public_key = *read_key(value)?.expose(),
        "presharedkey" => peer.psk = Some(read_key(value)?),
        "endpoint" => peer.endpoint = Some(value.parse()?),
        "persistentkeepalive" if value == "off" => peer.persistent_keepalive = Some(Duration::ZERO),
        "persistentkeepalive" => {
            peer.persistent_keepalive = Some(Duration::from_secs(value.parse::<u16>()?.into()))
        }
        "allowedips" => {
            for prefix in value
                .split(',')
                .map(str::trim)
                .filter(|prefix| !prefix.is_empty())
            {
                peer.allowed_ips.push(read_prefix(prefix)?);
            }
        }
        unknown => bail!("unknown key {unknown}"),
    }
    Ok(())
}

fn read_key(text: &str) -> anyhow::Result<Secret<[u8; 32]>> {
    let bytes = STANDARD.decode(text)?;
    let key = bytes.try_into().ok().context("a key has 32 bytes")?;
    Ok(Secret::new(key))
}

fn read_prefix(text: &str) -> anyhow::Result<IpNet> {
    if text.contains('/') {
        return Ok(text.parse()?);
    }
    Ok(match text.parse::<IpAddr>()? {
        IpAddr::V4(v4) => ipnet::Ipv4Net::new(v4, Ipv4Addr::BITS as u8)?.into(),
        IpAddr::V6(v6) => ipnet::Ipv6Net::new(v6, Ipv6Addr::BITS as u8)?.into(),
    })
}
