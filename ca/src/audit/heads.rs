//! Where a node says that its journal ends, against what is stored and what it said before.
//!
//! A head commits to every record of its boot. So a journal that was cut short, put back, or that goes on in two places
//! shows with the next heartbeat, before a body arrives.

use edgeward_audit::digest::Digest;
use edgeward_audit::record::{BootId, Head, SealedRecord};
use edgeward_audit::statement::HeadStated;
use edgeward_identity::{SpiffeId, Timestamp};

use super::{AuditLog, RecordFault, Signed};
use crate::store::audit::{FaultKind, JournalFault};

/// A stated end does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatedFault {
    /// The journal ends before what the node had already: cut short, or put back.
    Behind { stated: u64, known: u64 },
    /// Another record than the one that is known: the journal goes on in two places.
    Forked { seq: u64 },
}

impl StatedFault {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Behind { .. } => "audit_head_behind",
            Self::Forked { .. } => "audit_equivocation",
        }
    }
}

/// What is known of a boot's end when a node states one.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The last record that is stored.
    stored: Option<Head>,
    /// Hash of the stored record with the stated number.
    same: Option<Digest>,
    /// What the node stated before.
    stated: Option<Head>,
    /// The node must have everything below: it was stored before it was asked.
    least: u64,
}

/// Compares.
fn judge(stated: Head, known: &Known) -> Result<(), StatedFault> {
    let same = [
        known.stored.filter(|stored| stored.seq == stated.seq),
        known.stated.filter(|before| before.seq == stated.seq),
        known.same.map(|hash| Head {
            seq: stated.seq,
            hash,
        }),
    ];
    if same.into_iter().flatten().any(|known| known != stated) {
        return Err(StatedFault::Forked { seq: stated.seq });
    }
    let before = known
        .stated
        .map_or(0, |before| before.seq.saturating_add(1));
    let least = before.max(known.least);
    match stated.seq < least.saturating_sub(1) {
        true => Err(StatedFault::Behind {
            stated: stated.seq,
            known: least.saturating_sub(1),
        }),
        false => Ok(()),
    }
}

impl AuditLog {
    /// Hears where `node` says that its journal ends; the caller has verified that the boot key signed it. `least`:
    /// everything of the boot below it was stored before the node was asked. `first`: nothing that the node said
    /// earlier can still be on its way. A fault is noted, and returned.
    pub async fn hear_head(
        &self,
        node: &SpiffeId,
        stated: &HeadStated,
        (least, first): (u64, bool),
        now: Timestamp,
    ) -> Result<Option<StatedFault>, RecordFault> {
        let boot = stated.boot;
        let mut tx = self.store.begin("audit.head").await?;
        let stored = tx.journal_head(node, boot).await?;
        let before = tx.stated_head(node, boot).await?;
        let known = Known {
            stored,
            same: tx.record_hash(node, boot, stated.head.seq).await?,
            stated: before.filter(|before| first || before.seq == stated.head.seq),
            least,
        };
        let ahead = stored.is_none_or(|stored| stored.seq < stated.head.seq);
        let fault = match judge(stated.head, &known) {
            Ok(()) => {
                if ahead && before.is_none_or(|before| before.seq < stated.head.seq) {
                    tx.keep_stated_head(node, boot, stated.head, now).await?;
                }
                None
            }
            Err(fault) => {
                self.note_stated(&mut tx, node, boot, fault, now).await?;
                Some(fault)
            }
        };
        tx.commit().await?;
        Ok(fault)
    }

    /// Compares records that were just stored with the end that the node stated before they came.
    pub(super) async fn check_stated(
        &self,
        tx: &mut crate::store::Tx,
        node: &SpiffeId,
        records: &[SealedRecord],
        now: Timestamp,
    ) -> Result<(), RecordFault> {
        let Some(boot) = records.first().map(|first| first.record().boot) else {
            return Ok(());
        };
        let Some(stated) = tx.stated_head(node, boot).await? else {
            return Ok(());
        };
        let same = records
            .iter()
            .find(|record| record.record().seq == stated.seq);
        match same {
            Some(record) if record.hash() != stated.hash => {
                let fault = StatedFault::Forked { seq: stated.seq };
                self.note_stated(tx, node, boot, fault, now).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn note_stated(
        &self,
        tx: &mut crate::store::Tx,
        node: &SpiffeId,
        boot: BootId,
        found: StatedFault,
        now: Timestamp,
    ) -> Result<(), RecordFault> {
        let (first_seq, last_seq, kind, signed) = match found {
            StatedFault::Behind { stated, known } => {
                let first = stated.saturating_add(1);
                (first, known, FaultKind::RolledBack, Signed::Less)
            }
            StatedFault::Forked { seq } => (seq, seq, FaultKind::Forked, Signed::Both),
        };
        let fault = JournalFault {
            node: node.clone(),
            boot,
            first_seq,
            last_seq,
            kind,
            noticed: now,
            lost: None,
            resolved: None,
        };
        self.note_fault(tx, &fault, found.code(), signed).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64, text: &str) -> Head {
        Head {
            seq,
            hash: Digest::of(&[text.as_bytes()]),
        }
    }

    #[test]
    fn a_journal_that_ends_before_what_it_had_is_behind_and_one_with_another_record_is_forked() {
        let known = Known {
            stored: Some(head(9, "nine")),
            stated: Some(head(12, "twelve")),
            least: 8,
            ..Known::default()
        };
        let forked = |seq| Err(StatedFault::Forked { seq });
        assert_eq!(judge(head(9, "other"), &known), forked(9));
        assert_eq!(judge(head(12, "other"), &known), forked(12));
        for seq in [0, 6, 7, 10, 11] {
            let (stated, known_seq) = (seq, 12);
            let behind = StatedFault::Behind {
                stated,
                known: known_seq,
            };
            assert_eq!(judge(head(seq, "x"), &known), Err(behind));
        }
        assert_eq!(judge(head(12, "twelve"), &known), Ok(()));
        assert_eq!(judge(head(13, "x"), &known), Ok(()));
    }

    #[test]
    fn an_end_that_was_stated_before_more_was_stored_is_only_late() {
        let known = Known {
            stored: Some(head(9, "nine")),
            same: Some(head(7, "seven").hash),
            stated: None,
            least: 8,
        };
        assert_eq!(judge(head(7, "seven"), &known), Ok(()));
        assert_eq!(
            judge(head(7, "x"), &known),
            Err(StatedFault::Forked { seq: 7 })
        );
        let behind = StatedFault::Behind {
            stated: 6,
            known: 7,
        };
        let older = Known {
            same: None,
            ..known
        };
        assert_eq!(judge(head(6, "x"), &older), Err(behind));
    }
}
