//! Who may sign what: roots, the image role, publishers.

use super::*;

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
