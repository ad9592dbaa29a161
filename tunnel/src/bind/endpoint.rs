//! The QUIC endpoint of the bind: its configurations, and what a finished handshake says.
//!
//! TLS 1.3 with both SVIDs, kind `node` only, ALPN [`ALPN`]; no resumption, no early data, no migration of the
//! roles, one bidirectional stream, small windows, no datagrams. The QUIC bit is not greased, since WireGuard
//! shares the port. Every first flight carries a pass ([`super::gate`]) as its destination connection ID.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::svid::SvidError;
use edgeward_identity::tls::peer::PeerRefused;
use edgeward_identity::tls::{Credentials, PeerVerifier};
use edgeward_identity::{Clock, Kind, Secret, SpkiHash, Svid, Timestamp, TrustView, VerifiedPeer};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionId, Endpoint, EndpointConfig, IdleTimeout,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use ring::digest;

use super::Role;
use super::blocking::off_the_workers;
use super::gate::Pass;
use super::machine::Channel;
use super::schedule::{ALPN, EXPORTER_BYTES, EXPORTER_LABEL, Party, exporter_context};

/// A connection without any packet for this long is lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(65);
/// The initiator sends something at least this often, which also keeps the mapping of a NAT alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes that a peer may have on their way to us on the stream: one frame and a half.
pub const STREAM_WINDOW_BYTES: u32 = 96 * 1024;
/// First flights that wait to be judged; further ones are refused by the QUIC library.
pub const MAX_WAITING_FLIGHTS: usize = 256;
/// Bytes that a waiting first flight may bring along, and all together.
pub const WAITING_FLIGHT_BYTES: [u64; 2] = [16 * 1024, 1024 * 1024];

/// No host name means anything here; TLS wants one.
const SERVER_NAME: &str = "node.invalid";

/// One SVID as the endpoint presents it. Connections know which one they were made with.
pub struct Identity {
    party: Party,
    not_after: Timestamp,
    server: Arc<ServerConfig>,
    client: Arc<QuicClientConfig>,
    client_transport: Arc<TransportConfig>,
}

/// Why a finished handshake is not a channel for a bind.
#[derive(Debug, thiserror::Error)]
pub enum NoChannel {
    #[error("peer: {0}")]
    Peer(#[from] PeerRefused),
    #[error("peer presented no certificate")]
    NoCertificate,
    #[error("peer speaks another protocol")]
    Alpn,
    #[error("peer is not the one that was announced")]
    OtherPeer,
    #[error("keying material could not be exported")]
    Exporter,
}

/// The SVID cannot be presented over QUIC. Our fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    #[error("the tls library has no cipher suite for quic")]
    Suite,
    #[error(transparent)]
    Svid(#[from] SvidError),
}

impl Identity {
    pub fn new(
        svid: &Svid,
        trust: &Arc<ArcSwap<TrustView>>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, NoIdentity> {
        let credentials = Credentials::new(&off_the_workers(svid)?);
        let verifier = PeerVerifier::mandatory(Arc::clone(trust), Arc::clone(clock), &[Kind::Node]);
        let server = edgeward_identity::tls::server(
            Arc::clone(&credentials),
            Arc::clone(&verifier) as _,
            &[ALPN],
        );
        let client = edgeward_identity::tls::client(credentials, verifier, &[ALPN]);
        Ok(Self {
            party: Party {
                leaf_hash: leaf_hash(svid),
                spki: svid.leaf().key.spki_hash(),
            },
            not_after: svid.leaf().not_after,
            server: Arc::new(server_config(
                QuicServerConfig::try_from(server).map_err(|_| NoIdentity::Suite)?,
            )),
            client: Arc::new(QuicClientConfig::try_from(client).map_err(|_| NoIdentity::Suite)?),
            client_transport: Arc::new(transport(Role::Initiator)),
        })
    }

    pub fn party(&self) -> &Party {
        &self.party
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub fn server_config(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// Dials, with `pass` in the first flight.
    pub fn connect(
        &self,
        endpoint: &Endpoint,
        remote: SocketAddr,
        pass: Pass,
    ) -> Result<quinn::Connecting, quinn::ConnectError> {
        let mut config = ClientConfig::new(Arc::clone(&self.client) as _);
        config.transport_config(Arc::clone(&self.client_transport));
        config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&pass)));
        endpoint.connect_with(config, remote, SERVER_NAME)
    }

    /// What a finished handshake is to the bind. `expected` is the key that was dialled, or claimed in the pass.
    pub fn channel(
        &self,
        connection: &Connection,
        role: Role,
        expected: &SpkiHash,
        trust: &TrustView,
        now: Timestamp,
    ) -> Result<Channel, NoChannel> {
        let protocol = connection
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .and_then(|data| data.protocol);
        if protocol.as_deref() != Some(ALPN) {
            return Err(NoChannel::Alpn);
        }
        let presented = connection.peer_identity().ok_or(NoChannel::NoCertificate)?;
        let peer = VerifiedPeer::of_quic(presented, trust, &[Kind::Node], now)?;
        if peer.spki_hash() != *expected {
            return Err(NoChannel::OtherPeer);
        }
        let other = Party {
            leaf_hash: *peer.leaf_hash(),
            spki: peer.spki_hash(),
        };
        let parties = super::machine::parties_of(role, self.party, other);
        let context = exporter_context(trust.bundle.trust_domain(), &parties);
        let mut root = [0; EXPORTER_BYTES];
        connection
            .export_keying_material(&mut root, EXPORTER_LABEL, &context)
            .map_err(|_| NoChannel::Exporter)?;
        Ok(Channel {
            role,
            peer,
            context,
            root: Secret::new(root),
        })
    }
}

/// The endpoint on the shared port. Must be called on the runtime that shall drive it.
pub fn open(socket: Arc<dyn AsyncUdpSocket>, identity: &Identity) -> io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.grease_quic_bit(false);
    Endpoint::new_with_abstract_socket(
        config,
        Some(identity.server.as_ref().clone()),
        socket,
        Arc::new(TokioRuntime),
    )
}

fn server_config(crypto: QuicServerConfig) -> ServerConfig {
    let [one, all] = WAITING_FLIGHT_BYTES;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(Role::Responder)))
        .max_incoming(MAX_WAITING_FLIGHTS)
        .incoming_buffer_size(one)
        .incoming_buffer_size_total(all);
    config
}

fn transport(role: Role) -> TransportConfig {
    let mut config = TransportConfig::default();
    let streams = match role {
        Role::Initiator => 0_u32,
        Role::Responder => 1,
    };
    let idle = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    config
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0_u32.into())
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(STREAM_WINDOW_BYTES.into())
        .send_window(u64::from(STREAM_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None)
        .allow_spin(false)
        .keep_alive_interval((role == Role::Initiator).then_some(KEEP_ALIVE));
    config
}

fn leaf_hash(svid: &Svid) -> [u8; 32] {
    let mut out = [0; 32];
    if let Some(leaf) = svid.chain().first() {
        out.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
    }
    out
}
