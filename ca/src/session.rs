//! The one long-lived stream of each agent. The server of the contract's `Session`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::EventKind;
use edgeward_identity::{PublicKey, Timestamp, VerifiedPeer};
use edgeward_wire::limits::{MAX_ENDPOINTS, MAX_MESSAGE_BYTES};
use edgeward_wire::v1::session_server::{Session, SessionServer};
use edgeward_wire::v1::{self, cloud_message::Body, node_message};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::apps::AppsSaid;
use crate::cut::NodeControl;
use crate::hub::{Hub, MAX_QUEUED, Outgoing};
use crate::serve::Caller;
use crate::store::nodes::{NodeStatus, SvidRow};

mod beat;
mod challenge;
mod coverage;
mod evidence;
pub(crate) mod join;
mod journal;
mod kept;
mod live;
mod opening;
mod pace;
mod renewal;

use join::JoinRefused;
use live::Live;

/// How long a new stream may take to say Hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Longest endpoint (`host:port`), in bytes.
const MAX_ENDPOINT_BYTES: usize = 255;

/// The service.
#[derive(Clone)]
pub struct SessionService {
    hub: Arc<Hub>,
    stop: CancellationToken,
}

/// Why a session does not begin, or ends. The peer learns the code.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnded {
    /// The node's.
    #[error("no hello came first, or not in time")]
    NoHello,
    #[error("hello is malformed: {0}")]
    Hello(&'static str),
    #[error("no such node")]
    Unknown,
    #[error("node is {}", .0.as_str())]
    Status(NodeStatus),
    #[error("certificate is not one that the cloud knows")]
    Certificate,
    #[error(transparent)]
    Join(#[from] join::JoinRefused),
    #[error("stream ended")]
    Closed,
    #[error("another session of the node passed")]
    Displaced,
    #[error("did not pass while another session of the node was open")]
    NotPassed,
    #[error("too many batches and answers that nothing asked for")]
    Flood,
    #[error("connection ended: denied, or too slow")]
    Cancelled,
    /// Ours.
    #[error("cloud is shutting down")]
    Shutdown,
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Hub(#[from] crate::hub::HubFault),
}

impl SessionEnded {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoHello => "session_no_hello",
            Self::Hello(_) => "session_hello",
            Self::Unknown => "node_unknown",
            Self::Status(NodeStatus::Quarantined) => "node_quarantined",
            Self::Status(_) => "node_status",
            Self::Certificate => "svid_unknown",
            Self::Join(JoinRefused::Behind { .. }) => "join_behind",
            Self::Join(JoinRefused::Overtaken { .. }) => "join_overtaken",
            Self::Join(JoinRefused::NotOffered(_)) => "join_not_offered",
            Self::Closed => "session_closed",
            Self::Displaced => "session_displaced",
            Self::NotPassed => "session_not_passed",
            Self::Flood => "session_flood",
            Self::Cancelled => "session_cancelled",
            Self::Shutdown => "cloud_shutdown",
            Self::Store(_) | Self::Hub(_) => "unavailable",
        }
    }
}

/// What a session is about from its first message on.
pub(crate) struct Opened {
    peer: Arc<VerifiedPeer>,
    caller: Caller,
    boot_key: PublicKey,
    /// The certificate that the connection was opened with.
    svid: SvidRow,
    /// The join counter that the Welcome offers.
    join: u64,
    holds: Holds,
    /// Whether its link is paid by the byte.
    metered: bool,
}

/// What the agent says of the slice that it holds.
struct Holds {
    /// Whether it takes deltas.
    deltas: bool,
    /// SHA-256 of the signed slice; empty: none.
    slice: Vec<u8>,
}

impl SessionService {
    pub fn new(hub: Arc<Hub>, stop: CancellationToken) -> Self {
        Self { hub, stop }
    }

