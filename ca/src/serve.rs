//! The one port of the cloud: TLS 1.3, then HTTP/2 or 1.1, then gRPC or REST.
//!
//! A client certificate is optional at this level and must be good where there is one; every route states its callers.
//! The accept loop is our own because evidence is bound to the connection by its exported keying material.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use edgeward_identity::tls::{
    Credentials, EVIDENCE_EXPORTER_LABEL, EXPORTER_BYTES, PeerVerifier, server,
};
use edgeward_identity::{Clock, Kind, TrustView, VerifiedPeer};
use edgeward_wire::limits::{ALPN_H2, ALPN_H2_QUIET, ALPN_HTTP1};
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

mod connections;

use crate::crowd::{Crowd, Place, source_of};
pub use connections::{Caller, Connections};

/// A TLS handshake must end within this time.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Most connections in their handshake; the oldest makes room.
pub const MAX_HALF_OPEN: usize = 1024;
/// Most of these from one address (IPv6: from one /64).
pub const MAX_HALF_OPEN_PER_SOURCE: usize = 256;
/// Most connections without a client certificate (enrolments, API keys); the oldest makes room.
pub const MAX_ANONYMOUS: usize = 4096;
/// Most of these from one address (IPv6: from one /64).
pub const MAX_ANONYMOUS_PER_SOURCE: usize = 512;
/// Most requests at a time on one connection.
const MAX_STREAMS: u32 = 64;
/// Largest sum of a request's header fields, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Data in flight that one request, and one connection, may send before somebody reads it, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// A silent HTTP/2 peer is pinged this often, and dropped when it does not answer for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// An HTTP/1.1 peer must send its header within this time.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// How long open requests may take after shutdown began; less than the process's own deadline.
const DRAIN: Duration = Duration::from_secs(7);
/// How long the loop rests when the kernel has no file or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Told when a presented certificate is refused: the address and the reason.
pub type OnRefused = Arc<dyn Fn(IpAddr, String) + Send + Sync>;

/// What the port needs. Built once, moved into [`Server::run`].
pub struct Server {
    pub credentials: Arc<Credentials>,
    pub trust: Arc<ArcSwap<TrustView>>,
    pub clock: Arc<dyn Clock>,
    pub connections: Arc<Connections>,
    pub grpc: Router,
    pub rest: Router,
    pub on_refused: OnRefused,
}

struct Shared {
    acceptor: TlsAcceptor,
    server: Server,
    half_open: Crowd<IpAddr>,
    anonymous: Crowd<IpAddr>,
    stop: CancellationToken,
}

/// Why a connection got no further than its handshake.
#[derive(Debug, thiserror::Error)]
enum Rejected {
    #[error("handshake took too long")]
    Slow,
    #[error("gave place to a newer connection")]
    Evicted,
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("tls: {0}")]
    Tls(String),
}

