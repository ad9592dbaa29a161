//! Another node's copy of the repository. The connection itself is in the clear: the tunnel is around it, and what it
//! brings is signed or named by its digest.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use edgeward_apps::image::Wanted;
use edgeward_apps::manifest::Chunk;
use edgeward_apps::{Digest, Release};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tonic::transport::Endpoint;

use super::cloud::Pace;
use super::{CloudSource, NotFetched, Source};

/// How long a neighbour may take to be reached: others are asked after it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Near, so not slow: what it does not give soon others have.
const NEARBY: Pace = Pace {
    first: Duration::from_secs(5),
    least: 128 * 1024,
};
/// How long one that did not answer well is left alone: doubled from the first to the last, but for one that is only away.
const FIRST_REST: Duration = Duration::from_secs(5);
const LAST_REST: Duration = Duration::from_secs(300);

/// A node nearby that serves what it has.
#[derive(Debug)]
pub struct NeighbourSource {
    address: String,
    remote: CloudSource,
    resting: Mutex<Option<Resting>>,
}

/// It failed, and is not asked again before this is over: a refresh, a manifest and its content would each wait for it.
#[derive(Clone, Debug)]
struct Resting {
    until: Instant,
    length: Duration,
    why: String,
}

/// What is configured is no address.
#[derive(Debug, thiserror::Error)]
#[error("not host:port: {0:?}")]
pub struct NoAddress(String);

impl NeighbourSource {
    /// `host:port`. It is reached when it is asked, again and again; needs the runtime.
    pub fn new(address: &str) -> Result<Self, NoAddress> {
        Self::at(address, NEARBY)
    }

    pub(super) fn at(address: &str, pace: Pace) -> Result<Self, NoAddress> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| NoAddress(address.to_owned()))?;
        let channel = endpoint.connect_timeout(CONNECT_DEADLINE).connect_lazy();
        let (_, always) = watch::channel(Some(channel));
        Ok(Self {
            address: address.to_owned(),
            remote: CloudSource::at(always, pace),
            resting: Mutex::new(None),
        })
    }

    fn may_ask(&self) -> Result<(), NotFetched> {
        match &*self.resting.lock() {
            Some(resting) if Instant::now() < resting.until => {
                Err(NotFetched::Resting(resting.why.clone()))
            }
            _ => Ok(()),
        }
    }

    fn heard<T>(&self, answer: Result<T, NotFetched>) -> Result<T, NotFetched> {
        let mut resting = self.resting.lock();
        match &answer {
            // That nobody takes what it gives is not its fault.
            Err(NotFetched::Over) => {}
            Err(why) => {
                let length = match (&*resting, why) {
                    (None, _) | (_, NotFetched::Offline) => FIRST_REST,
                    (Some(before), _) => before.length.saturating_mul(2).min(LAST_REST),
                };
                *resting = Some(Resting {
                    until: Instant::now() + length,
                    length,
                    why: why.to_string(),
                });
            }
            Ok(_) => *resting = None,
        }
        answer
    }
}

#[async_trait]
impl Source for NeighbourSource {
    fn name(&self) -> String {
        format!("neighbour {}", self.address)
    }

    async fn metadata(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, NotFetched> {
        self.may_ask()?;
        self.heard(self.remote.metadata(wanted).await)
    }

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched> {
        self.may_ask()?;
        self.heard(self.remote.manifest(release).await)
    }

    async fn chunks(
        &self,
        wanted: &[Chunk],
        take: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched> {
        self.may_ask()?;
        self.heard(self.remote.chunks(wanted, take).await)
    }
}
