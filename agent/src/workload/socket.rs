//! The socket that any process on the machine may connect to.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgeward_wire::spiffe::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use http::Request;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::api::Api;
use super::authority_field::Softened;
use super::caller::Caller;
use crate::socket::LocalSocket;

/// Most connections at once, and most of one user.
pub const MAX_CALLERS: usize = 1_024;
pub const MAX_CALLERS_PER_USER: usize = 128;
/// Most requests at a time on one connection.
const MAX_REQUESTS: u32 = 32;
/// Largest request, in bytes, and largest sum of its header fields.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// A silent caller is pinged this often, and dropped when it does not answer for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Everybody may connect: who gets something is decided by what the process is.
const MODE: u32 = 0o666;
/// Others must be able to pass through its folder.
const PASS_THROUGH: u32 = 0o001;

/// A bound socket, removed when dropped.
#[derive(Debug)]
pub struct Socket(LocalSocket);

/// Who is connected, by user.
#[derive(Clone, Default)]
struct Callers(Arc<Mutex<BTreeMap<u32, usize>>>);

/// A place among them; left when dropped.
struct Place {
    callers: Callers,
    uid: u32,
}

impl Socket {
    /// Binds the socket; takes over a path that nobody listens on any more.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = LocalSocket::bind(path, MODE, "workload")?;
        if let Some(folder) = path.parent()
            && std::fs::metadata(folder)?.permissions().mode() & PASS_THROUGH == 0
        {
            tracing::warn!(folder = %folder.display(), "only root and its group can reach the workload socket: others may not enter its folder");
        }
        Ok(Self(socket))
    }

    /// Answers until the token is cancelled.
    pub(super) async fn serve(self, api: Api, token: CancellationToken) {
        let callers = Callers::default();
        while let Some(stream) = self.0.accept(&token).await {
            // At once: on an old kernel only what was seen now can be compared later.
            let caller = match Caller::of(&stream) {
                Ok(caller) => Arc::new(caller),
                Err(why) => {
                    metrics::counter!("edgeward_workload_refused_total", "code" => why.code())
                        .increment(1);
                    tracing::info!(code = why.code(), reason = %why, "caller not known");
                    continue;
                }
            };
            let Some(place) = callers.enter(caller.uid) else {
                metrics::counter!("edgeward_workload_refused_total", "code" => "callers")
                    .increment(1);
                tracing::warn!(uid = caller.uid, "too many callers of the workload socket");
                continue;
            };
            let (api, token) = (api.clone(), token.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = converse(stream, caller, api) => {}
                    () = token.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}

impl Callers {
    fn enter(&self, uid: u32) -> Option<Place> {
        let mut users = self.0.lock();
        let all: usize = users.values().sum();
        let own = users.entry(uid).or_default();
        if all >= MAX_CALLERS || *own >= MAX_CALLERS_PER_USER {
            return None;
        }
        *own += 1;
        count(all + 1);
        Some(Place {
            callers: self.clone(),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.callers.0.lock();
        if let Some(own) = users.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                users.remove(&self.uid);
            }
        }
        count(users.values().sum());
    }
}

async fn converse(stream: UnixStream, caller: Arc<Caller>, api: Api) {
    let server = SpiffeWorkloadApiServer::new(api).max_decoding_message_size(MAX_REQUEST_BYTES);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(caller.clone());
        server.clone().oneshot(request.map(tonic::body::Body::new))
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_REQUESTS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(Softened::new(stream)), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "caller of the workload socket");
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count of connections is far below 2^52"
)]
fn count(number: usize) {
    metrics::gauge!("edgeward_workload_callers").set(number as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_room_for_others_and_leaving_makes_room() {
        let callers = Callers::default();
        let mut places: Vec<Place> = (0..MAX_CALLERS_PER_USER)
            .map(|_| callers.enter(1000).unwrap())
            .collect();
        assert!(callers.enter(1000).is_none());
        let other = callers.enter(1001).unwrap();
        places.pop();
        places.push(callers.enter(1000).unwrap());
        drop((places, other));
        assert!(callers.0.lock().is_empty());
    }

    #[test]
    fn there_is_a_bound_on_all_callers() {
        let callers = Callers::default();
        let places: Vec<Place> = (0..2 * MAX_CALLERS as u32)
            .filter_map(|index| callers.enter(index / 64))
            .collect();
        assert_eq!(places.len(), MAX_CALLERS);
    }
}
