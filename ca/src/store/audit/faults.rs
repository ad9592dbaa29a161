//! What is wrong with journals: ranges that are missing, two records for one number, journals that went back. And what
//! nodes said of their journals' ends.

use edgeward_audit::digest::Digest;
use edgeward_audit::record::{BootId, Head};
use edgeward_identity::{SpiffeId, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::store::{
    Store, StoreError, Tx, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

/// Most rows of one boot: a node that skips numbers all the time gets wider ranges instead of more of them.
pub const MAX_FAULTS: usize = 64;
/// Of how many boots of one node the stated end is remembered.
const MAX_HEADS: i64 = 8;

/// What is wrong with the journal of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Records that were never received.
    Missing,
    /// Two different records for one sequence number.
    Forked,
    /// The node says that the journal ends before what is stored.
    RolledBack,
    /// The node says that it kept no journal before, but it did.
    Restarted,
}

/// A fault of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalFault {
    pub node: SpiffeId,
    pub boot: BootId,
    pub first_seq: u64,
    pub last_seq: u64,
    pub kind: FaultKind,
    pub noticed: Timestamp,
    /// When the node signed that it does not have the missing records any more.
    pub lost: Option<Timestamp>,
    /// When the missing records arrived after all.
    pub resolved: Option<Timestamp>,
}

/// A range of one boot that is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub first_seq: u64,
    pub last_seq: u64,
    /// The node signed that it does not have it any more.
    pub lost: bool,
}

impl FaultKind {
    pub const ALL: [Self; 4] = [
        Self::Missing,
        Self::Forked,
        Self::RolledBack,
        Self::Restarted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Forked => "forked",
            Self::RolledBack => "rolled_back",
            Self::Restarted => "restarted",
        }
    }
}

impl Gap {
    pub fn overlaps(&self, first: u64, last: u64) -> bool {
        self.first_seq <= last && first <= self.last_seq
    }
}

impl Tx {
    /// What of a boot is missing, in order.
    pub async fn gaps(&mut self, node: &SpiffeId, boot: BootId) -> Result<Vec<Gap>, StoreError> {
        gaps(self.connection(), node, boot).await
    }

    /// Notes a fault; false if the same one was known already.
    pub async fn note_fault(&mut self, fault: &JournalFault) -> Result<bool, StoreError> {
        let known = self.faults_of(fault).await?;
        let same = |(first_seq, resolved): &(u64, bool)| *first_seq == fault.first_seq && !resolved;
        let is_known = known.iter().any(same);
        let has_row = known.iter().any(|(first, _)| *first == fault.first_seq);
        if known.len() >= MAX_FAULTS && !has_row {
            match known.iter().find(|(_, resolved)| *resolved) {
                Some((settled, _)) => self.forget_fault(fault, *settled).await?,
                None => {
                    let newest = known.last().map_or(0, |(first, _)| *first);
                    self.widen_fault(fault, newest).await?;
                    return Ok(false);
                }
            }
        }
        sqlx::query(
            "INSERT INTO journal_faults (node, boot, kind, first_seq, last_seq, noticed) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (node, boot, kind, first_seq) DO UPDATE SET \
             last_seq = CASE WHEN journal_faults.resolved IS NULL AND journal_faults.last_seq > excluded.last_seq \
             THEN journal_faults.last_seq ELSE excluded.last_seq END, \
             lost = CASE WHEN journal_faults.resolved IS NULL AND journal_faults.last_seq >= excluded.last_seq \
             THEN journal_faults.lost ELSE NULL END, resolved = NULL",
        )
        .bind(fault.node.to_string())
        .bind(fault.boot.to_string())
        .bind(fault.kind.as_str())
        .bind(number_to_column(fault.first_seq))
        .bind(number_to_column(fault.last_seq))
        .bind(to_column(fault.noticed))
        .execute(self.connection())
        .await?;
        Ok(!is_known)
    }

