//! What this node has of the repository, for nodes nearby: the cloud's own service, inside the tunnel.
//!
//! Who reaches it is the policy's to say: it is a service like any other, and its socket hears nothing but the tunnel's
//! device. Whoever asks trusts nothing of the answer: metadata is signed, all else is named by its digest.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use edgeward_apps::Digest;
use edgeward_wire::limits::{MAX_APPS_MESSAGE_BYTES, MAX_APPS_PIECE_BYTES, MAX_CHUNKS_AT_ONCE};
use edgeward_wire::v1;
use edgeward_wire::v1::apps_server::{Apps, AppsServer};
use futures::Stream;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tower::ServiceExt;

use super::installer::Installer;

mod metadata;

pub use metadata::{Remembered, Remembering};

/// Most connections of nodes nearby.
const MAX_CALLERS: usize = 64;
/// Most requests at a time on one connection.
const MAX_REQUESTS: u32 = 4;
/// Most answers that are read from the disk at a time: each holds a chunk or a manifest.
const MAX_READS: usize = 8;
/// Largest request, in bytes.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// A silent caller is pinged this often, and dropped when it does not answer for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A caller that takes nothing for so long is left.
const STALLED: Duration = Duration::from_secs(30);
/// How long to wait for the tunnel's device, and after the machine failed to accept.
const PAUSE: Duration = Duration::from_secs(2);
const BACKLOG: u32 = 64;

/// The service.
#[derive(Clone)]
pub struct Mirror {
    installer: Arc<Installer>,
    metadata: Arc<Remembered>,
    reads: Arc<Semaphore>,
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Mirror {
    pub fn new(installer: Arc<Installer>, metadata: Arc<Remembered>) -> Self {
        Self {
            installer,
            metadata,
            reads: Arc::new(Semaphore::new(MAX_READS)),
        }
    }

    /// Answers on a port of one device until the token is cancelled.
    pub async fn serve(self, device: &str, port: u16, token: CancellationToken) {
        let Some(listener) = listen_when_it_can(device, port, &token).await else {
            return;
        };
        let callers = Arc::new(Semaphore::new(MAX_CALLERS));
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "mirror of applications cannot accept");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = callers.clone().try_acquire_owned() else {
                tracing::info!("too many nodes ask the mirror of applications");
                continue;
            };
            let (mirror, token) = (self.clone(), token.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = mirror.converse(stream) => {}
                    () = token.cancelled() => {}
                }
                drop(place);
            });
        }
    }

    async fn converse(self, stream: TcpStream) {
        let server = AppsServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_APPS_MESSAGE_BYTES);
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            server.clone().oneshot(request.map(tonic::body::Body::new))
        });
        let served = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_REQUESTS)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "caller of the mirror of applications");
        }
    }

    /// Reads from the disk, in turn with others.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let gone = |_| Status::unavailable("unavailable");
        let turn = self.reads.clone().acquire_owned().await.map_err(gone)?;
        let own = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = read(&own);
            drop(turn);
            done
        });
        done.await.map_err(|_| Status::unavailable("unavailable"))
    }
}

#[tonic::async_trait]
impl Apps for Mirror {
    type MetadataStream = Answer<v1::AppsPiece>;
    type ManifestStream = Answer<v1::AppsPiece>;
    type ChunksStream = Answer<v1::AppsChunk>;

    async fn metadata(
        &self,
        request: Request<v1::AppsMetadataRequest>,
    ) -> Result<Response<Self::MetadataStream>, Status> {
        let name = request.into_inner().name;
        let bytes = self.read(move |own| own.metadata.read(&name)).await?;
        Ok(pieces(bytes.ok_or_else(absent)?, 0))
    }

    async fn manifest(
        &self,
        request: Request<v1::AppsManifestRequest>,
    ) -> Result<Response<Self::ManifestStream>, Status> {
        let request = request.into_inner();
        let digest = digest_of(&request.sha256)?;
        let bytes = self.read(move |own| own.installer.manifest_bytes(&digest).ok());
        let bytes = bytes.await?.ok_or_else(absent)?;
        Ok(pieces(bytes, request.offset))
    }

    async fn chunks(
        &self,
        request: Request<v1::AppsChunksRequest>,
    ) -> Result<Response<Self::ChunksStream>, Status> {
        let wanted = request.into_inner().sha256;
        if wanted.len() > MAX_CHUNKS_AT_ONCE {
            return Err(Status::invalid_argument("apps_malformed"));
        }
        let wanted: Vec<Digest> = wanted
            .iter()
            .map(|bytes| digest_of(bytes))
            .collect::<Result<_, _>>()?;
        let (out, answer) = mpsc::channel(1);
        let own = self.clone();
        tokio::spawn(async move {
            for digest in wanted {
                let read = own.read(move |own| own.installer.give(&digest)).await;
                let message = match read {
                    // Somebody else may have it.
                    Ok(None) => continue,
                    Ok(Some(content)) => Ok(v1::AppsChunk {
                        sha256: digest.as_bytes().to_vec(),
                        content,
                    }),
                    Err(status) => Err(status),
                };
                let ended = message.is_err();
                if out.send_timeout(message, STALLED).await.is_err() || ended {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answer))))
    }
}

/// From `offset` on.
fn pieces(bytes: Vec<u8>, offset: u64) -> Response<Answer<v1::AppsPiece>> {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let pieces: Vec<Result<v1::AppsPiece, Status>> = bytes
        .get(from..)
        .unwrap_or_default()
        .chunks(MAX_APPS_PIECE_BYTES)
        .map(|piece| {
            Ok(v1::AppsPiece {
                bytes: piece.to_vec(),
            })
        })
        .collect();
    Response::new(Box::pin(futures::stream::iter(pieces)))
}

fn digest_of(bytes: &[u8]) -> Result<Digest, Status> {
    bytes
        .try_into()
        .map(Digest::from_bytes)
        .map_err(|_| Status::invalid_argument("apps_malformed"))
}

fn absent() -> Status {
    Status::not_found("apps_absent")
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
