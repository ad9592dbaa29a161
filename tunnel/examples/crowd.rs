//! Many WireGuard peers in one process, without devices: what one node pays for a thousand of them.
//!
//! ```text
//! crowd config PEERS                     writes the hub's configuration, as `wg setconf` reads it
//! crowd run PEERS ACTIVE SECONDS PORT    opens all sessions, then lets some of the peers send, then says so
//! ```
//!
//! Each peer is a node of the tunnel's core; all of them share one UDP socket. Driven by `tests/bench/tunnel/crowd`.

#![allow(
    clippy::indexing_slicing,
    reason = "a measuring tool: an index out of range ends it"
)]

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_identity::{BootTime, Clock, Secret, SystemClock};
use edgeward_tunnel::node::{
    Endpoint, Inbound, Node, NodeConfig, Outgoing, PeerConfig, PeerId, Role,
};
use edgeward_tunnel::shell::SystemRandom;
use edgeward_tunnel::wireguard::{DATA_OVERHEAD_BYTES, StaticKeys};

const MTU: usize = 1420;
const HUB: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
/// Sessions opened at a time: a hub asks for cookies above 100 handshakes a second.
const AT_ONCE: usize = 50;
const PACKET_BYTES: usize = 1280;
const PATIENCE: Duration = Duration::from_secs(60);

struct Crowd {
    socket: UdpSocket,
    hub: SocketAddr,
    peers: Vec<Node>,
    /// Which peer a message with this receiver index is for.
    owners: HashMap<[u8; 4], usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> anyhow::Result<usize> {
        let text = arguments.get(at).context("too few arguments")?;
        Ok(text.parse()?)
    };
    match arguments.first().map(String::as_str) {
        Some("config") => write_config(number(1)?),
        Some("run") => run(number(1)?, number(2)?, number(3)?, number(4)?),
        _ => bail!("usage: crowd config PEERS | crowd run PEERS ACTIVE SECONDS PORT"),
    }
}

fn key(number: usize) -> Secret<[u8; 32]> {
    let mut key = [7; 32];
    // Not at the ends, of which X25519 takes bits away.
    key[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    Secret::new(key)
}

/// The hub has number zero.
fn keys(number: usize) -> Arc<StaticKeys> {
    Arc::new(StaticKeys::new(key(number)))
}

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(HUB.to_bits() + u32::try_from(number).unwrap_or(0))
}

fn write_config(peers: usize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let private = STANDARD.encode(key(0).expose());
    writeln!(out, "[Interface]\nPrivateKey = {private}")?;
    for number in 1..=peers {
        let public = STANDARD.encode(keys(number).public());
        let ip = address(number);
        writeln!(out, "[Peer]\nPublicKey = {public}\nAllowedIPs = {ip}/32")?;
    }
    Ok(())
}

fn run(peers: usize, active: usize, seconds: usize, port: usize) -> anyhow::Result<()> {
    let mut crowd = Crowd::new(peers, u16::try_from(port)?)?;
    for first in (0..peers).step_by(AT_ONCE) {
        crowd.open(first..(first + AT_ONCE).min(peers))?;
    }
    say("open")?;
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let mut sent = 0u64;
    while Instant::now() < end {
        for peer in 0..active.min(peers) {
            crowd.send(peer)?;
            sent += 1;
        }
        crowd.receive(Duration::from_millis(1))?;
    }
    say(&format!("sent {sent}"))
}

fn say(what: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}

fn now() -> BootTime {
    SystemClock.boottime()
}

