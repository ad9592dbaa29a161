//! How a node's boots fit together: what its first record of a boot says of the boot before.

use edgeward_audit::batch::{Continuity, continuity};
use edgeward_audit::record::SealedRecord;
use edgeward_identity::Timestamp;

use super::{AuditLog, RecordFault};
use crate::store::Tx;
use crate::store::audit::{FaultKind, JournalFault};

impl AuditLog {
    /// Notes what the opening of a boot shows. `first` is the first of the records just stored.
    pub(super) async fn check_continuity(
        &self,
        tx: &mut Tx,
        first: &SealedRecord,
        now: Timestamp,
    ) -> Result<(), RecordFault> {
        let record = first.record();
        let Some(opened) = &record.opened else {
            return Ok(());
        };
        let (head, known) = match opened.previous {
            Some(previous) => (
                tx.journal_head(&record.node, previous.boot).await?,
                tx.record_hash(&record.node, previous.boot, previous.last_seq)
                    .await?,
            ),
            None => (None, None),
        };
        let fault = |boot, first_seq, last_seq, kind| JournalFault {
            node: record.node.clone(),
            boot,
            first_seq,
            last_seq,
            kind,
            noticed: now,
            resolved: None,
        };
        let (fault, code) = match continuity(opened, head, |_| known) {
            Continuity::Complete => return Ok(()),
            Continuity::First => {
                if !tx.has_other_journal(&record.node, record.boot).await? {
                    return Ok(());
                }
                (
                    fault(record.boot, 0, 0, FaultKind::Restarted),
                    "audit_journal_restarted",
                )
            }
            Continuity::Missing { boot, from, to } => {
                (fault(boot, from, to, FaultKind::Missing), "audit_gap")
            }
            Continuity::RolledBack {
                boot,
                stored,
                stated,
            } => (
                fault(
                    boot,
                    stated.saturating_add(1),
                    stored,
                    FaultKind::RolledBack,
                ),
                "audit_rolled_back",
            ),
            Continuity::Forked { boot, seq } => (
                fault(boot, seq, seq, FaultKind::Forked),
                "audit_equivocation",
            ),
        };
        self.note_fault(tx, &fault, code).await
    }
}
