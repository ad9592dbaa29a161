//! Control groups of applications (cgroups(7), version 2): one folder each, made, entered, frozen, killed.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Largest file of the kernel's that is read, in bytes.
const MAX_EVENTS_BYTES: usize = 4096;

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    folder: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("not a control group of version 2: {}", .0.display())]
    NotVersion2(PathBuf),
    #[error("not a name of a control group: {0:?}")]
    Name(String),
    #[error("control group {}: {error}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("kernel has no way to kill a control group (Linux 5.14)")]
    TooOld,
    #[error("processes of {} did not follow within {} ms", .path.display(), .limit.as_millis())]
    TooSlow { path: PathBuf, limit: Duration },
}

/// What is waited for in `cgroup.events`.
#[derive(Clone, Copy, Debug)]
enum Event {
    Empty,
    Frozen,
}

impl Cgroup {
    /// A group that exists and whose processes can be killed.
    pub fn open(folder: &Path) -> Result<Self, CgroupError> {
        let kind = statfs(folder).map_err(|error| failed(folder, error.into()))?;
        if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(CgroupError::NotVersion2(folder.to_owned()));
        }
        // The root of the hierarchy has no such file either: killing it is never meant.
        if !folder.join("cgroup.kill").exists() {
            return Err(CgroupError::TooOld);
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Makes a group below this one, or takes the one that is there.
    pub fn child(&self, name: &str) -> Result<Self, CgroupError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@');
        // Names with a dot are the kernel's own files.
        if name.is_empty() || name.len() > 200 || !name.chars().all(good) {
            return Err(CgroupError::Name(name.to_owned()));
        }
        let folder = self.folder.join(name);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(&folder, error));
            }
            _ => {}
        }
        Self::open(&folder)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves the calling process here. Sockets it made before stay where they were made, so it must have none.
    pub fn enter(&self) -> Result<(), CgroupError> {
        self.write("cgroup.procs", "0")
    }

    /// Stops every process, and waits until each has stopped: on a busy machine that takes as long as it takes to run
    /// each of them once.
    pub fn freeze(&self, limit: Duration) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1")?;
        self.await_event(Event::Frozen, limit)
    }

    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "0")
    }

    /// Ends every process for good: none does anything more in its own code from the first write on that reaches it.
    pub fn end(&self, limit: Duration) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1")?;
        self.kill()?;
        self.await_empty(limit)?;
        self.thaw()
    }

    /// Kills every process, frozen ones and those that fork included.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    pub fn await_empty(&self, limit: Duration) -> Result<(), CgroupError> {
        self.await_event(Event::Empty, limit)
    }

    /// Removes an empty group.
    pub fn remove(self) -> Result<(), CgroupError> {
        std::fs::remove_dir(&self.folder).map_err(|error| failed(&self.folder, error))
    }

    fn write(&self, file: &str, text: &str) -> Result<(), CgroupError> {
        let path = self.folder.join(file);
        let open = OpenOptions::new().write(true).open(&path);
        open.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| failed(&path, error))
    }

    fn await_event(&self, event: Event, limit: Duration) -> Result<(), CgroupError> {
        let path = self.folder.join("cgroup.events");
        let io = |error| failed(&path, error);
        let file = std::fs::File::open(&path).map_err(io)?;
        let end = Instant::now() + limit;
        let mut bytes = vec![0; MAX_EVENTS_BYTES];
        loop {
            let count = file.read_at(&mut bytes, 0).map_err(io)?;
            let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
            if event.holds(&text) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CgroupError::TooSlow {
                    path: self.folder.clone(),
                    limit,
                });
            }
            // The kernel wakes whoever polls this file at each change of it.
            let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut polled, wait) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(io(error.into())),
            }
        }
    }
}

impl Event {
    fn holds(self, text: &str) -> bool {
        let wanted = match self {
            Self::Empty => "populated 0",
            Self::Frozen => "frozen 1",
        };
        text.lines().any(|line| line == wanted)
    }
}

fn failed(path: &Path, error: io::Error) -> CgroupError {
    CgroupError::Io {
        path: path.to_owned(),
        error,
    }
}
