//! The cloud's repository, or another node's copy of it, over a connection that is there.

use std::time::Duration;

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

/// How long an answer, or the next piece of one, may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The cloud, while there is a session with it.
#[derive(Clone, Debug)]
pub struct CloudSource(watch::Receiver<Option<Channel>>);

impl CloudSource {
    pub fn new(cloud: watch::Receiver<Option<Channel>>) -> Self {
        Self(cloud)
    }

    fn client(&self) -> Result<AppsClient<Channel>, NotFetched> {
        let channel = self.0.borrow().clone().ok_or(NotFetched::Offline)?;
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
        let mut client = self.client()?;
        let answer = within(client.metadata(request)).await;
        whole(answer, wanted.max_bytes, &wanted.name).await
    }

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched> {
        let request = v1::AppsManifestRequest {
            sha256: release.digest.as_bytes().to_vec(),
            offset: 0,
        };
        let mut client = self.client()?;
        let answer = within(client.manifest(request)).await;
        whole(answer, release.length, &release.app.to_string()).await
    }

    async fn chunks(
        &self,
        wanted: &[Chunk],
        take: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched> {
        let mut client = self.client()?;
        for part in wanted.chunks(MAX_CHUNKS_AT_ONCE) {
            let sha256 = part.iter().map(|chunk| chunk.digest.as_bytes().to_vec());
            let request = v1::AppsChunksRequest {
                sha256: sha256.collect(),
            };
            let mut stream = within(client.chunks(request)).await?;
            // Whoever sends more than was asked for is heard no further.
            for _ in 0..part.len() {
                let Some(chunk) = next(&mut stream).await? else {
                    break;
                };
                let named = <[u8; 32]>::try_from(chunk.sha256.as_slice());
                let digest = named.map_err(|_| NotFetched::Refused("no digest".to_owned()))?;
                if chunk.content.len() > MAX_CHUNK_BYTES as usize {
                    return Err(NotFetched::TooLong("chunk".to_owned()));
                }
                let taken = take.send((Digest::from_bytes(digest), chunk.content));
                taken.await.map_err(|_| NotFetched::Over)?;
            }
        }
        Ok(())
    }
}

async fn whole(
    answer: Result<Streaming<v1::AppsPiece>, NotFetched>,
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
        match next(&mut stream).await {
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

async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, NotFetched> {
    match tokio::time::timeout(DEADLINE, stream.message()).await {
        Err(_) => Err(NotFetched::Silent),
        Ok(Ok(message)) => Ok(message),
        Ok(Err(status)) => Err(refused(&status)),
    }
}

async fn within<T>(
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, NotFetched> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Err(_) => Err(NotFetched::Silent),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(refused(&status)),
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
