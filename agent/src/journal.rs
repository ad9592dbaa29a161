//! The journal's shell: one thread that owns the file, one handle that everybody writes through.
//!
//! Whatever grants waits for its record; whatever takes away has happened already and only queues its record, in
//! room that grants cannot use up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use async_trait::async_trait;
use edgeward_audit::journal::{
    self, Boot as JournalBoot, FileStore, Limits, Mark, OpenError, Pending, StorageError,
};
use edgeward_audit::record::{NoRandom, Salts};
use edgeward_audit::{BootId, Event, Head, Journal, Position};
use edgeward_identity::{BootTime, Clock, SpiffeId};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use tokio::sync::{Notify, oneshot, watch};

use crate::boot::Boot;
use crate::enforce::{RecordRefused, Recorder};

mod keys;
mod log_seen;
mod proven;
mod writer;

use keys::KeyRing;
pub use log_seen::Covered;
use log_seen::LogSeen;
use writer::Writer;

/// Most commands that wait for the thread.
pub const QUEUE_LIMIT: usize = 4096;
/// What grants and what merely tells may use of it; the rest is for what takes away.
pub const GRANT_QUEUE_LIMIT: usize = 3072;

/// Writes and reads the journal. Cheap to clone.
#[derive(Clone)]
pub struct JournalHandle {
    commands: SyncSender<Command>,
    waiting: Arc<AtomicUsize>,
    written: watch::Receiver<u64>,
    musts: watch::Receiver<u64>,
    marked: Marked,
    /// Up to where the cloud has everything, as far as this process knows.
    sent: Arc<Mutex<Option<Position>>>,
    log_size: Arc<AtomicU64>,
    not_shown: Arc<Notify>,
}

/// The newest record of which the journal's thread knows that it is on disk, for the state file.
#[derive(Clone, Debug, Default)]
pub struct Marked(Arc<Mutex<Option<Mark>>>);

impl Marked {
    pub fn get(&self) -> Option<Mark> {
        *self.0.lock()
    }
}

/// Where the journal ends on disk, and the boot of the oldest record that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub boot: BootId,
    pub head: Head,
    pub oldest: BootId,
}

/// The journal cannot be read now: nothing is known of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal cannot be read")]
pub struct Unreadable;

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NoJournal {
    #[error("journal {}: {source}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: OpenError,
    },
    #[error("journal {}: {source}", path.display())]
    Storage {
        path: PathBuf,
        #[source]
        source: StorageError,
    },
    #[error("journal {}: damaged, and cannot be put aside: {source}", path.display())]
    Aside {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("journal: {0}")]
    Random(#[from] NoRandom),
    #[error("journal thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
}

enum Command {
    Record {
        event: Event,
        /// Whether to be left out for want of room is an error, too.
        kept: bool,
        done: oneshot::Sender<Result<(), RecordRefused>>,
    },
    After(Event),
    Pending {
        from: Option<Position>,
        done: oneshot::Sender<Result<Option<Pending>, Unreadable>>,
    },
    Covered(Box<Covered>),
    Losable {
        boot: BootId,
        first_seq: u64,
        last_seq: u64,
        done: oneshot::Sender<Option<u64>>,
    },
    End(oneshot::Sender<Option<End>>),
    StandsTo(Mark, oneshot::Sender<Result<journal::Marked, Unreadable>>),
    Flush(oneshot::Sender<()>),
}

