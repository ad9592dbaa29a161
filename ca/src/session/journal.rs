//! The journal's side of a session: batches in, what is stored back; where the node says that its journal ends; what
//! of it is missing.

use edgeward_audit::Event;
use edgeward_audit::batch::{Batch, JournalKey, JournalKeyStatement};
use edgeward_audit::event::{Actor, EventKind};
use edgeward_audit::record::{BootId, Head};
use edgeward_audit::statement::{HeadStated, LossStated, Signed};
use edgeward_wire::v1::{self, cloud_message::Body};

use super::SessionEnded;
use super::coverage::{Coverage, MAX_WAITING};
use super::live::Live;
use crate::audit::{Acknowledged, IngestError, Wanted};

/// Most ranges that a node is asked for when its session begins.
const MAX_WANTED: u32 = 16;

/// A node that leaves so many heartbeats on end without saying where its journal ends is silent.
const MAX_UNANSWERED: u32 = 4;

/// What a session knows of its node's journal.
pub(super) struct JournalSide {
    boot: BootId,
    key: Option<JournalKey>,
    /// The last record of the running boot that is stored.
    stored: Option<Head>,
    /// Everything of the running boot below it is stored, or was stated by the node.
    least: u64,
    /// The last heartbeat that was not answered yet, and what `least` was then.
    asked: Option<(u64, u64)>,
    /// Heartbeats on end that were not answered.
    unanswered: u32,
    pub(super) coverage: Coverage,
}

impl JournalSide {
    pub(super) fn new(boot: BootId, audit_next: u64, coverage: Coverage) -> Self {
        Self {
            boot,
            key: None,
            stored: None,
            least: audit_next,
            asked: None,
            unanswered: 0,
            coverage,
        }
    }

    /// The heartbeat with this number goes out. True: the node has just become silent. One whose link is metered says only
    /// what is new.
    pub(super) fn asked(&mut self, number: u64) -> bool {
        let before = self.asked.replace((number, self.least));
        if before.is_none() || self.coverage.is_metered() {
            return false;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.unanswered == MAX_UNANSWERED
    }

    /// What was said is about the heartbeat that was sent last, or about one before.
    fn answered(&mut self) {
        self.unanswered = 0;
    }

    fn stored(&mut self, acknowledged: &Acknowledged) {
        if acknowledged.boot == self.boot {
            self.stored = acknowledged.head;
            self.least = self.least.max(acknowledged.next_seq);
        }
        if let Some(reach) = acknowledged.reach {
            self.coverage.wait_for(reach);
        }
    }
}

impl Live {
    /// What the Hello said of the journal, and what this node is to be told of older records at once.
    pub(super) async fn begin_journal(&mut self, said: &[u8]) -> Result<(), SessionEnded> {
        if said.is_empty() {
            return Ok(());
        }
        let Some(stated) = self.stated(said)? else {
            return Ok(());
        };
        let place = (self.journal.least, true);
        self.hear(&stated, place).await;
        let store = self.hub.store.clone();
        let limit = u32::try_from(MAX_WAITING).unwrap_or(u32::MAX);
        for reach in store.reaches(&self.id(), stated.oldest, limit).await? {
            self.journal.coverage.wait_for(reach);
        }
        for (boot, gap) in store.wanted(&self.id(), MAX_WANTED).await? {
            self.want(Wanted {
                boot,
                first_seq: gap.first_seq,
                last_seq: gap.last_seq,
            })?;
        }
        Ok(())
    }

    /// Where the node says that its journal ends: the answer to a heartbeat.
    pub(super) async fn journal_head(&mut self, said: &[u8]) -> Result<(), SessionEnded> {
        let Some(stated) = self.stated(said)? else {
            return Ok(());
        };
        let Some((number, least)) = self.journal.asked.take() else {
            return self.misdeed();
        };
        self.journal.answered();
        if stated.answers != number {
            // An answer to the one before, overtaken by this one: it says less, and is late.
            self.journal.asked = Some((number, least));
            return match stated.answers < number {
                true => Ok(()),
                false => self.misdeed(),
            };
        }
        // What is stored already says the same: nothing to look up, nothing to write.
        let known = self.journal.stored == Some(stated.head);
        if !known || stated.head.seq.saturating_add(1) < least {
            self.hear(&stated, (least, false)).await;
        }
        Ok(())
    }

    /// The node does not have records any more.
    pub(super) async fn journal_loss(&mut self, said: &[u8]) -> Result<(), SessionEnded> {
        let now = self.hub.clock.now();
        let key = self.opened.boot_key;
        let verified =
            Signed::<LossStated>::parse(said).and_then(|signed| signed.verify(&self.id(), &key));
        let loss = match verified {
            Ok(loss) => loss,
            Err(refused) => return self.journal_refused(refused.code()),
        };
        match self.hub.audit.lost(&self.id(), &loss, now).await {
            Ok(true) => Ok(()),
            Ok(false) => self.misdeed(),
            Err(error) => {
                tracing::warn!(node = %self.id(), %error, "a loss is not recorded; it will be asked for again");
                Ok(())
            }
        }
    }