impl Server {
    /// Accepts until `stop` is cancelled, then lets open requests end within `DRAIN`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        let verifier = PeerVerifier::optional(self.trust.clone(), self.clock.clone(), &Kind::ALL);
        let config = server(
            self.credentials.clone(),
            verifier,
            &[ALPN_H2_QUIET, ALPN_H2, ALPN_HTTP1],
        );
        let shared = Arc::new(Shared {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            server: self,
            half_open: Crowd::new(MAX_HALF_OPEN, MAX_HALF_OPEN_PER_SOURCE),
            anonymous: Crowd::new(MAX_ANONYMOUS, MAX_ANONYMOUS_PER_SOURCE),
            stop: stop.clone(),
        });
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let place = shared.half_open.enter(source_of(remote.ip()));
                    tasks.spawn(connection(shared.clone(), stream, remote, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!(
                open = tasks.len(),
                "requests were still open at the deadline"
            );
        }
        Ok(())
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    remote: SocketAddr,
    place: Place<IpAddr>,
) {
    // A small answer should not wait for the next one; failing to say so costs time only.
    let _ = stream.set_nodelay(true);
    let (stream, caller) = match handshake(&shared, stream, remote, &place).await {
        Ok(done) => done,
        Err(rejected) => {
            metrics::counter!("edgeward_connections_rejected_total").increment(1);
            tracing::debug!(%remote, %rejected, "connection rejected");
            if let Rejected::Certificate(reason) = rejected {
                (shared.server.on_refused)(remote.ip(), reason);
            }
            return;
        }
    };
    drop(place);
    metrics::gauge!("edgeward_half_open_connections").set(count(shared.half_open.len()));
    match caller.peer.clone() {
        Some(peer) => {
            let _entry = shared.server.connections.enter(&peer, caller.ended.clone());
            // Denied between the handshake and the entry: the entry came too late for whoever closes.
            let now = shared.server.clock.now();
            if peer
                .still_accepted(&shared.server.trust.load(), now)
                .is_err()
            {
                return;
            }
            let leaf_ends = tokio::time::sleep(peer.not_after().since(now));
            tokio::select! {
                () = http(&shared, stream, caller) => {}
                () = leaf_ends => tracing::info!(id = %peer.id(), "connection ends with its leaf"),
            }
        }
        None => {
            let place = shared.anonymous.enter(source_of(remote.ip()));
            tokio::select! {
                () = http(&shared, stream, caller) => {}
                () = place.evicted() => {}
            }
        }
    }
}

async fn handshake(
    shared: &Shared,
    stream: TcpStream,
    remote: SocketAddr,
    place: &Place<IpAddr>,
) -> Result<(TlsStream<TcpStream>, Caller), Rejected> {
    let began = shared.server.clock.boottime();
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_DEADLINE, shared.acceptor.accept(stream)) => accepted,
        () = place.evicted() => return Err(Rejected::Evicted),
        () = shared.stop.cancelled() => return Err(Rejected::Evicted),
    };
    let stream = accepted
        .map_err(|_| Rejected::Slow)?
        .map_err(|error| rejected(&error))?;
    let (_, tls) = stream.get_ref();
    let trust = shared.server.trust.load();
    let peer = VerifiedPeer::of_tls(tls, &trust, &Kind::ALL, shared.server.clock.now())
        .map_err(|refused| Rejected::Certificate(refused.to_string()))?;
    let exporter = tls
        .export_keying_material([0; EXPORTER_BYTES], EVIDENCE_EXPORTER_LABEL, None)
        .map_err(|error| Rejected::Tls(error.to_string()))?;
    let caller = Caller {
        peer: peer.map(Arc::new),
        exporter,
        remote,
        accepted: began,
        ended: CancellationToken::new(),
    };
    Ok((stream, caller))
}

async fn http(shared: &Shared, stream: TlsStream<TcpStream>, caller: Caller) {
    let ended = caller.ended.clone();
    let (grpc, rest) = (shared.server.grpc.clone(), shared.server.rest.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let router = if is_grpc(&request) {
            grpc.clone()
        } else {
            rest.clone()
        };
        dispatch(router, request, caller.clone())
    });
    let quiet = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2_QUIET);
    let builder = builder((!quiet).then_some(KEEP_ALIVE));
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        result = served.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended badly");
            }
            return;
        }
        () = ended.cancelled() => return,
        () = shared.stop.cancelled() => {}
    }
    served.as_mut().graceful_shutdown();
    tokio::select! {
        _ = served => {}
        () = ended.cancelled() => {}
    }
}

async fn dispatch(
    router: Router,
    mut request: Request<Incoming>,
    caller: Caller,
) -> Result<Response<axum::body::Body>, Infallible> {
    request.extensions_mut().insert(caller);
    router.oneshot(request.map(axum::body::Body::new)).await
}

/// Whoever is quiet is asked for evidence now and then, which finds a dead connection as well.
fn builder(keep_alive: Option<Duration>) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(keep_alive)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(64 * 1024);
    builder
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn rejected(error: &std::io::Error) -> Rejected {
    let tls = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            Rejected::Certificate(reason.to_string())
        }
        _ => Rejected::Tls(error.to_string()),
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count of connections is far below 2^52"
)]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
