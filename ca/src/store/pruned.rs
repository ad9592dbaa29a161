//! Pruning: the minimum index, and the deletion of what is below it, in transactions of bounded size. Tiles stay, and so
//! does what is known of journals: proofs of kept events and exactly-once need them.

use edgeward_audit::block::BLOCK_LEAVES;
use edgeward_identity::Timestamp;
use sqlx::{AnyConnection, Row};

use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, time_from_column, to_column,
};

/// Blocks that are deleted by one transaction.
const BLOCKS_AT_ONCE: u64 = 64;
/// Rows of the index of terms that one transaction looks at.
const TERMS_AT_ONCE: i64 = 20_000;

const ONE_TERM: &str = "DELETE FROM event_terms WHERE term >= $1 AND term <= $2 AND block < $3";
const SOME_TERMS: &str = "DELETE FROM event_terms WHERE term >= $1 AND term < $2 AND block < $3";
const ALL_TERMS: &str = "DELETE FROM event_terms WHERE term >= $1 AND term >= $2 AND block < $3";

/// What was pruned, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The smallest index whose event is kept; a multiple of a block's width.
    pub minimum: u64,
    /// Everything below is deleted.
    pub deleted: u64,
    /// Nothing in the index of terms points below this.
    pub terms_swept: u64,
    /// In words.
    pub policy: String,
    pub when: Timestamp,
}

impl Tx {
    /// Raises the minimum index: from now on nothing below is shown. False: it is not higher than it was.
    pub async fn raise_minimum(
        &mut self,
        minimum: u64,
        policy: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let raised = sqlx::query(
            "INSERT INTO log_pruned (one, minimum, deleted, policy, pruned) VALUES (1, $1, 0, $2, $3) \
             ON CONFLICT (one) DO UPDATE SET minimum = excluded.minimum, policy = excluded.policy, \
             pruned = excluded.pruned WHERE log_pruned.minimum < excluded.minimum",
        )
        .bind(number_to_column(minimum / BLOCK_LEAVES * BLOCK_LEAVES))
        .bind(policy)
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        Ok(raised.rows_affected() == 1)
    }
}

