//! The guard of the application volume, as this process knows it: what it is told, what it says.
//!
//! Its socket is the sign of life that counts. While there is no connection nothing is known to be enforced, so the
//! level is none, and whoever runs applications ends them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_guard::book::{BadBook, Book, Mode};
use edgeward_guard::control::{BadLine, Ended, Lines, Order, Run, Told, line};
use edgeward_guard::digest::Digest;
use edgeward_guard::level::Level;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::records::Records;

/// Most orders and tidings that wait.
const MAX_WAITING: usize = 1024;
/// Longest wait between two attempts to connect.
const MAX_RETRY: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// How long a book may take until it counts.
const HOLD_LIMIT: Duration = Duration::from_secs(10);
const CHUNK_BYTES: usize = 64 * 1024;

/// How the guard does now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardState {
    /// None: there is no connection.
    pub level: Option<Level>,
    /// Why it is not the next one.
    pub lacks: Vec<String>,
    /// Version of the book that counts.
    pub holds: Option<u64>,
    /// Of that book. None: there is none yet, and everything is refused.
    pub mode: Option<Mode>,
    /// The newest that was said.
    said: Option<(u64, Mode)>,
    /// Everything on the volume is refused until an operator has looked.
    pub shut: bool,
}

/// Orders to the guard, and how it does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<GuardState>,
    last_book: Arc<AtomicU64>,
}

/// The connection. Whoever holds it keeps it.
pub struct Link {
    socket: PathBuf,
    orders: mpsc::Receiver<Order>,
    state: watch::Sender<GuardState>,
    heard: mpsc::Sender<Heard>,
    records: Arc<Records>,
    /// The newest, for a supervisor that comes anew.
    book: Option<Book>,
}

/// What whoever runs applications learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is a guard, and this runs.
    Here(Vec<Run>),
    /// There is none any more: whatever ran is ended.
    Away,
    Made(String),
    Started(Run),
    NotStarted {
        name: String,
        why: String,
    },
    Ended {
        name: String,
        how: Ended,
    },
    Gone(String),
}

/// A book does not count (yet). It is said again to every guard that comes, until there is another one.
#[derive(Debug, thiserror::Error)]
pub enum NotHeld {
    #[error("there is no guard")]
    Away,
    #[error(transparent)]
    Book(#[from] BadBook),
    #[error("the guard did not take it within {} s", HOLD_LIMIT.as_secs())]
    TooSlow,
}

/// More orders wait than the limit, or nobody takes them.
#[derive(Debug, thiserror::Error)]
#[error("orders to the guard wait already: {MAX_WAITING}")]
pub struct NotOrdered;

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Line(#[from] BadLine),
    #[error("the guard has closed the connection")]
    Closed,
    #[error("whoever listens there is not this user")]
    User,
    #[error("nobody gives orders any more")]
    Over,
}

/// A guard that listens on `socket`, told of to `heard`.
pub fn guard(socket: &Path, records: Arc<Records>) -> (Guard, Link, mpsc::Receiver<Heard>) {
    let (orders, taken) = mpsc::channel(MAX_WAITING);
    let (tell, heard) = mpsc::channel(MAX_WAITING);
    let (state_to, state) = watch::channel(GuardState::default());
    let link = Link {
        socket: socket.to_owned(),
        orders: taken,
        state: state_to,
        heard: tell,
        records,
        book: None,
    };
    let guard = Guard {
        orders,
        state,
        last_book: Arc::default(),
    };
    (guard, link, heard)
}

impl Guard {
    pub fn state(&self) -> watch::Receiver<GuardState> {
        self.state.clone()
    }

    /// From the return on nothing is answered by the book before. `files` are all files of all installed applications.
    pub async fn book(&self, mode: Mode, files: BTreeMap<Digest, String>) -> Result<u64, NotHeld> {
        let version = self.last_book.fetch_add(1, Ordering::AcqRel) + 1;
        let book = Book::new(version, mode, files)?;
        self.order(Order::Book(book)).map_err(|_| NotHeld::Away)?;
        let mut state = self.state.clone();
        // It is said to the guard that comes.
        if state.borrow().level.is_none() {
            return Err(NotHeld::Away);
        }
        let held = state.wait_for(|state| state.holds.is_some_and(|holds| holds >= version));
        match tokio::time::timeout(HOLD_LIMIT, held).await {
            Ok(Ok(_)) => Ok(version),
            Ok(Err(_)) => Err(NotHeld::Away),
            Err(_) if self.state.borrow().level.is_none() => Err(NotHeld::Away),
            Err(_) => Err(NotHeld::TooSlow),
        }
    }

