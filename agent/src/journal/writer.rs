//! The thread that owns the journal's file.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use edgeward_audit::journal::{Appended, Boot as JournalBoot, FileStore, JournalError, Limits};
use edgeward_audit::watch::NotShown;
use edgeward_audit::{BootId, Class, Event, EventKind, Journal, Position};
use edgeward_identity::{BootTime, Clock, SpiffeId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::keys::{KeyRing, NotTurned};
use super::log_seen::{LOST_COVERED, LogSeen};
use super::{Command, Covered, End, Marked, Unreadable, fresh_salts};
use crate::enforce::RecordRefused;

/// How often the thread looks at its timers while nothing comes.
const TICK: Duration = Duration::from_millis(100);

/// A contradiction of the log for which there was no room, or no disk, is recorded at the next try.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Owns the journal, on a thread of its own.
pub(super) struct Writer {
    pub(super) journal: Option<Journal<FileStore>>,
    pub(super) path: PathBuf,
    pub(super) node: SpiffeId,
    pub(super) boot: JournalBoot,
    pub(super) keys: KeyRing,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) written: watch::Sender<u64>,
    pub(super) musts: watch::Sender<u64>,
    pub(super) marked: Marked,
    pub(super) sent: Arc<Mutex<Option<Position>>>,
    pub(super) log: LogSeen,
    /// Told of a word of a checkpoint that was not accepted.
    pub(super) not_shown: Arc<Notify>,
    /// Contradictions of the log that are in no record yet, by code: each is told of once.
    pub(super) untold: Vec<(&'static str, Event)>,
    pub(super) tried_to_tell: BootTime,
}

impl Writer {
    /// Obeys until nobody holds a handle any more.
    pub(super) fn serve(mut self, incoming: &Receiver<Command>, waiting: &AtomicUsize) {
        // A boot's first record is one, too.
        self.note_must();
        loop {
            match incoming.recv_timeout(TICK) {
                Ok(command) => {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    self.obey(command);
                }
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if !self.untold.is_empty()
                && self.clock.boottime().since(self.tried_to_tell) >= TELL_AGAIN
            {
                self.tell();
            }
        }
        if let Some(Err(error)) = self.journal.as_mut().map(Journal::flush) {
            tracing::error!(%error, "the journal could not be flushed at the end");
        }
        self.log.save();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Record { event, kept, done } => {
                let result = match self.append(event) {
                    Ok(Appended::LeftOut) if kept => Err(RecordRefused("no room".to_owned())),
                    Ok(_) => Ok(()),
                    Err(error) => Err(RecordRefused(error.to_string())),
                };
                let _ = done.send(result);
            }
            Command::After(event) => {
                let kind = event.kind;
                if let Err(error) = self.append(event) {
                    metrics::counter!("edgeward_journal_dropped_total").increment(1);
                    tracing::error!(%kind, %error, "an event is not in the journal");
                }
            }
            Command::Pending { from, done } => {
                let pending = self.read(|journal| journal.pending(from));
                let _ = done.send(pending);
            }
            Command::Covered(covered) => {
                if !self.covered(&covered) {
                    self.not_shown.notify_one();
                }
            }
            Command::Losable {
                boot,
                first_seq,
                last_seq,
                done,
            } => {
                let _ = done.send(self.losable(boot, first_seq, last_seq));
            }
            Command::End(done) => {
                let end = self.read(|journal| {
                    let oldest = journal.oldest();
                    Ok(journal.mark()?.map(|mark| (mark, oldest)))
                });
                let end = end.ok().flatten().map(|(mark, oldest)| {
                    *self.marked.0.lock() = Some(mark);
                    End {
                        boot: mark.boot,
                        head: mark.head,
                        oldest,
                    }
                });
                let _ = done.send(end);
            }
            Command::StandsTo(mark, done) => {
                let _ = done.send(self.read(|journal| journal.stands_to(&mark)));
            }
            Command::Flush(done) => {
                if let Some(Err(error)) = self.journal.as_mut().map(Journal::flush) {
                    tracing::error!(%error, "the journal could not be flushed");
                }
                let _ = done.send(());
            }
        }
    }

    fn read<T>(
        &mut self,
        ask: impl FnOnce(&mut Journal<FileStore>) -> Result<T, JournalError>,
    ) -> Result<T, Unreadable> {
        let journal = self.journal.as_mut().ok_or(Unreadable)?;
        ask(journal).map_err(|error| {
            tracing::error!(%error, "the journal cannot be read");
            Unreadable
        })
    }

    /// Deletes what the log covers, if it shows that it has this journal's own record and goes on as it was. False: the
    /// word was not accepted, and whoever sent it believes that it was.
    fn covered(&mut self, covered: &Covered) -> bool {
        let (boot, next) = (covered.boot, covered.next);
        let Some(seq) = next.checked_sub(1) else {
            return false;
        };
        let own = self.read(|journal| journal.hash_at(Position { boot, seq }));
        let Ok(own) = own else { return false };
        let now = self.clock.boottime();
        if let Err(refused) = self.log.accept(covered, own.as_ref(), now) {
            self.not_shown(covered, &refused);
            return false;
        }
        // Deleted before.
        let (Some(_), Some(journal)) = (own, self.journal.as_mut()) else {
            return true;
        };
        if journal.would_delete(boot, next) && !self.log.keep_before_deleting(covered) {
            return false;
        }
        let is_oldest = journal.oldest() == boot;
        if let Err(error) = journal.acknowledge(boot, next) {
            tracing::warn!(%error, "word of a checkpoint is not usable");
            return true;
        }
        let mut sent = self.sent.lock();
        // What the log has need not be sent, even if this process never sent it.
        let ahead = sent.is_none_or(|sent| sent.boot == boot && sent.seq < next);
        if is_oldest && ahead {
            *sent = Some(Position { boot, seq: next });
        }
        true
    }

    /// Where what may be signed as lost begins in a range that is not here any more; none: nothing of it may. What the log
    /// proved to have is not this journal's loss.
    fn losable(&mut self, boot: BootId, first_seq: u64, last_seq: u64) -> Option<u64> {
        let proven = self.log.proven_below(boot);
        if first_seq < proven {
            tracing::error!(%boot, first_seq, last_seq, proven,
                "the cloud asks for records that its log proved to have");
            let reason = format!("the log proved that it has everything below {proven}");
            let event = self.contradiction(LOST_COVERED, reason);
            let event = event
                .detail("boot", boot)
                .detail("first_seq", first_seq)
                .detail("last_seq", last_seq);
            self.tell_once(LOST_COVERED, event);
        }
        let first = first_seq.max(proven);
        (first <= last_seq).then_some(first)
    }

    /// Nothing is deleted. A log that contradicts itself is told of once: the notes are kept.
    fn not_shown(&mut self, covered: &Covered, refused: &NotShown) {
        metrics::counter!("edgeward_journal_covered_otherwise_total", "code" => refused.code())
            .increment(1);
        tracing::error!(boot = %covered.boot, next = covered.next, error = %refused,
            "the log does not show that it has this journal: nothing is deleted");
        if refused.is_contradiction() {
            self.log.keep_contradiction(covered);
            let event = self.contradiction(refused.code(), refused.to_string());
            let event = event.detail("log", covered.log.origin());
            self.tell_once(refused.code(), event);
        }
    }

    fn contradiction(&self, code: &'static str, reason: String) -> Event {
        let (now, kind) = (self.clock.now(), EventKind::AuditContradicted);
        Event::new(now, self.node.clone(), kind)
            .code(code)
            .detail("reason", reason)
    }

    fn tell_once(&mut self, code: &'static str, event: Event) {
        if self.log.has_told(code) || self.untold.iter().any(|(untold, _)| *untold == code) {
            return;
        }
        self.untold.push((code, event));
        self.tell();
    }

    /// Records what is to be told. What finds no room, or no disk, stays.
    fn tell(&mut self) {
        self.tried_to_tell = self.clock.boottime();
        for (code, event) in std::mem::take(&mut self.untold) {
            match self.append(event.clone()) {
                Ok(Appended::Recorded(_)) => self.log.told(code),
                other => {
                    tracing::error!(code, result = ?other, "a contradiction of the log is not in the journal yet");
                    self.untold.push((code, event));
                }
            }
        }
    }

    /// An event that is left out for want of room is an error for its writer only if it had to be kept.
    fn append(&mut self, event: Event) -> Result<Appended, JournalError> {
        let now = self.clock.boottime();
        let journal = match &mut self.journal {
            Some(journal) => journal,
            None => self.reopen()?,
        };
        let must = event.class() == Class::Must;
        match journal.append(event, now) {
            Ok(appended) => {
                if matches!(appended, Appended::Recorded(_)) {
                    self.written
                        .send_modify(|count| *count = count.wrapping_add(1));
                    if must {
                        self.note_must();
                    }
                    self.turn_if_due();
                }
                Ok(appended)
            }
            Err(error) => {
                if matches!(error, JournalError::Broken | JournalError::Storage(_)) {
                    // What the disk holds is unknown: read it back before the next record.
                    self.journal = None;
                }
                Err(error)
            }
        }
    }

    pub(super) fn turn_if_due(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if !self.keys.is_due(journal) {
            return;
        }
        let (time, now) = (self.clock.now(), self.clock.boottime());
        match self.keys.turn(journal, time, now) {
            Ok(()) => metrics::counter!("edgeward_audit_journal_key_turns_total").increment(1),
            Err(error) => {
                tracing::warn!(%error, "the journal's key did not turn");
                if let NotTurned::Journal(JournalError::Broken | JournalError::Storage(_)) = error {
                    self.journal = None;
                }
            }
        }
    }

    /// A record of class `must` is on disk: it may be marked in the state file.
    fn note_must(&mut self) {
        if let Ok(Some(mark)) = self.read(Journal::mark) {
            *self.marked.0.lock() = Some(mark);
            self.musts
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn tick(&mut self) {
        let now = self.clock.boottime();
        if let Some(Err(error)) = self.journal.as_mut().map(|journal| journal.tick(now)) {
            tracing::error!(%error, "the journal could not be flushed");
            self.journal = None;
        }
    }

    fn reopen(&mut self) -> Result<&mut Journal<FileStore>, JournalError> {
        let store = FileStore::open(&self.path).map_err(JournalError::Storage)?;
        let time = self.clock.now();
        let salts = fresh_salts().map_err(|error| {
            tracing::error!(%error, "the journal cannot be opened anew");
            JournalError::Broken
        })?;
        match Journal::open(
            store,
            &self.node,
            &self.boot,
            Limits::default(),
            time,
            salts,
        ) {
            Ok((journal, _)) => {
                if !self.keys.settle(journal.last_turn()) {
                    tracing::error!("the journal's key is lost: the next start begins a new boot");
                }
                Ok(self.journal.insert(journal))
            }
            Err(error) => {
                tracing::error!(%error, "the journal cannot be opened anew");
                Err(JournalError::Broken)
            }
        }
    }
}

#[cfg(test)]
mod tests;
