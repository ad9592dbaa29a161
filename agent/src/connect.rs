//! One TLS connection to the cloud, and gRPC over it.
//!
//! Our own connector, because evidence is bound to the connection's exported keying material (RFC 8446 7.5) and because
//! the handshake may wait for the TPM: it runs on a thread that may block. A channel made here never reconnects by
//! itself: another connection is another conversation.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edgeward_evidence::Exporter;
use edgeward_identity::tls::{EVIDENCE_EXPORTER_LABEL, EXPORTER_BYTES};
use edgeward_wire::limits::{ALPN_H2, ALPN_H2_QUIET};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

mod verdict;

pub use verdict::Verdict;

use verdict::Heard;

use crate::outside;

/// How long one address may take to answer, TLS included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// A silent cloud is pinged this often and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Where nobody pings, the kernel asks after a silence of so long whether the connection is still there: a router on the
/// way may have forgotten it, and then no cut would come through before the next challenge is missed. 132 bytes each.
const PROBE_AFTER: Duration = Duration::from_secs(240);
/// How long it waits for an answer, and how often it asks again.
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 3;

/// A connection that is up.
pub struct Connected {
    pub channel: Channel,
    pub exporter: Exporter,
    /// The address of ours that reaches the cloud: the best guess of where peers reach us.
    pub local: IpAddr,
    /// The cloud's, as this connection has it.
    pub remote: SocketAddr,
    /// The address that answered.
    pub address: String,
    /// What its TLS says after the handshake.
    pub verdict: Verdict,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    #[error("no address of the cloud is known")]
    NoAddress,
    /// One failure for each address, in the order they were tried.
    #[error("{}", list(.0))]
    Each(Vec<NotConnected>),
    #[error("{address}: {source}")]
    Unreachable {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{address}: no answer within {} s", CONNECT_DEADLINE.as_secs())]
    Timeout { address: String },
    #[error("{address}: tls: {source}")]
    Tls {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{address}: the other end speaks no http/2")]
    Protocol { address: String },
    #[error("{address}: {source}")]
    Transport {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
}

impl NotConnected {
    /// The TLS alert or verdict, if that is what failed.
    pub fn tls_error(&self) -> Option<&rustls::Error> {
        match self {
            Self::Tls { source, .. } => source.get_ref()?.downcast_ref(),
            Self::Each(failures) => failures.iter().find_map(Self::tls_error),
            _ => None,
        }
    }
}

/// Tries the addresses in order.
pub async fn connect(
    addresses: &[String],
    config: Arc<ClientConfig>,
) -> Result<Connected, NotConnected> {
    let mut failures = Vec::new();
    for address in addresses {
        match connect_one(address, config.clone()).await {
            Ok(connected) => return Ok(connected),
            Err(error) => failures.push(error),
        }
    }
    Err(match failures.len() {
        0 => NotConnected::NoAddress,
        1 => failures.remove(0),
        _ => NotConnected::Each(failures),
    })
}

fn list(failures: &[NotConnected]) -> String {
    let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

async fn connect_one(address: &str, config: Arc<ClientConfig>) -> Result<Connected, NotConnected> {
    let named = || address.to_owned();
    let opened = tokio::time::timeout(CONNECT_DEADLINE, open(address, config))
        .await
        .map_err(|_| NotConnected::Timeout { address: named() })??;
    let (local, remote, stream) = opened;
    let (_, tls) = stream.get_ref();
    let quiet = match tls.alpn_protocol() {
        Some(ALPN_H2) => false,
        Some(ALPN_H2_QUIET) => true,
        _ => return Err(NotConnected::Protocol { address: named() }),
    };
    let mut exported = [0; EXPORTER_BYTES];
    tls.export_keying_material(&mut exported, EVIDENCE_EXPORTER_LABEL, None)
        .map_err(|error| NotConnected::Tls {
            address: named(),
            source: std::io::Error::other(error),
        })?;
    let verdict = Verdict::default();
    let channel = channel_over(Heard::new(stream, verdict.clone()), quiet)
        .await
        .map_err(|source| NotConnected::Transport {
            address: named(),
            source,
        })?;
    Ok(Connected {
        channel,
        exporter: Exporter::from_bytes(exported),
        local,
        remote,
        address: named(),
        verdict,
    })
}

async fn open(
    address: &str,
    config: Arc<ClientConfig>,
) -> Result<(IpAddr, SocketAddr, TlsStream<TcpStream>), NotConnected> {
    let unreachable = |source| NotConnected::Unreachable {
        address: address.to_owned(),
        source,
    };
    let tcp = outside::connect(address).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES);
    SockRef::from(&tcp)
        .set_tcp_keepalive(&probes)
        .map_err(unreachable)?;
    let local = tcp.local_addr().map_err(unreachable)?.ip().to_canonical();
    let remote = tcp.peer_addr().map_err(unreachable)?;
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    // Identity is the SPIFFE ID; the name is not looked at, and not sent either.
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let handshake = TlsConnector::from(config).connect(name, tcp);
    // Signing in a TPM blocks the thread that drives the handshake.
    let runtime = Handle::current();
    // Bounded in there too: nobody can cancel a thread, and a silent peer must not keep one for ever.
    let bounded = async move { tokio::time::timeout(CONNECT_DEADLINE, handshake).await };
    let stream = tokio::task::spawn_blocking(move || runtime.block_on(bounded))
        .await
        .map_err(|error| unreachable(std::io::Error::other(error)))?
        .map_err(|_| NotConnected::Timeout {
            address: address.to_owned(),
        })?
        .map_err(|source| NotConnected::Tls {
            address: address.to_owned(),
            source,
        })?;
    Ok((local, remote, stream))
}

async fn channel_over(
    stream: Heard<TlsStream<TcpStream>>,
    quiet: bool,
) -> Result<Channel, tonic::transport::Error> {
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().take();
        async move {
            stream
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected))
        }
    });
    // TLS is done already; the scheme only fills the pseudo header.
    let endpoint = Endpoint::from_static("http://cloud");
    // A quiet connection that died is found by the heartbeats that the cloud promised.
    let endpoint = match quiet {
        true => endpoint,
        false => endpoint.http2_keep_alive_interval(KEEP_ALIVE),
    };
    endpoint
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(!quiet)
        .connect_with_connector(connector)
        .await
}
