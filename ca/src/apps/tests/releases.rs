//! What publishers signed, and its content.

use super::*;

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
