//! The turns of a node's journal key: each is checked when its record is stored.
//!
//! A turn that does not hold is stored like any record, since it is evidence, and it is an alarm: somebody who has the
//! newest key tried to change what is older, or left it out.
//!
//! Where records are missing, the first turn behind them is taken on trust, and said to be out of turn. When they come
//! after all, each turn among them must follow the one before it, and the one that was taken on trust must follow the last of
//! them: then everything is checked as if it had come in order.

use edgeward_audit::batch::VerifiedBatch;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::record::{KeyChain, KeyTurn, SealedRecord, TurnError};
use edgeward_identity::Timestamp;

use super::{AuditLog, RecordFault};
use crate::store::Tx;
use crate::store::audit::{Gap, JournalKeyRow, TurnRow};

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
        for record in turns_of(new) {
            let known = row.as_ref().map(|row| &row.chain);
            match KeyChain::advance(known, record, batch.boot_key()) {
                Ok(chain) => {
                    keep(tx, record, false).await?;
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
                        keep(tx, record, true).await?;
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

    /// Checks the turns among records that filled a gap, of which `left` is missing still, and the first turn behind them.
    pub(super) async fn check_late_turns(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        part: &[SealedRecord],
        left: &[Gap],
        now: Timestamp,
    ) -> Result<(), RecordFault> {
        let (node, boot) = (batch.node(), batch.boot());
        let Some(last) = part.last().map(|record| record.record().seq) else {
            return Ok(());
        };
        for record in turns_of(part) {
            let seq = record.record().seq;
            let before = tx.turn_before(node, boot, seq).await?;
            let held = match KeyTurn::parse(record.event()) {
                Ok(turn) => {
                    let row = row_of(record, turn, false);
                    self.check_neighbour(tx, batch, before.as_ref(), &row)
                        .await?
                }
                Err(refused) => Err(refused),
            };
            match held {
                Ok(()) => keep(tx, record, false).await?,
                Err(refused) => {
                    self.note_turn(tx, batch, (refused.code(), seq), now)
                        .await?;
                    // Turns before it are missing, too: what follows is checked against it.
                    if is_ahead(refused) {
                        keep(tx, record, true).await?;
                    }
                }
            }
        }
        let behind = tx.turn_behind(node, boot, last).await?;
        let is_open = |seq: u64| {
            left.iter()
                .any(|gap| gap.first_seq < seq && gap.last_seq > last)
        };
        match behind {
            // Something between them is missing still.
            Some(behind) if is_open(behind.seq) => Ok(()),
            Some(behind) => self.check_behind(tx, batch, behind, now).await,
            None => self.go_on_from(tx, batch).await,
        }
    }

    /// Whether the turn behind what came late follows the last one before it.
    async fn check_behind(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        behind: TurnRow,
        now: Timestamp,
    ) -> Result<(), RecordFault> {
        let (node, boot) = (batch.node(), batch.boot());
        let before = tx.turn_before(node, boot, behind.seq).await?;
        let held = self
            .check_neighbour(tx, batch, before.as_ref(), &behind)
            .await?;
        match held {
            Ok(()) if behind.trusted => {
                let row = TurnRow {
                    trusted: false,
                    ..behind
                };
                Ok(tx.keep_turn(node, boot, &row).await?)
            }
            Ok(()) => Ok(()),
            // What it leads to goes on being checked against it: it is the newest that is known.
            Err(refused) => {
                self.note_turn(tx, batch, (refused.code(), behind.seq), now)
                    .await
            }
        }
    }

    async fn check_neighbour(
        &self,
        tx: &mut Tx,
        batch: &VerifiedBatch,
        before: Option<&TurnRow>,
        row: &TurnRow,
    ) -> Result<Result<(), TurnError>, RecordFault> {
        let (node, boot) = (batch.node(), batch.boot());
        let place = (node, boot, row.seq, row.prev);
        let known = match before.map(TurnRow::chain) {
            Some(chain) => Some(chain),
            None => match tx.journal_key(node, boot).await? {
                Some(newest) if newest.chain.seq < row.seq => Some(newest.chain),
                Some(newest) if newest.chain.seq > row.seq => {
                    let is_kept = tx.turn_behind(node, boot, row.seq).await?.is_some();
                    // Of a boot from before turns were kept nobody knows what came before this one.
                    if !is_kept && row.turn.number < newest.chain.number {
                        return Ok(Ok(()));
                    }
                    None
                }
                Some(_) | None => None,
            },
        };
        Ok(KeyChain::follow(known.as_ref(), &row.turn, place, batch.boot_key()).map(drop))
    }

    /// No turn lies behind what came late: the next one is signed by the key of the last among it.
    async fn go_on_from(&self, tx: &mut Tx, batch: &VerifiedBatch) -> Result<(), RecordFault> {
        let (node, boot) = (batch.node(), batch.boot());
        let newest = tx.turn_before(node, boot, u64::MAX).await?;
        let known = tx.journal_key(node, boot).await?;
        if let Some(newest) = newest
            && known.is_none_or(|known| known.chain.seq < newest.seq)
        {
            let row = JournalKeyRow {
                chain: newest.chain(),
                overdue: None,
            };
            tx.set_journal_key(node, boot, &row).await?;
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

fn turns_of(records: &[SealedRecord]) -> impl Iterator<Item = &SealedRecord> {
    records
        .iter()
        .filter(|record| record.event().kind == EventKind::JournalSealed)
}

fn is_ahead(refused: TurnError) -> bool {
    matches!(refused, TurnError::Number { expected, found } if u64::from(found) > expected)
}

fn row_of(record: &SealedRecord, turn: KeyTurn, trusted: bool) -> TurnRow {
    TurnRow {
        seq: record.record().seq,
        prev: record.record().prev,
        turn,
        trusted,
    }
}

async fn keep(tx: &mut Tx, record: &SealedRecord, trusted: bool) -> Result<(), RecordFault> {
    let inner = record.record();
    if let Ok(turn) = KeyTurn::parse(record.event()) {
        let row = row_of(record, turn, trusted);
        tx.keep_turn(&inner.node, inner.boot, &row).await?;
    }
    Ok(())
}
