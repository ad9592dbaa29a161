//! The turns of a node's journal key: each is checked when its record is stored.
//!
//! A turn that does not hold is stored like any record, since it is evidence, and it is an alarm: somebody who has the
//! newest key tried to change what is older, or left it out.

use edgeward_audit::batch::VerifiedBatch;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::record::{KeyChain, SealedRecord, TurnError};
use edgeward_identity::Timestamp;

use super::{AuditLog, RecordFault};
use crate::store::Tx;
use crate::store::audit::JournalKeyRow;

/// A turn is missing for longer than a key may cover.
const OVERDUE: &str = "audit_turn_overdue";

impl AuditLog {
    /// Checks what is new of a batch against the key that the turns before have proven.
    pub(super) async fn check_turns(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        new: &[SealedRecord],
        now: Timestamp,
    ) -> Result<(), RecordFault> {
        let Some(last) = new.last() else {
            return Ok(());
        };
        let before = tx.journal_key(batch.node(), batch.boot()).await?;
        let mut row = before.clone();
        let turns = new
            .iter()
            .filter(|record| record.event().kind == EventKind::JournalSealed);
        for record in turns {
            let known = row.as_ref().map(|row| &row.chain);
            match KeyChain::advance(known, record, batch.boot_key()) {
                Ok(chain) => {
                    row = Some(JournalKeyRow {
                        chain,
                        overdue: None,
                    });
                }
                Err(refused) => {
                    let seq = record.record().seq;
                    self.note_turn(tx, batch, (refused.code(), seq), now)
                        .await?;
                    // Turns are missing, as in a gap that a loss left: said once, and what follows is checked again.
                    if let TurnError::Number { expected, found } = refused
                        && u64::from(found) > expected
                        && let Ok(chain) = KeyChain::resume(record)
                    {
                        row = Some(JournalKeyRow {
                            chain,
                            overdue: None,
                        });
                    }
                }
            }
        }
        let seq = last.record().seq;
        if let Some(row) = &mut row
            && row.overdue.is_none()
            && row.chain.is_overdue(seq)
        {
            row.overdue = Some(seq);
            self.note_turn(tx, batch, (OVERDUE, seq), now).await?;
        }
        if let Some(row) = row.filter(|row| Some(row) != before.as_ref()) {
            tx.set_journal_key(batch.node(), batch.boot(), &row).await?;
        }
        Ok(())
    }

    async fn note_turn(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        (code, seq): (&'static str, u64),
        now: Timestamp,
    ) -> Result<(), RecordFault> {
        metrics::counter!("edgeward_audit_journal_turns_refused_total").increment(1);
        tracing::error!(node = %batch.node(), boot = %batch.boot(), seq, code,
            "the chain of a journal's keys does not hold");
        let event = Event::new(now, Actor::Cloud, EventKind::JournalForked)
            .subject(batch.node().clone())
            .code(code)
            .detail("boot", batch.boot())
            .detail("first_seq", seq)
            .detail("last_seq", seq)
            .detail("fault", "key");
        self.record_in(tx, event).await
    }
}
