//! HTTP/1.1 and HTTP/2, gRPC among it: every request is decided by its method and path before the service sees it.
//!
//! hyper reads and writes on both sides, so what the service gets is framed anew: nothing of the client's framing
//! reaches it. The path that goes on is written from the one that was decided upon (`CanonicalPath`). Connections
//! to the service are never shared between callers.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use edgeward_policy::L7Request;
use edgeward_policy::l7::http as l7;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::caller::{Broken, Caller};
use super::raw::{Watched, idle};
use answer::Answer;
use asked::Asked;
use body::{Body, Lost};
use service::Service;

mod answer;
mod asked;
mod body;
pub mod headers;
mod service;

/// Largest head of a request or response, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most header fields of one.
pub const MAX_FIELDS: usize = 128;
/// The head of a request must be complete within this time.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// The service must begin its answer within this time.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(300);
/// A connection on which nothing moves for so long ends, whatever is under way on it.
pub const IDLE_LIMIT: Duration = Duration::from_secs(600);
/// Most requests at a time on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 128;
/// Most streams that a client may reset before they were looked at (CVE-2023-44487).
const MAX_EARLY_RESETS: usize = 32;
/// A silent HTTP/2 client is pinged this often, and dropped when it does not answer for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Bytes of a body that may be under way in one direction of one stream, and of all streams of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// One client connection.
struct Connection {
    caller: Caller,
    service: Service,
}

/// Carries one connection.
pub(super) async fn carry<S>(stream: S, caller: Caller) -> Result<(), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Whatever this connection spawned ends with it, also where it is dropped.
    let token = CancellationToken::new();
    let _ends_with_us = token.clone().drop_guard();
    let connection = Arc::new(Connection {
        service: Service::new(caller.clone(), token.clone()),
        caller: caller.clone(),
    });
    let handler = service_fn(move |request| {
        let connection = Arc::clone(&connection);
        async move { Ok::<_, Infallible>(connection.answer(request).await) }
    });
    let (stream, moved) = Watched::new(stream);
    let builder = builder(Spawned(token));
    let serving = builder.serve_connection(TokioIo::new(stream), handler);
    let served = tokio::select! {
        served = serving => served,
        () = idle(&moved, IDLE_LIMIT) => return Err(Broken::Idle),
    };
    match served {
        Ok(()) => Ok(()),
        Err(error) => Err(broken(&caller, &*error)),
    }
}

fn builder(spawned: Spawned) -> auto::Builder<Spawned> {
    let mut builder = auto::Builder::new(spawned);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_FIELDS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let grpc = headers::is_grpc(request.headers());
        let answered = match Asked::read(&request) {
            Ok(asked) => self.serve(asked, request, grpc).await,
            Err(wrong) => {
                tracing::debug!(caller = %self.caller.who(), wrong = wrong.as_str(), "request refused");
                match wrong {
                    asked::Wrong::Connect | asked::Wrong::Upgrade => {
                        self.caller.refused(wrong.as_str());
                        Err(Answer::NotImplemented(wrong.as_str()))
                    }
                    _ => {
                        let _recorded = self.caller.malformed(wrong.as_str());
                        Err(Answer::BadRequest(wrong.as_str()))
                    }
                }
            }
        };
        answered.unwrap_or_else(|answer| answer.respond(grpc))
    }

    async fn serve(
        &self,
        asked: Asked,
        request: Request<Incoming>,
        grpc: bool,
    ) -> Result<Response<Body>, Answer> {
        let ruling = self.caller.decide(&asked.as_l7());
        if !ruling.allow {
            return Err(Answer::Denied);
        }
        let mut lost = self.lost(&asked);
        let forwarded = asked.forward(request, &self.caller, grpc);
        let sending = self.service.send(forwarded, grpc);
        let (response, lease) = tokio::select! {
            biased;
            () = &mut lost => return Err(Answer::Denied),
            sent = tokio::time::timeout(ANSWER_DEADLINE, sending) => match sent {
                Ok(Ok(sent)) => sent,
                Ok(Err(failed)) => {
                    tracing::info!(service = %self.caller.upstream(), %failed, "service does not answer");
                    return Err(Answer::ServiceFailed);
                }
                Err(_) => return Err(Answer::ServiceLate),
            },
        };
        // The service was never asked to speak another protocol.
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(Answer::ServiceFailed);
        }
        let (mut parts, incoming) = response.into_parts();
        headers::clean_response(&mut parts.headers);
        parts.version = http::Version::default();
        Ok(Response::from_parts(
            parts,
            Body::streamed(incoming, lost, lease),
        ))
    }

    /// Resolves when what was allowed is allowed no more.
    fn lost(&self, asked: &Asked) -> Lost {
        let (caller, asked) = (self.caller.clone(), asked.clone());
        let mut changes = caller.changes();
        Box::pin(async move {
            loop {
                changes.mark_unchanged();
                let ruling = caller.still(&asked.as_l7());
                if !ruling.allow {
                    return;
                }
                let left = ruling.until.since(caller.now()).min(LOOK_EVERY);
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(left) => {}
                }
            }
        })
    }
}

/// Longest time between two looks at what goes on: timers do not run while a machine sleeps, leases do.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Asked {
    fn as_l7(&self) -> L7Request<'_> {
        L7Request::Http(l7::Request {
            method: self.method.as_str(),
            path: self.path.decoded(),
        })
    }
}

/// Runs what hyper wants run, until the connection ends.
#[derive(Clone)]
struct Spawned(CancellationToken);

impl<F> hyper::rt::Executor<F> for Spawned
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let token = self.0.clone();
        tokio::spawn(async move { token.run_until_cancelled(future).await.map(drop) });
    }
}

/// Whose fault the end of a connection is.
fn broken(caller: &Caller, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Broken {
    let io = || Broken::Client(std::io::Error::other(error.to_string()));
    let Some(hyper) = error.downcast_ref::<hyper::Error>() else {
        return io();
    };
    if hyper.is_parse_too_large() {
        return caller.malformed("head-too-large");
    }
    if hyper.is_parse() {
        return caller.malformed("http-syntax");
    }
    if hyper.is_timeout() {
        return Broken::Idle;
    }
    let cause = std::error::Error::source(hyper);
    match cause.and_then(|cause| cause.downcast_ref::<h2::Error>()) {
        // We ended it, for a breach of the protocol.
        Some(h2) if h2.is_library() && h2.reason() != Some(h2::Reason::NO_ERROR) => {
            caller.malformed("http2")
        }
        _ => io(),
    }
}

#[cfg(test)]
mod tests;
