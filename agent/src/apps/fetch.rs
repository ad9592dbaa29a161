//! Where metadata, manifests and content come from. Bytes never decide: any source is as good as what it gives.

use async_trait::async_trait;
use edgeward_apps::image::{ImageRefused, MAX_ROOT_BYTES};
use edgeward_apps::image::{MAX_ROOT_STEPS, Wanted};
use edgeward_apps::manifest::Chunk;
use edgeward_apps::{Digest, Image, ImageFloors, PublisherKeys, PublisherName, Refresh, Release};
use edgeward_identity::Timestamp;
use tokio::sync::mpsc;

mod cloud;
mod folder;
mod neighbour;

pub use cloud::CloudSource;
pub use folder::FolderSource;
pub use neighbour::{NeighbourSource, NoAddress};

/// Chunks on their way to the disk: what a torn download loses at most.
pub const MAX_CHUNKS_UNDER_WAY: usize = 2;

/// One place that may have what is wanted.
#[async_trait]
pub trait Source: Send + Sync {
    /// For people.
    fn name(&self) -> String;

    /// A file of the repository's metadata; `None`: it is not there.
    async fn metadata(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, NotFetched>;

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched>;

    /// What is there of these, in order, each as it comes.
    async fn chunks(
        &self,
        wanted: &[Chunk],
        take: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched>;
}

/// A source gave nothing. Another one may, or the same one later.
#[derive(Debug, thiserror::Error)]
pub enum NotFetched {
    #[error("there is no session with the cloud")]
    Offline,
    #[error("this node's budget is used up for now")]
    Budget,
    #[error("no answer in time")]
    Silent,
    #[error("left alone for a while: {0}")]
    Resting(String),
    #[error("longer than what is wanted may be: {0}")]
    TooLong(String),
    #[error("refused: {0}")]
    Refused(String),
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    #[error("nobody takes what is fetched")]
    Over,
}

/// What a refresh came to. What was verified counts, also where it failed later.
pub struct Refreshed {
    pub root: Vec<u8>,
    pub floors: ImageFloors,
    pub image: Result<Image, NotRefreshed>,
}

#[derive(Debug, thiserror::Error)]
pub enum NotRefreshed {
    #[error(transparent)]
    Refused(#[from] ImageRefused),
    #[error(transparent)]
    Fetched(#[from] NotFetched),
}

/// Takes a source's repository up, file by file, from the root that is held.
pub async fn refresh(
    source: &dyn Source,
    root: &[u8],
    floors: &ImageFloors,
    publishers: Vec<(PublisherName, PublisherKeys)>,
    now: Timestamp,
) -> Refreshed {
    let mut refresh = match Refresh::new(root, floors.clone(), publishers, now) {
        Ok(refresh) => refresh,
        Err(refused) => {
            return Refreshed {
                root: root.to_vec(),
                floors: floors.clone(),
                image: Err(refused.into()),
            };
        }
    };
    let driven = drive(&mut refresh, source).await;
    let (root, floors) = (refresh.root().to_vec(), refresh.floors().clone());
    let image = driven.and_then(|()| Ok(refresh.finish()?));
    Refreshed {
        root,
        floors,
        image,
    }
}

async fn drive(refresh: &mut Refresh, source: &dyn Source) -> Result<(), NotRefreshed> {
    while let Some(wanted) = refresh.wanted()? {
        let bytes = source.metadata(&wanted).await?;
        refresh.give(bytes.as_deref())?;
    }
    Ok(())
}

/// The root that the policy pins by its digest, for a node that holds none.
pub async fn pinned_root(
    source: &dyn Source,
    digest: Digest,
) -> Result<Option<Vec<u8>>, NotFetched> {
    for version in 1..=MAX_ROOT_STEPS {
        let wanted = Wanted {
            name: format!("{version}.root.json"),
            max_bytes: MAX_ROOT_BYTES,
        };
        match source.metadata(&wanted).await? {
            Some(bytes) if Digest::of(&bytes) == digest => return Ok(Some(bytes)),
            Some(_) => {}
            None => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
