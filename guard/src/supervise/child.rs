//! The watch as the supervisor sees it.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::control::{Lines, Order, Told, line};
use crate::group::Group;

/// Reads of one turn, each of the size below: what talks without end does not keep the supervisor from its work.
const MAX_READS: usize = 64;
const CHUNK_BYTES: usize = 64 * 1024;
/// How long the watch may leave an order unread.
const WRITE_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct Child {
    process: std::process::Child,
    socket: UnixStream,
    lines: Lines,
    heard: Instant,
    deaf: bool,
}

impl Child {
    pub(super) fn start(
        program: &Path,
        group: &Group,
        kernel: Option<&Path>,
    ) -> std::io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_write_timeout(Some(WRITE_LIMIT))?;
        let process = Command::new(program)
            .arg("watch")
            .args(kernel)
            .env_clear()
            .stdin(Stdio::from(group.handle()?))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Self {
            process,
            socket,
            lines: Lines::default(),
            heard: Instant::now(),
            deaf: false,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap_or(0)
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Time since it last said that it answers.
    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    pub(super) fn order(&mut self, order: &Order) {
        let sent = line(order).map(|line| self.socket.write_all(&line));
        self.deaf |= !matches!(sent, Ok(Ok(())));
    }

    /// What it told, and whether it is alive and understood.
    pub(super) fn hear(&mut self) -> (Vec<Told>, bool) {
        let mut told = Vec::new();
        let mut alive = read_some(&self.socket, &mut self.lines) && !self.deaf;
        while let Some(said) = self.lines.take_line() {
            match said {
                Ok(Told::Beat) => self.heard = Instant::now(),
                Ok(other) => told.push(other),
                Err(_) => alive = false,
            }
        }
        (told, alive)
    }

    /// SIGKILL ends it also while it waits for the kernel.
    pub(super) fn end(mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Reads what is there without waiting; false once the other side has closed or broken the rules.
pub(super) fn read_some(stream: &UnixStream, lines: &mut Lines) -> bool {
    let mut chunk = vec![0; CHUNK_BYTES];
    for _ in 0..MAX_READS {
        match super::agent::take(stream, &mut chunk) {
            Ok(None) => return true,
            Ok(Some(0)) | Err(_) => return false,
            Ok(Some(count)) => {
                let bytes = chunk.get(..count).unwrap_or_default();
                if lines.push(bytes).is_err() {
                    return false;
                }
            }
        }
    }
    true
}
