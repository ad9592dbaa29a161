//! The agent's connection: root's, and of one process.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use crate::control::{BadLine, Lines, Order, Told, line};

/// How long the agent may leave what it is told unread.
const WRITE_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct Agent {
    stream: UnixStream,
    lines: Lines,
    pid: i32,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NotTheAgent {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("kernel does not say who connected: {0}")]
    Kernel(#[from] nix::Error),
    #[error("process of another user")]
    User,
    #[error(transparent)]
    Line(#[from] BadLine),
}

impl Agent {
    pub(super) fn of(stream: UnixStream) -> Result<Self, NotTheAgent> {
        let credentials = getsockopt(&stream, sockopt::PeerCredentials)?;
        if credentials.uid() != geteuid().as_raw() {
            return Err(NotTheAgent::User);
        }
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        Ok(Self {
            stream,
            lines: Lines::default(),
            pid: credentials.pid(),
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Orders that came, and whether the agent is still there and understood.
    pub(super) fn hear(&mut self) -> (Vec<Order>, bool) {
        let mut orders = Vec::new();
        let alive = super::child::read_some(&self.stream, &mut self.lines);
        while let Some(order) = self.lines.take_line() {
            match order {
                Ok(Order::Keeper(_)) | Err(_) => return (orders, false),
                Ok(order) => orders.push(order),
            }
        }
        (orders, alive)
    }

    pub(super) fn tell(&mut self, told: &Told) -> Result<(), NotTheAgent> {
        Ok(self.stream.write_all(&line(told)?)?)
    }
}

/// Reads what is there without waiting; whether the other side is.
pub(super) fn take(stream: &UnixStream, chunk: &mut [u8]) -> io::Result<Option<usize>> {
    stream.set_nonblocking(true)?;
    let read = (&*stream).read(chunk);
    stream.set_nonblocking(false)?;
    match read {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}
