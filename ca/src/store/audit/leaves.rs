//! Leaves of the log, wherever they stand: their entries for the tree, their records for whoever checks it.

use edgeward_audit::block::BLOCK_LEAVES;
use edgeward_audit::digest::{DIGEST_BYTES, Digest};
use edgeward_identity::Timestamp;
use sqlx::{AnyConnection, Row};

use super::tail::{missing_before, size};
use crate::store::{Store, StoreError, number_from_column, number_to_column};

/// Rows of the tail that are read by one statement.
const TAIL_ROWS: u64 = 1024;

/// Leaves that follow each other in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// Hashes of their records.
    pub entries: Vec<Digest>,
    /// When the first that is in no block yet was received.
    pub oldest: Option<Timestamp>,
}

/// A leaf, and what is left of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Of the record.
    pub hash: Digest,
    pub body: Body,
}

/// What is left of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Kept(Vec<u8>),
    /// The key of its site was destroyed.
    Erased,
    /// The key lives, and the record was taken out.
    LetGo,
}

impl Store {
    /// The last leaf of the log; none if it is empty.
    pub async fn last_leaf(&self) -> Result<Option<u64>, StoreError> {
        Ok(size(&mut *self.read().await?).await?.checked_sub(1))
    }

    /// What follows in the log from leaf `first` on, without a hole; `limit` leaves at most.
    pub async fn leaf_entries(&self, first: u64, limit: u32) -> Result<Leaves, StoreError> {
        let end = first.saturating_add(u64::from(limit));
        let mut leaves = Leaves::default();
        let mut connection = self.read().await?;
        loop {
            let next = first.saturating_add(leaves.entries.len() as u64);
            if next >= end {
                break;
            }
            let want = (end - next).min(TAIL_ROWS);
            if let Some(entries) = entries_of(&mut connection, next / BLOCK_LEAVES).await? {
                let start = usize::try_from(next % BLOCK_LEAVES).unwrap_or(0);
                let count = usize::try_from(want).unwrap_or(0);
                leaves
                    .entries
                    .extend(entries.iter().skip(start).take(count));
                continue;
            }
            let rows = sqlx::query(
                "SELECT leaf, hash, received FROM event_tail WHERE leaf >= (SELECT CAST($1 AS BIGINT)) ORDER BY leaf LIMIT $2",
            )
            .bind(number_to_column(next))
            .bind(number_to_column(want))
            .fetch_all(&mut *connection)
            .await?;
            for (leaf, row) in (next..).zip(&rows) {
                let found = number_from_column(row.try_get("leaf")?);
                if found != leaf {
                    // A block may have taken them at this moment: its entries are read then.
                    match entries_of(&mut connection, leaf / BLOCK_LEAVES).await? {
                        Some(_) => break,
                        None => return Err(missing_before(found)),
                    }
                }
                if leaves.oldest.is_none() {
                    let received = number_from_column(row.try_get("received")?);
                    leaves.oldest = Some(Timestamp::from_millis(received));
                }
                leaves.entries.push(digest_of(row.try_get("hash")?)?);
            }
            if rows.is_empty() {
                match entries_of(&mut connection, next / BLOCK_LEAVES).await? {
                    Some(_) => {}
                    None => break,
                }
            }
        }
        Ok(leaves)
    }

    /// The entry of a leaf: the hash of its record.
    pub async fn entry_at(&self, leaf: u64) -> Result<Option<Digest>, StoreError> {
        hash_at(&mut *self.read().await?, leaf).await
    }

    /// Leaves with their records from `first` on, without a hole: those of one block at most, `limit` at most.
    pub async fn leaf_records(&self, first: u64, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if let Some(whole) = self.block_leaves(first / BLOCK_LEAVES).await? {
            let start = usize::try_from(first % BLOCK_LEAVES).unwrap_or(0);
            return Ok(whole.into_iter().skip(start).take(limit).collect());
        }
        let rows = self.tail_from(first, limit.min(256) as u64).await?;
        if let Some(row) = rows.first().filter(|row| row.leaf != first) {
            // As above.
            return match self.block_leaves(first / BLOCK_LEAVES).await? {
                Some(whole) => {
                    let start = usize::try_from(first % BLOCK_LEAVES).unwrap_or(0);
                    Ok(whole.into_iter().skip(start).take(limit).collect())
                }
                None => Err(missing_before(row.leaf)),
            };
        }
        let keys = self.site_keys();
        rows.iter()
            .map(|row| {
                let body = match row.open(keys)? {
                    Some(record) => Body::Kept(record.into_parts().1),
                    None => Body::Erased,
                };
                Ok(Leaf {
                    hash: row.hash,
                    body,
                })
            })
            .collect()
    }
}

/// The hash of the record at a leaf; none where there is none.
pub(super) async fn hash_at(
    connection: &mut AnyConnection,
    leaf: u64,
) -> Result<Option<Digest>, StoreError> {
    for _ in 0..2 {
        let row = sqlx::query("SELECT hash FROM event_tail WHERE leaf = $1")
            .bind(number_to_column(leaf))
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            return Ok(Some(digest_of(row.try_get("hash")?)?));
        }
        if let Some(entries) = entries_of(connection, leaf / BLOCK_LEAVES).await? {
            let place = usize::try_from(leaf % BLOCK_LEAVES).unwrap_or(0);
            return Ok(entries.get(place).copied());
        }
        // Nowhere; unless a block took it between the two.
    }
    Ok(None)
}

/// The entries of a block; none if there is no such block.
pub(super) async fn entries_of(
    connection: &mut AnyConnection,
    block: u64,
) -> Result<Option<Vec<Digest>>, StoreError> {
    let row = sqlx::query("SELECT entries FROM event_blocks WHERE block = $1")
        .bind(number_to_column(block))
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let entries = digests_of(row.try_get("entries")?)?;
    match entries.len() as u64 == BLOCK_LEAVES {
        true => Ok(Some(entries)),
        false => Err(StoreError::Unreadable {
            what: "entries of block",
            value: block.to_string(),
        }),
    }
}

/// Hashes, one after the other.
pub(in crate::store) fn digests_of(bytes: &[u8]) -> Result<Vec<Digest>, StoreError> {
    match bytes.as_chunks::<DIGEST_BYTES>() {
        (hashes, []) => Ok(hashes.iter().copied().map(Digest::from_bytes).collect()),
        _ => Err(StoreError::Unreadable {
            what: "hashes",
            value: format!("{} bytes", bytes.len()),
        }),
    }
}

pub(super) fn digest_of(bytes: &[u8]) -> Result<Digest, StoreError> {
    match digests_of(bytes)?.as_slice() {
        [one] => Ok(*one),
        _ => Err(StoreError::Unreadable {
            what: "hash",
            value: hex::encode(bytes),
        }),
    }
}

/// As [`digests_of`] reads them.
pub(in crate::store) fn to_bytes(digests: &[Digest]) -> Vec<u8> {
    digests
        .iter()
        .flat_map(|digest| digest.as_bytes().iter().copied())
        .collect()
}
