//! Who is at the other end of a local socket, as the kernel says.
//!
//! User and group are those of the process when it connected (`SO_PEERCRED`, unix(7)). What else is read comes from
//! `/proc/PID` and counts only if the process is still the one that connected: the kernel's handle on it
//! (`SO_PEERPIDFD`, Linux 6.5) has not ended after the reading. An older kernel has no such handle; there the start
//! time of the process must be the same at connecting and after the reading, and user and group must still be those of
//! the connection.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

use super::cgroup::{self, MAX_CGROUP_BYTES};
use super::digest::{Digests, NoDigest};
use super::pods::Pods;
use super::selectors::{Launched, Process, launched_as};

/// Largest file of `/proc` that is read, in bytes.
const MAX_PROC_BYTES: usize = MAX_CGROUP_BYTES;
/// Field of `/proc/PID/stat` after the name in parentheses that holds the start time (proc_pid_stat(5), field 22).
const START_TIME_FIELD: usize = 19;

/// A process that connected.
#[derive(Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: i32,
    /// Ends when the process does; none on kernels before 6.5.
    handle: Option<OwnedFd>,
    /// Clock ticks since boot.
    started: u64,
}

/// A process is not known well enough to be given anything.
#[derive(Debug, thiserror::Error)]
pub enum NotAttested {
    #[error("the kernel does not say who connected: {0}")]
    Kernel(#[from] nix::Error),
    #[error("process is of another pid namespace")]
    Namespace,
    #[error("process has ended, or another has its number")]
    Ended,
    #[error("process cannot be looked at: {0}")]
    Proc(#[source] io::Error),
    #[error("process says nothing sensible of itself")]
    Malformed,
}

impl NotAttested {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Kernel(_) => "caller_unknown",
            Self::Namespace => "caller_namespace",
            Self::Ended => "caller_ended",
            Self::Proc(_) | Self::Malformed => "caller_unreadable",
        }
    }
}

impl Caller {
    /// To be called as soon as the connection is accepted.
    pub fn of(stream: &UnixStream) -> Result<Self, NotAttested> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        let pid = credentials.pid();
        if pid <= 0 {
            return Err(NotAttested::Namespace);
        }
        let handle = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(handle) => Some(handle),
            Err(nix::Error::ENOPROTOOPT | nix::Error::EINVAL) => None,
            // The process is gone already.
            Err(nix::Error::ESRCH | nix::Error::ENODATA) => return Err(NotAttested::Ended),
            Err(error) => return Err(error.into()),
        };
        let caller = Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid,
            handle,
            started: started(pid)?,
        };
        caller.check_same()?;
        Ok(caller)
    }

    /// What the process is now. Blocks on files of `/proc`.
    pub fn look(&self, pods: &Pods, launched: &[Launched]) -> Result<Process, NotAttested> {
        let place = cgroup::read(&read_proc(self.pid, "cgroup")?);
        let app = launched_as(launched, place.unified.as_deref(), self.uid);
        let process = Process {
            uid: self.uid,
            gid: self.gid,
            path: self.program_path(),
            unit: place.unit,
            pod: place.pod_uid.map(|uid| pods.facts_of(uid)),
            app,
        };
        self.check_same()?;
        Ok(process)
    }

    /// SHA-256 of the program it runs now. Blocks for as long as reading it takes.
    pub fn program_digest(&self, digests: &Digests) -> Result<String, NotAttested> {
        let mut file = File::open(self.proc_path("exe")).map_err(NotAttested::Proc)?;
        let digest = digests.of(&mut file).map_err(|error| match error {
            NoDigest::Io(error) => NotAttested::Proc(error),
            other => NotAttested::Proc(io::Error::other(other)),
        })?;
        self.check_same()?;
        Ok(digest)
    }

    /// Where the program lies, if that path leads to it here, too: in a mount namespace of its own a process can give
    /// any path to its program.
    fn program_path(&self) -> Option<String> {
        let link = self.proc_path("exe");
        let path = std::fs::read_link(&link).ok()?;
        let (running, here) = (
            std::fs::metadata(&link).ok()?,
            std::fs::symlink_metadata(&path).ok()?,
        );
        let same = (running.dev(), running.ino()) == (here.dev(), here.ino());
        same.then(|| path.to_str().map(ToOwned::to_owned))?
    }

    /// Whether everything that was read was of the process that connected.
    pub fn check_same(&self) -> Result<(), NotAttested> {
        if let Some(handle) = &self.handle {
            let mut polled = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
            return match poll(&mut polled, PollTimeout::ZERO)? {
                0 => Ok(()),
                _ => Err(NotAttested::Ended),
            };
        }
        if started(self.pid)? != self.started || self.owner()? != (self.uid, self.gid) {
            return Err(NotAttested::Ended);
        }
        Ok(())
    }

    /// Effective user and group.
    fn owner(&self) -> Result<(u32, u32), NotAttested> {
        let status = read_proc(self.pid, "status")?;
        owner_of(&status).ok_or(NotAttested::Malformed)
    }

    fn proc_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

