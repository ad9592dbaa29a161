//! Another node's copy of the repository. The connection itself is in the clear: the tunnel is around it, and what it
//! brings is signed or named by its digest.

use std::time::Duration;

use async_trait::async_trait;
use edgeward_apps::image::Wanted;
use edgeward_apps::manifest::Chunk;
use edgeward_apps::{Digest, Release};
use tokio::sync::{mpsc, watch};
use tonic::transport::Endpoint;

use super::{CloudSource, NotFetched, Source};

/// How long a neighbour may take to be reached: others are asked after it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// A node nearby that serves what it has.
#[derive(Clone, Debug)]
pub struct NeighbourSource {
    address: String,
    remote: CloudSource,
}

/// What is configured is no address.
#[derive(Debug, thiserror::Error)]
#[error("not host:port: {0:?}")]
pub struct NoAddress(String);

impl NeighbourSource {
    /// `host:port`. It is reached when it is asked, again and again; needs the runtime.
    pub fn new(address: &str) -> Result<Self, NoAddress> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| NoAddress(address.to_owned()))?;
        let channel = endpoint.connect_timeout(CONNECT_DEADLINE).connect_lazy();
        let (_, always) = watch::channel(Some(channel));
        Ok(Self {
            address: address.to_owned(),
            remote: CloudSource::new(always),
        })
    }
}

#[async_trait]
impl Source for NeighbourSource {
    fn name(&self) -> String {
        format!("neighbour {}", self.address)
    }

    async fn metadata(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, NotFetched> {
        self.remote.metadata(wanted).await
    }

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched> {
        self.remote.manifest(release).await
    }

    async fn chunks(
        &self,
        wanted: &[Chunk],
        take: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched> {
        self.remote.chunks(wanted, take).await
    }
}
