//! Work below one open folder: no path is followed through a link, out of the folder, or onto another file system.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use edgeward_apps::path::MAX_PARTS;
use rustix::fs::{
    self, AtFlags, Dir, FileType, IFlags, Mode, OFlags, RenameFlags, ResolveFlags, StatVfs, openat2,
};
use rustix::io::Errno;

/// Deepest nesting that is removed, in folders: a tree of an app, and where trees lie.
const MAX_DEPTH: usize = MAX_PARTS + 8;
/// What everybody may do with a folder in which something is still made.
pub(super) const OPEN_FOLDER: u32 = 0o755;
const OWN_FOLDER: u32 = 0o700;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

/// What lies under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    Link,
    Other,
}

/// What is known of a file or folder without opening it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// Permission bits, the set-id bits among them.
    pub(super) mode: u32,
    pub(super) owner: u32,
    /// A file with another name somewhere.
    pub(super) shared: bool,
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(Self(fs::open(path, flags, Mode::empty())?))
    }

    /// The same, and it is made first where it is missing.
    pub(super) fn made(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(OWN_FOLDER).create(path)?;
        Self::open(path)
    }

    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self(file.try_clone()?.into()))
    }

    pub(super) fn below(&self, path: &str) -> io::Result<Self> {
        let fd = self.reach(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        Ok(Self(fd))
    }

    /// For reading.
    pub(super) fn file(&self, path: &str) -> io::Result<File> {
        // Without O_NONBLOCK whoever put a pipe there holds the reader for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.reach(path, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// A new file, for writing.
    pub(super) fn create(&self, path: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        Ok(self.reach(path, flags, Mode::from_raw_mode(mode))?.into())
    }

    pub(super) fn make(&self, path: &str) -> io::Result<()> {
        self.beside(path, |folder, name| {
            fs::mkdirat(folder, name, Mode::from_raw_mode(OPEN_FOLDER))
        })
    }

    /// The same, where it may be there already.
    pub(super) fn ensure(&self, path: &str) -> io::Result<Self> {
        match self.make(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.below(path),
        }
    }

    pub(super) fn link(&self, path: &str, target: &str) -> io::Result<()> {
        self.beside(path, |folder, name| fs::symlinkat(target, folder, name))
    }

    /// The text of a link; `None` where there is no link.
    pub(super) fn target(&self, path: &str) -> io::Result<Option<String>> {
        let read = self.beside(path, |folder, name| {
            fs::readlinkat(folder, name, Vec::new())
        });
        match read {
            Ok(text) => Ok(text.into_string().ok()),
            Err(error) if is(&error, Errno::NOENT) || is(&error, Errno::INVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None`: nothing is there.
    pub(super) fn known(&self, path: &str) -> io::Result<Option<Known>> {
        let stat = self.beside(path, |folder, name| {
            fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        });
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        };
        Ok(Some(Known {
            kind,
            bytes: u64::try_from(stat.st_size).unwrap_or_default(),
            mode: stat.st_mode & 0o7777,
            owner: stat.st_uid,
            shared: kind == Kind::File && stat.st_nlink != 1,
        }))
    }

    /// Moves something within one file system, over nothing.
    pub(super) fn rename(&self, from: &str, to: &Self, name: &str) -> io::Result<()> {
        Ok(fs::renameat_with(
            &self.0,
            from,
            &to.0,
            name,
            RenameFlags::NOREPLACE,
        )?)
    }

    /// Moves something into the place of something else, at once.
    pub(super) fn replace(&self, from: &str, name: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, name)?)
    }

    /// Each gets the other's place, at once.
    pub(super) fn exchange(&self, from: &str, to: &Self, name: &str) -> io::Result<()> {
        Ok(fs::renameat_with(
            &self.0,
            from,
            &to.0,
            name,
            RenameFlags::EXCHANGE,
        )?)
    }

    /// Names in it that are text; others are nobody's here.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes whatever is under a name, files that nobody may change included.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.remove_within(name, MAX_DEPTH)
    }

    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    /// Everything of this file system that was written is on disk.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.0)?)
    }

    /// The names in this folder are on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.0)?)
    }

    pub(super) fn space(&self) -> io::Result<StatVfs> {
        Ok(fs::fstatvfs(&self.0)?)
    }

    fn remove_within(&self, name: &str, left: usize) -> io::Result<()> {
        let Some(known) = self.known(name)? else {
            return Ok(());
        };
        let flags = match known.kind {
            Kind::Folder => {
                let left = left.checked_sub(1).ok_or(Errno::LOOP)?;
                let inner = self.below(name)?;
                unlock(&inner)?;
                inner.set_mode(OWN_FOLDER)?;
                for name in inner.names()? {
                    inner.remove_within(&name, left)?;
                }
                AtFlags::REMOVEDIR
            }
            Kind::File if self.is_locked(name)? => {
                unlock(self.file(name)?)?;
                AtFlags::empty()
            }
            _ => AtFlags::empty(),
        };
        match fs::unlinkat(&self.0, name, flags) {
            Err(Errno::NOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Asked without opening the file: an open may wait for the guard's answer.
    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let known = fs::statx(&self.0, name, flags, fs::StatxFlags::TYPE)?;
        Ok(known
            .stx_attributes
            .contains(fs::StatxAttributes::IMMUTABLE))
    }

    fn reach(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let within = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat2(&self.0, path, flags, mode, within)?)
    }

    /// Does something with the last part of a path, in the folder that the rest leads to.
    fn beside<T>(
        &self,
        path: &str,
        act: impl FnOnce(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match path.rsplit_once('/') {
            None => Ok(act(self.0.as_fd(), path)?),
            Some((above, name)) => Ok(act(self.below(above)?.0.as_fd(), name)?),
        }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Nobody changes it any more, not even root without taking this back.
pub(super) fn lock(fd: impl AsFd) -> io::Result<()> {
    let flags = fs::ioctl_getflags(&fd)?;
    Ok(fs::ioctl_setflags(&fd, flags | IFlags::IMMUTABLE)?)
}

/// Whether [`lock`] holds.
pub(super) fn is_locked(fd: impl AsFd) -> io::Result<bool> {
    Ok(fs::ioctl_getflags(&fd)?.contains(IFlags::IMMUTABLE))
}

/// Takes [`lock`] back. On a file system that has no such flag there is nothing to do.
pub(super) fn unlock(fd: impl AsFd) -> io::Result<()> {
    match fs::ioctl_getflags(&fd) {
        Ok(flags) if flags.contains(IFlags::IMMUTABLE) => {
            Ok(fs::ioctl_setflags(&fd, flags - IFlags::IMMUTABLE)?)
        }
        Ok(_) | Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether an error says that there is no room left.
pub(super) fn is_full(error: &io::Error) -> bool {
    is(error, Errno::NOSPC) || is(error, Errno::DQUOT)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
