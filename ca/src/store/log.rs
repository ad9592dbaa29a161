//! The log's tree: its tiles and its checkpoints.

use std::collections::BTreeSet;

use edgeward_audit::digest::Digest;
use edgeward_audit::merkle::{ProofError, consistency_proof, inclusion_proof};
use edgeward_audit::tiles::{TileAt, TileNodes, tiles_of_consistency, tiles_of_inclusion};
use edgeward_identity::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::audit::leaves::{digests_of, to_bytes};
use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

/// Tiles in one `SELECT`.
const TILES_AT_ONCE: usize = 64;
/// Milliseconds in an hour.
const HOUR: u64 = 3_600_000;

/// A checkpoint that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    pub size: u64,
    pub root: Digest,
    /// The signed note, without cosignatures.
    pub note: String,
    pub signed: Timestamp,
}

/// A proof cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl Store {
    /// The checkpoint with the largest tree.
    pub async fn newest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, StoreError> {
        newest_checkpoint(&mut *self.read().await?).await
    }

    /// Kept checkpoints of trees larger than `after`, smallest first.
    pub async fn checkpoints(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredCheckpoint>, StoreError> {
        sqlx::query(
            "SELECT size, root, note, signed FROM log_checkpoints WHERE size > $1 ORDER BY size LIMIT $2",
        )
        .bind(number_to_column(after))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(checkpoint_of)
        .collect()
    }

    /// Those of these tiles that exist, as wide as they are stored.
    pub async fn log_tiles(&self, wanted: &BTreeSet<TileAt>) -> Result<TileNodes, StoreError> {
        let wanted: Vec<TileAt> = wanted.iter().copied().collect();
        let mut tiles = TileNodes::new();
        let mut connection = self.read().await?;
        for some in wanted.chunks(TILES_AT_ONCE) {
            let conditions: Vec<String> = (0..some.len())
                .map(|n| format!("(level = ${} AND idx = ${})", 2 * n + 1, 2 * n + 2))
                .collect();
            let text = format!(
                "SELECT level, idx, hashes FROM log_tiles WHERE {}",
                conditions.join(" OR ")
            );
            let mut query = sqlx::query(AssertSqlSafe(text));
            for (level, index) in some {
                query = query.bind(i64::from(*level)).bind(number_to_column(*index));
            }
            for row in query.fetch_all(&mut *connection).await? {
                let level: i64 = row.try_get("level")?;
                let index = number_from_column(row.try_get("idx")?);
                let level = u8::try_from(level).map_err(|_| unreadable("tile level", level))?;
                tiles.insert((level, index), digests_of(row.try_get("hashes")?)?);
            }
        }
        Ok(tiles)
    }

    /// The proof that the tree of `to` leaves, which a checkpoint covers, continues that of its first `from`; empty where
    /// they are the same.
    pub async fn consistency(&self, from: u64, to: u64) -> Result<Vec<Digest>, TreeError> {
        if from == to {
            return Ok(Vec::new());
        }
        let tiles = self.log_tiles(&tiles_of_consistency(from, to)?).await?;
        Ok(consistency_proof(&tiles, from, to)?)
    }

    /// The proof that leaf `index` is in the tree of `size` leaves, which a checkpoint covers.
    pub async fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, TreeError> {
        let tiles = self.log_tiles(&tiles_of_inclusion(index, size)?).await?;
        Ok(inclusion_proof(&tiles, index, size)?)
    }
}

impl Tx {
    /// As [`Store::newest_checkpoint`], with all other writers waiting.
    pub async fn newest_checkpoint(&mut self) -> Result<Option<StoredCheckpoint>, StoreError> {
        newest_checkpoint(self.connection()).await
    }

    /// Writes a tile over what there was of it.
    pub async fn put_tile(&mut self, at: TileAt, hashes: &[Digest]) -> Result<(), StoreError> {
        let (level, index) = at;
        sqlx::query(
            "INSERT INTO log_tiles (level, idx, hashes) VALUES ($1, $2, $3) \
             ON CONFLICT (level, idx) DO UPDATE SET hashes = excluded.hashes",
        )
        .bind(i64::from(level))
        .bind(number_to_column(index))
        .bind(to_bytes(hashes))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Adds the newest checkpoint; of those before it in the same hour the first stays.
    pub async fn put_checkpoint(
        &mut self,
        checkpoint: &StoredCheckpoint,
    ) -> Result<(), StoreError> {
        let hour = number_to_column(checkpoint.signed.millis() / HOUR);
        sqlx::query(
            "DELETE FROM log_checkpoints WHERE hour = $1 \
             AND size > (SELECT MIN(size) FROM log_checkpoints WHERE hour = $1)",
        )
        .bind(hour)
        .execute(self.connection())
        .await?;
        sqlx::query(
            "INSERT INTO log_checkpoints (size, root, note, signed, hour) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(number_to_column(checkpoint.size))
        .bind(checkpoint.root.to_string())
        .bind(checkpoint.note.clone())
        .bind(to_column(checkpoint.signed))
        .bind(hour)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

async fn newest_checkpoint(
    connection: &mut AnyConnection,
) -> Result<Option<StoredCheckpoint>, StoreError> {
    sqlx::query("SELECT size, root, note, signed FROM log_checkpoints ORDER BY size DESC LIMIT 1")
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(checkpoint_of)
        .transpose()
}

fn checkpoint_of(row: &AnyRow) -> Result<StoredCheckpoint, StoreError> {
    Ok(StoredCheckpoint {
        size: number_from_column(row.try_get("size")?),
        root: parse_column("hash", row.try_get("root")?)?,
        note: row.try_get("note")?,
        signed: time_from_column(row.try_get("signed")?),
    })
}

fn unreadable(what: &'static str, value: impl ToString) -> StoreError {
    StoreError::Unreadable {
        what,
        value: value.to_string(),
    }
}
