//! The repository as publishers, operators and nodes see it, with every key at hand.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_apps::author::Envelope;
use edgeward_apps::image::ImageFloors;
use edgeward_apps::testing::{Content, Published, acme, noise, refreshed, signed, signers};
use edgeward_apps::{Digest, PublisherKeys, PublisherName};
use edgeward_audit::event::Actor;
use edgeward_audit::record::BootId;
use edgeward_identity::testing::{TEST_NOW, TurnedClock};
use edgeward_identity::{Kind, SoftwareKey, SpiffeId, Timestamp};
use tokio_util::sync::CancellationToken;

use super::shelf::Kind as What;
use super::*;
use crate::audit::AuditLog;
use crate::config::Apps;
use crate::keys::CloudKeys;
use crate::store::testing::TestStore;
use crate::testing::domain;

mod keeping;
mod online_keys;
mod releases;
mod roles;

const DAY: Duration = Duration::from_secs(86_400);

/// A cloud's repository, and all who sign for it.
struct Ground {
    repository: std::sync::Arc<Repository>,
    offline: Published,
    clock: std::sync::Arc<TurnedClock>,
    store: TestStore,
    folder: tempfile::TempDir,
}

fn by() -> Actor {
    Actor::from(SpiffeId::new(&domain(), Kind::Operator, "li").unwrap())
}

impl Ground {
    async fn new() -> Self {
        Self::with_room(8_000_000).await
    }

    async fn with_room(max_bytes: u64) -> Self {
        let (store, folder) = (TestStore::sqlite().await, tempfile::tempdir().unwrap());
        let clock = TurnedClock::at(TEST_NOW);
        let keys = CloudKeys::create(folder.path(), &domain(), TEST_NOW, |_| Ok(())).unwrap();
        let online = crate::keys::files::read_key(&folder.path().join("keys/apps-online.key"));
        let keeper = SpiffeId::new(&domain(), Kind::Cloud, "c").unwrap();
        let log = AuditLog::open(
            (*store).clone(),
            keeper,
            BootId::from_bytes([1; 16]),
            TEST_NOW,
        );
        let (audit, writer) = log.await.unwrap();
        tokio::spawn(writer.run(CancellationToken::new()));
        let parts = Parts {
            store: (*store).clone(),
            audit: std::sync::Arc::new(audit),
            clock: clock.clone(),
            keys: std::sync::Arc::new(keys),
            config: Apps {
                folder: folder.path().join("apps"),
                max_bytes,
                publisher_bytes: max_bytes / 2,
                timestamp_ttl: DAY,
                bytes_per_second: 1_000_000,
            },
        };
        let mut offline = Published::new();
        offline.repository.online = online.unwrap();
        let end = TEST_NOW.plus(DAY * 365);
        let expires = &mut offline.repository.expires;
        (expires.root, expires.targets, expires.publisher) = (end, end, end);
        offline.repository.sign_root(&[]);
        Self {
            repository: Repository::open(parts).await.unwrap(),
            offline,
            clock,
            store,
            folder,
        }
    }

    /// With the root and the image role in force.
    async fn begun() -> Self {
        let ground = Self::new().await;
        ground.root().await.unwrap();
        ground.image().await.unwrap();
        ground
    }

    async fn root(&self) -> Result<Taken, NotTaken> {
        let root = self.offline.repository.root().to_vec();
        self.repository.take_root(root, &by()).await
    }

    async fn image(&self) -> Result<Taken, NotTaken> {
        let bytes = self.file("targets");
        self.repository.take_image(bytes, &by()).await
    }

    async fn take(
        &self,
        bytes: Vec<u8>,
        policy: Option<PublisherKeys>,
    ) -> Result<TakenReleases, NotTaken> {
        let (acme, by) = (acme(), by());
        self.repository
            .take_releases(&acme, bytes, policy, &by)
            .await
    }

    async fn put(&self, kind: What, digest: Digest, bytes: Vec<u8>) -> Result<(), NotTaken> {
        self.repository.put(kind, &acme(), digest, bytes).await
    }

    async fn publish(&self) -> Result<TakenReleases, NotTaken> {
        let bytes = self.file("acme");
        self.repository
            .take_releases(&acme(), bytes, None, &by())
            .await
    }

    /// A role's file as its keys and numbers stand.
    fn file(&self, role: &str) -> Vec<u8> {
        let repository = &self.offline.repository;
        let version = match role {
            "targets" => repository.versions.targets,
            _ => repository.versions.publisher,
        };
        repository.files()[&format!("{version}.{role}.json")].clone()
    }

    async fn upload(&self) -> Result<(), NotTaken> {
        for (kind, files) in [
            (What::Chunk, &self.offline.chunks),
            (What::Manifest, &self.offline.manifests),
        ] {
            for (digest, bytes) in files {
                self.repository
                    .put(kind, &acme(), *digest, bytes.clone())
                    .await?;
            }
        }
        Ok(())
    }

    fn release(&mut self, version: &str, program: &[u8]) -> Digest {
        let tree = [("bin/x", Content::Program(program))];
        let manifest = self.offline.release("acme/x", version, &tree);
        Digest::of(&manifest.to_json().unwrap())
    }

    /// What a node says of all that the cloud serves.
    async fn node(&self, now: Timestamp) -> Result<edgeward_apps::Image, String> {
        self.node_from(self.offline.repository.root(), &ImageFloors::default(), now)
            .await
    }

    async fn node_from(
        &self,
        root: &[u8],
        floors: &ImageFloors,
        now: Timestamp,
    ) -> Result<edgeward_apps::Image, String> {
        let mut names = vec!["timestamp.json".to_owned()];
        names.extend(
            self.repository
                .releases()
                .roles
                .values()
                .map(|role| role.name.clone()),
        );
        names.extend((1..9).map(|version| format!("{version}.root.json")));
        let mut files = BTreeMap::new();
        for name in names {
            if let Some(bytes) = self.repository.metadata(&name).await.unwrap() {
                files.insert(name, bytes);
            }
        }
        let policy = self.offline.repository.policy();
        refreshed(&files, root, floors, &policy, now).map_err(|why| why.to_string())
    }

    async fn kinds(&self) -> Vec<String> {
        let all = self.store.all_events().await;
        all.iter()
            .map(|stored| stored.event.kind.name().to_owned())
            .collect()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, NotTaken>) -> &'static str {
    result.unwrap_err().code().unwrap_or("ours")
}
