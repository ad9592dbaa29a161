//! A disk that fills up, at every step.

use std::io::Write;

use super::super::super::stage;
use super::super::super::testing::with_own_mounts;
use super::super::super::volume::NoRoom;
use super::*;

/// Takes all space of a file system but so many bytes.
fn fill(folder: &Path, leave: u64) -> PathBuf {
    let path = folder.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = vec![7u8; 4096];
    while file.write_all(&block).is_ok() {}
    let _ = file.sync_all();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(leave)).unwrap();
    let _ = file.sync_all();
    path
}

/// Takes all names that a file system can hold but so many.
fn fill_names(folder: &Path, leave: usize) -> PathBuf {
    let path = folder.join("fillers");
    std::fs::create_dir(&path).unwrap();
    let mut made = 0usize;
    while std::fs::File::create(path.join(made.to_string())).is_ok() {
        made += 1;
    }
    for at in made.saturating_sub(leave)..made {
        std::fs::remove_file(path.join(at.to_string())).unwrap();
    }
    path
}

/// Chunks from memory; after so many the disk is full.
struct Filling<'p> {
    published: &'p Published,
    left: Mutex<usize>,
    folder: PathBuf,
}

impl Chunks for Filling<'_> {
    fn chunk(&self, chunk: &Chunk) -> Result<Vec<u8>, NotStaged> {
        let mut left = self.left.lock();
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None if !self.folder.join("filler").exists() => {
                fill(&self.folder, 0);
            }
            None => {}
        }
        Ok(self.published.chunks[&chunk.digest].clone())
    }

    fn spoiled(&self, chunk: &Chunk) -> Result<(), NotStaged> {
        panic!("memory does not change {}", chunk.digest)
    }
}

#[test]
fn a_volume_that_is_full_refuses_before_anything_is_written() {
    with_own_mounts(|| {
        let ground = Ground::mounted(8 << 20, &[]);
        let (installer, mut published) = (ground.installer(), Published::new());
        release(&mut published, "1.0");
        install(&installer, &mut published, APP);
        let manifest = release(&mut published, "1.1");
        let admitted = published.installable(APP).unwrap();
        fetch(&installer, &published, &manifest);
        let bytes = published.manifests[&admitted.digest()].clone();
        let filler = fill(ground.volume(), 100_000);
        let refused = installer.stage(&admitted, &bytes);
        assert!(
            matches!(refused, Err(NotStaged::NoRoom(NoRoom::Bytes { .. }))),
            "{refused:?}"
        );
        assert_eq!(refused.unwrap_err().code(), "apps-full");
        std::fs::remove_file(filler).unwrap();
        let fillers = fill_names(ground.volume(), 3);
        let refused = installer.stage(&admitted, &bytes);
        assert!(
            matches!(refused, Err(NotStaged::NoRoom(NoRoom::Files { .. }))),
            "{refused:?}"
        );
        std::fs::remove_dir_all(fillers).unwrap();
        assert_sound(&ground, &installer);
        assert_eq!(current(&installer).as_deref(), Some("1.0"));
        install(&installer, &mut published, APP);
        assert_eq!(current(&installer).as_deref(), Some("1.1"));
    });
}

#[test]
fn a_volume_that_fills_up_in_the_middle_leaves_what_is_in_use_as_it_was() {
    with_own_mounts(|| {
        let ground = Ground::mounted(8 << 20, &[]);
        let (installer, mut published) = (ground.installer(), Published::new());
        release(&mut published, "1.0");
        install(&installer, &mut published, APP);
        let manifest = release(&mut published, "1.1");
        let admitted = published.installable(APP).unwrap();
        fetch(&installer, &published, &manifest);
        let bytes = published.manifests[&admitted.digest()].clone();
        let total = manifest.chunks().count();
        let mut failed = 0;
        for after in 0..=total {
            let chunks = Filling {
                published: &published,
                left: Mutex::new(after),
                folder: ground.volume().to_owned(),
            };
            let staged = stage::stage(installer.volume(), &admitted, &bytes, &chunks);
            match staged {
                Err(NotStaged::Full) => failed += 1,
                Ok(_) => assert_eq!(after, total),
                Err(other) => panic!("after {after}: {other}"),
            }
            let _ = std::fs::remove_file(ground.volume().join("filler"));
            if after < total {
                assert_sound(&ground, &installer);
            }
            assert_eq!(current(&installer).as_deref(), Some("1.0"));
        }
        assert_eq!(failed, total, "each place in which it filled up");
        let staged = installer.stage(&admitted, &bytes).unwrap();
        installer.activate(&staged, WORDS, TEST_NOW).unwrap();
        assert_sound(&ground, &installer);
    });
}

