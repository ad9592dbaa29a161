//! What nodes fetch: the server of the contract's `Apps` over the repository. Nothing here decides what a node may run:
//! nodes verify all of it.

use std::sync::Arc;

use edgeward_apps::Digest;
use edgeward_identity::{BootTime, VerifiedPeer};
use edgeward_wire::apps::{Bounds, PATIENCE, Serving, Stock};
use tonic::{Extensions, Status};

use super::refusal::NotTaken;
use super::shelf::Kind;
use crate::hub::Hub;
use crate::serve::Caller;

/// Most answers that are being sent at a time.
const MAX_ANSWERS: usize = 128;
/// Most of them to one node.
const MAX_ANSWERS_TO_ONE: u32 = 4;
/// Most nodes whose budget is remembered: more than a fleet has that fetches at the same time.
const MAX_CALLERS: usize = 131_072;

/// The repository, for nodes.
#[derive(Clone)]
pub struct NodeStock(Arc<Hub>);

/// The service.
pub fn serving(hub: Arc<Hub>) -> Serving<NodeStock> {
    let bounds = Bounds {
        bytes_per_second: hub.config.apps.bytes_per_second,
        answers: MAX_ANSWERS,
        answers_to_one: MAX_ANSWERS_TO_ONE,
        callers: MAX_CALLERS,
        patience: PATIENCE,
    };
    Serving::new(NodeStock(hub), bounds)
}

impl NodeStock {
    /// Active, and with a certificate that the cloud knows.
    fn stands(&self, peer: &VerifiedPeer) -> Result<(), Status> {
        let member = self.0.member(peer.id().name());
        match member.is_some_and(|member| member.stands(peer, self.0.clock.now())) {
            true => Ok(()),
            false => Err(Status::permission_denied("node_status")),
        }
    }
}

#[tonic::async_trait]
impl Stock for NodeStock {
    fn caller(&self, asks: &Extensions) -> Result<String, Status> {
        // The table of callers says the same; nobody else is served.
        let peer = Caller::of_node_in(asks)?.1;
        self.stands(&peer)?;
        Ok(peer.id().name().to_owned())
    }

    fn now(&self) -> BootTime {
        self.0.clock.boottime()
    }

    async fn metadata(&self, name: String) -> Result<Option<Vec<u8>>, Status> {
        let bytes = self.0.apps.metadata(&name).await;
        bytes.map_err(|error| unavailable(&error.into()))
    }

    async fn manifest(&self, sha256: [u8; 32]) -> Result<Option<Vec<u8>>, Status> {
        let bytes = self.0.apps.manifest(&Digest::from_bytes(sha256)).await;
        bytes.map_err(|why| unavailable(&why))
    }

    async fn chunk(&self, sha256: [u8; 32]) -> Result<Option<Vec<u8>>, Status> {
        let digest = Digest::from_bytes(sha256);
        let bytes = self.0.apps.content(Kind::Chunk, digest).await;
        bytes.map_err(|why| unavailable(&why))
    }

    fn served(&self, kind: &'static str, bytes: usize) {
        metrics::counter!("edgeward_apps_served_bytes_total", "kind" => kind)
            .increment(bytes as u64);
    }
}

fn unavailable(why: &NotTaken) -> Status {
    tracing::error!(error = %why, "applications cannot be served");
    Status::unavailable("unavailable")
}

#[cfg(test)]
mod tests;