    /// Sets what is missing of a boot, which was `before`, to `after`. What is in none of them any more has arrived.
    pub async fn replace_gap(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        before: Gap,
        after: &[Gap],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some((first, more)) = after.split_first() else {
            sqlx::query(
                "UPDATE journal_faults SET resolved = $1 WHERE node = $2 AND boot = $3 AND kind = 'missing' \
                 AND first_seq = $4",
            )
            .bind(to_column(now))
            .bind(node.to_string())
            .bind(boot.to_string())
            .bind(number_to_column(before.first_seq))
            .execute(self.connection())
            .await?;
            return Ok(());
        };
        sqlx::query(
            "UPDATE journal_faults SET first_seq = $1, last_seq = $2, lost = CASE WHEN $3 = 1 THEN COALESCE(lost, $4) END \
             WHERE node = $5 AND boot = $6 AND kind = 'missing' AND first_seq = $7",
        )
        .bind(number_to_column(first.first_seq))
        .bind(number_to_column(first.last_seq))
        .bind(i64::from(first.lost))
        .bind(to_column(now))
        .bind(node.to_string())
        .bind(boot.to_string())
        .bind(number_to_column(before.first_seq))
        .execute(self.connection())
        .await?;
        for gap in more {
            sqlx::query(
                "INSERT INTO journal_faults (node, boot, kind, first_seq, last_seq, noticed, lost) \
                 VALUES ($1, $2, 'missing', $3, $4, $5, CASE WHEN $6 = 1 THEN $5 END) \
                 ON CONFLICT (node, boot, kind, first_seq) DO NOTHING",
            )
            .bind(node.to_string())
            .bind(boot.to_string())
            .bind(number_to_column(gap.first_seq))
            .bind(number_to_column(gap.last_seq))
            .bind(to_column(now))
            .bind(i64::from(gap.lost))
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }

    /// Where a node said last that a boot's journal ends.
    pub async fn stated_head(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
    ) -> Result<Option<Head>, StoreError> {
        sqlx::query("SELECT seq, hash FROM journal_heads WHERE node = $1 AND boot = $2")
            .bind(node.to_string())
            .bind(boot.to_string())
            .fetch_optional(self.connection())
            .await?
            .map(|row| head_of(&row))
            .transpose()
    }

    /// Remembers it. It never goes back.
    pub async fn keep_stated_head(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        head: Head,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO journal_heads (node, boot, seq, hash, heard) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (node, boot) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, heard = excluded.heard \
             WHERE journal_heads.seq < excluded.seq",
        )
        .bind(node.to_string())
        .bind(boot.to_string())
        .bind(number_to_column(head.seq))
        .bind(head.hash.to_string())
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        sqlx::query(
            "DELETE FROM journal_heads WHERE node = $1 AND boot NOT IN \
             (SELECT boot FROM journal_heads WHERE node = $1 ORDER BY heard DESC LIMIT $2)",
        )
        .bind(node.to_string())
        .bind(MAX_HEADS)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// First number of each row of this boot and kind, in order, and whether it is settled.
    async fn faults_of(&mut self, fault: &JournalFault) -> Result<Vec<(u64, bool)>, StoreError> {
        sqlx::query(
            "SELECT first_seq, resolved FROM journal_faults WHERE node = $1 AND boot = $2 AND kind = $3 \
             ORDER BY first_seq",
        )
        .bind(fault.node.to_string())
        .bind(fault.boot.to_string())
        .bind(fault.kind.as_str())
        .fetch_all(self.connection())
        .await?
        .iter()
        .map(|row| {
            let resolved: Option<i64> = row.try_get("resolved")?;
            Ok((number_from_column(row.try_get("first_seq")?), resolved.is_some()))
        })
        .collect()
    }

    async fn forget_fault(&mut self, like: &JournalFault, first: u64) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM journal_faults WHERE node = $1 AND boot = $2 AND kind = $3 AND first_seq = $4",
        )
        .bind(like.node.to_string())
        .bind(like.boot.to_string())
        .bind(like.kind.as_str())
        .bind(number_to_column(first))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    async fn widen_fault(&mut self, fault: &JournalFault, first: u64) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE journal_faults SET last_seq = $1, lost = NULL WHERE node = $2 AND boot = $3 AND kind = $4 \
             AND first_seq = $5 AND last_seq < $1",
        )
        .bind(number_to_column(fault.last_seq))
        .bind(fault.node.to_string())
        .bind(fault.boot.to_string())
        .bind(fault.kind.as_str())
        .bind(number_to_column(first))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// What of a node's journals is missing and not known to be lost: at most `limit` ranges.
    pub async fn wanted(
        &self,
        node: &SpiffeId,
        limit: u32,
    ) -> Result<Vec<(BootId, Gap)>, StoreError> {
        sqlx::query(
            "SELECT boot, first_seq, last_seq, lost FROM journal_faults WHERE node = $1 AND kind = 'missing' \
             AND resolved IS NULL AND lost IS NULL ORDER BY noticed, first_seq LIMIT $2",
        )
        .bind(node.to_string())
        .bind(i64::from(limit))
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(|row| Ok((parse_column("boot id", row.try_get("boot")?)?, gap_of(row)?)))
        .collect()
    }

    /// The faults of one keeper's journals, or of all.
    pub async fn journal_faults(
        &self,
        node: Option<&SpiffeId>,
        limit: u32,
    ) -> Result<Vec<JournalFault>, StoreError> {
        sqlx::query(
            "SELECT node, boot, first_seq, last_seq, kind, noticed, lost, resolved FROM journal_faults \
             WHERE $1 = '' OR node = $1 ORDER BY noticed, boot, kind, first_seq LIMIT $2",
        )
        .bind(node.map_or_else(String::new, ToString::to_string))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(fault_of)
        .collect()
    }
}

