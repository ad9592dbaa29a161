//! The socket that `wg show` speaks to: WireGuard's cross-platform userspace protocol
//! (<https://www.wireguard.com/xplatform/>), `get=1` always and `set=1` where the backend allows it.
//!
//! The agent serves it read-only through [`ReadOnly`], which shows no private and no pre-shared key.

pub mod request;

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use edgeward_identity::{Clock, Secret, Timestamp};
use nix::errno::Errno;

use crate::node::PeerStatus;
use crate::shell::Tunnel;
use crate::shell::stop::{Stop, Wake, Watch, pair};
use request::{MAX_REQUEST_BYTES, Request, SetRequest};

/// How long a client may take for one request or answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Most requests on one connection.
const MAX_REQUESTS: usize = 64;

/// What a `get` shows of the interface.
#[derive(Debug, Default)]
pub struct Interface {
    /// `None` for the agent.
    pub private_key: Option<Secret<[u8; 32]>>,
    pub listen_port: u16,
    pub peers: Vec<Peer>,
}

/// What a `get` shows of a peer.
#[derive(Debug)]
pub struct Peer {
    pub status: PeerStatus,
    /// Wall-clock time of the last handshake.
    pub last_handshake: Option<Timestamp>,
    /// `None` for the agent.
    pub psk: Option<Secret<[u8; 32]>>,
}

/// Who answers.
pub trait Backend: Send + Sync {
    fn get(&self) -> Interface;

    /// Applies a change, or says which error number to answer.
    fn set(&self, change: SetRequest) -> Result<(), Errno>;
}

/// Shows a tunnel, changes nothing.
pub struct ReadOnly {
    tunnel: Arc<Tunnel>,
    clock: Arc<dyn Clock>,
}

/// A listening socket; gone when dropped.
#[derive(Debug)]
pub struct UapiServer {
    path: PathBuf,
    stop: Option<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl ReadOnly {
    pub fn new(tunnel: Arc<Tunnel>, clock: Arc<dyn Clock>) -> Self {
        Self { tunnel, clock }
    }
}

impl Backend for ReadOnly {
    fn get(&self) -> Interface {
        show(&self.tunnel, &*self.clock)
    }

    fn set(&self, _change: SetRequest) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
}

/// A tunnel without its keys.
pub fn show(tunnel: &Tunnel, clock: &dyn Clock) -> Interface {
    let (now, since_boot) = (clock.now(), clock.boottime());
    Interface {
        private_key: None,
        listen_port: tunnel.local_addr().map_or(0, |address| address.port()),
        peers: tunnel
            .node()
            .status()
            .into_iter()
            .map(|status| Peer {
                last_handshake: status
                    .last_handshake
                    .map(|at| now.minus(since_boot.since(at))),
                psk: None,
                status,
            })
            .collect(),
    }
}

impl UapiServer {
    /// Listens on `path` (`/var/run/wireguard/<interface>.sock` is where `wg` looks), for root only.
    pub fn start(path: &Path, backend: Arc<dyn Backend>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // A socket that nobody listens on is left by a killed process; one that answers belongs to another.
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let (stop, watch) = pair()?;
        let thread = std::thread::Builder::new()
            .name("tunnel-uapi".to_owned())
            .spawn(move || serve(&listener, &watch, &*backend))?;
        Ok(Self {
            path: path.to_owned(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for UapiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the control socket panicked");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "control socket not removed");
        }
    }
}

/// Answers one client after the other until stopped.
fn serve(listener: &UnixListener, watch: &Watch, backend: &dyn Backend) {
    while let Ok(wake) = watch.wait_readable(listener.as_fd()) {
        if wake == Wake::Stopped {
            return;
        }
        if let Ok((client, _)) = listener.accept()
            && let Err(error) = converse(client, backend)
        {
            tracing::debug!(%error, "client of the control socket");
        }
    }
}

fn converse(mut client: UnixStream, backend: &dyn Backend) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut waiting = Vec::new();
    for _ in 0..MAX_REQUESTS {
        let Some(text) = read_request(&mut client, &mut waiting)? else {
            return Ok(());
        };
        let answer = answer(&text, backend);
        client.write_all(answer.expose())?;
    }
    Ok(())
}

/// Bytes up to an empty line; `None` at the end.
fn read_request(
    client: &mut UnixStream,
    waiting: &mut Vec<u8>,
) -> io::Result<Option<Secret<Vec<u8>>>> {
    loop {
        if let Some(end) = waiting.windows(2).position(|pair| pair == b"\n\n") {
            let rest = waiting.split_off(end + 2);
            return Ok(Some(Secret::new(std::mem::replace(waiting, rest))));
        }
        if waiting.len() > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut chunk = [0; 4096];
        match client.read(&mut chunk)? {
            0 => return Ok(None),
            length => waiting.extend_from_slice(chunk.get(..length).unwrap_or_default()),
        }
    }
}

fn answer(text: &Secret<Vec<u8>>, backend: &dyn Backend) -> Secret<Vec<u8>> {
    let (mut out, errno) = match request::parse(text.expose()) {
        Ok(Request::Get) => (format_interface(&backend.get()), 0),
        Ok(Request::Set(change)) => (
            String::new(),
            backend
                .set(*change)
                .map_or_else(|errno| errno as i32, |()| 0),
        ),
        Err(error) => {
            tracing::debug!(%error, "request on the control socket");
            (String::new(), Errno::EINVAL as i32)
        }
    };
    put(&mut out, "errno", errno);
    out.push('\n');
    Secret::new(out.into_bytes())
}

fn format_interface(interface: &Interface) -> String {
    let mut out = String::new();
    if let Some(key) = &interface.private_key {
        put(&mut out, "private_key", hex::encode(key.expose()));
    }
    put(&mut out, "listen_port", interface.listen_port);
    for peer in &interface.peers {
        let status = &peer.status;
        put(&mut out, "public_key", hex::encode(status.public_key));
        if let Some(psk) = &peer.psk {
            put(&mut out, "preshared_key", hex::encode(psk.expose()));
        }
        put(&mut out, "protocol_version", 1);
        if let Some(endpoint) = status.endpoint {
            put(&mut out, "endpoint", endpoint);
        }
        let handshake = peer.last_handshake.unwrap_or_default();
        put(&mut out, "last_handshake_time_sec", handshake.secs());
        put(
            &mut out,
            "last_handshake_time_nsec",
            (handshake.millis() % 1000) * 1_000_000,
        );
        put(&mut out, "tx_bytes", status.sent_bytes);
        put(&mut out, "rx_bytes", status.received_bytes);
        let keepalive = status
            .persistent_keepalive
            .map_or(0, |interval| interval.as_secs());
        put(&mut out, "persistent_keepalive_interval", keepalive);
        for prefix in &status.allowed_ips {
            put(&mut out, "allowed_ip", prefix);
        }
    }
    out
}

fn put(out: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _never = writeln!(out, "{key}={value}");
}

#[cfg(test)]
mod tests;
