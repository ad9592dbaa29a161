//! What applications are made of, on disk: chunks and manifests, each under its digest.
//!
//! ```text
//! <folder>/chunks/<2 hex>/<sha256>      <folder>/manifests/<2 hex>/<sha256>      <folder>/part-<random>
//! ```
//! A file is there whole or not at all, and is checked whenever it is read: what the disk changed is put aside and can
//! be uploaded again. Several clouds may share the folder.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use edgeward_apps::Digest;
use edgeward_apps::manifest::{MAX_CHUNK_BYTES, MAX_MANIFEST_BYTES};
use ring::rand::{SecureRandom, SystemRandom};

/// What nobody names is kept so long: an upload ends within it.
pub const LOOSE_FOR: Duration = Duration::from_secs(24 * 3600);
/// A file that is found here again counts as uploaded again once it is older than this.
const TOUCH_AFTER: Duration = Duration::from_secs(3600);
const PART: &str = "part-";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chunk,
    Manifest,
}

/// The folder.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
}

/// Why the folder does not do it. The operator's, or the disk's.
#[derive(Debug, thiserror::Error)]
pub enum ShelfFault {
    #[error("{path}: {source}", path = .path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the random source failed")]
    Random,
}

/// What a turn over the folder found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// What stays, in bytes.
    pub bytes: u64,
    pub files: u64,
    pub removed: u64,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Chunk, Self::Manifest];

    fn folder(self) -> &'static str {
        match self {
            Self::Chunk => "chunks",
            Self::Manifest => "manifests",
        }
    }

    /// Longest file of this kind, in bytes.
    pub fn max_bytes(self) -> u64 {
        match self {
            Self::Chunk => u64::from(MAX_CHUNK_BYTES),
            Self::Manifest => MAX_MANIFEST_BYTES,
        }
    }
}

impl Shelf {
    /// Makes the folder where there is none.
    pub fn open(folder: &Path) -> Result<Self, ShelfFault> {
        let shelf = Self {
            folder: folder.to_owned(),
        };
        for kind in Kind::ALL {
            make_folder(&folder.join(kind.folder()))?;
        }
        Ok(shelf)
    }

    /// Bytes of a file; `None` where it is not there, or not what its name says any more.
    pub fn read(&self, kind: Kind, digest: &Digest) -> Result<Option<Vec<u8>>, ShelfFault> {
        let path = self.path(kind, digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(fault(&path))?,
        };
        let mut bytes = Vec::new();
        file.take(kind.max_bytes().saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(fault(&path))?;
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        tracing::error!(path = %path.display(), "not what its name says any more: removed, publish it again");
        remove(&path)?;
        Ok(None)
    }

    /// Size of a file in bytes, if it is there. One that is found is not swept away for [`LOOSE_FOR`].
    pub fn find(&self, kind: Kind, digest: &Digest) -> Result<Option<u64>, ShelfFault> {
        let path = self.path(kind, digest);
        let about = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            about => about.map_err(fault(&path))?,
        };
        if age(&about) > TOUCH_AFTER {
            let file = OpenOptions::new().append(true).open(&path);
            file.and_then(|file| file.set_modified(SystemTime::now()))
                .map_err(fault(&path))?;
        }
        Ok(Some(about.len()))
    }

    /// Puts bytes whose digest the caller has checked. Whether they were not there before.
    pub fn put(&self, kind: Kind, digest: &Digest, bytes: &[u8]) -> Result<bool, ShelfFault> {
        if self.find(kind, digest)? == Some(bytes.len() as u64) {
            return Ok(false);
        }
        let path = self.path(kind, digest);
        let part = self.folder.join(format!("{PART}{}", random_name()?));
        let written = write_new(&part, bytes).and_then(|()| {
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            fs::rename(&part, &path).map_err(fault(&path))
        });
        if written.is_err() {
            // What is left of it goes with the next sweep otherwise.
            let _ = fs::remove_file(&part);
        }
        written.map(|()| true)
    }

    /// Removes what `kept` does not hold and nobody touched for [`LOOSE_FOR`].
    pub fn sweep(&self, kind: Kind, kept: &BTreeSet<Digest>) -> Result<Swept, ShelfFault> {
        let mut swept = Swept::default();
        for folder in entries(&self.folder.join(kind.folder()))? {
            for path in entries(&folder)? {
                let name = path.file_name().and_then(|name| name.to_str());
                let digest = name.and_then(|name| name.parse::<Digest>().ok());
                let named = digest.is_some_and(|digest| kept.contains(&digest));
                self.sweep_one(&path, named, &mut swept)?;
            }
        }
        Ok(swept)
    }

