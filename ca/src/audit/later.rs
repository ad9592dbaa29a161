//! Events that nothing waits for, written in groups.

use edgeward_audit::event::Event;
use edgeward_audit::record::BootId;
use edgeward_identity::SpiffeId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{RecordFault, append};
use crate::store::Store;

/// Most events that wait to be written.
pub const MAX_QUEUED: usize = 1024;
/// Most events of one transaction.
const GROUP: usize = 128;

#[derive(Debug)]
pub(super) enum Entry {
    Event {
        event: Box<Event>,
        /// Events that were counted instead of queued before this one.
        dropped: u64,
    },
    Flush(oneshot::Sender<()>),
}

/// The task behind [`super::AuditLog::later`].
#[derive(Debug)]
pub struct LaterWriter {
    store: Store,
    keeper: SpiffeId,
    boot: BootId,
    queue: mpsc::Receiver<Entry>,
}

impl LaterWriter {
    pub(super) fn new(
        store: Store,
        keeper: SpiffeId,
        boot: BootId,
        queue: mpsc::Receiver<Entry>,
    ) -> Self {
        Self {
            store,
            keeper,
            boot,
            queue,
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
            self.write(&mut group).await;
        }
        self.queue.close();
        while self.queue.recv_many(&mut group, GROUP).await > 0 {
            self.write(&mut group).await;
        }
    }

    async fn write(&self, group: &mut Vec<Entry>) {
        let mut events: Vec<(Event, u64)> = Vec::with_capacity(group.len());
        let mut waiting = Vec::new();
        for entry in group.drain(..) {
            match entry {
                Entry::Event { event, dropped } => merge(&mut events, *event, dropped),
                Entry::Flush(done) => waiting.push(done),
            }
        }
        let events: Vec<Event> = events
            .into_iter()
            .map(|(event, count)| match count {
                1 => event,
                more => event.detail("count", more),
            })
            .collect();
        if !events.is_empty()
            && let Err(error) = self.store_group(events).await
        {
            tracing::error!(%error, "events could not be recorded");
            metrics::counter!("edgeward_audit_events_dropped_total").increment(1);
        }
        for done in waiting {
            let _ = done.send(());
        }
    }

    async fn store_group(&self, events: Vec<Event>) -> Result<(), RecordFault> {
        let mut tx = self.store.begin("audit.later").await?;
        append(&mut tx, &self.keeper, self.boot, events).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Equal events of one group become one with a count: a flood of refusals is a number, not a full disk.
fn merge(events: &mut Vec<(Event, u64)>, event: Event, dropped: u64) {
    let event = match dropped {
        0 => event,
        more => event.detail("not_recorded_before", more),
    };
    let same = |known: &Event| {
        Event {
            time: event.time,
            ..known.clone()
        } == event
    };
    match events.iter_mut().find(|(known, _)| same(known)) {
        Some((_, count)) => *count += 1,
        None => events.push((event, 1)),
    }
}