/// Opens the journal of `node` in `path`. A damaged one is evidence: it is put aside, and the boot, whose id names the
/// chain, is begun anew. So is a boot whose journal key is lost.
pub fn open(
    path: &Path,
    node: &SpiffeId,
    boot: Boot,
    clock: Arc<dyn Clock>,
) -> Result<(JournalHandle, Boot), NoJournal> {
    let (journal, boot) = match open_file(path, node, &boot, clock.as_ref()) {
        Ok(journal) => (journal, boot),
        Err(NoJournal::Open { source, .. }) if is_damage(&source) => {
            let aside = path.with_extension(format!("damaged-{}", boot.id()));
            tracing::error!(error = %source, aside = %aside.display(), "the journal is damaged and is put aside");
            std::fs::rename(path, &aside).map_err(|source| NoJournal::Aside {
                path: path.to_owned(),
                source,
            })?;
            let anew = boot.renewed().unwrap_or(boot);
            (open_file(path, node, &anew, clock.as_ref())?, anew)
        }
        Err(other) => return Err(other),
    };
    let (journal, boot, keys) = with_keys(journal, boot, |boot| {
        open_file(path, node, boot, clock.as_ref())
    })?;
    let (commands, incoming) = sync_channel(QUEUE_LIMIT);
    let (written_to, written) = watch::channel(0);
    let (musts_to, musts) = watch::channel(0);
    let (marked, sent) = (Marked::default(), Arc::default());
    let waiting = Arc::new(AtomicUsize::new(0));
    let log = LogSeen::open(path.parent().unwrap_or(path));
    let (log_size, not_shown) = (log.size(), Arc::new(Notify::new()));
    let mut writer = Writer {
        journal: Some(journal),
        path: path.to_owned(),
        node: node.clone(),
        boot: journal_boot(&boot),
        keys,
        clock,
        written: written_to,
        musts: musts_to,
        marked: marked.clone(),
        sent: Arc::clone(&sent),
        log,
        not_shown: not_shown.clone(),
        untold: Vec::new(),
        tried_to_tell: BootTime::default(),
    };
    writer.turn_if_due();
    let counter = waiting.clone();
    std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.serve(&incoming, &counter))
        .map_err(NoJournal::Thread)?;
    let handle = JournalHandle {
        commands,
        waiting,
        written,
        musts,
        marked,
        sent,
        log_size,
        not_shown,
    };
    Ok((handle, boot))
}

impl JournalHandle {
    /// Changes whenever there is something new to send.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }

    /// Changes with every record of class `must`: the state file should know of it.
    pub fn musts(&self) -> watch::Receiver<u64> {
        self.musts.clone()
    }

    /// The newest record that is known to be on disk.
    pub fn marked(&self) -> Marked {
        self.marked.clone()
    }

    /// Where the next session goes on sending; none: from the oldest record kept.
    pub fn sent(&self) -> Option<Position> {
        *self.sent.lock()
    }

    pub fn set_sent(&self, position: Option<Position>) {
        *self.sent.lock() = position;
    }

    /// The next records to send, from `from` on.
    pub async fn pending(&self, from: Option<Position>) -> Result<Option<Pending>, Unreadable> {
        let (done, answer) = oneshot::channel();
        self.push(Command::Pending { from, done }, QUEUE_LIMIT)
            .map_err(|_| Unreadable)?;
        answer.await.map_err(|_| Unreadable)?
    }

    /// The log covers records: what it shows for that is checked, and what is covered may go.
    pub fn covered(&self, covered: Covered) {
        let command = Command::Covered(Box::new(covered));
        if let Err(error) = self.push(command, QUEUE_LIMIT) {
            tracing::debug!(%error, "word of a checkpoint is dropped, to be said again");
            self.not_shown.notify_one();
        }
    }

    /// Wakes whoever is to tell the cloud that a word of a checkpoint was not accepted.
    pub fn not_shown(&self) -> Arc<Notify> {
        self.not_shown.clone()
    }

    /// Where what may be signed as lost begins in a range that is not kept; none: the log proved to have all of it.
    pub async fn losable(
        &self,
        boot: BootId,
        first_seq: u64,
        last_seq: u64,
    ) -> Result<Option<u64>, Unreadable> {
        let (done, answer) = oneshot::channel();
        let asked = Command::Losable {
            boot,
            first_seq,
            last_seq,
            done,
        };
        self.push(asked, QUEUE_LIMIT).map_err(|_| Unreadable)?;
        answer.await.map_err(|_| Unreadable)
    }

    /// Size of the newest checkpoint of the log that this node accepted; 0: none yet.
    pub fn log_size(&self) -> u64 {
        self.log_size.load(Ordering::Relaxed)
    }

    /// Where the journal ends on disk; none where it cannot be read or written now.
    pub async fn end(&self) -> Option<End> {
        let (done, answer) = oneshot::channel();
        self.push(Command::End(done), QUEUE_LIMIT).ok()?;
        answer.await.ok().flatten()
    }

