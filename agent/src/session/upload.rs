//! The journal on its way to the cloud: one batch at a time. What the cloud has stored is not sent again; what a signed
//! checkpoint covers is deleted; what the cloud misses is sent again, or signed as lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::batch::{Batch, JOURNAL_KEY_LIFETIME, JournalKeyStatement};
use edgeward_audit::journal::Pending;
use edgeward_audit::statement::{HeadStated, LossStated, Signed};
use edgeward_audit::watch::LogWatch;
use edgeward_audit::{BootId, Head, Position};
use edgeward_identity::{SignError, Signer, Timestamp};
use edgeward_wire::v1::{self, node_message};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::journal::{End, JournalHandle};
use crate::view::NodeView;

mod covering;

/// Events gather this long before they are sent.
pub(super) const GATHER: Duration = Duration::from_millis(250);
/// The same on a metered link.
pub(super) const GATHER_METERED: Duration = Duration::from_secs(15);
/// An unanswered batch is sent again after this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Wait after a refusal, so that a broken journal does not flood the cloud.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// Wait before a journal that cannot be read is read again.
const UNREADABLE_WAIT: Duration = Duration::from_secs(5);
/// Code of a refusal that a batch from elsewhere, or a signed loss, mends.
const GAP: &str = "audit_gap";

/// Most words of the cloud that wait: there is one batch out at a time.
const WORD_QUEUE: usize = 32;
/// Most ranges that the cloud may ask for at a time; it asks again in the next session.
const MAX_WANTED: usize = 16;

/// The upload of one session; ends with it.
pub(super) struct Upload {
    journal: JournalHandle,
    view: NodeView,
    /// The log, once this session was told of its key.
    log: Option<LogWatch>,
    words: mpsc::Sender<Word>,
    _task: AbortOnDropHandle<()>,
}

/// What the link is like.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) gather: Duration,
    pub(super) metered: bool,
}

/// What the cloud said.
enum Word {
    Answer(v1::AuditAcknowledge),
    Wanted(Wanted),
    /// A heartbeat with this number.
    Heartbeat(u64),
}

/// Records that the cloud misses.
#[derive(Clone, Copy)]
struct Wanted {
    boot: BootId,
    first_seq: u64,
    last_seq: u64,
}

struct Uploader {
    journal: JournalHandle,
    view: NodeView,
    up: mpsc::Sender<v1::NodeMessage>,
    written: watch::Receiver<u64>,
    /// A word of a checkpoint was not accepted.
    not_shown: Arc<Notify>,
    statement: Option<(JournalKeyStatement, Timestamp)>,
    state: State,
    link: Link,
    wanted: VecDeque<Wanted>,
    /// Where the cloud says that a gap begins, before which nothing is taken.
    gap: Option<Position>,
    /// The head that was said last.
    said: Option<Head>,
}

#[derive(Clone, Copy)]
enum State {
    /// Something may be there to send at this moment.
    Due(Instant),
    /// A batch is out, which ends before this position. `wanted`: it was asked for.
    Sent {
        next: Position,
        wanted: bool,
        since: Instant,
    },
    /// Everything is sent.
    Idle,
}

impl Upload {
    pub(super) fn begin(
        journal: JournalHandle,
        view: NodeView,
        up: mpsc::Sender<v1::NodeMessage>,
        link: Link,
    ) -> Self {
        let (words, incoming) = mpsc::channel(WORD_QUEUE);
        let uploader = Uploader {
            written: journal.written(),
            not_shown: journal.not_shown(),
            journal: journal.clone(),
            view: view.clone(),
            up,
            statement: None,
            state: State::Due(Instant::now()),
            link,
            wanted: VecDeque::new(),
            gap: None,
            said: None,
        };
        Self {
            journal,
            view,
            log: None,
            words,
            _task: AbortOnDropHandle::new(tokio::spawn(uploader.run(incoming))),
        }
    }

    /// The cloud's word on a batch. More of them than batches are no use to anybody.
    pub(super) fn answered(&self, answer: v1::AuditAcknowledge) {
        let _ = self.words.try_send(Word::Answer(answer));
    }

    /// The cloud misses records. What is dropped here is asked for again in the next session.
    pub(super) fn wanted(&self, wanted: &v1::JournalWanted) {
        if let Some(boot) = boot_of(&wanted.boot_id) {
            let _ = self.words.try_send(Word::Wanted(Wanted {
                boot,
                first_seq: wanted.first_seq,
                last_seq: wanted.last_seq,
            }));
        }
    }

    /// A heartbeat came: it is answered with where the journal ends.
    pub(super) fn heard(&self, number: u64) {
        let _ = self.words.try_send(Word::Heartbeat(number));
    }
}

