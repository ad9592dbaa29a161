use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use edgeward_apps::testing::{Content, Published};
use edgeward_identity::testing::TEST_NOW;

use super::*;

const TREE: &[(&str, Content<'_>)] = &[("bin/x", Content::Program(b"\x7fELF"))];

/// A repository in a folder, as a publisher's tool writes it.
fn written(published: &Published) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: String, bytes: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    for (name, bytes) in published.repository.files() {
        put(format!("image/metadata/{name}"), &bytes);
    }
    for (app, assigned) in &published.orders.apps {
        let (digest, version) = (assigned.digest, &assigned.version);
        let bytes = &published.manifests[&digest];
        put(format!("image/targets/{app}/{digest}.{version}"), bytes);
    }
    for (digest, bytes) in &published.chunks {
        let name = digest.to_string();
        let first: String = name.chars().take(2).collect();
        put(format!("image/chunks/{first}/{name}"), bytes);
    }
    folder
}

fn timestamp() -> Wanted {
    Wanted {
        name: "timestamp.json".to_owned(),
        max_bytes: 16_384,
    }
}

fn replace(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_stick_can_neither_hold_the_agent_up_nor_lead_it_elsewhere_nor_fill_its_memory() {
    let mut published = Published::new();
    published.release("acme/x", "1.0", TREE);
    let folder = written(&published);
    let source = FolderSource::new(folder.path().to_owned());
    let path = folder.path().join("image/metadata/timestamp.json");
    let read = async || {
        let wanted = timestamp();
        let read = source.metadata(&wanted);
        tokio::time::timeout(Duration::from_secs(5), read)
            .await
            .expect("the reader is held up")
    };
    assert!(read().await.unwrap().is_some());

    replace(&path);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(read().await, Err(NotFetched::Refused(_))));

    replace(&path);
    symlink("/etc/hostname", &path).unwrap();
    assert!(matches!(read().await, Err(NotFetched::Io(..))));

    replace(&path);
    std::fs::write(&path, vec![b' '; 16_385]).unwrap();
    assert!(matches!(read().await, Err(NotFetched::TooLong(_))));

    replace(&path);
    assert!(matches!(read().await, Ok(None)));
}

#[tokio::test]
async fn a_folder_has_all_that_a_node_needs() {
    let mut published = Published::new();
    let manifest = published.release("acme/x", "1.0", TREE);
    let folder = written(&published);
    let source = FolderSource::new(folder.path().to_owned());
    let root = published.repository.root();
    let policy = published.repository.policy();
    let refreshed = refresh(&source, root, &ImageFloors::default(), policy, TEST_NOW).await;
    let image = refreshed.image.unwrap();
    let release = image
        .release(&manifest.app, &manifest.version, TEST_NOW)
        .unwrap();
    let bytes = source.manifest(&release).await.unwrap().unwrap();
    assert_eq!(Digest::of(&bytes), release.digest);
    let wanted: Vec<Chunk> = manifest.chunks().collect();
    let (take, mut taken) = mpsc::channel(8);
    source.chunks(&wanted, take).await.unwrap();
    let (digest, content) = taken.recv().await.unwrap();
    assert_eq!(
        (digest, content.as_slice()),
        (wanted[0].digest, &TREE_BYTES[..])
    );
    assert!(source.word("gw-3").await.unwrap().is_none());
}

const TREE_BYTES: &[u8; 4] = b"\x7fELF";

#[tokio::test]
async fn what_was_verified_counts_though_a_later_file_is_held_back() {
    let mut published = Published::new();
    published.release("acme/x", "1.0", TREE);
    published.repository.versions.timestamp = 7;
    let folder = written(&published);
    replace(&folder.path().join("image/metadata/1.targets.json"));
    let source = FolderSource::new(folder.path().to_owned());
    let root = published.repository.root();
    let policy = published.repository.policy();
    let refreshed = refresh(&source, root, &ImageFloors::default(), policy, TEST_NOW).await;
    assert!(matches!(
        refreshed.image,
        Err(NotRefreshed::Refused(ImageRefused::Missing(_)))
    ));
    assert_eq!(refreshed.floors.roles["timestamp"].version, 7);
    assert_eq!(refreshed.root, root);
}

#[tokio::test]
async fn only_the_root_that_the_policy_pins_is_taken() {
    let mut published = Published::new();
    published.release("acme/x", "1.0", TREE);
    let folder = written(&published);
    let source = FolderSource::new(folder.path().to_owned());
    let root = published.repository.root().to_vec();
    let pinned = pinned_root(&source, Digest::of(&root)).await.unwrap();
    assert_eq!(pinned, Some(root));
    let other = pinned_root(&source, Digest::of(b"another")).await.unwrap();
    assert_eq!(other, None);
}