impl std::str::FromStr for FaultKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(())
    }
}

pub(super) async fn gaps(
    connection: &mut AnyConnection,
    node: &SpiffeId,
    boot: BootId,
) -> Result<Vec<Gap>, StoreError> {
    sqlx::query(
        "SELECT first_seq, last_seq, lost FROM journal_faults WHERE node = $1 AND boot = $2 \
         AND kind = 'missing' AND resolved IS NULL ORDER BY first_seq",
    )
    .bind(node.to_string())
    .bind(boot.to_string())
    .fetch_all(connection)
    .await?
    .iter()
    .map(gap_of)
    .collect()
}

fn gap_of(row: &AnyRow) -> Result<Gap, StoreError> {
    Ok(Gap {
        first_seq: number_from_column(row.try_get("first_seq")?),
        last_seq: number_from_column(row.try_get("last_seq")?),
        lost: row.try_get::<Option<i64>, _>("lost")?.is_some(),
    })
}

fn head_of(row: &AnyRow) -> Result<Head, StoreError> {
    Ok(Head {
        seq: number_from_column(row.try_get("seq")?),
        hash: parse_column::<Digest>("hash", row.try_get("hash")?)?,
    })
}

pub(super) fn fault_of(row: &AnyRow) -> Result<JournalFault, StoreError> {
    let time = |name| -> Result<Option<Timestamp>, StoreError> {
        Ok(row.try_get::<Option<i64>, _>(name)?.map(time_from_column))
    };
    Ok(JournalFault {
        node: parse_column("spiffe id", row.try_get("node")?)?,
        boot: parse_column("boot id", row.try_get("boot")?)?,
        first_seq: number_from_column(row.try_get("first_seq")?),
        last_seq: number_from_column(row.try_get("last_seq")?),
        kind: parse_column("journal fault", row.try_get("kind")?)?,
        noticed: time_from_column(row.try_get("noticed")?),
        lost: time("lost")?,
        resolved: time("resolved")?,
    })
}
