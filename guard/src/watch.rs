//! The process that answers. Its input is the kernel's group, its output a socket to the supervisor.
//!
//! One thread takes questions and answers what it knows; readers read files; one hears the supervisor and one tells it.
//! The beat is told only while the first one turns, so that the supervisor notices whatever holds it up.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use parking_lot::Mutex;

use crate::book::Reason;
use crate::control::{BadLine, Lines, Order, Saw, Told, line};
use crate::court::{Case, Court, Step};
use crate::group::{Group, GroupError, MAX_DESCRIPTORS};
use crate::level::kernel::Kernel;
use crate::rights;

/// Threads that read files.
const READERS: usize = 2;
/// Most files that wait for being read: with those that one look at the kernel brings they stay below the limit on
/// descriptors.
const MAX_WAITING_FILES: usize = 768;
/// Most records that wait for being told.
const MAX_WAITING_RECORDS: usize = 1024;
/// How often the watch says that it answers.
pub const BEAT: Duration = Duration::from_millis(200);
/// Longest turn of the thread that answers while nothing is asked.
const TURN: Duration = Duration::from_millis(50);
/// How often the kernel is told to ask again about what it no longer asks about: of some writes it says nothing (through
/// shared memory, by io_submit(2)), though the file's times show them.
const ASK_ANEW: Duration = Duration::from_secs(10);
/// How long a watch whose supervisor is gone goes on answering, until another supervisor has taken over.
const ORPHANED: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Rights(#[from] rights::Kept),
    #[error("supervisor cannot be reached: {0}")]
    Io(#[from] io::Error),
    #[error("limit on descriptors cannot be set: {0}")]
    Limit(#[from] nix::Error),
    #[error(transparent)]
    Line(#[from] BadLine),
    #[error("supervisor is gone")]
    Orphaned,
    #[error("supervisor orders what is not the watch's to do")]
    NotOurs,
}

/// Runs until the supervisor ends it. `kernel` is where the kernel keeps what it decides by, if it does.
pub fn run(kernel: Option<&Path>) -> Result<(), WatchError> {
    let limit = u64::from(MAX_DESCRIPTORS.unsigned_abs());
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    rights::of_watch()?;
    let group = Group::inherited(io::stdin().as_fd().try_clone_to_owned()?)?;
    let socket = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (records, told) = sync_channel(MAX_WAITING_RECORDS);
    let kernel = kernel.map(Kernel::kept).transpose()?;
    let court = Arc::new(Court::new(group, kernel, records));
    let (queue, waiting) = sync_channel(MAX_WAITING_FILES);
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..READERS {
        let (court, waiting) = (Arc::clone(&court), Arc::clone(&waiting));
        std::thread::spawn(move || read_files(&court, &waiting));
    }
    let turns = Arc::new(AtomicU64::new(0));
    let (holds, held) = sync_channel(1);
    let teller = Teller {
        socket: socket.try_clone()?,
        court: Arc::clone(&court),
        turns: Arc::clone(&turns),
    };
    std::thread::spawn(move || teller.run(&told, &held));
    let hearing = Arc::clone(&court);
    std::thread::spawn(move || {
        if matches!(hear(socket, &hearing, &holds), Err(WatchError::Orphaned)) {
            // Another supervisor opens a group of its own; until then this one keeps answering.
            std::thread::park_timeout(ORPHANED);
        }
        // Whatever else it is: by the book that it has it must not go on.
        std::process::exit(1);
    });
    answer(&court, &queue, &turns)
}

/// Takes questions. Never reads a file and never waits for anyone but the kernel.
fn answer(
    court: &Court,
    queue: &SyncSender<Arc<Case>>,
    turns: &AtomicU64,
) -> Result<(), WatchError> {
    let mut open: Vec<Arc<Case>> = Vec::new();
    let mut asked_anew = Instant::now();
    loop {
        turns.fetch_add(1, Ordering::AcqRel);
        if asked_anew.elapsed() >= ASK_ANEW {
            asked_anew = Instant::now();
            court.group().heed_all().map_err(GroupError::Mark)?;
        }
        for question in court.group().questions(TURN)? {
            let case = Case::new(question, Instant::now());
            if matches!(court.first_look(&case), Step::Answered) {
                continue;
            }
            match queue.try_send(Arc::clone(&case)) {
                Ok(()) => open.push(case),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    court.refuse(&case, Reason::Overload);
                }
            }
        }
        let now = Instant::now();
        for late in open.iter().filter(|case| case.due() <= now) {
            court.refuse(late, Reason::TooSlow);
        }
        open.retain(|case| !case.is_answered());
    }
}

fn read_files(court: &Court, waiting: &Mutex<Receiver<Arc<Case>>>) {
    loop {
        let next = waiting.lock().recv();
        match next {
            Ok(case) => court.read(&case),
            Err(_) => return,
        }
    }
}

/// Ends when the supervisor is gone, says what is not understood, or sends a book that cannot be taken.
fn hear(
    mut socket: UnixStream,
    court: &Court,
    holds: &SyncSender<u64>,
) -> Result<Infallible, WatchError> {
    let mut lines = Lines::default();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = match socket.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return Err(WatchError::Orphaned),
            Ok(count) => count,
        };
        let bytes = chunk.get(..count).unwrap_or_default();
        lines.push(bytes)?;
        while let Some(order) = lines.take_line() {
            match order? {
                Order::Keeper(pid) => court.set_keeper(pid),
                // Not for the watch.
                Order::Make { .. } | Order::Start(_) | Order::End { .. } => {
                    return Err(WatchError::NotOurs);
                }
                Order::Book(book) => {
                    let version = book.version();
                    court.take(book)?;
                    // Whoever tells the supervisor ends only when there is none any more.
                    holds.send(version).map_err(|_| WatchError::Orphaned)?;
                }
            }
        }
    }
}

struct Teller {
    socket: UnixStream,
    court: Arc<Court>,
    turns: Arc<AtomicU64>,
}

impl Teller {
    fn run(mut self, records: &Receiver<Saw>, held: &Receiver<u64>) {
        let mut seen = 0;
        let mut beat = Instant::now();
        loop {
            let wait = BEAT.saturating_sub(beat.elapsed()).min(TURN);
            let told = match records.recv_timeout(wait) {
                Ok(saw) => self.tell(&Told::Saw(saw)),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let told = told.and_then(|()| match held.try_recv() {
                Ok(version) => self.tell(&Told::Holds(version)),
                Err(_) => Ok(()),
            });
            let told = told.and_then(|()| {
                let turns = self.turns.load(Ordering::Acquire);
                if beat.elapsed() < BEAT || turns == seen {
                    return Ok(());
                }
                (seen, beat) = (turns, Instant::now());
                let lost = self.court.take_lost();
                if lost > 0 {
                    self.tell(&Told::Lost(lost))?;
                }
                self.tell(&Told::Beat)
            });
            // The supervisor is gone: the thread that hears it sees to that.
            if told.is_err() {
                return;
            }
        }
    }

    fn tell(&mut self, told: &Told) -> Result<(), WatchError> {
        Ok(self.socket.write_all(&line(told)?)?)
    }
}
