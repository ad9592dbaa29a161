//! What nodes fetch: the server of the contract's `Apps`.
//!
//! Nothing here decides what a node may run: nodes verify all of it. Each has a budget of bytes, and waits its turn
//! where many fetch at once; whoever does not read what it asked for is left.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use edgeward_apps::Digest;
use edgeward_identity::VerifiedPeer;
use edgeward_wire::limits::{MAX_APPS_MESSAGE_BYTES, MAX_APPS_PIECE_BYTES, MAX_CHUNKS_AT_ONCE};
use edgeward_wire::v1;
use edgeward_wire::v1::apps_server::{Apps, AppsServer};
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::refusal::NotTaken;
use super::shelf::Kind;
use crate::budget::Budget;
use crate::hub::Hub;
use crate::serve::Caller;

/// Most answers that are being sent at a time: each holds a chunk, or a file of metadata.
const MAX_STREAMS: usize = 128;
/// Most of them to one node.
const MAX_STREAMS_PER_NODE: u32 = 4;
/// How long a node waits for its turn, and for what its budget does not give at once.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// A node that takes nothing for this long is left.
const STALLED: Duration = Duration::from_secs(30);
/// Largest request, in bytes.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Longest name of a file of metadata, in bytes.
const MAX_FILE_NAME_BYTES: usize = 128;

/// The service.
#[derive(Clone)]
pub struct AppsService {
    hub: Arc<Hub>,
    turns: Arc<Semaphore>,
    nodes: Nodes,
}

/// Only enrolled nodes are in it, so the fleet is its bound.
type Nodes = Arc<Mutex<BTreeMap<String, Node>>>;

struct Node {
    budget: Budget,
    open: u32,
}

/// An answer that is being sent. Gives its place back at its end.
struct Open {
    service: AppsService,
    node: String,
    _turn: OwnedSemaphorePermit,
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl AppsService {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            turns: Arc::new(Semaphore::new(MAX_STREAMS)),
            nodes: Nodes::default(),
        }
    }

    pub fn into_server(self) -> AppsServer<Self> {
        AppsServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_APPS_MESSAGE_BYTES)
    }

    /// Who asks, and a place for the answer.
    async fn enter<T>(&self, request: &Request<T>) -> Result<Open, Status> {
        // The table of callers says the same; nobody else is served.
        let peer = Caller::of_node(request)?.1;
        self.stands(&peer)?;
        let node = peer.id().name().to_owned();
        {
            let mut nodes = self.nodes.lock();
            let now = self.hub.clock.boottime();
            let rate = self.hub.config.apps.bytes_per_second;
            let known = nodes.entry(node.clone()).or_insert_with(|| Node {
                budget: Budget::new(rate, now),
                open: 0,
            });
            if known.open >= MAX_STREAMS_PER_NODE {
                return Err(budget());
            }
            known.open += 1;
        }
        let turn = tokio::time::timeout(MAX_WAIT, self.turns.clone().acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok(Open {
                service: self.clone(),
                node,
                _turn: turn,
            }),
            _ => {
                self.leave(&node);
                Err(budget())
            }
        }
    }

    fn leave(&self, node: &str) {
        if let Some(known) = self.nodes.lock().get_mut(node) {
            known.open = known.open.saturating_sub(1);
        }
    }

    /// Active, and with a certificate that the cloud knows.
    fn stands(&self, peer: &VerifiedPeer) -> Result<(), Status> {
        let member = self.hub.member(peer.id().name());
        match member.is_some_and(|member| member.stands(peer, self.hub.clock.now())) {
            true => Ok(()),
            false => Err(Status::permission_denied("node_status")),
        }
    }

    /// Sends bytes in pieces, from `offset` on.
    fn pieces(
        &self,
        open: Open,
        kind: &'static str,
        bytes: Vec<u8>,
        offset: u64,
    ) -> Answer<v1::AppsPiece> {
        let (out, answer) = mpsc::channel(1);
        tokio::spawn(async move {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            for piece in bytes
                .get(from..)
                .unwrap_or_default()
                .chunks(MAX_APPS_PIECE_BYTES)
            {
                let sent = open.send(
                    &out,
                    kind,
                    piece.len(),
                    v1::AppsPiece {
                        bytes: piece.to_vec(),
                    },
                );
                if !sent.await {
                    return;
                }
            }
        });
        Box::pin(ReceiverStream::new(answer))
    }
}

