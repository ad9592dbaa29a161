//! What hostile sources, disks and clouds try.

use std::path::Path;

use super::super::super::testing::open_up;
use super::*;

/// Assigned 1.0, with a shelf that somebody changed.
async fn changed(change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    world.release("1.0", 1);
    world.rule();
    world.say();
    change(&mut world);
    world.begin().await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_in_any_artefact_installs_nothing() {
    for name in [
        "timestamp.json",
        "1.snapshot.json",
        "1.targets.json",
        "1.acme.json",
    ] {
        let world = changed(|world| {
            let mut files = world.shelf.files.lock();
            let file = files.get_mut(name).unwrap();
            let middle = file.len() / 2;
            file[middle] ^= 1;
        })
        .await;
        world.until_refused().await;
        assert_eq!(world.current(), None, "{name}");
        assert_eq!(world.count("record app.installing"), 0, "{name}");
    }
    let manifest = changed(|world| {
        for bytes in world.shelf.manifests.lock().values_mut() {
            bytes[10] ^= 1;
        }
    });
    manifest.await.refused("apps-unreachable").await;
    let chunk = changed(|world| {
        for bytes in world.shelf.chunks.lock().values_mut() {
            bytes[10] ^= 1;
        }
    })
    .await;
    chunk.refused("apps-unreachable").await;
    assert_eq!(chunk.current(), None);
}

impl World {
    async fn until_refused(&self) {
        let wait = async {
            loop {
                let log = self.log.lock().clone();
                if log
                    .iter()
                    .any(|said| said.starts_with("record app.refused"))
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, wait).await;
        assert!(waited.is_ok(), "{:#?}", self.log.lock());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_was_taken_back_is_refused_and_what_was_seen_holds_after_a_restart() {
    let mut world = World::installed().await;
    let old = world.shelf.files.lock().clone();
    world.published.repository.versions.timestamp = 2;
    world.published.repository.versions.snapshot = 2;
    world.published.repository.versions.publisher = 2;
    world.release("2.0", 2);
    world.say();
    world.until("want 2.0@61184").await;
    // The old repository, and an assignment that needs a look at it.
    world.stop().await;
    world.release("3.0", 3);
    world.published.number += 1;
    *world.shelf.files.lock() = old;
    world.speak();
    world.begin().await;
    world.refused("metadata-rollback").await;
    assert_eq!(world.current().as_deref(), Some("2.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_state_takes_nothing_below_what_the_director_knows_it_had() {
    let app: AppName = APP.parse().unwrap();
    let world = changed(|world| {
        let highest = "2.0".parse().unwrap();
        world.published.orders.highest.insert(app.clone(), highest);
        world.speak();
    })
    .await;
    world.refused("app-rollback").await;
    assert_eq!(world.current(), None);
    let floors = ImageFloors {
        root: 9,
        ..ImageFloors::default()
    };
    let world = changed(|world| {
        world.published.orders.floors = floors;
        world.speak();
    })
    .await;
    world.refused("metadata-rollback").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_the_state_does_not_know_neither_runs_nor_is_in_the_book() {
    let mut world = World::installed().await;
    world.stop().await;
    // A disk with another node's release on it, say: the volume is there, the state knows nothing of it.
    world.stored.lock().admitted.clear();
    *world.shelf.files.lock() = BTreeMap::new();
    world.log.lock().clear();
    world.begin().await;
    world.refused("metadata-missing").await;
    assert_eq!(world.count("want 1.0@61184"), 0);
    assert_eq!(world.count("book  used"), 1);
    // With the repository at hand it is proven anew, and nothing is fetched twice.
    let given = *world.shelf.given.lock();
    world.say();
    world.until("want 1.0@61184").await;
    assert_eq!(*world.shelf.given.lock(), given);
    // Nobody wants it: it is removed all the same.
    world.stop().await;
    world.stored.lock().admitted.clear();
    world.published.orders.apps.clear();
    world.say();
    world.begin().await;
    let gone = async {
        while world.current().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, gone).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_is_said_while_content_is_on_its_way_is_heard_before_the_content_is_used() {
    let mut world = World::new();
    world.release("1.0", 1);
    world.rule();
    *world.shelf.tears_after.lock() = Some(0);
    world.say();
    world.begin().await;
    world.refused("apps-unreachable").await;
    let app: AppName = APP.parse().unwrap();
    let digest = world.published.orders.apps[&app].digest;
    world.published.orders.denied.insert(digest);
    *world.shelf.tears_after.lock() = None;
    world.say();
    world.refused("app-denied").await;
    assert_eq!(world.count("record app.installing"), 0);
    assert_eq!(world.current(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refusal_that_lasts_is_one_record() {
    let mut world = World::new();
    world.published.rules.allow.clear();
    world.release("1.0", 1);
    world.rule();
    world.say();
    world.begin().await;
    world.refused("app-not-allowed").await;
    for _ in 0..5 {
        world.speak();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.count("record app.refused app-not-allowed"), 1);
}

/// A change to a tree, and the words with which it is told.
type Change = (&'static str, fn(&Path));

const CHANGES: [Change; 5] = [
    ("bin/collector has another content", |tree| {
        let path = tree.join("bin/collector");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[123_456] ^= 1;
        open_up(&path);
        std::fs::write(&path, bytes).unwrap();
        shut(&path, 0o555);
    }),
    ("lib/libx.so.1 is missing", |tree| {
        let path = tree.join("lib/libx.so.1");
        open_up(&path);
        std::fs::remove_file(&path).unwrap();
        shut(&tree.join("lib/none"), 0o444);
    }),
    ("bin/more is not in the manifest", |tree| {
        open_up(&tree.join("bin/collector"));
        std::fs::write(tree.join("bin/more"), b"x").unwrap();
        shut(&tree.join("bin/collector"), 0o555);
    }),
    ("lib/libx.so has another content", |tree| {
        let path = tree.join("lib/libx.so");
        open_up(&tree.join("lib/libx.so.1"));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        shut(&tree.join("lib/libx.so.1"), 0o444);
    }),
    ("bin/collector has other permissions", |tree| {
        open_up(&tree.join("bin/collector"));
        shut(&tree.join("bin/collector"), 0o755);
    }),
];

/// As the installer leaves it.
fn shut(path: &Path, mode: u32) {
    for (path, mode) in [(path, mode), (path.parent().unwrap(), 0o555)] {
        if path.exists() {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_tells_a_file_that_is_not_as_it_was_signed() {
    for (told, change) in CHANGES {
        let world = World::installed().await;
        let fine = world.orders.verify().await.unwrap();
        assert_eq!(fine.len(), 1);
        assert_eq!(fine[0].wrong, None);
        let tree = world.ground.installer().installed().remove(0).tree;
        change(&tree);
        let found = world.orders.verify().await.unwrap();
        let wrong = found[0].wrong.clone().unwrap_or_default();
        assert!(wrong.contains(told), "{told}: {wrong:?}");
        assert!(found[0].current);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_tells_a_release_whose_record_is_gone_or_changed() {
    let mut world = World::installed().await;
    let digest = world.orders.verify().await.unwrap()[0].digest;
    let record = format!("releases/{digest}/manifest.json");
    let record = world.ground.state().join(record);
    let mut bytes = std::fs::read(&record).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&record, bytes).unwrap();
    let found = world.orders.verify().await.unwrap();
    assert!(found[0].wrong.is_some(), "{found:?}");
    std::fs::remove_file(&record).unwrap();
    let found = world.orders.verify().await.unwrap();
    assert!(found[0].wrong.is_some(), "{found:?}");
    // Nobody takes the order of somebody who came too late.
    world.stop().await;
    assert!(world.orders.verify().await.is_none());
}
