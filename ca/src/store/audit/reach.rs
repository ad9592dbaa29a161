//! How far journals are stored without a hole, and how much of the log must be covered for that.

use edgeward_audit::block::BLOCK_LEAVES;
use edgeward_audit::digest::Digest;
use edgeward_audit::record::{BootId, SealedRecord};
use edgeward_identity::SpiffeId;
use sqlx::{AnyConnection, Row};

use super::blocks::bodies_of;
use super::faults::gaps;
use super::head_of;
use super::runs::{leaf_of, record_hash};
use super::sealing::Sealed;
use super::tail::{missing_before, tail_at};
use crate::store::pruned::minimum_index;
use crate::store::{Store, StoreError, Tx, number_from_column, parse_column};

/// Everything of `boot` below `next_seq` is in the first `leaves` leaves of the log, apart from what the node signed as
/// lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub boot: BootId,
    pub next_seq: u64,
    /// Of the record before it.
    pub hash: Digest,
    pub leaves: u64,
}

impl Tx {
    /// How far a boot is stored without a hole, if it is stored up to `next_seq`; none where nothing is.
    pub async fn reach(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        next_seq: u64,
    ) -> Result<Option<Reach>, StoreError> {
        reach(self.connection(), node, boot, next_seq).await
    }

    /// What a stored record says of the one before; none as well where it was erased or pruned.
    pub async fn record_prev(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        seq: u64,
    ) -> Result<Option<Digest>, StoreError> {
        let leaf = leaf_of(self.connection(), node, boot, seq).await?;
        match leaf {
            Some(leaf) => self.prev_at(leaf).await,
            None => Ok(None),
        }
    }

    async fn prev_at(&mut self, leaf: u64) -> Result<Option<Digest>, StoreError> {
        let keys = self.site_keys.clone();
        if let Some(row) = tail_at(self.connection(), leaf).await? {
            return Ok(row.open(&keys)?.map(|record| record.record().prev));
        }
        let block = leaf / BLOCK_LEAVES;
        let sealed = Sealed::Bodies(block);
        for part in bodies_of(self.connection(), block).await? {
            let number = part
                .places
                .iter()
                .position(|place| u64::from(place) == leaf % BLOCK_LEAVES);
            let Some(number) = number else { continue };
            let Some(bodies) = part.bodies(block, &keys)? else {
                return Ok(None);
            };
            let record = bodies
                .record(number)
                .ok_or_else(|| sealed.damaged("a record is missing"))?;
            let record = SealedRecord::parse(record).map_err(|error| sealed.damaged(error))?;
            return Ok(Some(record.record().prev));
        }
        match leaf < minimum_index(self.connection()).await? {
            true => Ok(None),
            false => Err(missing_before(leaf + 1)),
        }
    }

    /// Whether a boot other than `but` began after `boot` did, as far as is stored.
    pub async fn has_newer_journal(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        but: BootId,
    ) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT boot FROM journals WHERE node = $1 AND boot <> $3 AND opened_leaf > \
             (SELECT opened_leaf FROM journals WHERE node = $1 AND boot = $2) LIMIT 1",
        )
        .bind(node.to_string())
        .bind(boot.to_string())
        .bind(but.to_string())
        .fetch_optional(self.connection())
        .await?;
        Ok(row.is_some())
    }
}

impl Store {
    /// Where a record stands in the log; none if it is not stored.
    pub async fn leaf_of(
        &self,
        node: &SpiffeId,
        boot: BootId,
        seq: u64,
    ) -> Result<Option<u64>, StoreError> {
        leaf_of(&mut *self.read().await?, node, boot, seq).await
    }

    /// How far the journals of a node are stored, from the boot `oldest` on, in their order.
    pub async fn reaches(
        &self,
        node: &SpiffeId,
        oldest: BootId,
        limit: u32,
    ) -> Result<Vec<Reach>, StoreError> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT boot, last_seq FROM journals WHERE node = $1 AND opened_leaf >= \
             (SELECT opened_leaf FROM journals WHERE node = $1 AND boot = $2) ORDER BY opened_leaf LIMIT $3",
        )
        .bind(node.to_string())
        .bind(oldest.to_string())
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
        let mut reaches = Vec::with_capacity(rows.len());
        for row in rows {
            let boot = parse_column("boot id", row.try_get("boot")?)?;
            let next = number_from_column(row.try_get("last_seq")?).saturating_add(1);
            reaches.extend(reach(&mut connection, node, boot, next).await?);
        }
        Ok(reaches)
    }
}

async fn reach(
    connection: &mut AnyConnection,
    node: &SpiffeId,
    boot: BootId,
    next_seq: u64,
) -> Result<Option<Reach>, StoreError> {
    let hole = gaps(connection, node, boot)
        .await?
        .into_iter()
        .find(|gap| !gap.lost);
    let next_seq = hole.map_or(next_seq, |hole| hole.first_seq.min(next_seq));
    let Some(last) = next_seq.checked_sub(1) else {
        return Ok(None);
    };
    let head = sqlx::query("SELECT last_seq, head FROM journals WHERE node = $1 AND boot = $2")
        .bind(node.to_string())
        .bind(boot.to_string())
        .fetch_optional(&mut *connection)
        .await?
        .map(|row| head_of(&row))
        .transpose()?;
    let hash = match head {
        // What is mostly asked for, without a look at the log.
        Some(head) if head.seq == last => Some(head.hash),
        Some(_) | None => record_hash(connection, node, boot, last).await?,
    };
    let Some(hash) = hash else { return Ok(None) };
    // What filled a hole later stands behind what follows it: all of the node's leaves are waited for.
    let row = sqlx::query("SELECT MAX(last_leaf) AS leaf FROM journals WHERE node = $1")
        .bind(node.to_string())
        .fetch_one(connection)
        .await?;
    let leaf: Option<i64> = row.try_get("leaf")?;
    Ok(leaf.map(|leaf| Reach {
        boot,
        next_seq,
        hash,
        leaves: number_from_column(leaf).saturating_add(1),
    }))
}