impl Open {
    /// Sends one message within the node's budget. `false`: the answer ends here.
    async fn send<T>(
        &self,
        out: &mpsc::Sender<Result<T, Status>>,
        kind: &'static str,
        bytes: usize,
        message: T,
    ) -> bool {
        if !self.pay(bytes).await {
            let _ = out.send_timeout(Err(budget()), STALLED).await;
            return false;
        }
        let sent = out.send_timeout(Ok(message), STALLED).await.is_ok();
        if sent {
            metrics::counter!("edgeward_apps_served_bytes_total", "kind" => kind)
                .increment(bytes as u64);
        }
        sent
    }

    /// Takes bytes from the budget, or waits until there are so many.
    async fn pay(&self, bytes: usize) -> bool {
        for _ in 0..2 {
            let wait = {
                let mut nodes = self.service.nodes.lock();
                let now = self.service.hub.clock.boottime();
                let Some(known) = nodes.get_mut(&self.node) else {
                    return false;
                };
                if known.budget.take(bytes, now) {
                    return true;
                }
                known.budget.wait(bytes)
            };
            if wait > MAX_WAIT {
                return false;
            }
            tokio::time::sleep(wait).await;
        }
        false
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.service.leave(&self.node);
    }
}

#[tonic::async_trait]
impl Apps for AppsService {
    type MetadataStream = Answer<v1::AppsPiece>;
    type ManifestStream = Answer<v1::AppsPiece>;
    type ChunksStream = Answer<v1::AppsChunk>;

    async fn metadata(
        &self,
        request: Request<v1::AppsMetadataRequest>,
    ) -> Result<Response<Self::MetadataStream>, Status> {
        let open = self.enter(&request).await?;
        let name = request.into_inner().name;
        if name.len() > MAX_FILE_NAME_BYTES {
            return Err(Status::invalid_argument("apps_malformed"));
        }
        let bytes = self.hub.apps.metadata(&name).await;
        let bytes = bytes.map_err(|error| unavailable(&error.into()))?;
        let bytes = bytes.ok_or_else(absent)?;
        Ok(Response::new(self.pieces(open, "metadata", bytes, 0)))
    }

    async fn manifest(
        &self,
        request: Request<v1::AppsManifestRequest>,
    ) -> Result<Response<Self::ManifestStream>, Status> {
        let open = self.enter(&request).await?;
        let request = request.into_inner();
        let digest = digest_of(&request.sha256)?;
        let bytes = self.hub.apps.manifest(&digest).await;
        let bytes = bytes.map_err(|why| unavailable(&why))?.ok_or_else(absent)?;
        Ok(Response::new(self.pieces(
            open,
            "manifest",
            bytes,
            request.offset,
        )))
    }

    async fn chunks(
        &self,
        request: Request<v1::AppsChunksRequest>,
    ) -> Result<Response<Self::ChunksStream>, Status> {
        let open = self.enter(&request).await?;
        let wanted = request.into_inner().sha256;
        if wanted.len() > MAX_CHUNKS_AT_ONCE {
            return Err(Status::invalid_argument("apps_malformed"));
        }
        let wanted: Vec<Digest> = wanted
            .iter()
            .map(|bytes| digest_of(bytes))
            .collect::<Result<_, _>>()?;
        let (out, answer) = mpsc::channel(1);
        let repository = self.hub.apps.clone();
        tokio::spawn(async move {
            for digest in wanted {
                let content = match repository.content(Kind::Chunk, digest).await {
                    Ok(Some(content)) => content,
                    // Somebody else may have it.
                    Ok(None) => continue,
                    Err(why) => {
                        let _ = out.send_timeout(Err(unavailable(&why)), STALLED).await;
                        return;
                    }
                };
                let bytes = content.len();
                let chunk = v1::AppsChunk {
                    sha256: digest.as_bytes().to_vec(),
                    content,
                };
                if !open.send(&out, "chunk", bytes, chunk).await {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answer))))
    }
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

fn budget() -> Status {
    Status::resource_exhausted("apps_budget")
}

fn unavailable(why: &NotTaken) -> Status {
    tracing::error!(error = %why, "applications cannot be served");
    Status::unavailable("unavailable")
}

#[cfg(test)]
mod tests;
