//! Which file, in which state: what a digest that was read once still holds for.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::sys::stat::{SFlag, fstat};

/// How long a change must lie back before a file's times tell the next change apart, whatever the kernel's clock tick.
const SETTLED: Duration = Duration::from_millis(50);

/// Another inode, size or time of change is another file. Who is not root cannot set the time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A descriptor names no file whose content could be judged.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentity {
    #[error("file cannot be looked at: {0}")]
    Kernel(#[from] nix::Error),
    #[error("not a regular file")]
    NotRegular,
}

impl FileIdentity {
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self, NoIdentity> {
        let data = fstat(fd)?;
        if SFlag::from_bits_truncate(data.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(NoIdentity::NotRegular);
        }
        Ok(Self {
            device: data.st_dev,
            inode: data.st_ino,
            size: data.st_size,
            modified: (data.st_mtime, data.st_mtime_nsec),
            changed: (data.st_ctime, data.st_ctime_nsec),
        })
    }

    /// Whether a change from now on is sure to give another identity. `now` is the time since 1970; a change that lies
    /// in the future never settles.
    pub fn is_settled(&self, now: Duration) -> bool {
        let seconds = u64::try_from(self.changed.0).unwrap_or(0);
        let nanos = u32::try_from(self.changed.1).unwrap_or(0);
        let changed = Duration::new(seconds, nanos);
        now.checked_sub(changed).is_some_and(|age| age >= SETTLED)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::SystemTime;

    use super::*;

    fn now() -> Duration {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
    }

    #[test]
    fn a_write_that_keeps_the_size_is_another_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        let before = FileIdentity::of(file.as_file().as_fd()).unwrap();
        while !before.is_settled(now()) {
            std::thread::yield_now();
        }
        let again = std::fs::OpenOptions::new().write(true).open(file.path());
        again.unwrap().write_all(b"abd").unwrap();
        assert_ne!(FileIdentity::of(file.as_file().as_fd()).unwrap(), before);
    }

    #[test]
    fn what_was_changed_just_now_or_in_the_future_has_not_settled() {
        let file = tempfile::tempfile().unwrap();
        let identity = FileIdentity::of(file.as_fd()).unwrap();
        assert!(identity.is_settled(now() + Duration::from_secs(1)));
        let changed = Duration::new(identity.changed.0 as u64, identity.changed.1 as u32);
        assert!(!identity.is_settled(changed + SETTLED - Duration::from_nanos(1)));
        assert!(!identity.is_settled(changed - Duration::from_secs(1)));
    }

    #[test]
    fn what_is_no_regular_file_has_no_identity() {
        for path in ["/", "/dev/null"] {
            let file = std::fs::File::open(path).unwrap();
            let refused = FileIdentity::of(file.as_fd());
            assert!(matches!(refused, Err(NoIdentity::NotRegular)), "{path}");
        }
    }
}
