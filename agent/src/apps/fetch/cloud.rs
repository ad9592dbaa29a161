//! The cloud's repository, or another node's copy of it, over a connection that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use edgeward_apps::image::Wanted;
use edgeward_apps::manifest::{Chunk, MAX_CHUNK_BYTES};
use edgeward_apps::{Digest, Release};
use edgeward_wire::limits::{MAX_APPS_MESSAGE_BYTES, MAX_CHUNKS_AT_ONCE};
use edgeward_wire::v1;
use edgeward_wire::v1::apps_client::AppsClient;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::{NotFetched, Source};

/// How slow a source may be before another one is asked. It is waited for no longer than what was asked for takes at
/// this pace, however it spreads its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Until an answer begins.
    pub(super) first: Duration,
    /// From then on, in bytes a second.
    pub(super) least: u64,
}

/// A thin line is better than none.
const CLOUD: Pace = Pace {
    first: Duration::from_secs(30),
    least: 8 * 1024,
};

/// The cloud, while there is a session with it.
#[derive(Clone, Debug)]
pub struct CloudSource {
    cloud: watch::Receiver<Option<Channel>>,
    pace: Pace,
}

/// What is left of the time for one answer.
struct Waiting {
    all: Duration,
    /// For the next message.
    one: Duration,
}

impl CloudSource {
    pub fn new(cloud: watch::Receiver<Option<Channel>>) -> Self {
        Self::at(cloud, CLOUD)
    }

    pub(super) fn at(cloud: watch::Receiver<Option<Channel>>, pace: Pace) -> Self {
        Self { cloud, pace }
    }

    fn client(&self) -> Result<AppsClient<Channel>, NotFetched> {
        let channel = self.cloud.borrow().clone().ok_or(NotFetched::Offline)?;
        Ok(AppsClient::new(channel).max_decoding_message_size(MAX_APPS_MESSAGE_BYTES))
    }
}

#[async_trait]
impl Source for CloudSource {
    fn name(&self) -> String {
        "cloud".to_owned()
    }

