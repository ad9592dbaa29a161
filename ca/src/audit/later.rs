//! Events that nothing waits for, written in groups. A database that does not answer is waited for; what is given up is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgeward_audit::event::Event;
use edgeward_audit::record::BootId;
use edgeward_identity::SpiffeId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{RecordFault, append};
use crate::store::{Store, StoreError};

/// Most events that wait to be written.
pub const MAX_QUEUED: usize = 1024;
/// The detail of an event that says for how many equal ones it stands.
pub const COUNT: &str = "count";
/// Most events of one transaction.
const GROUP: usize = 128;
/// First and longest pause before a group is tried again: what comes meanwhile waits in the queue, and is counted when that
/// is full.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a group is tried once the cloud ends.
const LAST_ATTEMPTS: u32 = 3;

#[derive(Debug)]
pub(super) enum Entry {
    Event {
        event: Box<Event>,
        /// Events that were counted instead of queued before this one.
        dropped: u64,
    },
    Flush(oneshot::Sender<()>),
}

/// Equal events.
#[derive(Debug)]
struct Merged {
    event: Event,
    count: u64,
    /// Events that were counted instead of queued before these.
    dropped: u64,
}

/// The task behind [`super::AuditLog::later`].
#[derive(Debug)]
pub struct LaterWriter {
    store: Store,
    keeper: SpiffeId,
    boot: BootId,
    queue: mpsc::Receiver<Entry>,
    /// Told with the next event.
    dropped: Arc<AtomicU64>,
}

impl LaterWriter {
    pub(super) fn new(
        store: Store,
        keeper: SpiffeId,
        boot: BootId,
        queue: mpsc::Receiver<Entry>,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        Self {
            store,
            keeper,
            boot,
            queue,
            dropped,
        }
    }

    /// Writes until `stop`, then what is still queued.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            let received = tokio::select! {
                received = self.queue.recv_many(&mut group, GROUP) => received,
                () = stop.cancelled() => break,
            };
            if received == 0 {
                return;
            }
            self.write(&mut group, &stop).await;
        }
        self.queue.close();
        while self.queue.recv_many(&mut group, GROUP).await > 0 {
            self.write(&mut group, &stop).await;
        }
    }

    async fn write(&self, group: &mut Vec<Entry>, stop: &CancellationToken) {
        let mut events: Vec<Merged> = Vec::with_capacity(group.len());
        let mut waiting = Vec::new();
        for entry in group.drain(..) {
            match entry {
                Entry::Event { event, dropped } => merge(&mut events, *event, dropped),
                Entry::Flush(done) => waiting.push(done),
            }
        }
        if !events.is_empty()
            && let Err(error) = self.store_group(&events, stop).await
        {
            let given_up = events.iter().map(|merged| merged.count).sum();
            let before: u64 = events.iter().map(|merged| merged.dropped).sum();
            tracing::error!(%error, given_up, "events could not be recorded");
            metrics::counter!("edgeward_audit_events_dropped_total").increment(given_up);
            self.dropped.fetch_add(given_up + before, Ordering::Relaxed);
        }
        for done in waiting {
            let _ = done.send(());
        }
    }

    /// Tries until the database takes them, or the cloud ends. One that took them and could not say so gets them twice: better
    /// than never.
    async fn store_group(
        &self,
        events: &[Merged],
        stop: &CancellationToken,
    ) -> Result<(), RecordFault> {
        let (mut pause, longest) = PAUSES;
        let mut last = 0;
        loop {
            let error = match self
                .try_store(events.iter().map(Merged::told).collect())
                .await
            {
                Err(error @ RecordFault::Store(StoreError::Unavailable(_))) => error,
                ended => return ended,
            };
            if stop.is_cancelled() {
                last += 1;
                if last >= LAST_ATTEMPTS {
                    return Err(error);
                }
                tokio::time::sleep(PAUSES.0).await;
                continue;
            }
            tracing::warn!(%error, "events wait to be recorded");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(longest);
        }
    }

    async fn try_store(&self, events: Vec<Event>) -> Result<(), RecordFault> {
        let mut tx = self.store.begin("audit.later").await?;
        append(&mut tx, &self.keeper, self.boot, events).await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Merged {
    /// As it is recorded.
    fn told(&self) -> Event {
        let event = match self.dropped {
            0 => self.event.clone(),
            more => self.event.clone().detail("not_recorded_before", more),
        };
        match self.count {
            1 => event,
            more => event.detail(COUNT, more),
        }
    }
}

/// Equal events of one group become one with a count: a flood of refusals is a number, not a full disk.
fn merge(events: &mut Vec<Merged>, event: Event, dropped: u64) {
    let same = |known: &Event| {
        Event {
            time: event.time,
            ..known.clone()
        } == event
    };
    match events.iter_mut().find(|known| same(&known.event)) {
        Some(known) => {
            known.count += 1;
            known.dropped += dropped;
        }
        None => events.push(Merged {
            event,
            count: 1,
            dropped,
        }),
    }
}
