//! The task of one export: takes what is covered from the log, gives it to the sink, and writes down how far that came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::export::Exported;
use edgeward_identity::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use super::course::{Pauses, STALLED_AFTER, Suspect, Suspects};
use super::sink::{Given, NotGiven, Sink};
use crate::audit::{AuditLog, Feed};
use crate::config::exports::{Begin, Export};
use crate::store::audit::StoredEvent;
use crate::store::exports::{ExportRow, Refused};
use crate::store::{Store, StoreError};

mod aside;

/// Nobody else sends for so long after the last word of who does.
const LEASE: Duration = Duration::from_secs(15);
/// A held lease is renewed this often.
const RENEWAL: Duration = Duration::from_secs(5);
/// The position is written at most this often: what was given since is given again after a crash.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How often an export looks after what is on its way, and whether it is its turn.
const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether something that was put aside is to be given once more.
const RETRY_LOOK: Duration = Duration::from_secs(2);
/// A database that does not answer is asked again after this time.
const STORE_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Pump {
    pub(super) export: Export,
    pub(super) store: Store,
    audit: Arc<AuditLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) feed: Feed,
    pub(super) sink: Sink,
    /// The last event that was taken from the log.
    read: Option<u64>,
    suspects: Suspects,
    pauses: Pauses,
    /// Whether the log says that this export is stalled.
    told: bool,
    written: Instant,
    pub(super) changed: bool,
    /// When it was last looked whether something is to be given once more.
    pub(super) looked: Instant,
}

/// Why an export gave up its turn.
pub(super) enum Left {
    Stopped,
    Lost,
}