fn started(pid: i32) -> Result<u64, NotAttested> {
    started_of(&read_proc(pid, "stat")?).ok_or(NotAttested::Malformed)
}

/// The name of a process may hold anything, parentheses and spaces too: fields begin after the last one.
fn started_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields
        .split_ascii_whitespace()
        .nth(START_TIME_FIELD)?
        .parse()
        .ok()
}

/// The effective ones are the second of each line.
fn owner_of(status: &str) -> Option<(u32, u32)> {
    let effective = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((effective("Uid:")?, effective("Gid:")?))
}

fn read_proc(pid: i32, name: &str) -> Result<String, NotAttested> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => NotAttested::Ended,
        _ if error.raw_os_error() == Some(nix::Error::ESRCH as i32) => NotAttested::Ended,
        _ => NotAttested::Proc(error),
    };
    let file = File::open(format!("/proc/{pid}/{name}")).map_err(failed)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_PROC_BYTES).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    // A name that is not UTF-8 stands in `stat` and `status`; what we read does not.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_cannot_choose_its_start_time_by_its_name() {
        let fields = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        for name in [
            "sh",
            "a) S 1 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 666 (",
            "(((",
        ] {
            let stat = format!("17 ({name}) {fields}\n");
            assert_eq!(started_of(&stat), Some(4711), "{name}");
        }
        for stat in [
            "",
            "17 (sh",
            "17 (sh) S 1",
            "17 (sh) S 1 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 x",
        ] {
            assert_eq!(started_of(stat), None, "{stat}");
        }
    }

    #[test]
    fn the_owner_is_the_effective_one() {
        let status = "Name:\tUid: 1 2\nUid:\t1000\t990\t1000\t1000\nGid:\t1\t991\t1\t1\n";
        assert_eq!(owner_of(status), Some((990, 991)));
        assert_eq!(owner_of("Uid:\t1\n"), None);
    }

    #[tokio::test]
    async fn this_process_is_told_apart_from_one_that_has_ended() {
        let (one, other) = UnixStream::pair().unwrap();
        let caller = Caller::of(&one).unwrap();
        assert_eq!(caller.pid, i32::try_from(std::process::id()).unwrap());
        let process = caller.look(&Pods::default(), &[]).unwrap();
        assert_eq!(process.uid, nix::unistd::geteuid().as_raw());
        let program = std::env::current_exe().unwrap();
        assert_eq!(process.path.as_deref(), program.to_str());
        let digests = Digests::default();
        assert_eq!(caller.program_digest(&digests).unwrap().len(), 64);
        drop(other);
        // The same number, another start: as if the number had been given anew on a kernel without handles.
        let reused = Caller {
            handle: None,
            started: caller.started + 1,
            ..caller
        };
        assert!(matches!(
            reused.look(&Pods::default(), &[]),
            Err(NotAttested::Ended)
        ));
        let changed = Caller {
            uid: reused.uid.wrapping_add(1),
            started: reused.started - 1,
            ..reused
        };
        assert!(matches!(
            changed.look(&Pods::default(), &[]),
            Err(NotAttested::Ended)
        ));
    }
}
