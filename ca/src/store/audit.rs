//! Audit records: appended once, in one global order; where every journal stands; what is wrong with some.

use edgeward_audit::digest::Digest;
use edgeward_audit::event::Event;
use edgeward_audit::merkle::leaf_hash;
use edgeward_audit::record::{BootId, Head, SealedRecord};
use edgeward_identity::{SpiffeId, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

mod conditions;
mod faults;
mod find;
mod keys;
mod leads;
mod losses;
mod query;
mod reach;
mod spans;
mod stats;
#[cfg(test)]
mod tests;
mod turns;

pub use faults::{FaultKind, Gap, JournalFault, MAX_FAULTS};
pub use find::{MAX_EXAMINED, MAX_PAGE_BYTES, Page, PageLimits};
pub use keys::JournalKeyRow;
pub use losses::{Fault, FaultCounts, LossNote};
pub use query::StoredEvent;
pub use reach::Reach;
pub use stats::{Bucket, MAX_COUNTED, Stats, StatsFault};
pub use turns::{MAX_TURNS, TurnRow};

/// Records in one `INSERT`: few statements to prepare, far below both databases' limits on parameters.
const INSERT_ROWS: usize = 32;
const EVENT_COLUMNS: usize = 14;

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

    /// The hash of a stored record.
    pub async fn record_hash(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        seq: u64,
    ) -> Result<Option<Digest>, StoreError> {
        sqlx::query("SELECT hash FROM events WHERE node = $1 AND boot = $2 AND seq = $3")
            .bind(node.to_string())
            .bind(boot.to_string())
            .bind(number_to_column(seq))
            .fetch_optional(self.connection())
            .await?
            .map(|row| parse_column("hash", row.try_get("hash")?))
            .transpose()
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
        let row = sqlx::query("SELECT COALESCE(MAX(leaf), -1) AS leaf FROM events")
            .fetch_one(self.connection())
            .await?;
        let mut leaf: i64 = row.try_get("leaf")?;
        let first_leaf = leaf + 1;
        for chunk in records.chunks(INSERT_ROWS) {
            let mut query = sqlx::query(AssertSqlSafe(insert_events(chunk.len())));
            for sealed in chunk {
                leaf += 1;
                let (record, event) = (sealed.record(), sealed.event());
                query = query
                    .bind(leaf)
                    .bind(record.node.to_string())
                    .bind(record.boot.to_string())
                    .bind(number_to_column(record.seq))
                    .bind(sealed.hash().to_string())
                    .bind(leaf_hash(sealed.hash().as_bytes()).to_string())
                    .bind(to_column(event.time))
                    .bind(to_column(received))
                    .bind(event.kind.name())
                    .bind(event.actor.to_string())
                    .bind(event.subject.as_ref().map(ToString::to_string))
                    .bind(event.verdict.as_str())
                    .bind(event.rule.as_ref().map(ToString::to_string))
                    .bind(String::from_utf8_lossy(sealed.bytes()).into_owned());
            }
            query.execute(self.connection()).await?;
        }
        self.index_records(records, number_from_column(first_leaf))
            .await?;
        sqlx::query(
            "INSERT INTO journals (node, boot, last_seq, head, opened_leaf, opened, updated) \
             VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (node, boot) \
             DO UPDATE SET last_seq = excluded.last_seq, head = excluded.head, updated = excluded.updated",
        )
        .bind(first.record().node.to_string())
        .bind(first.record().boot.to_string())
        .bind(number_to_column(last.record().seq))
        .bind(last.hash().to_string())
        .bind(first_leaf)
        .bind(to_column(received))
        .execute(self.connection())
        .await?;
        self.appended = Some(number_from_column(leaf + 1));
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

    /// A checkpoint covers the first `size` events.
    pub(crate) fn cover(&self, size: u64) {
        self.committed.cover(size);
    }

    /// From now on only checkpoints cover.
    pub(crate) fn cover_by_checkpoints(&self) {
        self.committed.cover_at_once(false);
    }
}

fn insert_events(rows: usize) -> String {
    let mut text = String::from(
        "INSERT INTO events (leaf, node, boot, seq, hash, leaf_hash, time, received, type, actor, subject, \
         verdict, rule, record) VALUES ",
    );
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=EVENT_COLUMNS {
            let separator = if column == 1 { "" } else { ", " };
            text.push_str(&format!("{separator}${}", row * EVENT_COLUMNS + column));
        }
        text.push(')');
    }
    text
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

/// The event inside of a stored record, and whether it is only claimed.
fn event_of(record: &str) -> Result<(Event, bool), StoreError> {
    SealedRecord::parse(record.as_bytes())
        .map(|sealed| (sealed.event().clone(), sealed.is_claimed()))
        .map_err(|_| StoreError::Unreadable {
            what: "record",
            value: record.to_owned(),
        })
}