impl Crowd {
    fn new(peers: usize, port: u16) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let config = NodeConfig {
            mtu: MTU,
            allow_zero_psk: true,
        };
        let node = |_| Node::new(config, Box::new(SystemRandom::default()));
        Ok(Self {
            socket,
            hub: SocketAddr::from(([127, 0, 0, 1], port)),
            peers: (0..peers).map(node).collect(),
            owners: HashMap::new(),
        })
    }

    /// Opens the sessions of these peers, and waits until they are.
    fn open(&mut self, range: std::ops::Range<usize>) -> anyhow::Result<()> {
        let began = Instant::now();
        for peer in range.clone() {
            let config = PeerConfig {
                id: PeerId(1),
                name: String::new(),
                role: Role::Initiator,
                public_key: keys(0).public(),
                keys: keys(peer + 1),
                psk: Secret::new([0; 32]),
                epoch: 1,
                allowed_ips: vec![ipnet::Ipv4Net::new(HUB, 32)?.into()],
                endpoints: vec![self.hub],
                valid_until: now().plus(Duration::from_secs(1 << 30)),
                persistent_keepalive: None,
            };
            let mut out = Vec::new();
            self.peers[peer].arm(config, now(), &mut out)?;
            self.put(peer, out)?;
        }
        while range.clone().any(|peer| !self.is_open(peer)) {
            anyhow::ensure!(began.elapsed() < PATIENCE, "sessions do not open");
            self.receive(Duration::from_millis(20))?;
            for peer in range.clone() {
                let mut out = Vec::new();
                self.peers[peer].handle_timeout(now(), &mut out);
                self.put(peer, out)?;
            }
        }
        // Handshakes of one second stay below what makes the hub ask for cookies.
        let rest = Duration::from_millis(600).saturating_sub(began.elapsed());
        self.receive(rest.max(Duration::from_millis(1)))
    }

    fn is_open(&self, peer: usize) -> bool {
        self.peers[peer]
            .status()
            .iter()
            .any(|hub| hub.open.is_some())
    }

    fn send(&mut self, peer: usize) -> anyhow::Result<()> {
        let mut packet = [0; PACKET_BYTES];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(PACKET_BYTES as u16).to_be_bytes());
        packet[9] = 17;
        packet[12..16].copy_from_slice(&address(peer + 1).octets());
        packet[16..20].copy_from_slice(&HUB.octets());
        let mut out = Vec::new();
        if let Some(hub) = self.peers[peer].route(HUB.into())
            && let Ok(mut sealer) = hub.sealer(&self.peers[peer], now())
        {
            let mut bytes = vec![0; PACKET_BYTES + DATA_OVERHEAD_BYTES];
            match sealer.endpoint() {
                Some(to) if sealer.seal(&packet, &mut bytes).is_ok() => {
                    out.push(Outgoing { to, bytes });
                }
                _ => sealer.hold(&packet, &mut out),
            }
        }
        self.put(peer, out)
    }

    fn put(&mut self, peer: usize, out: Vec<Outgoing>) -> anyhow::Result<()> {
        for datagram in out {
            if let (Some([1, ..]), Some(index)) = (
                datagram.bytes.first_chunk::<4>(),
                datagram
                    .bytes
                    .get(4..8)
                    .and_then(|index| index.try_into().ok()),
            ) {
                self.owners.insert(index, peer);
            }
            self.socket.send_to(&datagram.bytes, datagram.to.remote)?;
        }
        Ok(())
    }

    /// Takes what arrives within `wait`.
    fn receive(&mut self, wait: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + wait;
        let mut buffer = [0; 2048];
        let mut batch = Inbound::with_capacity(1 << 12);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok((length, remote)) = self.socket.recv_from(&mut buffer) else {
                continue;
            };
            let datagram = &buffer[..length];
            let at = if datagram.first() == Some(&2) { 8 } else { 4 };
            let index = datagram
                .get(at..at + 4)
                .and_then(|index| index.try_into().ok());
            let owner = index.and_then(|index: [u8; 4]| self.owners.get(&index));
            let Some(peer) = owner.copied() else {
                continue;
            };
            batch.clear();
            let from = Endpoint {
                remote,
                local_ip: None,
            };
            self.peers[peer].receive(from, datagram, length, now(), &mut batch);
            let out = std::mem::take(&mut batch.outgoing);
            self.put(peer, out)?;
        }
    }
}
