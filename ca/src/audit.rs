//! The cloud's audit log: its own journal, and the one place where nodes' batches are taken in.
//!
//! A record precedes whatever grants: [`AuditLog::record_in`] writes it in the transaction of the grant, so that both are
//! there or neither. What strangers can cause at will goes through [`AuditLog::later`]: a bounded queue, written in
//! groups, so that nobody outside orders disk flushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::record::{
    BootId, BootOpened, Chain, NoRandom, PreviousBoot, RecordError, Salts,
};
use edgeward_identity::{SpiffeId, Timestamp};
use ring::rand::SystemRandom;
use tokio::sync::{mpsc, oneshot, watch};

use crate::store::audit::{FaultKind, JournalFault};
use crate::store::{Store, StoreError, Tx};

mod continuity;
mod feed;
mod gaps;
mod glass;
mod heads;
mod ingest;
mod intake;
mod later;
#[cfg(test)]
mod tests;
mod tree;
mod turns;

pub use feed::Feed;
pub use heads::StatedFault;
pub use ingest::{Acknowledged, IngestError, Wanted};
pub use later::{COUNT, LaterWriter, MAX_QUEUED};
pub use tree::{Checked, Halt, INTERVAL, Integrator, LogHead, Published, SelfCheck};

/// The journal of this cloud process, and the way into the log for those of the nodes.
#[derive(Debug)]
pub struct AuditLog {
    store: Store,
    keeper: SpiffeId,
    boot: BootId,
    queue: mpsc::Sender<later::Entry>,
    dropped: Arc<AtomicU64>,
    head: LogHead,
    intake: intake::Intake,
}

/// What of a fault the node signed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signed {
    /// Two words that exclude each other: nobody else can have made that up.
    Both,
    Less,
}

/// An event could not be recorded; what it would have preceded must not happen.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    #[error("event cannot be recorded: {0}")]
    Seal(#[from] RecordError),
    #[error("event cannot be recorded: {0}")]
    Random(#[from] NoRandom),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuditLog {
    /// Begins the journal of a cloud process: `keeper` is its own identity, `boot` 16 fresh random bytes. The second
    /// part must run as a task for [`AuditLog::later`] to be written.
    pub async fn open(
        store: Store,
        keeper: SpiffeId,
        boot: BootId,
        now: Timestamp,
    ) -> Result<(Self, LaterWriter), RecordFault> {
        let mut tx = store.begin("audit.open").await?;
        let previous = tx.newest_journal(&keeper).await?;
        let opened = BootOpened {
            previous: previous.map(|(boot, head)| PreviousBoot {
                boot,
                last_seq: head.seq,
                head: head.hash,
            }),
            reset_count: None,
            restart_count: None,
        };
        let event = Event::new(now, Actor::Cloud, EventKind::JournalOpened);
        let salt = fresh_salts()?.draw();
        let record = Chain::new(keeper.clone(), boot).seal_opening(opened, event, salt)?;
        tx.append_records(&[record], now).await?;
        tx.commit().await?;
        let (queue, receiver) = mpsc::channel(MAX_QUEUED);
        let dropped = Arc::<AtomicU64>::default();
        let log = Self {
            store: store.clone(),
            keeper: keeper.clone(),
            boot,
            queue,
            dropped: dropped.clone(),
            head: LogHead::default(),
            intake: intake::Intake::default(),
        };
        Ok((
            log,
            LaterWriter::new(store, keeper, boot, receiver, dropped),
        ))
    }

    /// Records an event in a transaction: it becomes durable with what it stands for.
    pub async fn record_in(&self, tx: &mut Tx, event: Event) -> Result<(), RecordFault> {
        append(tx, &self.keeper, self.boot, vec![event]).await
    }

    /// Records an event now, by itself. Returns when it is durable.
    pub async fn record(&self, event: Event) -> Result<(), RecordFault> {
        let mut tx = self.store.begin("audit.record").await?;
        self.record_in(&mut tx, event).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Queues an event that nothing waits for. When the queue is full it is counted instead, and the count recorded.
    pub fn later(&self, event: Event) {
        // What was counted so far travels with this event: with no other one.
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let entry = later::Entry::Event {
            event: Box::new(event),
            dropped,
        };
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
            metrics::counter!("edgeward_audit_events_dropped_total").increment(1);
        }
    }

    /// Waits until everything queued so far is written.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(later::Entry::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// How many events of the log are covered by a checkpoint; changes with each.
    pub fn covered(&self) -> watch::Receiver<u64> {
        self.store.covered()
    }

    /// The newest checkpoint, and whether the log is halted.
    pub fn log_head(&self) -> &LogHead {
        &self.head
    }

    /// The log for one consumer.
    pub fn feed(&self) -> Feed {
        Feed::new(self.store.clone(), self.covered())
    }

    /// Names this process among all that keep journals.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// The identity under which this process keeps its journal.
    pub fn keeper(&self) -> &SpiffeId {
        &self.keeper
    }

    /// A fault is an event the first time it is seen.
    async fn note_fault(
        &self,
        tx: &mut Tx,
        fault: &JournalFault,
        code: &str,
        signed: Signed,
    ) -> Result<(), RecordFault> {
        if !tx.note_fault(fault).await? {
            return Ok(());
        }
        let kind = match fault.kind {
            FaultKind::Missing | FaultKind::Restarted => EventKind::JournalGap,
            FaultKind::Forked | FaultKind::RolledBack => EventKind::JournalForked,
        };
        tracing::warn!(node = %fault.node, boot = %fault.boot, first_seq = fault.first_seq,
            last_seq = fault.last_seq, code, "journal fault");
        let event = Event::new(fault.noticed, Actor::Cloud, kind)
            .subject(fault.node.clone())
            .code(code)
            .detail("boot", fault.boot)
            .detail("first_seq", fault.first_seq)
            .detail("last_seq", fault.last_seq)
            .detail("fault", fault.kind.as_str());
        let event = match signed {
            Signed::Both => event.detail("proof", "equivocation"),
            Signed::Less => event,
        };
        self.record_in(tx, event).await
    }
}

/// Seals events as the next records of a keeper's journal and appends them.
async fn append(
    tx: &mut Tx,
    keeper: &SpiffeId,
    boot: BootId,
    events: Vec<Event>,
) -> Result<(), RecordFault> {
    let mut chain = match tx.journal_head(keeper, boot).await? {
        Some(head) => Chain::resume(keeper.clone(), boot, head),
        None => {
            return Err(RecordFault::Store(StoreError::Unreadable {
                what: "journal",
                value: boot.to_string(),
            }));
        }
    };
    let mut records = Vec::with_capacity(events.len());
    let mut received = Timestamp::default();
    let mut salts = fresh_salts()?;
    for event in events {
        received = received.max(event.time);
        let record = chain.seal(event, salts.draw())?;
        chain
            .advance(&record)
            .expect("a record that the chain itself sealed continues it");
        records.push(record);
    }
    tx.append_records(&records, received).await?;
    Ok(())
}

fn fresh_salts() -> Result<Salts, NoRandom> {
    Salts::draw_from(&SystemRandom::new())
}