    pub(super) async fn audit(&mut self, bytes: &[u8]) -> Result<(), SessionEnded> {
        let now = self.hub.clock.now();
        let refusal = |code: &str| v1::AuditAcknowledge {
            boot_id: self.journal.boot.as_bytes().to_vec(),
            next_seq: 0,
            refused_code: code.to_owned(),
        };
        let batch = match Batch::parse(bytes) {
            Ok(batch) => batch,
            Err(refused) => return self.audit_refused(refusal(refused.code())),
        };
        let known = self
            .journal
            .key
            .as_ref()
            .filter(|key| key.came_from(batch.statement_bytes(), now));
        let key = match known {
            Some(key) => key.clone(),
            None => {
                let verified =
                    JournalKeyStatement::parse(batch.statement_bytes()).and_then(|statement| {
                        statement.verify(&self.id(), self.opened.peer.key(), now)
                    });
                match verified {
                    Ok(key) => key,
                    Err(refused) => return self.audit_refused(refusal(refused.code())),
                }
            }
        };
        let verified = match batch.verify(&key) {
            Ok(verified) => verified,
            Err(refused) => return self.audit_refused(refusal(refused.code())),
        };
        self.journal.key = Some(key);
        let mut wanted = None;
        let boot = verified.boot();
        let answer = match self.hub.audit.ingest(verified, now).await {
            Ok(done) => {
                self.journal.stored(&done);
                wanted = done.wanted;
                v1::AuditAcknowledge {
                    boot_id: done.boot.as_bytes().to_vec(),
                    next_seq: done.next_seq,
                    refused_code: String::new(),
                }
            }
            Err(error) => {
                let (boot, next_seq) = match &error {
                    IngestError::Refused { acknowledged, .. } => {
                        (acknowledged.boot, acknowledged.next_seq)
                    }
                    IngestError::Store(_) | IngestError::Record(_) => (boot, 0),
                };
                tracing::warn!(node = %self.id(), %error, "audit batch not stored");
                v1::AuditAcknowledge {
                    boot_id: boot.as_bytes().to_vec(),
                    next_seq,
                    refused_code: error.code().to_owned(),
                }
            }
        };
        self.send(Body::Audit(answer))?;
        wanted.map_or(Ok(()), |wanted| self.want(wanted))
    }

    fn want(&self, wanted: Wanted) -> Result<(), SessionEnded> {
        self.send(Body::JournalWanted(v1::JournalWanted {
            boot_id: wanted.boot.as_bytes().to_vec(),
            first_seq: wanted.first_seq,
            last_seq: wanted.last_seq,
        }))
    }

    /// What is stated of the running boot, if its key signed it. Anything else counts against the node.
    fn stated(&mut self, said: &[u8]) -> Result<Option<HeadStated>, SessionEnded> {
        let key = self.opened.boot_key;
        let verified =
            Signed::<HeadStated>::parse(said).and_then(|signed| signed.verify(&self.id(), &key));
        match verified {
            Ok(stated) if stated.boot == self.journal.boot => Ok(Some(stated)),
            Ok(_) => self
                .journal_refused("journal_statement_boot")
                .map(|()| None),
            Err(refused) => self.journal_refused(refused.code()).map(|()| None),
        }
    }

    async fn hear(&mut self, stated: &HeadStated, place: (u64, bool)) {
        let now = self.hub.clock.now();
        let node = self.id();
        match self.hub.audit.hear_head(&node, stated, place, now).await {
            Ok(None) => {
                let next = stated.head.seq.saturating_add(1);
                self.journal.least = self.journal.least.max(next);
            }
            Ok(Some(fault)) => {
                tracing::error!(node = %self.id(), boot = %stated.boot, code = fault.code(), ?fault,
                    "the end of this node's journal is not where it was");
            }
            // The next one says it again.
            Err(error) => {
                tracing::warn!(node = %self.id(), %error, "a journal's end is not compared");
            }
        }
    }

    /// The node has a session and takes heartbeats, and does not say any more where its journal ends.
    pub(super) fn journal_silent(&self) {
        tracing::error!(node = %self.id(), boot = %self.journal.boot, "this node does not say where its journal ends");
        metrics::counter!("edgeward_audit_journals_silent_total").increment(1);
        let event = Event::new(self.hub.clock.now(), Actor::Cloud, EventKind::JournalSilent)
            .subject(self.id())
            .code("audit_head_silent")
            .detail("boot", self.journal.boot)
            .detail("heartbeats", MAX_UNANSWERED);
        self.hub.audit.later(event);
    }

    fn journal_refused(&mut self, code: &str) -> Result<(), SessionEnded> {
        let event = Event::new(self.hub.clock.now(), self.id(), EventKind::JournalRefused)
            .subject(self.id())
            .denied(code);
        self.hub.audit.later(event);
        self.misdeed()
    }

    fn audit_refused(&mut self, answer: v1::AuditAcknowledge) -> Result<(), SessionEnded> {
        let code = answer.refused_code.clone();
        self.send(Body::Audit(answer))?;
        self.journal_refused(&code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(metered: bool) -> JournalSide {
        let (_, covered) = tokio::sync::watch::channel(0);
        let coverage = Coverage::new(covered, metered, None);
        JournalSide::new(BootId::from_bytes([1; 16]), 0, coverage)
    }

    #[test]
    fn a_node_that_leaves_heartbeats_unanswered_is_silent_once_until_it_speaks() {
        let mut side = side(false);
        let silent: Vec<u64> = (1..10).filter(|number| side.asked(*number)).collect();
        assert_eq!(silent, [5]);
        side.asked = None;
        side.answered();
        let silent: Vec<u64> = (10..20).filter(|number| side.asked(*number)).collect();
        assert_eq!(silent, [14]);
    }

    #[test]
    fn a_node_on_a_metered_link_need_not_repeat_itself() {
        let mut side = side(true);
        assert!((1..100).all(|number| !side.asked(number)));
    }
}
