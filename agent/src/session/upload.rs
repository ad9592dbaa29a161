//! The journal on its way to the cloud: one batch at a time, deleted only after the cloud has stored it.

use std::time::Duration;

use edgeward_audit::batch::{Batch, JOURNAL_KEY_LIFETIME, JournalKeyStatement};
use edgeward_audit::{BootId, Position};
use edgeward_identity::{Signer, Timestamp};
use edgeward_wire::v1::{self, node_message};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::journal::JournalHandle;
use crate::view::NodeView;

/// Events gather this long before they are sent.
pub(super) const GATHER: Duration = Duration::from_millis(250);
/// The same on a metered link.
pub(super) const GATHER_METERED: Duration = Duration::from_secs(15);
/// An unanswered batch is sent again after this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Wait after a refusal, so that a broken journal does not flood the cloud.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// Most acknowledgements that wait: there is one batch out at a time.
const ANSWER_QUEUE: usize = 8;

/// The upload of one session; ends with it.
pub(super) struct Upload {
    answers: mpsc::Sender<v1::AuditAcknowledge>,
    _task: AbortOnDropHandle<()>,
}

struct Uploader {
    journal: JournalHandle,
    view: NodeView,
    up: mpsc::Sender<v1::NodeMessage>,
    written: watch::Receiver<u64>,
    statement: Option<(JournalKeyStatement, Timestamp)>,
    state: State,
    gather: Duration,
}

#[derive(Clone, Copy)]
enum State {
    /// Something may be there to send at this moment.
    Due(Instant),
    /// A batch is out, which ends before this position.
    Sent { next: Position, since: Instant },
    /// Everything is sent.
    Idle,
}

impl Upload {
    pub(super) fn begin(
        journal: JournalHandle,
        view: NodeView,
        up: mpsc::Sender<v1::NodeMessage>,
        gather: Duration,
    ) -> Self {
        let (answers, incoming) = mpsc::channel(ANSWER_QUEUE);
        let uploader = Uploader {
            written: journal.written(),
            journal,
            view,
            up,
            statement: None,
            state: State::Due(Instant::now()),
            gather,
        };
        Self {
            answers,
            _task: AbortOnDropHandle::new(tokio::spawn(uploader.run(incoming))),
        }
    }

    /// The cloud's word on a batch. More of them than batches are no use to anybody.
    pub(super) fn answered(&self, answer: v1::AuditAcknowledge) {
        let _ = self.answers.try_send(answer);
    }
}

impl Uploader {
    async fn run(mut self, mut answers: mpsc::Receiver<v1::AuditAcknowledge>) {
        loop {
            match self.state {
                State::Due(when) => {
                    tokio::time::sleep_until(when).await;
                    self.send_next().await;
                }
                State::Sent { since, .. } => {
                    match tokio::time::timeout_at(since + ANSWER_DEADLINE, answers.recv()).await {
                        Ok(Some(answer)) => self.answered(&answer),
                        Ok(None) => return,
                        Err(_) => {
                            tracing::warn!(
                                "the cloud did not acknowledge a batch; sending it again"
                            );
                            self.state = State::Due(Instant::now());
                        }
                    }
                }
                State::Idle => match self.written.changed().await {
                    Ok(()) => self.state = State::Due(Instant::now() + self.gather),
                    Err(_) => return,
                },
            }
        }
    }

    /// The cloud's word on the batch that is out.
    fn answered(&mut self, answer: &v1::AuditAcknowledge) {
        let State::Sent { next, .. } = self.state else {
            return;
        };
        let Ok(boot) = <[u8; 16]>::try_from(answer.boot_id.as_slice()).map(BootId::from_bytes)
        else {
            return;
        };
        if !answer.refused_code.is_empty() {
            tracing::error!(code = %answer.refused_code, "the cloud refused a batch of the journal");
            metrics::counter!("edgeward_journal_refused_total").increment(1);
            self.statement = None;
            // A gap is mended by starting where the cloud is.
            let there = (answer.next_seq > 0 && boot == next.boot).then_some(Position {
                boot,
                seq: answer.next_seq,
            });
            self.journal.set_sent(there);
            self.state = State::Due(Instant::now() + REFUSED_WAIT);
            return;
        }
        self.journal.acknowledge(boot, answer.next_seq);
        self.journal.set_sent(Some(next));
        self.state = State::Due(Instant::now());
    }

    async fn send_next(&mut self) {
        self.written.mark_unchanged();
        let Some(pending) = self.journal.pending(self.journal.sent()).await else {
            self.state = State::Idle;
            return;
        };
        let next = pending.next();
        let Some(statement) = self.statement().await else {
            self.state = State::Due(Instant::now() + REFUSED_WAIT);
            return;
        };
        let signer = self.view.boot.signer();
        match Batch::sign(&statement, signer.as_ref(), pending.records) {
            Ok(batch) => {
                let body = node_message::Body::Audit(v1::AuditBatch {
                    batch: batch.to_bytes(),
                });
                let message = v1::NodeMessage { body: Some(body) };
                // A full queue means a slow link: wait for it, this is the session's own pace.
                let _ = self.up.send(message).await;
                self.state = State::Sent {
                    next,
                    since: Instant::now(),
                };
            }
            Err(error) => {
                tracing::error!(%error, "a batch of the journal cannot be made");
                self.state = State::Due(Instant::now() + REFUSED_WAIT);
            }
        }
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
