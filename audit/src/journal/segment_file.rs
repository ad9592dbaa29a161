//! The journal's storage on a file system: the only file of this crate that does I/O.
//!
//! A directory of mode 0700 with `<number>.segment` files of mode 0600, a `reserve` file that only occupies space, and
//! a `lock` file. One process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::storage::{SegmentId, SegmentStore, StorageError};

const SUFFIX: &str = ".segment";
const RESERVE_NAME: &str = "reserve";
const LOCK_NAME: &str = "lock";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// The reserve is filled in pieces of this size, in bytes.
const FILL_BYTES: u32 = 64 * 1024;

/// Segments as files in one directory.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    /// Held while the store lives.
    _lock: File,
    /// The segment last written to.
    open: Option<(SegmentId, File)>,
    /// The directory's entries have changed since its last sync.
    names_changed: bool,
}

impl FileStore {
    /// Opens the directory, makes it if it is missing, and keeps other processes out.
    pub fn open(directory: &Path) -> Result<Self, StorageError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)?;
        let lock = options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(Self {
            directory: directory.to_owned(),
            _lock: lock,
            open: None,
            names_changed: true,
        })
    }

    fn path(&self, id: SegmentId) -> PathBuf {
        self.directory.join(format!("{id}{SUFFIX}"))
    }

    fn file(&mut self, id: SegmentId) -> Result<&mut File, StorageError> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != id) {
            let file = options().append(true).open(self.path(id))?;
            self.open = Some((id, file));
        }
        match &mut self.open {
            Some((_, file)) => Ok(file),
            None => Err(StorageError::Io(io::ErrorKind::NotFound.into())),
        }
    }

    fn sync_names(&mut self) -> Result<(), StorageError> {
        if self.names_changed {
            File::open(&self.directory)?.sync_all()?;
            self.names_changed = false;
        }
        Ok(())
    }
}

impl SegmentStore for FileStore {
    fn list(&self) -> Result<Vec<SegmentId>, StorageError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let id = number
                .and_then(|number| u64::from_str_radix(number, 16).ok())
                .map(SegmentId);
            // Other spellings of a number are not ours.
            ids.extend(id.filter(|id| number == Some(id.to_string().as_str())));
        }
        Ok(ids)
    }

    fn len(&self, id: SegmentId) -> Result<u64, StorageError> {
        Ok(fs::metadata(self.path(id))?.len())
    }

    fn read(&self, id: SegmentId, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let file = File::open(self.path(id))?;
        let rest = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(rest).unwrap_or(usize::MAX))];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn create(&mut self, id: SegmentId) -> Result<(), StorageError> {
        let file = options()
            .append(true)
            .create_new(true)
            .open(self.path(id))?;
        self.open = Some((id, file));
        self.names_changed = true;
        Ok(())
    }

    fn append(&mut self, id: SegmentId, bytes: &[u8]) -> Result<(), StorageError> {
        Ok(self.file(id)?.write_all(bytes)?)
    }

    fn truncate(&mut self, id: SegmentId, length: u64) -> Result<(), StorageError> {
        Ok(self.file(id)?.set_len(length)?)
    }

    fn sync(&mut self, id: SegmentId) -> Result<(), StorageError> {
        self.file(id)?.sync_data()?;
        self.sync_names()
    }

    fn delete(&mut self, id: SegmentId) -> Result<(), StorageError> {
        self.open.take_if(|(open, _)| *open == id);
        fs::remove_file(self.path(id))?;
        self.names_changed = true;
        Ok(())
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), StorageError> {
        let path = self.directory.join(RESERVE_NAME);
        let mut file = options().append(true).create(true).open(&path)?;
        let mut have = file.metadata()?.len();
        // Bytes that cannot be compressed away: a file of zeros occupies nothing on some file systems.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while have < bytes {
            let want = u32::try_from(bytes - have)
                .unwrap_or(u32::MAX)
                .min(FILL_BYTES);
            let piece: Vec<u8> = (0..want).map(|_| noise(&mut state)).collect();
            file.write_all(&piece).or_else(|error| {
                // A half-filled reserve would take the space that it is to keep.
                fs::remove_file(&path)?;
                Err(error)
            })?;
            have += u64::from(want);
        }
        file.sync_all()?;
        self.names_changed = true;
        self.sync_names()
    }

    fn release_reserve(&mut self) -> Result<(), StorageError> {
        match fs::remove_file(self.directory.join(RESERVE_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => {
                self.names_changed = true;
                Ok(())
            }
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// One byte of a xorshift sequence.
fn noise(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    let [byte, ..] = state.to_le_bytes();
    byte
}
