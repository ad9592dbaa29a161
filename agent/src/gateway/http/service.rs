//! Connections to the service, for one caller's connection: HTTP/1.1, and HTTP/2 for gRPC.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::body::Upload;
use super::{CONNECTION_WINDOW, KEEP_ALIVE, MAX_HEAD_BYTES, STREAM_WINDOW, Spawned};
use crate::gateway::caller::{Broken, Caller};

/// Most connections to the service that wait for the next request of this caller.
const MAX_IDLE: usize = 8;

/// The way to the service.
pub(super) struct Service {
    caller: Caller,
    idle: Idle,
    grpc: tokio::sync::Mutex<Option<http2::SendRequest<Upload>>>,
    token: CancellationToken,
}

type Idle = Arc<Mutex<Vec<http1::SendRequest<Upload>>>>;

/// A connection that carries one answer, and then may carry another.
pub(super) struct Lease {
    sender: http1::SendRequest<Upload>,
    idle: Idle,
}

/// Why there is no answer. The service's fault, or the client's who went away.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Connect(#[from] Broken),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Service {
    /// Connections end with the token.
    pub(super) fn new(caller: Caller, token: CancellationToken) -> Self {
        Self {
            caller,
            idle: Idle::default(),
            grpc: tokio::sync::Mutex::default(),
            token,
        }
    }

    /// Sends one request; the answer's head, and what to give back after its body.
    pub(super) async fn send(
        &self,
        request: Request<Upload>,
        grpc: bool,
    ) -> Result<(Response<Incoming>, Option<Lease>), Failed> {
        match grpc {
            true => {
                let mut sender = self.grpc_connection().await?;
                Ok((sender.send_request(request).await?, None))
            }
            false => self.send_plain(request).await,
        }
    }

    async fn send_plain(
        &self,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Option<Lease>), Failed> {
        loop {
            let waiting = self.idle.lock().pop();
            let fresh = waiting.is_none();
            let mut sender = match waiting {
                Some(mut sender) => match sender.ready().await {
                    Ok(()) => sender,
                    Err(_closed) => continue,
                },
                None => self.connect().await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease {
                        sender,
                        idle: Arc::clone(&self.idle),
                    };
                    return Ok((response, Some(lease)));
                }
                // The service closed a waiting connection just now, and has seen nothing of the request.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(failed.into_error().into()),
                },
            }
        }
    }

    async fn connect(&self) -> Result<http1::SendRequest<Upload>, Failed> {
        let stream = self.caller.connect().await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        self.drive(connection);
        Ok(sender)
    }

    async fn grpc_connection(&self) -> Result<http2::SendRequest<Upload>, Failed> {
        let mut known = self.grpc.lock().await;
        if let Some(sender) = known.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = self.caller.connect().await?;
        let (sender, connection) = http2::Builder::new(Spawned(self.token.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .handshake(TokioIo::new(stream))
            .await?;
        self.drive(connection);
        Ok(known.insert(sender).clone())
    }

    fn drive<C>(&self, connection: C)
    where
        C: Future<Output = Result<(), hyper::Error>> + Send + 'static,
    {
        let token = self.token.clone();
        tokio::spawn(async move {
            if let Some(Err(error)) = token.run_until_cancelled(connection).await {
                tracing::debug!(%error, "connection to the service");
            }
        });
    }
}

impl Lease {
    /// For the caller's next request.
    pub(super) fn give_back(self) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE && !self.sender.is_closed() {
            idle.push(self.sender);
        }
    }
}
