//! One process per state folder, and with it one owner of the TPM.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

const LOCK: &str = "lock";
const FILE_MODE: u32 = 0o600;

/// Held as long as it lives.
#[derive(Debug)]
pub struct FolderLock {
    _file: Flock<File>,
}

/// The folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another edgeward-agent uses the state folder {0}")]
    Taken(PathBuf),
    #[error("state folder {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl FolderLock {
    /// Takes the folder, which is made if it is not there, or fails at once.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io {
            path: folder.to_owned(),
            source,
        };
        super::make_folder(folder).map_err(|error| io(std::io::Error::other(error)))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(folder.join(LOCK))
            .map_err(io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(LockError::Taken(folder.to_owned())),
            Err((_, error)) => Err(io(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        assert!(matches!(
            FolderLock::take(folder.path()),
            Err(LockError::Taken(_))
        ));
        drop(lock);
        FolderLock::take(folder.path()).unwrap();
    }
}