    pub(super) fn order(&self, order: Order) -> Result<(), NotOrdered> {
        self.orders.try_send(order).map_err(|_| NotOrdered)
    }
}

impl Link {
    /// Connects, and connects again, until `token` ends it.
    pub async fn run(mut self, token: CancellationToken) -> anyhow::Result<()> {
        let mut retry = FIRST_RETRY;
        loop {
            let conversation = async {
                let stream = UnixStream::connect(&self.socket).await?;
                retry = FIRST_RETRY;
                self.converse(stream).await
            };
            let ended = tokio::select! {
                () = token.cancelled() => return Ok(()),
                ended = conversation => ended,
            };
            let was_there = self.state.borrow().level.is_some();
            self.state.send_replace(GuardState::default());
            let Err(why) = ended;
            if was_there {
                tracing::error!(%why, "the guard of applications is away: they are ended");
                let _nobody_runs_any = self.heard.send(Heard::Away).await;
            } else {
                tracing::debug!(%why, socket = %self.socket.display(), "no guard of applications");
            }
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = tokio::time::sleep(retry) => {}
            }
            retry = (retry * 2).min(MAX_RETRY);
        }
    }

    async fn converse(&mut self, stream: UnixStream) -> Result<std::convert::Infallible, Broken> {
        // Its socket lies in a folder of root's; one of somebody else's would be told what runs here.
        if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Broken::User);
        }
        let (read, write) = stream.into_split();
        let said = say(write, &mut self.orders, &mut self.book, &self.state);
        let heard = hear(read, &self.state, &self.heard, &self.records);
        tokio::select! {
            ended = said => ended,
            ended = heard => ended,
        }
    }
}

async fn say(
    mut write: OwnedWriteHalf,
    orders: &mut mpsc::Receiver<Order>,
    book: &mut Option<Book>,
    state: &watch::Sender<GuardState>,
) -> Result<std::convert::Infallible, Broken> {
    let mut again = book.clone().map(Order::Book);
    loop {
        let order = match again.take() {
            Some(order) => order,
            None => orders.recv().await.ok_or(Broken::Over)?,
        };
        if let Order::Book(new) = &order {
            *book = Some(new.clone());
            let said = Some((new.version(), new.mode()));
            state.send_modify(|state| state.said = said);
        }
        write.write_all(&line(&order)?).await?;
    }
}

async fn hear(
    mut read: OwnedReadHalf,
    state: &watch::Sender<GuardState>,
    heard: &mpsc::Sender<Heard>,
    records: &Records,
) -> Result<std::convert::Infallible, Broken> {
    let mut lines = Lines::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = read.read(&mut chunk).await?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Err(Broken::Closed);
        };
        lines.push(bytes)?;
        while let Some(told) = lines.take_line::<Told>() {
            if let Some(news) = take(told?, state, records) {
                heard.send(news).await.map_err(|_| Broken::Over)?;
            }
        }
    }
}

fn take(told: Told, state: &watch::Sender<GuardState>, records: &Records) -> Option<Heard> {
    match told {
        Told::Beat => None,
        Told::Here {
            level,
            lacks,
            runs,
            shut,
        } => {
            state.send_modify(|state| {
                state.level = Some(level);
                state.lacks = lacks;
                state.shut = shut;
            });
            Some(Heard::Here(runs))
        }
        Told::Holds(version) => {
            state.send_modify(|state| {
                state.holds = Some(version);
                let mode = state.said.filter(|(said, _)| *said == version);
                state.mode = mode.map(|(_, mode)| mode).or(state.mode);
            });
            None
        }
        Told::Saw(saw) => {
            records.saw(&saw);
            None
        }
        Told::Lost(count) => {
            records.lost(count);
            None
        }
        Told::Restarted { refused } => {
            records.restarted(refused);
            None
        }
        Told::Shut { ended } => {
            state.send_modify(|state| state.shut = true);
            records.shut(ended);
            None
        }
        Told::Made { name } => Some(Heard::Made(name)),
        Told::Started(run) => Some(Heard::Started(run)),
        Told::NotStarted { name, why } => Some(Heard::NotStarted { name, why }),
        Told::Ended { name, how } => Some(Heard::Ended { name, how }),
        Told::Gone { name } => Some(Heard::Gone(name)),
        Told::Wrote { name, text } => {
            tracing::info!(target: "edgeward_agent::app", app = %name, "{text}");
            None
        }
        Told::Dropped { name, lines } => {
            tracing::warn!(target: "edgeward_agent::app", app = %name, lines, "wrote more than is passed on");
            None
        }
    }
}

#[cfg(test)]
mod tests;