    pub fn into_server(self) -> SessionServer<Self> {
        SessionServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn serve(
        &self,
        caller: Caller,
        peer: Arc<VerifiedPeer>,
        mut incoming: Streaming<v1::NodeMessage>,
        out: mpsc::Sender<Outgoing>,
    ) {
        let id = peer.id().clone();
        let ended = Box::pin(self.begin(caller, peer, &mut incoming, &out)).await;
        let code = ended.code();
        let now = self.hub.clock.now();
        let refused = matches!(
            ended,
            SessionEnded::NoHello
                | SessionEnded::Hello(_)
                | SessionEnded::Unknown
                | SessionEnded::Status(_)
                | SessionEnded::Certificate
                | SessionEnded::Join(_)
                | SessionEnded::Flood
        );
        let event = match refused {
            true => Event::new(now, id.clone(), EventKind::SessionRefused).denied(code),
            false => Event::new(now, id.clone(), EventKind::SessionClosed).code(code),
        };
        tracing::info!(node = %id, code, reason = %ended, "session ended");
        self.hub
            .audit
            .later(event.subject(id).detail("reason", &ended));
        let goodbye = v1::Goodbye {
            code: code.to_owned(),
        };
        let message = v1::CloudMessage {
            body: Some(Body::Goodbye(goodbye)),
        };
        // Whoever does not read any more is not waited for.
        let _ = out.try_send(Box::new(message));
    }

    async fn begin(
        &self,
        caller: Caller,
        peer: Arc<VerifiedPeer>,
        incoming: &mut Streaming<v1::NodeMessage>,
        out: &mpsc::Sender<Outgoing>,
    ) -> SessionEnded {
        let hello = match tokio::time::timeout(HELLO_DEADLINE, incoming.message()).await {
            Ok(Ok(Some(v1::NodeMessage {
                body: Some(node_message::Body::Hello(hello)),
            }))) => hello,
            _ => return SessionEnded::NoHello,
        };
        let (name, remote) = (
            peer.id().name().to_owned(),
            caller.remote.ip().to_canonical(),
        );
        let opening = Live::open(&self.hub, caller, peer, hello, out.clone());
        match Box::pin(opening).await {
            Ok(live) => live.run(incoming, &self.stop).await,
            Err(SessionEnded::Join(why @ JoinRefused::Behind { .. })) => {
                let control = NodeControl::new(self.hub.clone());
                control.lock_holders(&name, &remote.to_string(), &why).await;
                SessionEnded::Join(why)
            }
            Err(ended) => ended,
        }
    }
}

/// Endpoint candidates as the node says them, within bounds.
fn endpoints_of(endpoints: Vec<String>) -> Result<Vec<String>, SessionEnded> {
    let good = endpoints.len() <= MAX_ENDPOINTS
        && endpoints.iter().all(|endpoint| {
            endpoint.len() <= MAX_ENDPOINT_BYTES
                && edgeward_wire::token::check_address(endpoint).is_ok()
        });
    match good {
        true => Ok(endpoints),
        false => Err(SessionEnded::Hello("endpoints")),
    }
}

/// What the node says of its applications, within bounds.
fn said_of(
    said: Option<v1::AppsState>,
    now: Timestamp,
) -> Result<Option<Arc<AppsSaid>>, SessionEnded> {
    said.map(|said| AppsSaid::of(said, now).map(Arc::new))
        .transpose()
        .map_err(|_| SessionEnded::Hello("apps"))
}

#[tonic::async_trait]
impl Session for SessionService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::CloudMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        // The table of callers says the same; a session without a node's certificate must not even compile into one.
        let (caller, peer) = Caller::of_node(&request)?;
        let (out, receiver) = mpsc::channel(MAX_QUEUED);
        let service = self.clone();
        tokio::spawn(async move {
            service.serve(caller, peer, request.into_inner(), out).await;
        });
        let messages = ReceiverStream::new(receiver).map(|message| Ok(*message));
        Ok(Response::new(Box::pin(messages)))
    }
}

#[cfg(test)]
mod tests;
