//! The repository as it stands, what is read of it, and the content that is put into it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edgeward_apps::image::{MAX_TARGETS_BYTES, StatedImage};
use edgeward_apps::{
    AppName, Digest, ImageFloors, Manifest, PublisherKeys, PublisherName, Version,
};
use edgeward_identity::{Clock, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::content::Content;
use super::refusal::NotTaken;
use super::shelf::{Kind, Shelf};
use crate::audit::AuditLog;
use crate::config::Apps;
use crate::keys::CloudKeys;
use crate::store::apps::RoleRow;
use crate::store::{Store, StoreError};

/// Readings of one state, while somebody changes it.
const MAX_READINGS: u32 = 5;

/// The one of this process.
pub struct Repository {
    pub(super) store: Store,
    pub(super) audit: Arc<AuditLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) keys: Arc<CloudKeys>,
    pub(super) config: Apps,
    pub(super) shelf: Arc<Shelf>,
    /// Held by whoever changes the repository, and while it is swept.
    pub(super) turn: tokio::sync::Mutex<()>,
    reading: tokio::sync::Mutex<()>,
    pub(super) usage: Mutex<Usage>,
    releases: ArcSwap<Releases>,
    changed: watch::Sender<u64>,
}

/// What it is made of.
pub struct Parts {
    pub store: Store,
    pub audit: Arc<AuditLog>,
    pub clock: Arc<dyn Clock>,
    pub keys: Arc<CloudKeys>,
    pub config: Apps,
}

/// What is published now. Replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Releases {
    /// Every change has its own.
    pub changes: u64,
    pub apps: BTreeMap<AppName, BTreeMap<Version, PublishedRelease>>,
    /// The highest versions that the metadata reached.
    pub floors: ImageFloors,
    /// As the image role names them.
    pub publishers: BTreeMap<PublisherName, PublisherKeys>,
    /// Metadata in force, by role.
    pub roles: BTreeMap<String, RoleRow>,
}

/// One release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedRelease {
    /// Of its manifest.
    pub digest: Digest,
    /// Of its manifest, in bytes.
    pub length: u64,
    /// Of its files, in bytes.
    pub size: u64,
    pub content: Content,
    pub published: Timestamp,
    pub published_by: String,
}

/// What content takes on disk, in bytes. Counted anew at every sweep.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) total: u64,
    pub(super) publishers: BTreeMap<PublisherName, u64>,
}

impl Repository {
    /// Reads what is in force. The folder is made where there is none.
    pub async fn open(parts: Parts) -> anyhow::Result<Arc<Self>> {
        let repository = Self {
            shelf: Arc::new(Shelf::open(&parts.config.folder)?),
            store: parts.store,
            audit: parts.audit,
            clock: parts.clock,
            keys: parts.keys,
            config: parts.config,
            turn: tokio::sync::Mutex::default(),
            usage: Mutex::default(),
            releases: ArcSwap::default(),
            reading: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(0),
        };
        repository.read_again().await?;
        Ok(Arc::new(repository))
    }

    /// What is published now.
    pub fn releases(&self) -> Arc<Releases> {
        self.releases.load_full()
    }

    /// Rises whenever [`Repository::releases`] changes, by whichever cloud.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads again what is in force, if it has changed.
    pub async fn look(&self) -> Result<(), StoreError> {
        match self.store.apps_changes().await? == self.releases.load().changes {
            true => Ok(()),
            false => self.read_again().await,
        }
    }

    async fn read_again(&self) -> Result<(), StoreError> {
        // Two at once could put what the slower of them read over what is newer.
        let _alone = self.reading.lock().await;
        let mut releases = self.read().await?;
        self.look_into(&mut releases.apps).await;
        let changes = releases.changes;
        self.releases.store(Arc::new(releases));
        self.changed.send_if_modified(|known| {
            let is_new = *known != changes;
            *known = changes;
            is_new
        });
        Ok(())
    }

    /// A file of the metadata, as consistent snapshots name it.
    pub async fn metadata(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.apps_metadata(name).await
    }

    /// The bytes of a manifest or a chunk.
    pub async fn content(&self, kind: Kind, digest: Digest) -> Result<Option<Vec<u8>>, NotTaken> {
        self.on_shelf(move |shelf| Ok(shelf.read(kind, &digest)?))
            .await
    }

    /// The bytes of a manifest.
    pub async fn manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>, NotTaken> {
        self.content(Kind::Manifest, *digest).await
    }

