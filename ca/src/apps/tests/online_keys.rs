//! The key for snapshot and timestamp, turned over while nodes follow.

use super::*;

impl Ground {
    /// The root that follows, with this key for snapshot and timestamp.
    fn next_root(&mut self, key: SoftwareKey) {
        let repository = &mut self.offline.repository;
        repository.online = key;
        repository.versions.root += 1;
        repository.sign_root(&[]);
    }

    /// The key that waits, as only the cloud has it.
    fn waiting(&self) -> SoftwareKey {
        let folder = self.folder.path().join("keys");
        let names = std::fs::read_to_string(folder.join("online.json")).unwrap();
        let names: serde_json::Value = serde_json::from_str(&names).unwrap();
        let name = names["apps_online_next"].as_str().unwrap();
        crate::keys::files::read_key(&folder.join(format!("{name}.key"))).unwrap()
    }

    /// By which key the timestamp in force is signed.
    async fn signed_by(&self) -> String {
        let bytes = self.repository.metadata("timestamp.json").await.unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
        value["signatures"][0]["keyid"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_root_that_names_the_next_key_brings_it_into_use_and_nodes_follow() {
    let mut ground = Ground::begun().await;
    ground.release("1.0", b"program");
    ground.upload().await.unwrap();
    ground.publish().await.unwrap();
    let held = ground.offline.repository.root().to_vec();
    let before = ground.node(TEST_NOW).await.unwrap();
    let (old, first) = (ground.repository.online_key(), ground.signed_by().await);

    let next = ground.repository.prepare_online_key(&by()).await.unwrap();
    assert_ne!(next, old);
    let same = ground.repository.prepare_online_key(&by()).await.unwrap();
    assert_eq!(same, next, "it waits for its root");
    assert_eq!(ground.repository.online_key(), old);
    // Until then everything goes on under the key before.
    ground.clock.set_now(TEST_NOW.plus(DAY / 2));
    assert!(
        ground
            .repository
            .renew(TEST_NOW.plus(DAY / 2))
            .await
            .unwrap()
    );
    assert_eq!(ground.signed_by().await, first);

    let waiting = ground.waiting();
    ground.next_root(waiting);
    ground.root().await.unwrap();
    assert_eq!(ground.repository.online_key(), next);
    assert_eq!(ground.repository.next_online_key(), None);
    assert_ne!(ground.signed_by().await, first);
    let key = ground.folder.path().join("keys/apps-online.key");
    assert!(!key.exists(), "what may be stolen is not kept");

    // A node that holds the root before, and what it reached under it, comes along.
    let now = TEST_NOW.plus(DAY / 2);
    let image = ground.node_from(&held, before.floors(), now).await.unwrap();
    assert_eq!(image.floors().root, 2);
    ground.offline.repository.versions.publisher += 1;
    ground.release("1.1", b"another");
    ground.upload().await.unwrap();
    ground.publish().await.unwrap();
    let image = ground.node_from(&held, before.floors(), now).await.unwrap();
    let (app, version) = ("acme/x".parse().unwrap(), "1.1".parse().unwrap());
    image.release(&app, &version, now).unwrap();
}

#[tokio::test]
async fn a_root_with_a_key_that_this_cloud_does_not_have_changes_nothing() {
    let mut ground = Ground::begun().await;
    let (old, changes) = (
        ground.repository.online_key(),
        ground.repository.releases().changes,
    );
    ground.repository.prepare_online_key(&by()).await.unwrap();
    ground.next_root(SoftwareKey::generate().unwrap());
    assert_eq!(code(ground.root().await), "online-key");
    assert_eq!(ground.repository.online_key(), old);
    assert!(ground.repository.next_online_key().is_some());
    assert_eq!(ground.repository.releases().changes, changes);
}
