//! Control groups of applications (cgroups(7), version 2): one folder each, made, entered, frozen, killed.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::launch::order::Limits;

/// Largest file of the kernel's that is read, in bytes.
const MAX_EVENTS_BYTES: usize = 4096;

/// What limits applications, where the kernel has it here: on machines of the old layout other owners may hold them.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// Period over which a share of a processor is counted, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

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
    #[error("processes of {} have not gone yet", .0.display())]
    Busy(PathBuf),
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

    /// The group of all applications, made if it is not there. Whoever calls must not stand in the group above it, or the
    /// kernel would give the groups below nothing to limit by; so it moves beside them.
    pub fn of_all(folder: &Path) -> Result<Self, CgroupError> {
        if !folder.exists() {
            std::fs::create_dir(folder).map_err(|error| failed(folder, error))?;
        }
        let apps = Self::open(folder)?;
        if let Some(above) = folder.parent().and_then(|above| Self::open(above).ok()) {
            if above.holds_this_process()? {
                above.child("guard")?.enter()?;
            }
            above.hand_down();
        }
        apps.hand_down();
        Ok(apps)
    }

    /// Lets the groups below be limited, by whatever there is here.
    fn hand_down(&self) {
        for controller in CONTROLLERS {
            // One that is not here is told when an application starts: `limit` says what does not hold.
            let _absent = self.write("cgroup.subtree_control", &format!("+{controller}"));
        }
    }

    fn holds_this_process(&self) -> Result<bool, CgroupError> {
        let path = self.folder.join("cgroup.procs");
        let listed = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        let own = std::process::id().to_string();
        Ok(listed.lines().any(|line| line == own))
    }

    /// Sets limits, and names those for which there is nothing here to hold them by.
    pub fn limit(&self, limits: &Limits) -> Result<Vec<&'static str>, CgroupError> {
        let cpu = limits
            .cpu_percent
            .map(|percent| u64::from(percent) * CPU_PERIOD_US / 100);
        let wanted = [
            (
                "memory",
                "memory.max",
                limits.memory_bytes.map(|n| n.to_string()),
            ),
            ("tasks", "pids.max", limits.tasks.map(|n| n.to_string())),
            (
                "cpu",
                "cpu.max",
                cpu.map(|share| format!("{share} {CPU_PERIOD_US}")),
            ),
        ];
        let mut lacks = Vec::new();
        for (name, file, text) in wanted {
            let Some(text) = text else { continue };
            match self.folder.join(file).exists() {
                true => self.write(file, &text)?,
                false => lacks.push(name),
            }
        }
        Ok(lacks)
    }

    /// Whether the kernel holds the memory of this group below a limit.
    pub fn can_limit_memory(&self) -> bool {
        self.folder.join("memory.max").exists()
    }

    /// Makes a group below this one, or takes the one that is there.
    pub fn child(&self, name: &str) -> Result<Self, CgroupError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@' | '.');
        // Names with a dot are the kernel's own files; none of these holds an @.
        let own = name.starts_with('.') || name.contains('.') && !name.contains('@');
        if own || name.is_empty() || name.len() > 200 || !name.chars().all(good) {
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

    /// Begins to stop every process.
    pub fn freeze_now(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1")
    }

    pub fn is_empty(&self) -> Result<bool, CgroupError> {
        let path = self.folder.join("cgroup.events");
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        Ok(Event::Empty.holds(&text))
    }

    /// Nothing of it runs any more. A group that is gone holds nobody; one that cannot be looked at may.
    pub fn holds_nobody(&self) -> bool {
        match self.is_empty() {
            Ok(empty) => empty,
            Err(CgroupError::Io { error, .. }) => {
                // As the kernel answers who looks while it goes.
                error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ENODEV)
            }
            Err(_) => false,
        }
    }

    /// Stops every process, and waits until each has stopped: on a busy machine that takes as long as it takes to run
    /// each of them once.
    pub fn freeze(&self, limit: Duration) -> Result<(), CgroupError> {
        self.freeze_now()?;
        self.await_event(Event::Frozen, limit)
    }

    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "0")
    }

    /// Ends every process for good: none does anything more in its own code from the first write on that reaches it.
    pub fn end(&self, limit: Duration) -> Result<(), CgroupError> {
        self.freeze_now()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        memory_bytes: Some(64 << 20),
        cpu_percent: Some(150),
        tasks: Some(32),
    };

    /// What the kernel shows of a group in which the controllers are there.
    fn group(files: &[&str]) -> (tempfile::TempDir, Cgroup) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "max\n").unwrap();
        }
        let group = Cgroup {
            folder: folder.path().to_owned(),
        };
        (folder, group)
    }

    #[test]
    fn a_limit_that_nothing_holds_is_named() {
        let (_folder, bare) = group(&[]);
        assert_eq!(bare.limit(&LIMITS).unwrap(), ["memory", "tasks", "cpu"]);
        assert!(bare.limit(&Limits::default()).unwrap().is_empty());
        let (_folder, some) = group(&["pids.max"]);
        assert_eq!(some.limit(&LIMITS).unwrap(), ["memory", "cpu"]);
    }

    /// One whose state nobody can tell may hold processes still.
    #[test]
    fn only_a_group_that_says_so_or_is_gone_holds_nobody() {
        let (folder, empty) = group(&[]);
        assert!(empty.holds_nobody(), "it is gone");
        let events = folder.path().join("cgroup.events");
        std::fs::write(&events, "populated 1\nfrozen 1\n").unwrap();
        assert!(!empty.holds_nobody());
        std::fs::write(&events, "populated 0\nfrozen 0\n").unwrap();
        assert!(empty.holds_nobody());
        std::fs::remove_file(&events).unwrap();
        std::fs::create_dir(&events).unwrap();
        assert!(!empty.holds_nobody(), "it cannot be read");
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let (folder, group) = group(&["memory.max", "pids.max", "cpu.max"]);
        assert!(group.limit(&LIMITS).unwrap().is_empty());
        let text = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(text("memory.max").starts_with("67108864"));
        assert!(text("pids.max").starts_with("32"));
        assert_eq!(text("cpu.max"), "150000 100000");
    }
}