    async fn metadata(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, NotFetched> {
        let request = v1::AppsMetadataRequest {
            name: wanted.name.clone(),
        };
        let mut waiting = self.pace.waiting(wanted.max_bytes, wanted.max_bytes);
        let mut client = self.client()?;
        let answer = waiting.answer(client.metadata(request)).await;
        whole(answer, &mut waiting, wanted.max_bytes, &wanted.name).await
    }

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched> {
        let request = v1::AppsManifestRequest {
            sha256: release.digest.as_bytes().to_vec(),
            offset: 0,
        };
        let mut waiting = self.pace.waiting(release.length, release.length);
        let mut client = self.client()?;
        let answer = waiting.answer(client.manifest(request)).await;
        whole(
            answer,
            &mut waiting,
            release.length,
            &release.app.to_string(),
        )
        .await
    }

    async fn chunks(
        &self,
        wanted: &[Chunk],
        take: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched> {
        let mut client = self.client()?;
        let mut seen = BTreeSet::new();
        let once: Vec<&Chunk> = wanted
            .iter()
            .filter(|chunk| seen.insert(chunk.digest))
            .collect();
        for part in once.chunks(MAX_CHUNKS_AT_ONCE) {
            let sha256 = part.iter().map(|chunk| chunk.digest.as_bytes().to_vec());
            let request = v1::AppsChunksRequest {
                sha256: sha256.collect(),
            };
            let mut asked: BTreeMap<Digest, u32> = part
                .iter()
                .map(|chunk| (chunk.digest, chunk.size))
                .collect();
            let bytes = asked.values().map(|size| u64::from(*size)).sum();
            let mut waiting = self.pace.waiting(bytes, u64::from(MAX_CHUNK_BYTES));
            let mut stream = waiting.answer(client.chunks(request)).await?;
            // Whoever sends what was not asked for, or more of it, is heard no further.
            while !asked.is_empty() {
                let Some(chunk) = waiting.next(&mut stream).await? else {
                    break;
                };
                let digest = expected(&mut asked, &chunk)?;
                let taken = take.send((digest, chunk.content));
                taken.await.map_err(|_| NotFetched::Over)?;
            }
        }
        Ok(())
    }
}

/// Of each that was asked for one, of its length. What it is, is for whoever keeps it to say.
fn expected(
    asked: &mut BTreeMap<Digest, u32>,
    chunk: &v1::AppsChunk,
) -> Result<Digest, NotFetched> {
    let named = <[u8; 32]>::try_from(chunk.sha256.as_slice());
    let digest = named.map_err(|_| NotFetched::Refused("no digest".to_owned()))?;
    let digest = Digest::from_bytes(digest);
    match asked.remove(&digest) {
        None => Err(NotFetched::Refused(format!("not asked for: {digest}"))),
        Some(size) if chunk.content.len() as u64 == u64::from(size) => Ok(digest),
        Some(_) => Err(NotFetched::Refused(format!("of another length: {digest}"))),
    }
}

async fn whole(
    answer: Result<Streaming<v1::AppsPiece>, NotFetched>,
    waiting: &mut Waiting,
    most: u64,
    what: &str,
) -> Result<Option<Vec<u8>>, NotFetched> {
    let mut stream = match answer {
        Ok(stream) => stream,
        Err(NotFetched::Refused(code)) if code == ABSENT => return Ok(None),
        Err(other) => return Err(other),
    };
    let mut bytes = Vec::new();
    loop {
        match waiting.next(&mut stream).await {
            Ok(Some(piece)) if piece.bytes.is_empty() => {
                return Err(NotFetched::Refused(format!("an empty piece of {what}")));
            }
            Ok(Some(piece)) => bytes.extend_from_slice(&piece.bytes),
            Ok(None) => return Ok(Some(bytes)),
            Err(NotFetched::Refused(code)) if code == ABSENT && bytes.is_empty() => {
                return Ok(None);
            }
            Err(other) => return Err(other),
        }
        if u64::try_from(bytes.len()).map_or(true, |length| length > most) {
            return Err(NotFetched::TooLong(what.to_owned()));
        }
    }
}

/// The cloud's code for what is not there.
const ABSENT: &str = "apps_absent";

impl Pace {
    /// For an answer of so many bytes, of which one message has at most `largest`.
    fn waiting(self, bytes: u64, largest: u64) -> Waiting {
        let at_least = |bytes: u64| {
            let seconds = bytes.div_ceil(self.least.max(1));
            self.first.saturating_add(Duration::from_secs(seconds))
        };
        Waiting {
            all: at_least(bytes),
            one: at_least(largest),
        }
    }
}

impl Waiting {
    async fn answer<T>(
        &mut self,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, NotFetched> {
        let answer = self.on(answer).await?;
        Ok(answer.map_err(|status| refused(&status))?.into_inner())
    }

    async fn next<T>(&mut self, stream: &mut Streaming<T>) -> Result<Option<T>, NotFetched> {
        let message = self.on(stream.message()).await?;
        message.map_err(|status| refused(&status))
    }

    /// Only what is waited for the other side counts: not the time in which this one writes to its disk.
    async fn on<T>(&mut self, work: impl Future<Output = T>) -> Result<T, NotFetched> {
        let begun = Instant::now();
        let done = tokio::time::timeout(self.one.min(self.all), work).await;
        self.all = self.all.saturating_sub(begun.elapsed());
        done.map_err(|_| NotFetched::Silent)
    }
}

fn refused(status: &Status) -> NotFetched {
    match status.code() {
        Code::NotFound => NotFetched::Refused(ABSENT.to_owned()),
        Code::ResourceExhausted => NotFetched::Budget,
        Code::Unavailable | Code::Cancelled | Code::Unknown => NotFetched::Offline,
        _ => NotFetched::Refused(status.message().to_owned()),
    }
}