    /// Whether this journal is the one that had the mark.
    pub async fn stands_to(&self, mark: Mark) -> Result<journal::Marked, Unreadable> {
        let (done, answer) = oneshot::channel();
        self.push(Command::StandsTo(mark, done), QUEUE_LIMIT)
            .map_err(|_| Unreadable)?;
        answer.await.map_err(|_| Unreadable)?
    }

    /// Waits until everything queued so far is on disk: before the process ends.
    pub async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        if self.push(Command::Flush(done), QUEUE_LIMIT).is_ok() {
            let _ = answer.await;
        }
    }

    async fn wait_for(&self, event: Event, kept: bool) -> Result<(), RecordRefused> {
        let (done, answer) = oneshot::channel();
        self.push(Command::Record { event, kept, done }, GRANT_QUEUE_LIMIT)?;
        answer
            .await
            .unwrap_or_else(|_| Err(RecordRefused("thread has ended".to_owned())))
    }

    fn push(&self, command: Command, limit: usize) -> Result<(), RecordRefused> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= limit {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(RecordRefused("queue is full".to_owned()));
        }
        self.commands.try_send(command).map_err(|error| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            RecordRefused(
                match error {
                    TrySendError::Full(_) => "queue is full",
                    TrySendError::Disconnected(_) => "thread has ended",
                }
                .to_owned(),
            )
        })
    }
}

#[async_trait]
impl Recorder for JournalHandle {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        self.wait_for(event, false).await
    }

    async fn record_kept(&self, event: Event) -> Result<(), RecordRefused> {
        self.wait_for(event, true).await
    }

    fn record_after(&self, event: Event) {
        let kind = event.kind;
        if let Err(error) = self.push(Command::After(event), QUEUE_LIMIT) {
            metrics::counter!("edgeward_journal_dropped_total").increment(1);
            tracing::error!(%kind, %error, "an event could not be queued for the journal");
        }
    }
}

fn open_file(
    path: &Path,
    node: &SpiffeId,
    boot: &Boot,
    clock: &dyn Clock,
) -> Result<Journal<FileStore>, NoJournal> {
    let store = FileStore::open(path).map_err(|source| NoJournal::Storage {
        path: path.to_owned(),
        source,
    })?;
    let (journal, opened) = Journal::open(
        store,
        node,
        &journal_boot(boot),
        Limits::default(),
        clock.now(),
        fresh_salts()?,
    )
    .map_err(|source| NoJournal::Open {
        path: path.to_owned(),
        source,
    })?;
    tracing::debug!(continued = opened.continued, cut = ?opened.cut, "journal opened");
    Ok(journal)
}

fn fresh_salts() -> Result<Salts, NoRandom> {
    Salts::draw_from(&SystemRandom::new())
}

/// The journal with the keys of its boot; with another boot where they are lost.
fn with_keys(
    journal: Journal<FileStore>,
    boot: Boot,
    open: impl FnOnce(&Boot) -> Result<Journal<FileStore>, NoJournal>,
) -> Result<(Journal<FileStore>, Boot, KeyRing), NoJournal> {
    let mut keys = KeyRing::of(&boot);
    if keys.settle(journal.last_turn()) {
        return Ok((journal, boot, keys));
    }
    tracing::warn!("the journal's key of this boot is lost: a new boot begins");
    // One process, one handle: the lock goes with it.
    drop(journal);
    let anew = boot.renewed().unwrap_or(boot);
    let journal = open(&anew)?;
    let keys = KeyRing::of(&anew);
    Ok((journal, anew, keys))
}

fn journal_boot(boot: &Boot) -> JournalBoot {
    JournalBoot {
        id: boot.id(),
        reset_count: boot.counts().map(|counts| counts.reset),
        restart_count: boot.counts().map(|counts| counts.restart),
    }
}

/// Whether the content is what is wrong, not the disk or a second process.
fn is_damage(error: &OpenError) -> bool {
    !matches!(error, OpenError::Storage(_))
}

#[cfg(test)]
mod tests;
