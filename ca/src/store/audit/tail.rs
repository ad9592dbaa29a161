//! The tail: the newest events, one row each, until a block takes them.

use edgeward_audit::block::BLOCK_LEAVES;
use edgeward_audit::digest::Digest;
use edgeward_audit::record::SealedRecord;
use edgeward_identity::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::leaves::digest_of;
use super::rows::insert_all;
use super::sealing::{Sealed, seal_body};
use super::sites::Sites;
use crate::keys::sites::{SiteKeyId, SiteKeys};
use crate::store::erasures::{NEWEST_KEY, parse_newest};
use crate::store::{
    Store, StoreError, Tx, number_from_column, number_to_column, time_from_column, to_column,
};

const INSERT: (&str, usize) = (
    "INSERT INTO event_tail (leaf, hash, received, site_key, body)",
    5,
);

/// An event in the tail.
#[derive(Clone, Debug)]
pub(super) struct TailRow {
    pub(super) leaf: u64,
    pub(super) hash: Digest,
    pub(super) received: Timestamp,
    pub(super) key: SiteKeyId,
    /// Sealed.
    pub(super) body: Vec<u8>,
}

impl TailRow {
    /// The record; none if its key was erased.
    pub(super) fn open(&self, keys: &SiteKeys) -> Result<Option<SealedRecord>, StoreError> {
        let sealed = Sealed::Body(self.leaf);
        let Some(plain) = sealed.open(keys, self.key, &self.body)? else {
            return Ok(None);
        };
        let record = SealedRecord::parse(&plain).map_err(|error| sealed.damaged(error))?;
        match record.hash() == self.hash {
            true => Ok(Some(record)),
            false => Err(sealed.damaged("the record is not the leaf's")),
        }
    }
}

impl Tx {
    /// The leaf that is next. Asked before anything is sealed: it looks for keys that are newer.
    pub(super) async fn next_leaf(&mut self) -> Result<u64, StoreError> {
        match self.appended {
            Some(size) => Ok(size),
            None => {
                let (size, newest) = end(self.connection()).await?;
                self.follow_erasures(newest)?;
                Ok(size)
            }
        }
    }

    pub(super) async fn put_tail(
        &mut self,
        records: &[SealedRecord],
        first: u64,
        received: Timestamp,
    ) -> Result<(), StoreError> {
        let sites = Sites::default().of_all(self.connection(), records).await?;
        let mut rows = Vec::with_capacity(records.len());
        for ((leaf, record), site) in (first..).zip(records).zip(&sites) {
            let (key, body) = seal_body(&self.site_keys, site, leaf, record)?;
            rows.push(TailRow {
                leaf,
                hash: record.hash(),
                received,
                key,
                body,
            });
        }
        self.put_tail_rows(&rows).await
    }

    pub(super) async fn put_tail_rows(&mut self, rows: &[TailRow]) -> Result<(), StoreError> {
        insert_all(self.connection(), INSERT, rows, &|query, row| {
            query
                .bind(number_to_column(row.leaf))
                .bind(row.hash.as_bytes().to_vec())
                .bind(to_column(row.received))
                .bind(row.key.to_column())
                .bind(row.body.clone())
        })
        .await
    }
}

// The bounds stand in queries of their own, so that PostgreSQL does not plan by their values: few rows live among the many
// that were deleted since the last vacuum, most of them behind any bound, and it would read the whole table.
impl Store {
    /// The tail from leaf `first` on, in order and without a hole after its first row; `limit` rows at most.
    pub(super) async fn tail_from(
        &self,
        first: u64,
        limit: u64,
    ) -> Result<Vec<TailRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT leaf, hash, received, site_key, body FROM event_tail \
             WHERE leaf >= (SELECT CAST($1 AS BIGINT)) ORDER BY leaf LIMIT $2",
        )
        .bind(number_to_column(first))
        .bind(number_to_column(limit))
        .fetch_all(&mut *self.read().await?)
        .await?;
        let rows: Vec<TailRow> = rows.iter().map(tail_row).collect::<Result<_, _>>()?;
        match rows.windows(2).all(|two| match two {
            [one, next] => one.leaf + 1 == next.leaf,
            _ => true,
        }) {
            true => Ok(rows),
            false => Err(missing_before(rows.last().map_or(first, |last| last.leaf))),
        }
    }
}

/// The row of the tail at a leaf.
pub(super) async fn tail_at(
    connection: &mut AnyConnection,
    leaf: u64,
) -> Result<Option<TailRow>, StoreError> {
    sqlx::query("SELECT leaf, hash, received, site_key, body FROM event_tail WHERE leaf = $1")
        .bind(number_to_column(leaf))
        .fetch_optional(connection)
        .await?
        .map(|row| tail_row(&row))
        .transpose()
}

/// Number of leaves in the log.
pub(super) async fn size(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    Ok(end(connection).await?.0)
}

/// Number of leaves in the log, and the newest key that an erasure made: by one statement, which every append makes.
async fn end(connection: &mut AnyConnection) -> Result<(u64, Option<SiteKeyId>), StoreError> {
    // Not every database knows an empty maximum as a number.
    let row = sqlx::query(
        "SELECT COALESCE((SELECT MAX(leaf) FROM event_tail), -1) AS leaf, \
         COALESCE((SELECT MAX(block) FROM event_blocks), -1) AS block, \
         COALESCE((SELECT minimum FROM log_pruned WHERE one = 1), 0) AS minimum, \
         (SELECT value FROM facts WHERE name = $1) AS newest",
    )
    .bind(NEWEST_KEY)
    .fetch_one(connection)
    .await?;
    let (leaf, block): (i64, i64) = (row.try_get("leaf")?, row.try_get("block")?);
    let next = |last: i64| u64::try_from(last.saturating_add(1)).unwrap_or(0);
    let pruned = number_from_column(row.try_get("minimum")?);
    let size = next(leaf)
        .max(next(block).saturating_mul(BLOCK_LEAVES))
        .max(pruned);
    Ok((size, parse_newest(row.try_get("newest")?)?))
}

pub(super) fn missing_before(leaf: u64) -> StoreError {
    StoreError::Unreadable {
        what: "log: leaves are missing before",
        value: leaf.to_string(),
    }
}

fn tail_row(row: &AnyRow) -> Result<TailRow, StoreError> {
    Ok(TailRow {
        leaf: number_from_column(row.try_get("leaf")?),
        hash: digest_of(row.try_get("hash")?)?,
        received: time_from_column(row.try_get("received")?),
        key: SiteKeyId::from_column(row.try_get("site_key")?),
        body: row.try_get("body")?,
    })
}
