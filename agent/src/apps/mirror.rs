//! What this node has of the repository, for nodes nearby: the cloud's own service, inside the tunnel.
//!
//! Who reaches it is the policy's to say: it is a service like any other, and its socket hears nothing but the tunnel's
//! device. Whoever asks trusts nothing of the answer: metadata is signed, all else is named by its digest. Who asks is
//! known by the address that the tunnel lets through, and each has a share: connections, answers, bytes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edgeward_apps::Digest;
use edgeward_identity::{BootTime, Clock};
use edgeward_wire::apps::{Bounds, PATIENCE, Serving, Stock};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Status};
use tower::ServiceExt;

use super::installer::Installer;

mod metadata;

pub use metadata::{Remembered, Remembering};

/// Most connections of nodes nearby.
const MAX_CALLERS: usize = 64;
/// Most of them from one address.
const MAX_FROM_ONE: usize = 4;
/// Most requests at a time on one connection.
const MAX_REQUESTS: u32 = 4;
/// What they get. What is read at a time is at most a manifest of 8 MiB.
pub const BOUNDS: Bounds = Bounds {
    bytes_per_second: 16 * 1024 * 1024,
    answers: 8,
    answers_to_one: 4,
    callers: 1_024,
    patience: PATIENCE,
};
/// A silent caller is pinged this often, and dropped when it does not answer for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A caller that connects says something within this time.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How long a connection lasts; what is under way at its end has as long again.
const LIFETIME: Duration = Duration::from_secs(900);
/// How long to wait for the tunnel's device, and after the machine failed to accept.
const PAUSE: Duration = Duration::from_secs(2);
const BACKLOG: u32 = 64;

/// The service, and who is connected.
#[derive(Clone)]
pub struct Mirror {
    serving: Serving<OwnCopy>,
    connected: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// What is installed here, and the newest metadata that came along.
#[derive(Clone)]
struct OwnCopy {
    installer: Arc<Installer>,
    metadata: Arc<Remembered>,
    clock: Arc<dyn Clock>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Asker(IpAddr);

/// A connection's place.
struct Place {
    connected: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    from: IpAddr,
}

impl Mirror {
    pub fn new(
        installer: Arc<Installer>,
        metadata: Arc<Remembered>,
        clock: Arc<dyn Clock>,
        bounds: Bounds,
    ) -> Self {
        let own = OwnCopy {
            installer,
            metadata,
            clock,
        };
        Self {
            serving: Serving::new(own, bounds),
            connected: Arc::default(),
        }
    }

    /// Answers on a port of one device until the token is cancelled.
    pub async fn serve(self, device: &str, port: u16, token: CancellationToken) {
        let Some(listener) = listen_when_it_can(device, port, &token).await else {
            return;
        };
        self.serve_on(listener, token).await;
    }

    async fn serve_on(self, listener: TcpListener, token: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok((stream, from)) => (stream, from.ip().to_canonical()),
                Err(error) => {
                    tracing::warn!(%error, "mirror of applications cannot accept");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(place) = self.place(from) else {
                tracing::info!(%from, "too many connections to the mirror of applications");
                continue;
            };
            let (serving, token) = (self.serving.clone(), token.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = converse(serving, stream, from) => {}
                    () = token.cancelled() => {}
                }
                drop(place);
            });
        }
    }

    /// None: there are too many, or too many from there.
    fn place(&self, from: IpAddr) -> Option<Place> {
        let mut connected = self.connected.lock();
        let all: usize = connected.values().sum();
        let own = connected.get(&from).copied().unwrap_or_default();
        if all >= MAX_CALLERS || own >= MAX_FROM_ONE {
            return None;
        }
        connected.insert(from, own + 1);
        Some(Place {
            connected: self.connected.clone(),
            from,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connected = self.connected.lock();
        match connected.get_mut(&self.from) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(connected.remove(&self.from)),
        }
    }
}

async fn converse(serving: Serving<OwnCopy>, stream: TcpStream, from: IpAddr) {
    let mut first = [0];
    if !matches!(
        tokio::time::timeout(FIRST_WORD, stream.peek(&mut first)).await,
        Ok(Ok(1))
    ) {
        return;
    }
    let server = serving.into_server();
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Asker(from));
        server.clone().oneshot(request.map(tonic::body::Body::new))
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_REQUESTS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let ended = match tokio::time::timeout(LIFETIME, served.as_mut()).await {
        Ok(ended) => Ok(ended),
        Err(_) => {
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(LIFETIME, served).await
        }
    };
    if let Ok(Err(error)) = ended {
        tracing::debug!(%from, %error, "caller of the mirror of applications");
    }
}

impl OwnCopy {
    /// Reads from the disk, where it keeps nobody waiting.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Option<T> + Send + 'static,
    ) -> Result<Option<T>, Status> {
        let own = self.clone();
        let done = tokio::task::spawn_blocking(move || read(&own));
        done.await.map_err(|_| Status::unavailable("unavailable"))
    }
}

#[tonic::async_trait]
impl Stock for OwnCopy {
    fn caller(&self, asks: &Extensions) -> Result<String, Status> {
        let from = asks.get::<Asker>();
        let from = from.ok_or_else(|| Status::internal("caller_unknown"))?;
        Ok(from.0.to_string())
    }

    fn now(&self) -> BootTime {
        self.clock.boottime()
    }

    async fn metadata(&self, name: String) -> Result<Option<Vec<u8>>, Status> {
        self.read(move |own| own.metadata.read(&name)).await
    }

    async fn manifest(&self, sha256: [u8; 32]) -> Result<Option<Vec<u8>>, Status> {
        let digest = Digest::from_bytes(sha256);
        self.read(move |own| own.installer.manifest_bytes(&digest).ok())
            .await
    }

    async fn chunk(&self, sha256: [u8; 32]) -> Result<Option<Vec<u8>>, Status> {
        let digest = Digest::from_bytes(sha256);
        self.read(move |own| own.installer.give(&digest)).await
    }

    fn served(&self, kind: &'static str, bytes: usize) {
        metrics::counter!("edgeward_apps_mirrored_bytes_total", "kind" => kind)
            .increment(bytes as u64);
    }
}

/// The device may come after the agent.
async fn listen_when_it_can(
    device: &str,
    port: u16,
    token: &CancellationToken,
) -> Option<TcpListener> {
    let mut told = false;
    loop {
        match listen(device, port) {
            Ok(listener) => return Some(listener),
            Err(error) if !told => {
                tracing::warn!(device, port, %error, "mirror of applications cannot listen yet");
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = token.cancelled() => return None,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Hears what comes out of the device and nothing else, whatever its addresses are.
fn listen(device: &str, port: u16) -> io::Result<TcpListener> {
    let (socket, any): (TcpSocket, SocketAddr) = match TcpSocket::new_v6() {
        Ok(socket) => (socket, (Ipv6Addr::UNSPECIFIED, port).into()),
        Err(_) => (TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into()),
    };
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_reuseaddr(true)?;
    socket.bind(any)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests;
