//! How a node's boots fit together: what its first record of a boot says of the boot before.

use edgeward_audit::batch::{Continuity, continuity};
use edgeward_audit::record::{BootId, BootOpened, PreviousBoot, SealedRecord};
use edgeward_identity::{SpiffeId, Timestamp};

use super::{AuditLog, RecordFault, Signed, Wanted};
use crate::store::Tx;
use crate::store::audit::{FaultKind, JournalFault};

/// What is wrong, where, and how it is called.
struct Found {
    boot: BootId,
    first_seq: u64,
    last_seq: u64,
    kind: FaultKind,
    code: &'static str,
    signed: Signed,
}

impl AuditLog {
    /// Notes what the opening of a boot shows. `first` is the first of the records just stored. Says what to ask for.
    pub(super) async fn check_continuity(
        &self,
        tx: &mut Tx,
        first: &SealedRecord,
        now: Timestamp,
    ) -> Result<Option<Wanted>, RecordFault> {
        let record = first.record();
        let Some(opened) = &record.opened else {
            return Ok(None);
        };
        let found = match opened.previous {
            None => restarted(tx, &record.node, record.boot).await?,
            Some(previous) => {
                let by_records = by_records(tx, &record.node, opened, previous).await?;
                match by_records {
                    Some(found) if found.kind != FaultKind::Missing => Some(found),
                    missing => {
                        let other = other_end(tx, &record.node, record.boot, previous).await?;
                        other.or(missing)
                    }
                }
            }
        };
        let Some(found) = found else {
            return Ok(None);
        };
        let fault = JournalFault {
            node: record.node.clone(),
            boot: found.boot,
            first_seq: found.first_seq,
            last_seq: found.last_seq,
            kind: found.kind,
            noticed: now,
            lost: None,
            resolved: None,
        };
        self.note_fault(tx, &fault, found.code, found.signed)
            .await?;
        Ok((found.kind == FaultKind::Missing).then_some(Wanted {
            boot: found.boot,
            first_seq: found.first_seq,
            last_seq: found.last_seq,
        }))
    }
}

async fn restarted(
    tx: &mut Tx,
    node: &SpiffeId,
    boot: BootId,
) -> Result<Option<Found>, RecordFault> {
    let other = tx.has_other_journal(node, boot).await?;
    Ok(other.then_some(Found {
        boot,
        first_seq: 0,
        last_seq: 0,
        kind: FaultKind::Restarted,
        code: "audit_journal_restarted",
        signed: Signed::Less,
    }))
}

/// What is stored of the boot before, against what is said of it.
async fn by_records(
    tx: &mut Tx,
    node: &SpiffeId,
    opened: &BootOpened,
    previous: PreviousBoot,
) -> Result<Option<Found>, RecordFault> {
    let head = tx.journal_head(node, previous.boot).await?;
    let known = tx
        .record_hash(node, previous.boot, previous.last_seq)
        .await?;
    let found = |boot, first_seq, last_seq, kind, code, signed| {
        Some(Found {
            boot,
            first_seq,
            last_seq,
            kind,
            code,
            signed,
        })
    };
    Ok(match continuity(opened, head, |_| known) {
        Continuity::Complete | Continuity::First => None,
        Continuity::Missing { boot, from, to } => found(
            boot,
            from,
            to,
            FaultKind::Missing,
            "audit_gap",
            Signed::Less,
        ),
        Continuity::RolledBack {
            boot,
            stored,
            stated,
        } => {
            let first = stated.saturating_add(1);
            let kind = FaultKind::RolledBack;
            found(boot, first, stored, kind, "audit_rolled_back", Signed::Less)
        }
        Continuity::Forked { boot, seq } => {
            let code = "audit_equivocation";
            found(boot, seq, seq, FaultKind::Forked, code, Signed::Both)
        }
    })
}

/// What the node said of the boot before while it ran, and whether another boot followed it already: a copy of its disk
/// does, when it boots by itself.
async fn other_end(
    tx: &mut Tx,
    node: &SpiffeId,
    boot: BootId,
    previous: PreviousBoot,
) -> Result<Option<Found>, RecordFault> {
    let last_seq = previous.last_seq;
    let found = |first_seq, last_seq, kind, code, signed| Found {
        boot: previous.boot,
        first_seq,
        last_seq,
        kind,
        code,
        signed,
    };
    if let Some(stated) = tx.stated_head(node, previous.boot).await? {
        if stated.seq > last_seq {
            let (first, kind) = (last_seq.saturating_add(1), FaultKind::RolledBack);
            let code = "audit_rolled_back";
            return Ok(Some(found(first, stated.seq, kind, code, Signed::Less)));
        }
        if stated.seq == last_seq && stated.hash != previous.head {
            let (kind, code) = (FaultKind::Forked, "audit_equivocation");
            return Ok(Some(found(last_seq, last_seq, kind, code, Signed::Both)));
        }
    }
    let followed = tx.has_newer_journal(node, previous.boot, boot).await?;
    // A disk that forgot what it had promised looks the same: no proof.
    let (kind, code) = (FaultKind::Forked, "audit_boot_forked");
    Ok(followed.then(|| found(last_seq, last_seq, kind, code, Signed::Less)))
}
