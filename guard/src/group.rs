//! The kernel's group: what is marked, the questions it asks, the answers it gets (fanotify(7)).

mod inherited;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};

use crate::book::Asked;
use crate::volume::Volume;

const ALLOW: u32 = 0x01;
const DENY: u32 = 0x02;
const ASKED: MaskFlags = MaskFlags::FAN_OPEN_PERM.union(MaskFlags::FAN_OPEN_EXEC_PERM);
/// Most descriptors that whoever reads from the group may have open; the number of a question is below it.
pub const MAX_DESCRIPTORS: RawFd = 1024;

/// A handle on the group. As long as one is open anywhere, nothing on the volume is opened without an answer.
#[derive(Debug)]
pub struct Group(Fanotify);

/// One open or exec that waits for its answer.
#[derive(Debug)]
pub struct Question {
    event: FanotifyEvent,
    asked: Asked,
}

#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    #[error("kernel refuses a group of questions: {0}")]
    Init(#[source] Errno),
    #[error("marks of the volume cannot be changed: {0}")]
    Mark(#[source] Errno),
    #[error("descriptor is not a group: {0}")]
    Inherited(#[source] io::Error),
    #[error("questions cannot be read: {0}")]
    Read(#[source] Errno),
    #[error("kernel asks in a form that is not known")]
    Version,
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Group {
    /// Opens a group and marks the whole file system, so that neither another mount nor another mount namespace leads
    /// around it. From the return on every open there waits.
    pub fn over(volume: &Volume) -> Result<Self, GroupError> {
        // When a limited queue is full, the kernel lets through what it cannot ask about.
        let flags = InitFlags::FAN_CLASS_CONTENT
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_UNLIMITED_MARKS;
        // Without O_NONBLOCK the kernel would wait for a writer when it opens a pipe for us.
        let files = EventFFlags::O_RDONLY
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_NONBLOCK;
        let group = Fanotify::init(flags, files).map_err(GroupError::Init)?;
        group
            .mark(
                MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM,
                ASKED,
                volume.folder(),
                None::<&str>,
            )
            .map_err(GroupError::Mark)?;
        Ok(Self(group))
    }

    /// Takes over a group that another process opened.
    pub fn inherited(fd: OwnedFd) -> Result<Self, GroupError> {
        inherited::group(fd)
            .map(Self)
            .map_err(GroupError::Inherited)
    }

    /// A handle for another process.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// Waits for questions, and takes those that are there.
    pub fn questions(&self, wait: Duration) -> Result<Vec<Question>, GroupError> {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, wait) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(GroupError::Read(error)),
        }
        match self.0.read_events() {
            // Another layout of the kernel's structure: nothing here could be answered.
            Ok(events) if !events.iter().all(FanotifyEvent::check_version) => {
                Err(GroupError::Version)
            }
            Ok(events) => Ok(events.into_iter().filter_map(Question::of).collect()),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(GroupError::Read(error)),
        }
    }

    pub fn answer(&self, question: &Question, allow: bool) {
        if let Some(fd) = question.event.fd() {
            self.write(fd.as_raw_fd(), if allow { ALLOW } else { DENY });
        }
    }

    /// Refuses what a process that has died had read and not answered: the kernel knows such a question by its number
    /// in that process. Gives how many there were.
    pub fn refuse_abandoned(&self) -> usize {
        (0..MAX_DESCRIPTORS)
            .filter(|number| self.write(*number, DENY))
            .count()
    }

    /// Asks no more about this file until it is written to.
    pub fn ignore(&self, file: BorrowedFd<'_>) -> nix::Result<()> {
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_IGNORED_MASK;
        // A mark that may go with its inode holds no memory; kernels before 5.19 know only the other kind.
        match self.mark_file(flags | MarkFlags::FAN_MARK_EVICTABLE, file) {
            Err(Errno::EINVAL) => self.mark_file(flags, file),
            other => other,
        }
    }

    /// Asks about this file again.
    pub fn heed(&self, file: BorrowedFd<'_>) -> nix::Result<()> {
        let flags = MarkFlags::FAN_MARK_REMOVE | MarkFlags::FAN_MARK_IGNORED_MASK;
        match self.mark_file(flags, file) {
            // The kernel took it away first.
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Asks about every file again. The mark of the volume stays.
    pub fn heed_all(&self) -> nix::Result<()> {
        self.0.mark(
            MarkFlags::FAN_MARK_FLUSH,
            MaskFlags::empty(),
            AT_FDCWD,
            None::<&str>,
        )
    }

    fn mark_file(&self, flags: MarkFlags, file: BorrowedFd<'_>) -> nix::Result<()> {
        self.0.mark(flags, ASKED, file, None::<&str>)
    }

    /// Whether there was such a question.
    fn write(&self, number: RawFd, answer: u32) -> bool {
        let mut response = [0; 8];
        let (fd, rest) = response.split_at_mut(4);
        fd.copy_from_slice(&number.to_ne_bytes());
        rest.copy_from_slice(&answer.to_ne_bytes());
        nix::unistd::write(&self.0, &response).is_ok()
    }
}

impl Question {
    fn of(event: FanotifyEvent) -> Option<Self> {
        // Without a file it is a notice, to which there is no answer.
        event.fd()?;
        let exec = event.mask().contains(MaskFlags::FAN_OPEN_EXEC_PERM);
        let asked = if exec { Asked::Exec } else { Asked::Open };
        Some(Self { event, asked })
    }

    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// The file, open for reading. Reading it asks nothing.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.event.fd()
    }

    /// Who asks, in the pid namespace of whoever reads; 0 if it is of another.
    pub fn pid(&self) -> i32 {
        self.event.pid()
    }
}
