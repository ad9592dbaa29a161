//! Batches that wait to be stored: whoever has waited longest writes for all.
//!
//! A transaction costs one flush to disk, however much is in it. While one is written, batches gather; the next takes
//! them together. No task stands behind this: the caller whose turn it is does the work, and if it goes away (its
//! session ended) nothing was stored and the next in line begins again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_audit::batch::VerifiedBatch;
use edgeward_identity::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit, oneshot};

use super::ingest::{Acknowledged, IngestError};

/// Most records that wait; beyond that, sessions wait before their batch gets in line.
const MAX_WAITING: u32 = 32_768;
/// A transaction takes batches until it has so many records: bounds how long other writers wait.
const GROUP_RECORDS: usize = 2048;

/// Most events that are stored and not covered while more of nodes are taken in: one round of the integrator. So what is
/// stored is covered within the bound, however much comes; nodes keep what waits.
const MAX_UNCOVERED: u64 = 16_384;
/// How long a batch waits for checkpoints to follow.
pub(super) const FOLLOWS_WITHIN: Duration = Duration::from_secs(10);

pub(super) type Answer = Result<Acknowledged, IngestError>;

/// The line, by number.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) most_uncovered: u64,
    room: Semaphore,
    turn: tokio::sync::Mutex<()>,
    next: AtomicU64,
    line: Mutex<BTreeMap<u64, Arc<Waiting>>>,
}

/// A batch in line.
#[derive(Debug)]
pub(super) struct Waiting {
    number: u64,
    pub(super) batch: Arc<VerifiedBatch>,
    pub(super) now: Timestamp,
    answer: Mutex<Option<oneshot::Sender<Answer>>>,
}

/// One's place in the line, which ends with it.
pub(super) struct Place<'a> {
    intake: &'a Intake,
    number: u64,
    answer: oneshot::Receiver<Answer>,
    _room: Option<SemaphorePermit<'a>>,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            most_uncovered: MAX_UNCOVERED,
            room: Semaphore::new(usize::try_from(MAX_WAITING).unwrap_or(usize::MAX)),
            turn: tokio::sync::Mutex::default(),
            next: AtomicU64::default(),
            line: Mutex::default(),
        }
    }
}

impl Intake {
    /// Waits for room, then gets in line.
    pub(super) async fn enter(&self, batch: Arc<VerifiedBatch>, now: Timestamp) -> Place<'_> {
        let records = u32::try_from(batch.records().len()).unwrap_or(MAX_WAITING);
        // Fails only when it is closed, which nobody does.
        let room = self.room.acquire_many(records.min(MAX_WAITING)).await.ok();
        let (sender, answer) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let waiting = Arc::new(Waiting {
            number,
            batch,
            now,
            answer: Mutex::new(Some(sender)),
        });
        self.line.lock().insert(number, waiting);
        Place {
            intake: self,
            number,
            answer,
            _room: room,
        }
    }

    /// Those who are first, at least one if anybody waits. They stay in line until they are answered.
    pub(super) fn group(&self) -> Vec<Arc<Waiting>> {
        let mut records = 0;
        let line = self.line.lock();
        let first = line.values().take_while(|waiting| {
            let fits = records < GROUP_RECORDS;
            records += waiting.batch.records().len();
            fits
        });
        first.cloned().collect()
    }

    /// Says what became of a batch, and takes it out of the line.
    pub(super) fn answer(&self, waiting: &Waiting, answer: Answer) {
        self.line.lock().remove(&waiting.number);
        if let Some(sender) = waiting.answer.lock().take() {
            // One that went away sends again in its next session.
            let _ = sender.send(answer);
        }
    }
}

impl<'a> Place<'a> {
    /// The answer, if somebody else got it; else the turn is ours, and nobody else writes until it is dropped.
    pub(super) async fn answer_or_turn(&mut self) -> Result<Answer, MutexGuard<'a, ()>> {
        tokio::select! {
            biased;
            // Whoever takes the sender out answers with it.
            Ok(answer) = &mut self.answer => Ok(answer),
            turn = self.intake.turn.lock() => Err(turn),
        }
    }

    /// The answer, if it is there.
    pub(super) fn answered(&mut self) -> Option<Answer> {
        self.answer.try_recv().ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.intake.line.lock().remove(&self.number);
    }
}
