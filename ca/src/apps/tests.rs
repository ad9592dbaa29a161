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
        use sqlx::Row as _;
        let rows = sqlx::query("SELECT type FROM events ORDER BY leaf");
        let rows = rows
            .fetch_all(&mut *self.store.read().await.unwrap())
            .await
            .unwrap();
        rows.iter().map(|row| row.get("type")).collect()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, NotTaken>) -> &'static str {
    result.unwrap_err().code().unwrap_or("ours")
}

#[tokio::test]
async fn nothing_is_taken_before_what_it_rests_on() {
    let ground = Ground::new().await;
    let mut changed = ground.repository.changed();
    changed.mark_unchanged();
    ground.repository.look().await.unwrap();
    assert!(!changed.has_changed().unwrap(), "nobody is told of nothing");
    assert_eq!(code(ground.image().await), "metadata-missing");
    assert_eq!(code(ground.publish().await), "metadata-missing");
    let put = ground.put(What::Chunk, Digest::of(b"x"), b"x".to_vec());
    assert_eq!(code(put.await), "publisher-unknown");
    ground.root().await.unwrap();
    assert_eq!(code(ground.publish().await), "metadata-missing");
    assert_eq!(
        ground.repository.metadata("timestamp.json").await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_root_that_does_not_name_the_clouds_own_key_alone_is_refused() {
    let mut ground = Ground::new().await;
    let own = std::mem::replace(
        &mut ground.offline.repository.online,
        SoftwareKey::generate().unwrap(),
    );
    ground.offline.repository.sign_root(&[]);
    assert_eq!(code(ground.root().await), "online-key");
    // Two keys where both have to sign.
    let repository = &ground.offline.repository;
    let offline = repository.offline();
    let other = SoftwareKey::generate().unwrap();
    let both = || signers(&[&own, &other], 2);
    let roles = BTreeMap::from([
        ("root", signers(&offline, 2)),
        ("targets", signers(&offline, 2)),
        ("timestamp", both()),
        ("snapshot", both()),
    ]);
    let root = Envelope::root(1, repository.expires.root, &roles).unwrap();
    let root = signed(root, &offline[..2]);
    assert_eq!(
        code(ground.repository.take_root(root, &by()).await),
        "online-key"
    );
}

#[tokio::test]
async fn what_lacks_a_signature_or_was_changed_is_refused_and_changes_nothing() {
    let mut ground = Ground::begun().await;
    ground.release("1.0", b"program");
    ground.upload().await.unwrap();
    let before = ground.repository.releases().changes;
    let text = String::from_utf8(ground.file("acme")).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["signatures"].as_array_mut().unwrap().pop();
    let one_less = serde_json::to_vec(&value).unwrap();
    let take = |bytes: Vec<u8>| ground.take(bytes, None);
    assert_eq!(code(take(one_less).await), "publisher-threshold");
    let changed = text.replace("acme/x/1.0", "acme/x/1.1").into_bytes();
    assert!(matches!(
        code(take(changed).await),
        "publisher-threshold" | "manifest-malformed"
    ));
    assert_eq!(code(take(b"{}".to_vec()).await), "metadata-malformed");
    let twice = text
        .replacen("\"signed\":", "\"signed\":{},\"signed\":", 1)
        .into_bytes();
    assert_eq!(code(take(twice).await), "metadata-malformed");
    let other: PublisherName = "other".parse().unwrap();
    let stranger = ground
        .repository
        .take_releases(&other, ground.file("acme"), None, &by())
        .await;
    assert!(stranger.is_err());
    assert_eq!(ground.repository.releases().changes, before);
    ground.publish().await.unwrap();
}

#[tokio::test]
async fn the_policys_keys_count_where_it_names_the_publisher() {
    let mut ground = Ground::begun().await;
    ground.release("1.0", b"program");
    ground.upload().await.unwrap();
    let other = SoftwareKey::generate().unwrap();
    let policy = edgeward_apps::testing::policy_keys(&[&other], 1);
    let take = ground.take(ground.file("acme"), Some(policy));
    assert_eq!(code(take.await), "publisher-threshold");
    let keys = ground.offline.repository.publisher_keys();
    let policy = edgeward_apps::testing::policy_keys(&keys, 2);
    let take = ground.take(ground.file("acme"), Some(policy));
    take.await.unwrap();
}

#[tokio::test]
async fn a_release_is_published_only_when_all_of_it_is_here() {
    let mut ground = Ground::begun().await;
    let digest = ground.release("1.0", &noise(300_000, 1));
    let chunks: Vec<Digest> = ground.offline.chunks.keys().copied().collect();
    assert!(chunks.len() > 1);
    let missing = ground.repository.missing(chunks.clone()).await.unwrap();
    assert_eq!(missing, chunks);
    match ground.publish().await {
        Err(NotTaken::Incomplete { missing, .. }) => assert_eq!(missing, [digest]),
        other => panic!("{other:?}"),
    }
    let manifest = ground.offline.manifests[&digest].clone();
    ground.put(What::Manifest, digest, manifest).await.unwrap();
    let (last, rest) = chunks.split_last().unwrap();
    for chunk in rest {
        let bytes = ground.offline.chunks[chunk].clone();
        ground.put(What::Chunk, *chunk, bytes).await.unwrap();
    }
    match ground.publish().await {
        Err(NotTaken::Incomplete {
            missing, count: 1, ..
        }) => assert_eq!(missing, [*last]),
        other => panic!("{other:?}"),
    }
    let wrong = ground.put(What::Chunk, *last, b"else".to_vec()).await;
    assert_eq!(code(wrong), "chunk-mismatch");
    ground.upload().await.unwrap();
    let mut changed = ground.repository.changed();
    changed.mark_unchanged();
    let taken = ground.publish().await.unwrap();
    assert_eq!(taken.published[0].digest, digest);
    assert!(changed.has_changed().unwrap());
    let releases = ground.repository.releases();
    let release = &releases.apps[&"acme/x".parse().unwrap()][&"1.0".parse().unwrap()];
    assert_eq!((release.digest, release.size), (digest, 300_000));
    assert_eq!(
        ground.kinds().await,
        [
            "journal.opened",
            "publisher.changed",
            "publisher.changed",
            "app.published"
        ]
    );
    // A node takes it, by the metadata that the cloud serves.
    let image = ground.node(TEST_NOW).await.unwrap();
    let found = image.release(
        &"acme/x".parse().unwrap(),
        &"1.0".parse().unwrap(),
        TEST_NOW,
    );
    assert_eq!(found.unwrap().digest, digest);
    assert_eq!(image.floors().roles["acme"], releases.floors.roles["acme"]);
    assert_eq!(
        image.floors().roles["timestamp"],
        releases.floors.roles["timestamp"]
    );
}

#[tokio::test]
async fn a_release_never_changes_and_no_two_compare_equal() {
    let mut ground = Ground::begun().await;
    ground.release("2.3", b"one");
    ground.upload().await.unwrap();
    let file = ground.file("acme");
    ground.take(file.clone(), None).await.unwrap();
    // The same file again is no change.
    let before = ground.repository.releases().changes;
    assert!(ground.take(file, None).await.unwrap().published.is_empty());
    assert_eq!(ground.repository.releases().changes, before);
    let repository = &mut ground.offline.repository;
    repository.versions.publisher = 2;
    let kept = repository.manifests.clone();
    ground.release("2.3.0", b"two");
    ground.upload().await.unwrap();
    assert_eq!(code(ground.publish().await), "app-release-equal");
    ground.offline.repository.manifests = kept.clone();
    ground.release("2.3", b"three");
    ground.upload().await.unwrap();
    assert_eq!(code(ground.publish().await), "app-release-changed");
    // Withdrawn, and back with other bytes: refused as well.
    ground.offline.repository.manifests.clear();
    let taken = ground.publish().await.unwrap();
    assert_eq!((taken.published.len(), taken.withdrawn.len()), (0, 1));
    assert!(ground.repository.releases().apps.is_empty());
    ground.offline.repository.versions.publisher = 3;
    ground.release("2.3", b"three");
    assert_eq!(code(ground.publish().await), "app-release-changed");
    ground.offline.repository.manifests = kept;
    assert_eq!(ground.publish().await.unwrap().published.len(), 1);
}

#[tokio::test]
async fn no_role_goes_back_or_changes_under_its_version() {
    let mut ground = Ground::begun().await;
    ground.release("1.0", b"one");
    ground.upload().await.unwrap();
    let old = (ground.file("targets"), ground.file("acme"));
    ground.publish().await.unwrap();
    ground.release("1.1", b"two");
    ground.upload().await.unwrap();
    assert_eq!(
        code(ground.publish().await),
        "metadata-rollback",
        "another content under version 1"
    );
    let versions = &mut ground.offline.repository.versions;
    (versions.publisher, versions.targets) = (2, 2);
    ground.publish().await.unwrap();
    ground.image().await.unwrap();
    let releases = ground.take(old.1, None).await;
    assert_eq!(code(releases), "metadata-rollback");
    assert_eq!(
        code(ground.repository.take_image(old.0, &by()).await),
        "metadata-rollback"
    );
    assert_eq!(ground.repository.releases().roles["acme"].version, 2);
}

#[tokio::test]
async fn a_root_follows_by_the_signatures_of_the_one_before_and_nodes_follow_too() {
    let mut ground = Ground::begun().await;
    ground.release("1.0", b"one");
    ground.upload().await.unwrap();
    ground.publish().await.unwrap();
    let first = ground.offline.repository.root().to_vec();
    let repository = &mut ground.offline.repository;
    repository.versions.root = 2;
    let old: Vec<SoftwareKey> = std::mem::replace(
        &mut repository.offline,
        (0..3).map(|_| SoftwareKey::generate().unwrap()).collect(),
    );
    repository.sign_root(&[]);
    assert_eq!(code(ground.root().await), "metadata-threshold");
    ground.offline.repository.versions.root = 3;
    ground.offline.repository.sign_root(&[&old[0], &old[1]]);
    assert_eq!(code(ground.root().await), "metadata-version");
    ground.offline.repository.versions.root = 2;
    ground.offline.repository.sign_root(&[&old[0], &old[1]]);
    let taken = ground.root().await.unwrap();
    // The image role was signed by keys that are gone: nodes say so until it is signed anew.
    assert_eq!(taken.no_longer_hold, ["targets"]);
    assert!(
        ground
            .node_from(&first, &ImageFloors::default(), TEST_NOW)
            .await
            .is_err()
    );
    ground.offline.repository.versions.targets = 2;
    assert!(ground.image().await.unwrap().no_longer_hold.is_empty());
    let image = ground
        .node_from(&first, &ImageFloors::default(), TEST_NOW)
        .await
        .unwrap();
    assert_eq!(image.floors().root, 2);
}

#[tokio::test]
async fn a_publisher_whose_keys_change_is_told_of_and_one_that_goes_takes_its_releases_along() {
    let mut ground = Ground::begun().await;
    ground.release("1.0", b"one");
    ground.upload().await.unwrap();
    ground.publish().await.unwrap();
    let repository = &mut ground.offline.repository;
    repository.versions.targets = 2;
    repository.publisher = (0..3).map(|_| SoftwareKey::generate().unwrap()).collect();
    assert_eq!(ground.image().await.unwrap().no_longer_hold, ["acme"]);
    assert!(ground.node(TEST_NOW).await.is_err());
    ground.offline.repository.versions.publisher = 2;
    ground.publish().await.unwrap();
    ground.node(TEST_NOW).await.unwrap();
    let repository = &mut ground.offline.repository;
    repository.versions.targets = 3;
    repository.delegations = Some(BTreeMap::new());
    ground.image().await.unwrap();
    let releases = ground.repository.releases();
    assert!(releases.apps.is_empty() && releases.publishers.is_empty());
    assert!(!releases.roles.contains_key("acme"));
    let gone = ground.put(What::Chunk, Digest::of(b"x"), b"x".to_vec());
    assert_eq!(code(gone.await), "publisher-unknown");
}

#[tokio::test]
async fn a_timestamp_is_renewed_before_it_ends_and_nodes_go_on() {
    let mut ground = Ground::begun().await;
    ground.release("1.0", b"one");
    ground.upload().await.unwrap();
    ground.publish().await.unwrap();
    let floors = ground.node(TEST_NOW).await.unwrap().floors().clone();
    assert!(!ground.repository.renew(TEST_NOW).await.unwrap());
    let later = TEST_NOW.plus(DAY * 3);
    assert!(ground.node(later).await.is_err(), "it has ended");
    ground.clock.set_now(later);
    assert!(ground.repository.renew(later).await.unwrap());
    assert!(!ground.repository.renew(later).await.unwrap());
    let root = ground.offline.repository.root().to_vec();
    let image = ground.node_from(&root, &floors, later).await.unwrap();
    let version = |floors: &ImageFloors| floors.roles["timestamp"].version;
    assert!(version(image.floors()) > version(&floors));
    // Nobody signs for a root that has ended: whoever keeps it was told in time.
    let end = TEST_NOW.plus(DAY * 365);
    let urgent = ground.repository.endings(end.minus(DAY * 3));
    assert_eq!((urgent.len(), urgent[0].urgency), (3, 3));
    ground.clock.set_now(end.plus(DAY));
    assert_eq!(
        code(ground.repository.renew(end.plus(DAY)).await),
        "metadata-expired"
    );
}

#[tokio::test]
async fn content_is_bounded_for_all_and_for_each_publisher() {
    let mut ground = Ground::with_room(1_000_000).await;
    ground.root().await.unwrap();
    ground.image().await.unwrap();
    ground.release("1.0", &noise(600_000, 7));
    assert_eq!(code(ground.upload().await), "apps-full");
    // What was refused took no room: what fits still comes in.
    ground.repository.sweep().await.unwrap();
    ground.offline.chunks.clear();
    ground.offline.manifests.clear();
    ground.offline.repository.manifests.clear();
    ground.release("1.0", &noise(100_000, 8));
    ground.upload().await.unwrap();
    ground.publish().await.unwrap();
}

#[tokio::test]
async fn what_the_disk_lost_can_be_uploaded_again_and_what_nobody_names_is_kept_for_a_day() {
    let mut ground = Ground::begun().await;
    let digest = ground.release("1.0", b"program");
    ground.upload().await.unwrap();
    ground.publish().await.unwrap();
    ground
        .put(What::Chunk, Digest::of(b"loose"), b"loose".to_vec())
        .await
        .unwrap();
    ground.repository.sweep().await.unwrap();
    assert!(
        ground
            .repository
            .content(What::Chunk, Digest::of(b"loose"))
            .await
            .unwrap()
            .is_some()
    );
    let name = digest.to_string();
    let path = ground
        .folder
        .path()
        .join("apps/manifests")
        .join(name.get(..2).unwrap())
        .join(&name);
    std::fs::write(&path, b"rotten").unwrap();
    assert_eq!(ground.repository.manifest(&digest).await.unwrap(), None);
    ground.upload().await.unwrap();
    assert!(ground.repository.manifest(&digest).await.unwrap().is_some());
}

#[tokio::test]
async fn another_cloud_of_the_same_database_sees_what_this_one_took() {
    let mut ground = Ground::begun().await;
    let parts = Parts {
        store: ground.store.another().await,
        audit: ground.repository.audit.clone(),
        clock: ground.clock.clone(),
        keys: ground.repository.keys.clone(),
        config: ground.repository.config.clone(),
    };
    let other = Repository::open(parts).await.unwrap();
    let mut changed = other.changed();
    changed.mark_unchanged();
    ground.release("1.0", b"program");
    ground.upload().await.unwrap();
    ground.publish().await.unwrap();
    assert!(other.releases().apps.is_empty());
    other.look().await.unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(other.releases().apps.len(), 1);
}
