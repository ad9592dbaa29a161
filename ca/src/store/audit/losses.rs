//! Which ranges are lost, of which of them somebody took note, and the whole of it page by page.

use edgeward_audit::record::BootId;
use edgeward_identity::{SpiffeId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::faults::fault_of;
use super::{JournalFault, StoredJournal, journal_of};
use crate::store::{
    Store, StoreError, Tx, number_from_column, number_to_column, time_from_column, to_column,
};

const FAULT_COLUMNS: &str = "f.node, f.boot, f.first_seq, f.last_seq, f.kind, f.noticed, f.lost, f.resolved, \
     l.acknowledged, l.operator, l.reason FROM journal_faults f LEFT JOIN journal_losses l ON l.node = f.node \
     AND l.boot = f.boot AND l.first_seq <= f.first_seq AND l.last_seq >= f.last_seq AND f.kind = 'missing' \
     AND f.lost IS NOT NULL";

/// Somebody has taken note that a range is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossNote {
    pub at: Timestamp,
    pub operator: String,
    pub reason: String,
}

/// A fault, and who has taken note of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub fault: JournalFault,
    pub note: Option<LossNote>,
}

/// How many faults there are that are not mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Nobody knows yet what becomes of them.
    pub open: u64,
    /// The node signed that the records are gone, and nobody has taken note of it.
    pub lost: u64,
    pub acknowledged: u64,
}

impl Tx {
    /// The unmended fault of a boot that says that records from `first_seq` on are missing.
    pub async fn missing_from(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        first_seq: u64,
    ) -> Result<Option<Fault>, StoreError> {
        let text = format!(
            "SELECT {FAULT_COLUMNS} WHERE f.node = $1 AND f.boot = $2 AND f.kind = 'missing' AND f.first_seq = $3 \
             AND f.resolved IS NULL"
        );
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(node.to_string())
            .bind(boot.to_string())
            .bind(number_to_column(first_seq))
            .fetch_all(self.connection())
            .await?
            .first()
            .map(noted_of)
            .transpose()
    }

    /// Somebody takes note of a lost range.
    pub async fn note_loss(
        &mut self,
        fault: &JournalFault,
        note: &LossNote,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO journal_losses (node, boot, first_seq, last_seq, acknowledged, operator, reason) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (node, boot, first_seq) DO UPDATE SET \
             last_seq = excluded.last_seq, acknowledged = excluded.acknowledged, operator = excluded.operator, \
             reason = excluded.reason",
        )
        .bind(fault.node.to_string())
        .bind(fault.boot.to_string())
        .bind(number_to_column(fault.first_seq))
        .bind(number_to_column(fault.last_seq))
        .bind(to_column(note.at))
        .bind(&note.operator)
        .bind(&note.reason)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// Journals of one keeper, or of all, by keeper and boot, behind one of them.
    pub async fn journals_behind(
        &self,
        node: Option<&SpiffeId>,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<StoredJournal>, StoreError> {
        let (after_node, after_boot) = after.unwrap_or_default();
        sqlx::query(
            "SELECT node, boot, last_seq, head, opened, updated FROM journals WHERE ($1 = '' OR node = $1) \
             AND (node > $2 OR (node = $2 AND boot > $3)) ORDER BY node, boot LIMIT $4",
        )
        .bind(node.map_or_else(String::new, ToString::to_string))
        .bind(after_node)
        .bind(after_boot)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(journal_of)
        .collect()
    }

    /// The faults of one boot, mended ones included: as many as are kept of one.
    pub async fn faults_of_boot(
        &self,
        node: &SpiffeId,
        boot: BootId,
    ) -> Result<Vec<Fault>, StoreError> {
        let text = format!(
            "SELECT {FAULT_COLUMNS} WHERE f.node = $1 AND f.boot = $2 ORDER BY f.noticed, f.kind, f.first_seq"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(node.to_string())
            .bind(boot.to_string())
            .fetch_all(&mut *self.read().await?)
            .await?;
        once(&rows)
    }

    /// Boots with faults, of one keeper or of all.
    pub async fn boots_with_faults(
        &self,
        node: Option<&SpiffeId>,
    ) -> Result<std::collections::BTreeSet<(String, String)>, StoreError> {
        sqlx::query(
            "SELECT DISTINCT node, boot FROM journal_faults WHERE $1 = '' OR node = $1 ORDER BY node, boot",
        )
        .bind(node.map_or_else(String::new, ToString::to_string))
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(|row| Ok((row.try_get("node")?, row.try_get("boot")?)))
        .collect()
    }

    /// Faults of boots of which nothing is stored.
    pub async fn faults_of_unknown_boots(
        &self,
        node: Option<&SpiffeId>,
        limit: u32,
    ) -> Result<Vec<Fault>, StoreError> {
        let text = format!(
            "SELECT {FAULT_COLUMNS} WHERE ($1 = '' OR f.node = $1) AND NOT EXISTS (SELECT 1 FROM journals j \
             WHERE j.node = f.node AND j.boot = f.boot) ORDER BY f.noticed, f.boot, f.kind, f.first_seq LIMIT $2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(node.map_or_else(String::new, ToString::to_string))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.read().await?)
            .await?;
        once(&rows)
    }

    /// How many faults of one keeper, or of all, are not mended.
    pub async fn fault_counts(&self, node: Option<&SpiffeId>) -> Result<FaultCounts, StoreError> {
        let noted = "EXISTS (SELECT 1 FROM journal_losses l WHERE l.node = f.node AND l.boot = f.boot \
             AND l.first_seq <= f.first_seq AND l.last_seq >= f.last_seq)";
        let text = format!(
            "SELECT COUNT(CASE WHEN f.lost IS NULL THEN 1 END) AS open, \
             COUNT(CASE WHEN f.lost IS NOT NULL AND NOT {noted} THEN 1 END) AS lost, \
             COUNT(CASE WHEN f.lost IS NOT NULL AND {noted} THEN 1 END) AS acknowledged \
             FROM journal_faults f WHERE f.resolved IS NULL AND ($1 = '' OR f.node = $1)"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(node.map_or_else(String::new, ToString::to_string))
            .fetch_one(&mut *self.read().await?)
            .await?;
        Ok(FaultCounts {
            open: number_from_column(row.try_get("open")?),
            lost: number_from_column(row.try_get("lost")?),
            acknowledged: number_from_column(row.try_get("acknowledged")?),
        })
    }
}

/// Notes may overlap: each fault once, with the first note of it.
fn once(rows: &[AnyRow]) -> Result<Vec<Fault>, StoreError> {
    let mut faults: Vec<Fault> = Vec::new();
    for row in rows {
        let noted = noted_of(row)?;
        if faults.last().is_none_or(|last| last.fault != noted.fault) {
            faults.push(noted);
        }
    }
    Ok(faults)
}

fn noted_of(row: &AnyRow) -> Result<Fault, StoreError> {
    let note = match row.try_get::<Option<i64>, _>("acknowledged")? {
        Some(at) => Some(LossNote {
            at: time_from_column(at),
            operator: row.try_get("operator")?,
            reason: row.try_get("reason")?,
        }),
        None => None,
    };
    Ok(Fault {
        fault: fault_of(row)?,
        note,
    })
}
