//! The file system that holds the applications and nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// An open folder that is the root of a file system of its own.
#[derive(Debug)]
pub struct Volume {
    folder: File,
    path: PathBuf,
}

/// Why a folder is no volume.
#[derive(Debug, thiserror::Error)]
pub enum NotAVolume {
    #[error("volume cannot be opened: {0}")]
    Io(#[from] io::Error),
    #[error("volume is part of the file system above it, every open on which would wait: {}", .0.display())]
    Shared(PathBuf),
    #[error("volume belongs to another than root, or others may write to it: {}", .0.display())]
    Writable(PathBuf),
}

impl Volume {
    pub fn open(path: &Path) -> Result<Self, NotAVolume> {
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
            .open(path)?;
        let own = folder.metadata()?;
        let above = std::fs::metadata(path.join(".."))?;
        let root = std::fs::metadata("/")?;
        if own.dev() == above.dev() || own.dev() == root.dev() {
            return Err(NotAVolume::Shared(path.to_owned()));
        }
        if own.uid() != 0 || own.mode() & 0o022 != 0 {
            return Err(NotAVolume::Writable(path.to_owned()));
        }
        Ok(Self {
            folder,
            path: path.to_owned(),
        })
    }

    pub fn folder(&self) -> &File {
        &self.folder
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_shared_file_system_is_no_volume() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Volume::open(folder.path());
        assert!(matches!(refused, Err(NotAVolume::Shared(_))));
        assert!(matches!(
            Volume::open(Path::new("/")),
            Err(NotAVolume::Shared(_))
        ));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Volume::open(file.path()), Err(NotAVolume::Io(_))));
    }
}
