//! How the threads of the shell sleep, and are woken to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Ends the threads that hold its [`Watch`] when dropped.
#[derive(Debug)]
pub(crate) struct Stop(#[expect(dead_code, reason = "closing it is the signal")] UnixStream);

/// Readable (hung up) once the [`Stop`] is gone.
#[derive(Debug)]
pub(crate) struct Watch(UnixStream);

/// Why a thread woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Ready,
    TimedOut,
    Stopped,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Which { first: bool, second: bool },
    Stopped,
}

impl Ready {
    pub(crate) const NOTHING: Self = Self::Which {
        first: false,
        second: false,
    };
}

pub(crate) fn pair() -> io::Result<(Stop, Watch)> {
    let (stop, watch) = UnixStream::pair()?;
    Ok((Stop(stop), Watch(watch)))
}

impl Watch {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(crate) fn wait_readable(&self, fd: BorrowedFd<'_>) -> io::Result<Wake> {
        self.wait(fd, PollFlags::POLLIN, PollTimeout::NONE)
    }

    /// Waits until one of two is readable.
    pub(crate) fn wait_either(
        &self,
        first: BorrowedFd<'_>,
        second: BorrowedFd<'_>,
    ) -> io::Result<Ready> {
        self.either(first, second, PollTimeout::NONE)
    }

    /// Whether one of two is readable now.
    pub(crate) fn look_at_either(
        &self,
        first: BorrowedFd<'_>,
        second: BorrowedFd<'_>,
    ) -> io::Result<Ready> {
        self.either(first, second, PollTimeout::ZERO)
    }

    fn either(
        &self,
        first: BorrowedFd<'_>,
        second: BorrowedFd<'_>,
        timeout: PollTimeout,
    ) -> io::Result<Ready> {
        let mut fds = [
            PollFd::new(first, PollFlags::POLLIN),
            PollFd::new(second, PollFlags::POLLIN),
            PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) => {
                let [first, second, stop] = &fds;
                let any = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
                if any(stop) {
                    Ok(Ready::Stopped)
                } else {
                    Ok(Ready::Which {
                        first: any(first),
                        second: any(second),
                    })
                }
            }
            Err(Errno::EINTR) => Ok(Ready::NOTHING),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn wait_readable_for(
        &self,
        fd: BorrowedFd<'_>,
        at_most: Duration,
    ) -> io::Result<Wake> {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        self.wait(fd, PollFlags::POLLIN, timeout)
    }

    pub(crate) fn wait_writable(&self, fd: BorrowedFd<'_>, at_most: Duration) -> io::Result<Wake> {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        self.wait(fd, PollFlags::POLLOUT, timeout)
    }

    fn wait(
        &self,
        fd: BorrowedFd<'_>,
        wanted: PollFlags,
        timeout: PollTimeout,
    ) -> io::Result<Wake> {
        let mut fds = [
            PollFd::new(fd, wanted),
            PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(0) => Ok(Wake::TimedOut),
            Ok(_) => {
                let [_, stop] = &fds;
                if stop.any().unwrap_or(true) {
                    Ok(Wake::Stopped)
                } else {
                    Ok(Wake::Ready)
                }
            }
            Err(Errno::EINTR) => Ok(Wake::TimedOut),
            Err(errno) => Err(errno.into()),
        }
    }
}