    /// Which of these chunks are not here.
    pub async fn missing(&self, chunks: Vec<Digest>) -> Result<Vec<Digest>, NotTaken> {
        self.on_shelf(move |shelf| {
            let mut missing = Vec::new();
            for chunk in chunks {
                if shelf.find(Kind::Chunk, &chunk)?.is_none() {
                    missing.push(chunk);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// Puts content of a publisher. Worth nothing before its metadata names it.
    pub async fn put(
        &self,
        kind: Kind,
        publisher: &PublisherName,
        digest: Digest,
        bytes: Vec<u8>,
    ) -> Result<(), NotTaken> {
        let length = bytes.len() as u64;
        if length > kind.max_bytes() || Digest::of(&bytes) != digest {
            return Err(NotTaken::Content(digest));
        }
        if kind == Kind::Manifest {
            let manifest = Manifest::parse(&bytes).map_err(NotTaken::Manifest)?;
            if manifest.app.publisher() != publisher {
                return Err(NotTaken::OtherPublisher(manifest.app));
            }
        }
        self.reserve(publisher, length)?;
        let put = self
            .on_shelf(move |shelf| Ok(shelf.put(kind, &digest, &bytes)?))
            .await;
        if !matches!(put, Ok(true)) {
            self.give_back(publisher, length);
        }
        put.map(drop)
    }

    /// Room is taken before anything is written: of two uploads that fit alone, one is refused.
    fn reserve(&self, publisher: &PublisherName, bytes: u64) -> Result<(), NotTaken> {
        if !self.releases.load().publishers.contains_key(publisher) {
            return Err(NotTaken::UnknownPublisher(publisher.clone()));
        }
        let mut usage = self.usage.lock();
        if usage.total.saturating_add(bytes) > self.config.max_bytes {
            return Err(NotTaken::Full {
                what: "the repository",
                limit: self.config.max_bytes,
            });
        }
        let own = usage.publishers.entry(publisher.clone()).or_default();
        if own.saturating_add(bytes) > self.config.publisher_bytes {
            return Err(NotTaken::Full {
                what: "the publisher's part of the repository",
                limit: self.config.publisher_bytes,
            });
        }
        *own = own.saturating_add(bytes);
        usage.total = usage.total.saturating_add(bytes);
        Ok(())
    }

    fn give_back(&self, publisher: &PublisherName, bytes: u64) {
        let mut usage = self.usage.lock();
        usage.total = usage.total.saturating_sub(bytes);
        if let Some(own) = usage.publishers.get_mut(publisher) {
            *own = own.saturating_sub(bytes);
        }
    }

    /// Work on the disk, where it keeps nobody waiting.
    pub(super) async fn on_shelf<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> Result<T, NotTaken> + Send + 'static,
    ) -> Result<T, NotTaken> {
        let shelf = self.shelf.clone();
        tokio::task::spawn_blocking(move || work(&shelf))
            .await
            .map_err(|_| NotTaken::Interrupted)?
    }

    /// Everything of one state: read again where somebody changed it meanwhile.
    async fn read(&self) -> Result<Releases, StoreError> {
        for _ in 0..MAX_READINGS {
            let changes = self.store.apps_changes().await?;
            let roles = self.store.apps_roles().await?;
            let rows = self.store.apps_releases().await?;
            let floors = self.store.apps_floors().await?;
            let image = roles.iter().find(|role| role.role == "targets");
            let image = match image {
                Some(role) => self.store.apps_metadata(&role.name).await?,
                None => None,
            };
            if self.store.apps_changes().await? != changes {
                continue;
            }
            let publishers = match image {
                Some(bytes) => publishers_of(&bytes)?,
                None => BTreeMap::new(),
            };
            let mut apps: BTreeMap<AppName, BTreeMap<Version, PublishedRelease>> = BTreeMap::new();
            for row in rows.into_iter().filter(|row| row.withdrawn.is_none()) {
                let release = PublishedRelease {
                    digest: row.digest,
                    length: row.length,
                    size: row.size,
                    content: Content::default(),
                    published: row.published,
                    published_by: row.published_by,
                };
                apps.entry(row.app)
                    .or_default()
                    .insert(row.version, release);
            }
            return Ok(Releases {
                changes,
                apps,
                floors,
                publishers,
                roles: roles
                    .into_iter()
                    .map(|role| (role.role.clone(), role))
                    .collect(),
            });
        }
        Err(StoreError::Unavailable(
            "the repository changes all the time".to_owned(),
        ))
    }
}

fn publishers_of(bytes: &[u8]) -> Result<BTreeMap<PublisherName, PublisherKeys>, StoreError> {
    debug_assert!(bytes.len() as u64 <= MAX_TARGETS_BYTES);
    StatedImage::read(bytes)
        .map(|stated| stated.publishers)
        .map_err(|why| StoreError::Unreadable {
            what: "image role",
            value: why.to_string(),
        })
}