/// Where the journal ends, signed by the boot key. `answers`: number of the heartbeat that this answers.
pub(super) fn signed_head(view: &NodeView, end: End, answers: u64) -> Result<Vec<u8>, SignError> {
    let stated = HeadStated {
        boot: end.boot,
        head: end.head,
        oldest: end.oldest,
        answers,
    };
    let signed = Signed::sign(stated, &view.node, view.boot.signer().as_ref())
        .inspect_err(|error| tracing::error!(%error, "the journal's end cannot be signed"))?;
    Ok(signed.to_bytes())
}

impl Uploader {
    async fn run(mut self, mut words: mpsc::Receiver<Word>) {
        loop {
            let until = match self.state {
                State::Due(when) => Some(when),
                State::Sent { since, .. } => Some(since + ANSWER_DEADLINE),
                State::Idle => None,
            };
            tokio::select! {
                biased;
                word = words.recv() => match word {
                    Some(word) => self.hear(word).await,
                    None => return,
                },
                () = self.not_shown.notified() => self.say_not_shown().await,
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    match self.state {
                        State::Sent { .. } => {
                            tracing::warn!("the cloud did not acknowledge a batch; sending it again");
                            self.state = State::Due(Instant::now());
                        }
                        State::Due(_) | State::Idle => self.send_next().await,
                    }
                }
                changed = self.written.changed(), if matches!(self.state, State::Idle) => match changed {
                    Ok(()) => self.state = State::Due(Instant::now() + self.link.gather),
                    Err(_) => return,
                },
            }
        }
    }

    async fn hear(&mut self, word: Word) {
        match word {
            Word::Answer(answer) => self.answered(&answer),
            Word::Wanted(wanted) => {
                if self.wanted.len() < MAX_WANTED {
                    self.wanted.push_back(wanted);
                }
                if matches!(self.state, State::Idle) {
                    self.state = State::Due(Instant::now());
                }
            }
            Word::Heartbeat(number) => self.say_head(number).await,
        }
    }

    /// The cloud's word on the batch that is out.
    fn answered(&mut self, answer: &v1::AuditAcknowledge) {
        let State::Sent { next, wanted, .. } = self.state else {
            return;
        };
        let Some(boot) = boot_of(&answer.boot_id) else {
            return;
        };
        if !answer.refused_code.is_empty() {
            return self.refused(answer, boot, next, wanted);
        }
        self.gap = None;
        match wanted {
            false => self.journal.set_sent(Some(next)),
            true => {
                let rest = self.wanted.front_mut();
                if rest.is_some_and(|rest| {
                    rest.first_seq = next.seq;
                    rest.first_seq > rest.last_seq
                }) {
                    self.wanted.pop_front();
                }
            }
        }
        self.state = State::Due(Instant::now());
    }

    fn refused(
        &mut self,
        answer: &v1::AuditAcknowledge,
        boot: BootId,
        next: Position,
        wanted: bool,
    ) {
        tracing::error!(code = %answer.refused_code, "the cloud refused a batch of the journal");
        metrics::counter!("edgeward_journal_refused_total").increment(1);
        self.statement = None;
        let mut wait = REFUSED_WAIT;
        let there = Position {
            boot,
            seq: answer.next_seq,
        };
        if wanted {
            self.wanted.pop_front();
        } else if answer.refused_code == GAP && boot == next.boot {
            // Mended by starting where the cloud is, or by saying that this is not here any more.
            if self.gap.replace(there) != Some(there) {
                wait = Duration::ZERO;
            }
        } else {
            let known = answer.next_seq > 0 && boot == next.boot;
            self.journal.set_sent(known.then_some(there));
        }
        self.state = State::Due(Instant::now() + wait);
    }

    async fn send_next(&mut self) {
        self.written.mark_unchanged();
        if let Some(wanted) = self.wanted.front().copied() {
            return self.send_wanted(wanted).await;
        }
        let from = self.gap.or_else(|| self.journal.sent());
        let pending = match self.journal.pending(from).await {
            Ok(Some(pending)) => pending,
            Ok(None) => {
                self.state = State::Idle;
                return;
            }
            Err(_) => return self.wait(UNREADABLE_WAIT),
        };
        if let Some(gap) = self.gap.filter(|gap| gap.boot == pending.boot)
            && let Some(last_seq) = pending.first_seq.checked_sub(1)
            && gap.seq <= last_seq
        {
            let lost = Wanted {
                boot: gap.boot,
                first_seq: gap.seq,
                last_seq,
            };
            if !self.say_lost(lost).await {
                return self.wait(REFUSED_WAIT);
            }
        }
        self.send(pending, false).await;
    }

    /// Sends the first of the wanted records that are kept, and says so where there are none.
    async fn send_wanted(&mut self, wanted: Wanted) {
        let from = Position {
            boot: wanted.boot,
            seq: wanted.first_seq,
        };
        let Ok(pending) = self.journal.pending(Some(from)).await else {
            return self.wait(UNREADABLE_WAIT);
        };
        let kept = pending
            .filter(|pending| pending.boot == wanted.boot && pending.first_seq <= wanted.last_seq);
        let lost_until = match &kept {
            None => Some(wanted.last_seq),
            Some(kept) => kept
                .first_seq
                .checked_sub(1)
                .filter(|last| wanted.first_seq <= *last),
        };
        if let Some(last_seq) = lost_until {
            let lost = Wanted { last_seq, ..wanted };
            if !self.say_lost(lost).await {
                return self.wait(REFUSED_WAIT);
            }
        }
        match kept {
            None => {
                self.wanted.pop_front();
                self.wait(Duration::ZERO);
            }
            Some(mut kept) => {
                let most = wanted.last_seq - kept.first_seq;
                let most = usize::try_from(most)
                    .unwrap_or(usize::MAX)
                    .saturating_add(1);
                kept.records.truncate(most);
                self.send(kept, true).await;
            }
        }
    }

    async fn send(&mut self, pending: Pending, wanted: bool) {
        let next = pending.next();
        let Some(statement) = self.statement().await else {
            return self.wait(REFUSED_WAIT);
        };
        let signer = self.view.boot.signer();
        match Batch::sign(&statement, signer.as_ref(), pending.records) {
            Ok(batch) => {
                self.say(node_message::Body::Audit(v1::AuditBatch {
                    batch: batch.to_bytes(),
                }))
                .await;
                self.state = State::Sent {
                    next,
                    wanted,
                    since: Instant::now(),
                };
            }
            Err(error) => {
                tracing::error!(%error, "a batch of the journal cannot be made");
                self.wait(REFUSED_WAIT);
            }
        }
    }

    /// Says, signed, that these records are not here any more: those of them that the log has not proved to have. Of
    /// the others nothing is said: whoever asks for them has lost them. False: it cannot be said now.
    async fn say_lost(&mut self, lost: Wanted) -> bool {
        let losable = self
            .journal
            .losable(lost.boot, lost.first_seq, lost.last_seq);
        let lost = match losable.await {
            Ok(Some(first_seq)) => Wanted { first_seq, ..lost },
            Ok(None) => return true,
            Err(_) => return false,
        };
        let stated = LossStated {
            boot: lost.boot,
            first_seq: lost.first_seq,
            last_seq: lost.last_seq,
        };
        tracing::error!(boot = %lost.boot, first_seq = lost.first_seq, last_seq = lost.last_seq,
            "the cloud misses records that this journal does not have any more");
        metrics::counter!("edgeward_journal_lost_ranges_total").increment(1);
        match Signed::sign(stated, &self.view.node, self.view.boot.signer().as_ref()) {
            Ok(signed) => {
                let loss = signed.to_bytes();
                self.say(node_message::Body::JournalLoss(v1::JournalLoss { loss }))
                    .await;
                true
            }
            Err(error) => {
                tracing::error!(%error, "a loss cannot be signed");
                false
            }
        }
    }

    /// What the cloud believes that this node accepted may be wrong: what is true is said.
    async fn say_not_shown(&self) {
        let log_size = self.journal.log_size();
        let said = v1::AuditNotShown { log_size };
        self.say(node_message::Body::AuditNotShown(said)).await;
    }

    /// The answer to a heartbeat. On a metered link only where it is another one than the last.
    async fn say_head(&mut self, number: u64) {
        let Some(end) = self.journal.end().await else {
            return;
        };
        if self.link.metered && self.said == Some(end.head) {
            return;
        }
        if let Ok(head) = signed_head(&self.view, end, number) {
            self.said = Some(end.head);
            self.say(node_message::Body::JournalHead(v1::JournalHead { head }))
                .await;
        }
    }

    async fn say(&self, body: node_message::Body) {
        // A full queue means a slow link: wait for it, this is the session's own pace.
        let _ = self.up.send(v1::NodeMessage { body: Some(body) }).await;
    }

    fn wait(&mut self, time: Duration) {
        self.state = State::Due(Instant::now() + time);
    }

    /// The SVID key's word for the boot key; signed once a session, and again when half of its time is over.
    async fn statement(&mut self) -> Option<JournalKeyStatement> {
        let now = self.view.clock.now();
        if let Some((statement, made)) = &self.statement
            && now.since(*made) < JOURNAL_KEY_LIFETIME / 2
        {
            return Some(statement.clone());
        }
        let signer = self.view.svid.borrow().signer().clone();
        let (node, boot) = (self.view.node.clone(), self.view.boot.clone());
        // The TPM signs: not on this thread.
        let made = tokio::task::spawn_blocking(move || {
            let key: &dyn Signer = signer.as_ref();
            JournalKeyStatement::sign(key, &node, boot.id(), boot.public_key(), now)
        })
        .await;
        match made {
            Ok(Ok(statement)) => {
                self.statement = Some((statement.clone(), now));
                Some(statement)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the journal key could not be vouched for");
                None
            }
            Err(error) => {
                tracing::error!(%error, "signing ended early");
                None
            }
        }
    }
}

fn boot_of(bytes: &[u8]) -> Option<BootId> {
    <[u8; 16]>::try_from(bytes).ok().map(BootId::from_bytes)
}
