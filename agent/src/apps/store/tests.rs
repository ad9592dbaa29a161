use edgeward_apps::testing::{Content, Published, noise};

use super::*;

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    keep_free: 0,
};

fn released(bytes: &[u8]) -> (Published, Manifest) {
    let mut published = Published::new();
    let manifest = published.release("acme/x", "1", &[("bin/x", Content::Program(bytes))]);
    (published, manifest)
}

fn opened(folder: &Path, limits: Limits) -> ChunkStore {
    ChunkStore::open(&folder.join("chunks"), limits).unwrap()
}

#[test]
fn nothing_is_taken_that_was_not_asked_for_or_is_not_what_its_name_says() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), LIMITS);
    let (published, manifest) = released(&noise(300_000, 1));
    let (digest, bytes) = published.chunks.first_key_value().unwrap();
    let refused = store.put(*digest, bytes);
    assert!(matches!(refused, Err(StoreError::Unwanted(_))));
    store.want(&[&manifest]).unwrap();
    for wrong in [&bytes[1..], &[bytes.as_slice(), b"x"].concat(), b""] {
        let refused = store.put(*digest, wrong);
        assert!(matches!(refused, Err(StoreError::Other(_))));
    }
    let mut changed = bytes.clone();
    for at in (0..changed.len()).step_by(997) {
        changed[at] ^= 0x10;
        assert!(store.put(*digest, &changed).is_err(), "byte {at}");
        changed[at] ^= 0x10;
    }
    assert!(!store.holds(digest));
    assert_eq!(store.bytes(), 0);
    store.put(*digest, bytes).unwrap();
    store.put(*digest, b"whatever: it is there").unwrap();
    assert_eq!(store.read(digest).unwrap().as_ref(), Some(bytes));
    assert_eq!(store.bytes(), bytes.len() as u64);
}

#[test]
fn the_store_takes_no_more_than_its_limit_and_leaves_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let (published, manifest) = released(&noise(1_200_000, 2));
    let store = opened(folder.path(), LIMITS);
    store.want(&[&manifest]).unwrap();
    let mut refused = 0;
    for (digest, bytes) in &published.chunks {
        match store.put(*digest, bytes) {
            Ok(()) => {}
            Err(StoreError::Limit { limit, .. }) => {
                assert_eq!(limit, LIMITS.bytes);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(store.bytes() <= LIMITS.bytes);
    }
    assert!(refused > 0);
    let all = Limits {
        keep_free: u64::MAX,
        ..LIMITS
    };
    let store = opened(&folder.path().join("other"), all);
    store.want(&[&manifest]).unwrap();
    let (digest, bytes) = published.chunks.first_key_value().unwrap();
    let refused = store.put(*digest, bytes);
    assert!(matches!(refused, Err(StoreError::DiskFull(_))));
}

#[test]
fn a_chunk_that_changed_on_disk_is_dropped_and_not_given_out() {
    let folder = tempfile::tempdir().unwrap();
    let (published, manifest) = released(&noise(100_000, 3));
    let store = opened(folder.path(), LIMITS);
    store.want(&[&manifest]).unwrap();
    for (digest, bytes) in &published.chunks {
        store.put(*digest, bytes).unwrap();
        let file = folder.path().join("chunks").join(path_of(digest));
        // As a power cut leaves a file, longer, shorter, and as somebody else writes it.
        for content in [
            b"".to_vec(),
            [bytes.as_slice(), b"x"].concat(),
            noise(bytes.len(), 4),
        ] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(store.read(digest).unwrap(), None);
            assert!(!store.holds(digest));
            assert!(!file.exists());
            store.put(*digest, bytes).unwrap();
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(store.read(digest).unwrap(), None);
    }
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_store_that_is_opened_again_holds_what_it_held_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (published, manifest) = released(&noise(400_000, 5));
    let store = opened(folder.path(), LIMITS);
    store.want(&[&manifest]).unwrap();
    for (digest, bytes) in &published.chunks {
        store.put(*digest, bytes).unwrap();
    }
    let held = store.bytes();
    let (digest, _) = published.chunks.first_key_value().unwrap();
    let own = folder.path().join("chunks").join(path_of(digest));
    let shard = own.parent().unwrap().to_owned();
    drop(store);
    std::fs::write(folder.path().join("chunks/stray"), b"x").unwrap();
    std::fs::write(own.with_extension("new"), b"half").unwrap();
    std::fs::write(shard.join("stray"), b"x").unwrap();
    std::fs::create_dir(shard.join("folder")).unwrap();
    let misplaced = format!("{}{}", "ff", "00".repeat(31));
    std::fs::write(shard.join(&misplaced), b"x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", shard.join("link")).unwrap();
    let store = opened(folder.path(), LIMITS);
    assert_eq!(store.bytes(), held);
    assert_eq!(store.index.lock().held.len(), published.chunks.len());
    for stray in ["../stray", "stray", "folder", "link", misplaced.as_str()] {
        assert!(shard.join(stray).symlink_metadata().is_err(), "{stray}");
    }
    // Nobody wants them any more.
    store.want(&[]).unwrap();
    assert_eq!(store.bytes(), 0);
    assert!(!own.exists());
}
