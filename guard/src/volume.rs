//! The file system that holds the applications and nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// File systems on which nothing changes that this kernel was not asked for: what a server, another layer or a process
/// gives may be one thing when it is read and another when it is mapped.
///
/// Not btrfs: each subvolume tells a device number of its own, by which neither a part of the machine's own file system nor
/// what the kernel's programs are to watch over could be told.
const OWN_MEMORY: FsType = FsType(0x8584_58f6);
const OWN_FLASH: FsType = FsType(libc::F2FS_SUPER_MAGIC as libc::__fsword_t);
const OWN: [FsType; 5] = [
    EXT4_SUPER_MAGIC,
    XFS_SUPER_MAGIC,
    OWN_FLASH,
    TMPFS_MAGIC,
    OWN_MEMORY,
];

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
    #[error(
        "volume is of a kind that changes without this kernel's doing (a server's, an overlay, FUSE) or has more numbers than one (btrfs), use ext4, xfs or f2fs: {}", .0.display()
    )]
    Elsewhere(PathBuf),
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
        let kind = fstatfs(&folder).map_err(io::Error::from)?.filesystem_type();
        if !OWN.contains(&kind) {
            return Err(NotAVolume::Elsewhere(path.to_owned()));
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

    /// Which file system it is.
    pub fn device(&self) -> io::Result<u64> {
        Ok(self.folder.metadata()?.dev())
    }

    /// Whether this path leads to a folder of the volume itself: by no link, and to nothing that was mounted over it.
    pub fn holds(&self, path: &Path) -> bool {
        let Ok(inner) = path.strip_prefix(&self.path) else {
            return false;
        };
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        // Nobody is asked about what is only looked up.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.folder, inner, flags, Mode::empty(), resolve).is_ok()
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

    /// Each subvolume of btrfs tells a number of its own, which is not the one that the kernel knows the whole by.
    #[test]
    fn a_kind_whose_files_tell_another_number_than_the_kernels_is_no_volume() {
        assert!(!OWN.contains(&nix::sys::statfs::BTRFS_SUPER_MAGIC));
        let text = NotAVolume::Elsewhere(PathBuf::new()).to_string();
        assert!(text.ends_with("use ext4, xfs or f2fs: "), "{text}");
    }
}