impl Pump {
    pub(super) fn new(
        export: Export,
        store: Store,
        audit: Arc<AuditLog>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            feed: audit.feed(),
            sink: Sink::new(&export, &audit.keeper().to_string()),
            export,
            store,
            audit,
            clock,
            read: None,
            suspects: Suspects::default(),
            pauses: Pauses::default(),
            told: false,
            written: Instant::now(),
            changed: false,
            looked: Instant::now(),
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let taken = tokio::select! {
                row = self.take() => row,
                () = stop.cancelled() => return,
            };
            match self.carry(taken, &stop).await {
                Left::Stopped => return,
                Left::Lost => {
                    tracing::info!(export = self.export.name, "another cloud sends this export");
                    self.sink = Sink::new(&self.export, &self.audit.keeper().to_string());
                }
            }
        }
    }

    /// Waits until this process is the one that sends.
    async fn take(&mut self) -> ExportRow {
        loop {
            match self.try_take().await {
                Ok(Some(row)) => return row,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(export = self.export.name, %error, "export cannot be taken up");
                }
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    async fn try_take(&mut self) -> Result<Option<ExportRow>, StoreError> {
        let begin = match self.export.from {
            Begin::Start => None,
            Begin::Now => self.store.last_leaf().await?,
        };
        let now = self.clock.now();
        // Without another cloud nobody else can hold it: a crash leaves no lease to wait for.
        let claim = match self.store.is_shared() {
            true => now,
            false => Timestamp::from_millis(u64::MAX),
        };
        let mut tx = self.store.begin("export.take").await?;
        let holder = self.audit.boot().to_string();
        let row = tx
            .take_export(&self.export.name, &holder, begin, claim, now.plus(LEASE))
            .await?;
        tx.commit().await?;
        Ok(row)
    }

    async fn carry(&mut self, mut row: ExportRow, stop: &CancellationToken) -> Left {
        self.read = row.position;
        self.told = false;
        self.suspects.forget();
        self.written = Instant::now();
        let mut reading = None;
        loop {
            // Kept over ticks: a database that is slower than these would never be heard to the end.
            let (_, next) = match reading.take() {
                Some((after, next)) if after == self.read => reading.insert((after, next)),
                _ => {
                    let next = read_on(self.feed.clone(), self.read, self.export.batch);
                    reading.insert((self.read, Box::pin(next)))
                }
            };
            let found = tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave(row).await,
                found = next => Some(found),
                () = tokio::time::sleep(TICK) => None,
            };
            if found.is_some() {
                reading = None;
            }
            let outcome = match found {
                Some(Ok(events)) => self.pass_on(&mut row, &events, stop).await,
                Some(Err(error)) => {
                    tracing::warn!(export = self.export.name, %error, "the log cannot be read");
                    self.wait(&mut row, STORE_PAUSE, stop).await
                }
                None => self.look_after(&mut row, stop).await,
            };
            let outcome = match outcome {
                Ok(()) if self.looked.elapsed() >= RETRY_LOOK => self.retry(&mut row, stop).await,
                outcome => outcome,
            };
            if let Err(left) = outcome {
                return match left {
                    Left::Stopped => self.leave(row).await,
                    Left::Lost => Left::Lost,
                };
            }
        }
    }

    /// Confirms what has arrived, and writes where the export stands when it is time.
    async fn look_after(
        &mut self,
        row: &mut ExportRow,
        stop: &CancellationToken,
    ) -> Result<(), Left> {
        match self.sink.confirmed() {
            Ok(Some(last)) => self.advance(row, last),
            Ok(None) => {}
            Err(not_given) => self.failed(row, not_given, stop).await?,
        }
        if self.sink.is_idle() && self.suspects.is_empty() && row.position != self.read {
            row.position = self.read;
            self.changed = true;
        }
        self.write(row).await
    }

    async fn pass_on(
        &mut self,
        row: &mut ExportRow,
        events: &[StoredEvent],
        stop: &CancellationToken,
    ) -> Result<(), Left> {
        let Some(last) = events.last() else {
            return Ok(());
        };
        let wanted: Vec<Exported<'_>> = events
            .iter()
            .filter(|event| match &self.export.kinds {
                Some(kinds) => kinds.contains(&event.event.kind),
                None => true,
            })
            .map(exported)
            .collect();
        // Halved where something is refused, until it is known which event it is.
        let mut left: Vec<&[Exported<'_>]> = vec![&wanted];
        while let Some(part) = left.pop() {
            let Some(end) = part.last() else {
                continue;
            };
            let begun = Instant::now();
            let given = self.sink.give(&self.export, part).await;
            metrics::histogram!("edgeward_audit_export_seconds", "export" => self.export.name.clone())
                .record(begun.elapsed().as_secs_f64());
            match given {
                Ok(given) => {
                    if let Some(full) = self.taken(row, part, given, stop).await? {
                        return self.failed(row, full, stop).await;
                    }
                }
                Err(NotGiven::Refused { .. }) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    left.extend([second, first]);
                }
                Err(NotGiven::Refused { why }) => {
                    // Before anything behind it is given, which would be given again at each attempt.
                    if let Some(full) = self.no_room().await {
                        return self.failed(row, full, stop).await;
                    }
                    let suspect = Suspect {
                        index: end.index,
                        why: why.clone(),
                        // Or the word of one refusal would be refused, and so on for ever.
                        quiet: end.event.kind.family() == "export",
                    };
                    if !self.suspects.add(suspect) {
                        return self.failed(row, NotGiven::down(why), stop).await;
                    }
                }
                Err(down) => return self.failed(row, down, stop).await,
            }
        }
        self.read = Some(last.index);
        self.look_after(row, stop).await
    }

    /// A part was taken: what was refused before it is put aside. Or why it cannot be.
    async fn taken(
        &mut self,
        row: &mut ExportRow,
        part: &[Exported<'_>],
        given: Given,
        stop: &CancellationToken,
    ) -> Result<Option<NotGiven>, Left> {
        let Some(last) = part.last().map(|event| event.index) else {
            return Ok(None);
        };
        let count = u64::try_from(part.len()).unwrap_or(u64::MAX);
        row.sent += count;
        self.changed = true;
        metrics::counter!("edgeward_audit_export_sent_total", "export" => self.export.name.clone())
            .increment(count);
        self.went_well(row);
        let mut refused = Vec::new();
        for suspect in self.suspects.convict() {
            let row = Refused {
                first: suspect.index,
                last: suspect.index,
                count: 1,
                reason: suspect.why,
                noticed: self.clock.now(),
                retry: None,
            };
            refused.push((row, suspect.quiet));
        }
        if let Given::But { rejected, reason } = &given {
            let row = Refused {
                first: part.first().map_or(last, |event| event.index),
                last,
                count: *rejected,
                reason: reason.clone(),
                noticed: self.clock.now(),
                retry: None,
            };
            let quiet = part
                .iter()
                .all(|event| event.event.kind.family() == "export");
            refused.push((row, quiet));
        }
        if let Some(full) = self.put_aside(row, refused, stop).await? {
            return Ok(Some(full));
        }
        if given != Given::OnItsWay {
            self.advance(row, last);
        }
        Ok(None)
    }

    fn advance(&mut self, row: &mut ExportRow, last: u64) {
        if row.position < Some(last) {
            row.position = Some(last);
            self.changed = true;
        }
    }

    fn went_well(&mut self, row: &mut ExportRow) {
        self.pauses.went_well();
        if row.failing.take().is_some() {
            self.changed = true;
            tracing::info!(export = self.export.name, "the receiver takes events again");
        }
        if std::mem::take(&mut self.told) {
            self.audit.later(self.event(EventKind::ExportResumed));
        }
    }

    /// Goes back to the last event that the receiver surely has, and waits.
    pub(super) async fn failed(
        &mut self,
        row: &mut ExportRow,
        not_given: NotGiven,
        stop: &CancellationToken,
    ) -> Result<(), Left> {
        let (why, wish) = match not_given {
            NotGiven::Down { why, after } => (why, after.map(Duration::from_millis)),
            NotGiven::Refused { why } => (why, None),
        };
        self.read = row.position;
        self.suspects.forget();
        let now = self.clock.now();
        let since = match &row.failing {
            Some((_, since)) => *since,
            None => {
                tracing::warn!(export = self.export.name, why, "export fails");
                now
            }
        };
        row.failing = Some((why.clone(), since));
        self.changed = true;
        if !self.told && now >= since.plus(STALLED_AFTER) {
            self.told = true;
            let event = self.event(EventKind::ExportStalled).detail("reason", &why);
            self.audit.later(event);
        }
        let dice = u64::from(self.written.elapsed().subsec_nanos());
        let pause = self.pauses.next(wish, dice);
        self.wait(row, pause, stop).await
    }

    async fn wait(
        &mut self,
        row: &mut ExportRow,
        pause: Duration,
        stop: &CancellationToken,
    ) -> Result<(), Left> {
        let end = Instant::now() + pause;
        while let Some(rest) = end.checked_duration_since(Instant::now()) {
            self.write(row).await?;
            tokio::select! {
                () = tokio::time::sleep(rest.min(WRITE_EVERY)) => {}
                () = stop.cancelled() => return Err(Left::Stopped),
            }
        }
        Ok(())
    }

    /// Writes where the export stands, if there is something new and it is time, or the lease ends.
    async fn write(&mut self, row: &mut ExportRow) -> Result<(), Left> {
        let covered = self.feed.covered();
        let done = row
            .position
            .map_or(0, |position| position.saturating_add(1));
        #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
        metrics::gauge!("edgeward_audit_export_behind", "export" => self.export.name.clone())
            .set(covered.saturating_sub(done) as f64);
        metrics::gauge!("edgeward_audit_export_up", "export" => self.export.name.clone())
            .set(if row.failing.is_none() { 1.0 } else { 0.0 });
        let age = self.written.elapsed();
        let is_due =
            (self.changed && age >= WRITE_EVERY) || (self.store.is_shared() && age >= RENEWAL);
        if !is_due {
            return Ok(());
        }
        match self.write_now(row).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Left::Lost),
            Err(error) => {
                tracing::warn!(export = self.export.name, %error, "an export's position cannot be written");
                self.written = Instant::now();
                Ok(())
            }
        }
    }

    async fn write_now(&mut self, row: &mut ExportRow) -> Result<bool, StoreError> {
        row.updated = self.clock.now();
        row.leased = row.updated.plus(LEASE);
        let mut tx = self.store.begin("export.write").await?;
        let ours = tx.put_export(row).await?;
        tx.commit().await?;
        self.written = Instant::now();
        self.changed = false;
        Ok(ours)
    }

    /// Ends in order: asks the receiver for its end, and gives the lease back.
    async fn leave(&mut self, mut row: ExportRow) -> Left {
        if let Some(last) = self.sink.close().await {
            self.advance(&mut row, last);
        }
        row.updated = self.clock.now();
        row.leased = row.updated;
        let written = async {
            let mut tx = self.store.begin("export.write").await?;
            tx.put_export(&row).await?;
            tx.commit().await
        };
        if let Err(error) = written.await {
            tracing::warn!(export = self.export.name, %error, "an export's position cannot be written");
        }
        Left::Stopped
    }

    fn event(&self, kind: EventKind) -> Event {
        Event::new(self.clock.now(), Actor::Cloud, kind)
            .subject(format!("export/{}", self.export.name).as_str())
    }
}

async fn read_on(
    mut feed: Feed,
    after: Option<u64>,
    limit: u32,
) -> Result<Vec<StoredEvent>, StoreError> {
    feed.next(after, limit).await
}

pub(super) fn exported(stored: &StoredEvent) -> Exported<'_> {
    Exported {
        index: stored.index,
        node: &stored.node,
        boot: stored.boot,
        seq: stored.seq,
        hash: stored.hash,
        received: stored.received,
        claimed: stored.claimed,
        event: &stored.event,
    }
}
