//! What the cloud does by itself: fresh signatures, content that is lost or that nobody names, another cloud beside it.

use super::*;

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
