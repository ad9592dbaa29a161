//! The socket on which proxies of this machine ask. What they say of their clients is believed, so only users that the
//! configuration names may connect.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgeward_wire::ext_authz::authorization_server::{Authorization, AuthorizationServer};
use edgeward_wire::ext_authz::{CheckRequest, CheckResponse};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tower::ServiceExt;

use super::desk::Desk;
use crate::socket::LocalSocket;
use crate::workload::authority_field::Softened;

/// Most connections at once: a proxy has one for each of its threads.
pub(super) const MAX_PROXIES: usize = 256;
/// Most questions at a time on one connection.
const MAX_QUESTIONS: u32 = 1024;
/// Largest question, in bytes: proxies send all headers, of which nothing is kept.
pub(super) const MAX_QUESTION_BYTES: usize = 256 * 1024;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// A silent proxy is pinged this often, and dropped when it does not answer for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Everybody may knock: who is let in is decided by the user that the kernel names.
const MODE: u32 = 0o666;

#[derive(Debug)]
pub(super) struct Socket(LocalSocket);

struct Api(Desk);

#[tonic::async_trait]
impl Authorization for Api {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(self.0.answer(request.get_ref())))
    }
}

impl Socket {
    /// Binds the socket; takes over a path that nobody listens on any more.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        LocalSocket::bind(path, MODE, "ext_authz").map(Self)
    }

    /// Answers these users until the token is cancelled.
    pub(super) async fn serve(self, desk: Desk, users: Vec<u32>, token: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_PROXIES));
        while let Some(stream) = self.0.accept(&token).await {
            if let Err(code) = admit(&stream, &users) {
                metrics::counter!("edgeward_ext_authz_refused_total", "code" => code).increment(1);
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                metrics::counter!("edgeward_ext_authz_refused_total", "code" => "connections")
                    .increment(1);
                tracing::warn!("too many connections on the ext_authz socket");
                continue;
            };
            let (desk, token) = (desk.clone(), token.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = converse(stream, desk) => {}
                    () = token.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}

/// By the user of the process when it connected (`SO_PEERCRED`, unix(7)).
fn admit(stream: &UnixStream, users: &[u32]) -> Result<(), &'static str> {
    let Ok(credentials) = stream.peer_cred() else {
        return Err("caller_unknown");
    };
    let uid = credentials.uid();
    match users.contains(&uid) {
        true => Ok(()),
        false => {
            tracing::warn!(uid, "user may not ask on the ext_authz socket");
            Err("user")
        }
    }
}

async fn converse(stream: UnixStream, desk: Desk) {
    let server = AuthorizationServer::new(Api(desk)).max_decoding_message_size(MAX_QUESTION_BYTES);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        server.clone().oneshot(request.map(tonic::body::Body::new))
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_QUESTIONS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(Softened::new(stream)), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "proxy on the ext_authz socket");
    }
}
