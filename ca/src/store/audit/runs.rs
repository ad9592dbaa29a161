//! Where the records of each boot stand in the log: runs of records that follow each other in both.

use edgeward_audit::digest::Digest;
use edgeward_audit::record::{BootId, SealedRecord};
use edgeward_identity::SpiffeId;
use sqlx::{AnyConnection, Row};

use super::leaves::hash_at;
use crate::store::{StoreError, Tx, number_from_column, number_to_column};

impl Tx {
    /// The hash of a stored record.
    pub async fn record_hash(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        seq: u64,
    ) -> Result<Option<Digest>, StoreError> {
        record_hash(self.connection(), node, boot, seq).await
    }

    /// Whether one of the records `first..=last` is stored.
    pub async fn is_any_stored(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        first: u64,
        last: u64,
    ) -> Result<bool, StoreError> {
        let (node, boot) = (node.to_string(), boot.to_string());
        let Some(journal) = journal(self.connection(), &node, &boot).await? else {
            return Ok(false);
        };
        let run = run_at(self.connection(), journal, last).await?;
        Ok(run.is_some_and(|run| run.first_seq.saturating_add(run.length) > first))
    }

    /// Names the journal of a boot by the leaf of its first record; none if nothing of it is stored.
    pub(super) async fn journal_by_name(
        &mut self,
        node: &str,
        boot: &str,
    ) -> Result<Option<u64>, StoreError> {
        journal(self.connection(), node, boot).await
    }

    /// Notes that these records stand from `leaf` on. A record that stands somewhere already is [`StoreError::Exists`].
    pub(super) async fn note_run(
        &mut self,
        journal: u64,
        records: &[SealedRecord],
        leaf: u64,
    ) -> Result<(), StoreError> {
        let Some(first) = records.first().map(|first| first.record().seq) else {
            return Ok(());
        };
        let follow = (first..).zip(records).all(|(seq, sealed)| {
            let record = sealed.record();
            let node = records.first().map(|first| &first.record().node);
            let boot = records.first().map(|first| first.record().boot);
            record.seq == seq && Some(record.boot) == boot && Some(&record.node) == node
        });
        if !follow {
            return Err(StoreError::Unreadable {
                what: "run of records: they do not follow each other from",
                value: first.to_string(),
            });
        }
        self.put_run(journal, (first, records.len() as u64), leaf)
            .await
    }

    /// As [`Tx::note_run`], by the first number and how many.
    pub(super) async fn put_run(
        &mut self,
        journal: u64,
        (first, count): (u64, u64),
        leaf: u64,
    ) -> Result<(), StoreError> {
        let last = first.saturating_add(count).saturating_sub(1);
        let before = run_at(self.connection(), journal, last).await?;
        if let Some(before) = before {
            let end = before.first_seq.saturating_add(before.length);
            if end > first {
                return Err(StoreError::Exists);
            }
            if end == first && before.first_leaf.saturating_add(before.length) == leaf {
                sqlx::query(
                    "UPDATE journal_runs SET length = $1 WHERE journal = $2 AND first_seq = $3",
                )
                .bind(number_to_column(before.length + count))
                .bind(number_to_column(journal))
                .bind(number_to_column(before.first_seq))
                .execute(self.connection())
                .await?;
                return Ok(());
            }
        }
        sqlx::query(
            "INSERT INTO journal_runs (journal, first_seq, first_leaf, length) VALUES ($1, $2, $3, $4)",
        )
        .bind(number_to_column(journal))
        .bind(number_to_column(first))
        .bind(number_to_column(leaf))
        .bind(number_to_column(count))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

/// One run.
struct Run {
    first_seq: u64,
    first_leaf: u64,
    length: u64,
}

/// The last run of a journal that begins at `seq` or before.
async fn run_at(
    connection: &mut AnyConnection,
    journal: u64,
    seq: u64,
) -> Result<Option<Run>, StoreError> {
    let row = sqlx::query(
        "SELECT first_seq, first_leaf, length FROM journal_runs WHERE journal = $1 AND first_seq <= $2 \
         ORDER BY first_seq DESC LIMIT 1",
    )
    .bind(number_to_column(journal))
    .bind(number_to_column(seq))
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(Run {
            first_seq: number_from_column(row.try_get("first_seq")?),
            first_leaf: number_from_column(row.try_get("first_leaf")?),
            length: number_from_column(row.try_get("length")?),
        })
    })
    .transpose()
}

async fn journal(
    connection: &mut AnyConnection,
    node: &str,
    boot: &str,
) -> Result<Option<u64>, StoreError> {
    sqlx::query("SELECT opened_leaf FROM journals WHERE node = $1 AND boot = $2")
        .bind(node)
        .bind(boot)
        .fetch_optional(connection)
        .await?
        .map(|row| Ok(number_from_column(row.try_get("opened_leaf")?)))
        .transpose()
}

/// Where a record stands in the log; none if it is not stored.
pub(in crate::store) async fn leaf_of(
    connection: &mut AnyConnection,
    node: &SpiffeId,
    boot: BootId,
    seq: u64,
) -> Result<Option<u64>, StoreError> {
    let journal = journal(connection, &node.to_string(), &boot.to_string()).await?;
    let Some(journal) = journal else {
        return Ok(None);
    };
    let run = run_at(connection, journal, seq).await?;
    Ok(run.and_then(|run| {
        let within = seq.checked_sub(run.first_seq)?;
        (within < run.length).then(|| run.first_leaf.saturating_add(within))
    }))
}

pub(super) async fn record_hash(
    connection: &mut AnyConnection,
    node: &SpiffeId,
    boot: BootId,
    seq: u64,
) -> Result<Option<Digest>, StoreError> {
    match leaf_of(connection, node, boot, seq).await? {
        Some(leaf) => hash_at(connection, leaf).await,
        None => Ok(None),
    }
}