#[test]
fn an_activation_for_which_there_is_no_room_changes_nothing() {
    with_own_mounts(|| {
        let mut ground = Ground::mounted(8 << 20, &[]);
        let (image, state) = (ground.path().join("state.img"), ground.state());
        ground.mount(&image, &state, 8 << 20, &[]);
        let (installer, mut published) = (ground.installer(), Published::new());
        release(&mut published, "1.0");
        install(&installer, &mut published, APP);
        let manifest = release(&mut published, "1.1");
        let admitted = published.installable(APP).unwrap();
        fetch(&installer, &published, &manifest);
        let bytes = published.manifests[&admitted.digest()].clone();
        let mut refused = 0;
        // The disk of the records, in steps of a block; then the names on the volume, which the link needs one of.
        for leave in (0..5).map(|blocks| blocks * 4096) {
            let staged = installer.stage(&admitted, &bytes).unwrap();
            let filler = fill(&state, leave);
            let outcome = installer.activate(&staged, WORDS, TEST_NOW);
            std::fs::remove_file(filler).unwrap();
            match outcome {
                Err(NotActivated::Full) => refused += 1,
                Err(other) => panic!("{other}"),
                Ok(_) => break,
            }
            assert_eq!(current(&installer).as_deref(), Some("1.0"));
            let (reopened, _) = ground.open();
            assert_sound(&ground, &reopened);
        }
        assert!(refused > 0);
        let manifest = release(&mut published, "1.2");
        let admitted = published.installable(APP).unwrap();
        fetch(&installer, &published, &manifest);
        let bytes = published.manifests[&admitted.digest()].clone();
        let before = current(&installer);
        let staged = installer.stage(&admitted, &bytes).unwrap();
        let fillers = fill_names(ground.volume(), 0);
        let outcome = installer.activate(&staged, WORDS, TEST_NOW);
        assert!(matches!(outcome, Err(NotActivated::Full)), "{outcome:?}");
        std::fs::remove_dir_all(fillers).unwrap();
        assert_eq!(current(&installer), before);
        let (reopened, _) = ground.open();
        assert_eq!(current(&reopened), before);
        assert_sound(&ground, &reopened);
        install(&reopened, &mut published, APP);
        assert_eq!(current(&reopened).as_deref(), Some("1.2"));
        assert_sound(&ground, &reopened);
    });
}

#[test]
fn a_store_whose_disk_is_full_says_so_and_goes_on_when_it_is_not() {
    with_own_mounts(|| {
        let mut ground = Ground::new();
        let (image, state) = (ground.path().join("state.img"), ground.state());
        ground.mount(&image, &state, 8 << 20, &[]);
        let (installer, mut published) = (ground.installer(), Published::new());
        let manifest = release(&mut published, "1.0");
        installer.want(&[&manifest]).unwrap();
        let missing = installer.missing(&manifest).unwrap();
        for leave in [0, 40_000, 64 << 10, 130_000] {
            let filler = fill(&state, leave);
            for chunk in &missing {
                match installer.put(chunk.digest, &published.chunks[&chunk.digest]) {
                    Ok(()) | Err(StoreError::DiskFull(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            let left = installer.missing(&manifest).unwrap();
            assert!(!left.is_empty(), "{leave}");
            std::fs::remove_file(filler).unwrap();
        }
        install(&installer, &mut published, APP);
        assert_sound(&ground, &installer);
    });
}