impl Store {
    /// What was pruned; none if nothing ever was.
    pub async fn pruned(&self) -> Result<Option<Pruned>, StoreError> {
        let row = sqlx::query(
            "SELECT minimum, deleted, terms_swept, policy, pruned FROM log_pruned WHERE one = 1",
        )
        .fetch_optional(&mut *self.read().await?)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Pruned {
            minimum: number_from_column(row.try_get("minimum")?),
            deleted: number_from_column(row.try_get("deleted")?),
            terms_swept: number_from_column(row.try_get("terms_swept")?),
            policy: row.try_get("policy")?,
            when: time_from_column(row.try_get("pruned")?),
        }))
    }

    /// The smallest index whose event is kept.
    pub async fn minimum_index(&self) -> Result<u64, StoreError> {
        minimum_index(&mut *self.read().await?).await
    }

    /// Deletes some of what is below the minimum index. False: nothing is left of it.
    pub async fn delete_pruned(&self) -> Result<bool, StoreError> {
        let Some(pruned) = self.pruned().await? else {
            return Ok(false);
        };
        if pruned.deleted >= pruned.minimum {
            return Ok(false);
        }
        let first = pruned.deleted / BLOCK_LEAVES;
        let end = (pruned.minimum / BLOCK_LEAVES).min(first + BLOCKS_AT_ONCE);
        let mut tx = self.begin("audit.prune").await?;
        for text in [
            "DELETE FROM event_parts WHERE block >= $1 AND block < $2",
            "DELETE FROM event_blocks WHERE block >= $1 AND block < $2",
        ] {
            sqlx::query(text)
                .bind(number_to_column(first))
                .bind(number_to_column(end))
                .execute(tx.connection())
                .await?;
        }
        sqlx::query("UPDATE log_pruned SET deleted = $1 WHERE one = 1 AND deleted < $1")
            .bind(number_to_column(end * BLOCK_LEAVES))
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes what points below the minimum out of a part of the index of terms, from `term` on, and says where the next
    /// part begins; none behind the last. What is left there for a while costs room and is never shown.
    pub async fn delete_pruned_terms(&self, term: i64) -> Result<Option<i64>, StoreError> {
        let minimum = number_to_column(self.minimum_index().await? / BLOCK_LEAVES);
        let next = sqlx::query(
            "SELECT term, block FROM event_terms WHERE term >= $1 ORDER BY term, block LIMIT 1 OFFSET $2",
        )
        .bind(term)
        .bind(TERMS_AT_ONCE)
        .fetch_optional(&mut *self.read().await?)
        .await?;
        let next: Option<(i64, i64)> = match next {
            Some(row) => Some((row.try_get("term")?, row.try_get("block")?)),
            None => None,
        };
        let (text, end, below, then) = match next {
            // One term alone has more rows than a part: it is taken block by block.
            Some((found, block)) if found == term && block < minimum => {
                (ONE_TERM, term, block, Some(term))
            }
            Some((found, _)) if found == term => {
                (ONE_TERM, term, minimum, Some(term.saturating_add(1)))
            }
            Some((found, _)) => (SOME_TERMS, found, minimum, Some(found)),
            None => (ALL_TERMS, term, minimum, None),
        };
        let mut tx = self.begin("audit.prune_terms").await?;
        sqlx::query(text)
            .bind(term)
            .bind(end)
            .bind(below)
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        Ok(then)
    }

    /// Notes that every part of the index was swept of what is below `minimum`.
    pub async fn note_swept(&self, minimum: u64) -> Result<(), StoreError> {
        let mut tx = self.begin("audit.swept").await?;
        sqlx::query("UPDATE log_pruned SET terms_swept = $1 WHERE one = 1 AND terms_swept < $1")
            .bind(number_to_column(minimum))
            .execute(tx.connection())
            .await?;
        tx.commit().await
    }

    /// When the first kept checkpoint that covers `size` leaves was signed: within an hour of when the last of them was
    /// stored, by the cloud's clock. Clocks of nodes play no part in what is deleted.
    pub async fn covered_since(&self, size: u64) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query(
            "SELECT signed FROM log_checkpoints WHERE size >= $1 ORDER BY size LIMIT 1",
        )
        .bind(number_to_column(size))
        .fetch_optional(&mut *self.read().await?)
        .await?;
        let signed: Option<i64> = row.map(|row| row.try_get("signed")).transpose()?;
        Ok(signed.map(time_from_column))
    }
}

/// The smallest index whose event is kept.
pub(super) async fn minimum_index(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT minimum FROM log_pruned WHERE one = 1")
        .fetch_optional(connection)
        .await?;
    let minimum: Option<i64> = row.map(|row| row.try_get("minimum")).transpose()?;
    Ok(minimum.map_or(0, number_from_column))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    store_tests! {
        async fn the_minimum_only_rises_and_deletion_ends(store) {
            let now = Timestamp::from_secs(9);
            assert_eq!(store.pruned().await.unwrap(), None);
            assert!(!store.delete_pruned().await.unwrap());
            for (minimum, raised) in [(512, true), (512, false), (256, false), (40_000, true)] {
                let mut tx = store.begin("test").await.unwrap();
                assert_eq!(tx.raise_minimum(minimum, "why", now).await.unwrap(), raised, "{minimum}");
                tx.commit().await.unwrap();
            }
            assert_eq!(store.minimum_index().await.unwrap(), 40_000 / 256 * 256);
            let mut turns = 0;
            while store.delete_pruned().await.unwrap() {
                turns += 1;
            }
            assert_eq!(turns, 3, "156 blocks, 64 at a time");
            let pruned = store.pruned().await.unwrap().unwrap();
            assert_eq!((pruned.deleted, pruned.policy.as_str()), (pruned.minimum, "why"));
            assert_eq!(store.delete_pruned_terms(i64::MIN).await.unwrap(), None);
            assert_eq!(store.covered_since(1).await.unwrap(), None);
        }
    }
}