    /// Removes what uploads left that were cut off.
    pub fn sweep_parts(&self) -> Result<(), ShelfFault> {
        let mut swept = Swept::default();
        for path in entries(&self.folder)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(PART)) {
                self.sweep_one(&path, false, &mut swept)?;
            }
        }
        Ok(())
    }

    fn sweep_one(&self, path: &Path, named: bool, swept: &mut Swept) -> Result<(), ShelfFault> {
        let about = match fs::symlink_metadata(path) {
            // Another cloud was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            about => about.map_err(fault(path))?,
        };
        if !named && about.is_file() && age(&about) > LOOSE_FOR {
            swept.removed = swept.removed.saturating_add(1);
            return remove(path);
        }
        swept.files = swept.files.saturating_add(1);
        swept.bytes = swept.bytes.saturating_add(about.len());
        Ok(())
    }

    fn path(&self, kind: Kind, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        let begin = name.get(..2).unwrap_or_default();
        self.folder.join(kind.folder()).join(begin).join(&name)
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ShelfFault> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(fault(path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(fault(path))
}

fn make_folder(path: &Path) -> Result<(), ShelfFault> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(fault(path))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ShelfFault> {
    fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect()
        })
        .map_err(fault(folder))
}

fn remove(path: &Path) -> Result<(), ShelfFault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(fault(path)(error)),
        _ => Ok(()),
    }
}

/// Files of this machine are compared with its own clock; one from the future is new.
fn age(about: &fs::Metadata) -> Duration {
    about
        .modified()
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok())
        .unwrap_or_default()
}

fn random_name() -> Result<String, ShelfFault> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ShelfFault::Random)?;
    Ok(hex::encode(bytes))
}

fn fault(path: &Path) -> impl FnOnce(std::io::Error) -> ShelfFault {
    let path = path.to_owned();
    move |source| ShelfFault::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(&folder.path().join("apps")).unwrap();
        (folder, shelf)
    }

    fn make_old(shelf: &Shelf, kind: Kind, digest: &Digest) {
        let file = File::options()
            .append(true)
            .open(shelf.path(kind, digest))
            .unwrap();
        let at = SystemTime::now() - LOOSE_FOR - Duration::from_secs(60);
        file.set_modified(at).unwrap();
    }

    #[test]
    fn what_the_disk_changed_is_not_served_and_can_be_put_again() {
        let (_folder, shelf) = shelf();
        let digest = Digest::of(b"chunk");
        assert_eq!(shelf.read(Kind::Chunk, &digest).unwrap(), None);
        assert!(shelf.put(Kind::Chunk, &digest, b"chunk").unwrap());
        assert!(!shelf.put(Kind::Chunk, &digest, b"chunk").unwrap());
        assert_eq!(shelf.read(Kind::Chunk, &digest).unwrap().unwrap(), b"chunk");
        assert_eq!(shelf.read(Kind::Manifest, &digest).unwrap(), None);
        fs::write(shelf.path(Kind::Chunk, &digest), b"chunK").unwrap();
        assert_eq!(shelf.read(Kind::Chunk, &digest).unwrap(), None);
        assert_eq!(shelf.find(Kind::Chunk, &digest).unwrap(), None);
        assert!(shelf.put(Kind::Chunk, &digest, b"chunk").unwrap());
        // Cut short by a full disk, say.
        fs::write(shelf.path(Kind::Chunk, &digest), b"ch").unwrap();
        assert!(shelf.put(Kind::Chunk, &digest, b"chunk").unwrap());
        assert_eq!(shelf.read(Kind::Chunk, &digest).unwrap().unwrap(), b"chunk");
    }

    #[test]
    fn only_what_is_old_and_named_by_nobody_is_swept_away() {
        let (_folder, shelf) = shelf();
        let [named, loose, old, found] = [&b"named"[..], b"loose", b"old", b"found"].map(|bytes| {
            let digest = Digest::of(bytes);
            shelf.put(Kind::Chunk, &digest, bytes).unwrap();
            digest
        });
        for digest in [&named, &old, &found] {
            make_old(&shelf, Kind::Chunk, digest);
        }
        // Somebody asked whether it is here, to publish it.
        assert_eq!(shelf.find(Kind::Chunk, &found).unwrap(), Some(5));
        let swept = shelf.sweep(Kind::Chunk, &BTreeSet::from([named])).unwrap();
        assert_eq!((swept.files, swept.removed, swept.bytes), (3, 1, 15));
        assert_eq!(shelf.find(Kind::Chunk, &old).unwrap(), None);
        for digest in [&named, &loose, &found] {
            assert!(shelf.find(Kind::Chunk, digest).unwrap().is_some());
        }
    }

    #[test]
    fn what_a_cut_off_upload_left_goes() {
        let (_folder, shelf) = shelf();
        let part = shelf.folder.join("part-1");
        fs::write(&part, b"half").unwrap();
        shelf.sweep_parts().unwrap();
        assert!(part.exists(), "it may be under way");
        let at = SystemTime::now() - LOOSE_FOR - Duration::from_secs(60);
        File::options()
            .append(true)
            .open(&part)
            .unwrap()
            .set_modified(at)
            .unwrap();
        shelf.sweep_parts().unwrap();
        assert!(!part.exists());
    }
}
