//! Audit records: appended once, in one global order; where every journal stands; what is wrong with some.
//!
//! The newest stand in the *tail*, one row each. As soon as a checkpoint covers 256 leaves they become a *block*: its
//! hashes, and for each site one *part* of compressed and sealed columns and bodies (`sealing`). An index of keyed
//! terms says which blocks hold what filters ask for (`postings`); runs of leaves say which record of which journal
//! stands where (`runs`), which is also what makes storing a record twice impossible.

use edgeward_audit::digest::Digest;
use edgeward_audit::record::{BootId, Head, SealedRecord};
use edgeward_identity::{SpiffeId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

mod asked;
mod blocks;
mod check;
mod faults;
mod find;
mod keys;
pub(in crate::store) mod leaves;
mod losses;
mod old;
mod postings;
mod reach;
mod rows;
pub(in crate::store) mod runs;
mod sealing;
mod sites;
mod stats;
mod stored;
mod tail;
#[cfg(test)]
mod tests;
mod turns;

pub use blocks::SealedBlock;
pub use faults::{FaultKind, Gap, JournalFault, MAX_FAULTS};
pub use find::{MAX_EXAMINED, MAX_PAGE_BYTES, Page, PageLimits};
pub use keys::JournalKeyRow;
pub use leaves::{Body, Leaf, Leaves};
pub use losses::{Fault, FaultCounts, LossNote};
pub use reach::Reach;
pub use sealing::Sealed;
pub use stats::{Bucket, MAX_COUNTED, Stats, StatsFault};
pub use stored::StoredEvent;
pub use turns::{MAX_TURNS, TurnRow};

/// Where one boot's journal stands: everything from 0 to `last_seq` is stored, but for what is missing ([`Gap`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJournal {
    pub node: SpiffeId,
    pub boot: BootId,
    pub last_seq: u64,
    pub head: Digest,
    pub opened: Timestamp,
    pub updated: Timestamp,
}

impl Tx {
    /// The last stored record of one boot.
    pub async fn journal_head(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
    ) -> Result<Option<Head>, StoreError> {
        sqlx::query("SELECT last_seq, head FROM journals WHERE node = $1 AND boot = $2")
            .bind(node.to_string())
            .bind(boot.to_string())
            .fetch_optional(self.connection())
            .await?
            .map(|row| head_of(&row))
            .transpose()
    }

    /// The newest boot of a keeper, and its last stored record.
    pub async fn newest_journal(
        &mut self,
        node: &SpiffeId,
    ) -> Result<Option<(BootId, Head)>, StoreError> {
        sqlx::query(
            "SELECT boot, last_seq, head FROM journals WHERE node = $1 ORDER BY opened_leaf DESC LIMIT 1",
        )
        .bind(node.to_string())
        .fetch_optional(self.connection())
        .await?
        .map(|row| Ok((parse_column("boot id", row.try_get("boot")?)?, head_of(&row)?)))
        .transpose()
    }

    /// Whether this keeper has a journal of another boot than `boot`.
    pub async fn has_other_journal(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
    ) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT boot FROM journals WHERE node = $1 AND boot <> $2 LIMIT 1")
            .bind(node.to_string())
            .bind(boot.to_string())
            .fetch_optional(self.connection())
            .await?;
        Ok(row.is_some())
    }

    /// Appends records of one boot that continue its chain (the caller has checked that), and moves its head.
    pub async fn append_records(
        &mut self,
        records: &[SealedRecord],
        received: Timestamp,
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let leaf = self.next_leaf().await?;
        let end = leaf + records.len() as u64;
        let (node, boot) = (
            first.record().node.to_string(),
            first.record().boot.to_string(),
        );
        let known = self.journal_by_name(&node, &boot).await?;
        self.note_run(known.unwrap_or(leaf), records, leaf).await?;
        self.put_tail(records, leaf, received).await?;
        sqlx::query(
            "INSERT INTO journals (node, boot, last_seq, head, opened_leaf, opened, updated, last_leaf) \
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7) ON CONFLICT (node, boot) \
             DO UPDATE SET last_seq = excluded.last_seq, head = excluded.head, updated = excluded.updated, \
             last_leaf = excluded.last_leaf",
        )
        .bind(node)
        .bind(boot)
        .bind(number_to_column(last.record().seq))
        .bind(last.hash().to_string())
        .bind(number_to_column(leaf))
        .bind(to_column(received))
        .bind(number_to_column(end - 1))
        .execute(self.connection())
        .await?;
        self.appended = Some(end);
        Ok(())
    }

    /// Appends records that were missing below the head of their chain, which stays where it is.
    pub async fn append_missing(
        &mut self,
        records: &[SealedRecord],
        head: Head,
        received: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(first) = records.first() else {
            return Ok(());
        };
        self.append_records(records, received).await?;
        sqlx::query("UPDATE journals SET last_seq = $1, head = $2 WHERE node = $3 AND boot = $4")
            .bind(number_to_column(head.seq))
            .bind(head.hash.to_string())
            .bind(first.record().node.to_string())
            .bind(first.record().boot.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

impl Store {
    /// The sequence number that is due next from one boot of a node: 0 if nothing is stored.
    pub async fn next_record(&self, node: &SpiffeId, boot: BootId) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT last_seq FROM journals WHERE node = $1 AND boot = $2")
            .bind(node.to_string())
            .bind(boot.to_string())
            .fetch_optional(&mut *self.read().await?)
            .await?;
        row.map_or(Ok(0), |row| {
            Ok(number_from_column(row.try_get("last_seq")?) + 1)
        })
    }

    /// The journals of one keeper, or of all, oldest first.
    pub async fn journals(
        &self,
        node: Option<&SpiffeId>,
        limit: u32,
    ) -> Result<Vec<StoredJournal>, StoreError> {
        sqlx::query(
            "SELECT node, boot, last_seq, head, opened, updated FROM journals \
             WHERE $1 = '' OR node = $1 ORDER BY opened_leaf LIMIT $2",
        )
        .bind(node.map_or_else(String::new, ToString::to_string))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(journal_of)
        .collect()
    }

    /// Changes whenever this process has appended events. Other clouds' appends do not show here.
    pub fn appended(&self) -> tokio::sync::watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// How many events of the log are covered by a checkpoint of this process's log.
    pub fn covered(&self) -> tokio::sync::watch::Receiver<u64> {
        self.committed.covered()
    }

    /// How many events the log holds, as far as this process appended them.
    pub(crate) fn stored(&self) -> u64 {
        self.committed.stored()
    }

    /// A checkpoint covers the first `size` events.
    pub(crate) fn cover(&self, size: u64) {
        self.committed.cover(size);
    }

    /// From now on only checkpoints cover.
    pub(crate) fn cover_by_checkpoints(&self) {
        self.committed.cover_at_once(false);
    }
}

fn head_of(row: &AnyRow) -> Result<Head, StoreError> {
    Ok(Head {
        seq: number_from_column(row.try_get("last_seq")?),
        hash: parse_column("hash", row.try_get("head")?)?,
    })
}

fn journal_of(row: &AnyRow) -> Result<StoredJournal, StoreError> {
    Ok(StoredJournal {
        node: parse_column("spiffe id", row.try_get("node")?)?,
        boot: parse_column("boot id", row.try_get("boot")?)?,
        last_seq: number_from_column(row.try_get("last_seq")?),
        head: parse_column("hash", row.try_get("head")?)?,
        opened: time_from_column(row.try_get("opened")?),
        updated: time_from_column(row.try_get("updated")?),
    })
}
