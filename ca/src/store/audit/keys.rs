//! The newest key of each boot's journal.

use edgeward_audit::record::{BootId, KeyChain};
use edgeward_identity::{PublicKey, SpiffeId};
use sqlx::Row;

use crate::store::{StoreError, Tx, number_from_column, number_to_column};

/// The key of a boot's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalKeyRow {
    pub chain: KeyChain,
    /// Where it was noticed that the next turn is overdue.
    pub overdue: Option<u64>,
}

impl Tx {
    /// The newest key that the turns of one boot have proven.
    pub async fn journal_key(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
    ) -> Result<Option<JournalKeyRow>, StoreError> {
        let row = sqlx::query(
            "SELECT number, public_key, seq, overdue FROM journal_keys WHERE node = $1 AND boot = $2",
        )
        .bind(node.to_string())
        .bind(boot.to_string())
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let text: String = row.try_get("public_key")?;
        let key = hex::decode(&text)
            .ok()
            .and_then(|point| PublicKey::from_point(&point).ok())
            .ok_or_else(|| StoreError::Unreadable {
                what: "journal key",
                value: text.clone(),
            })?;
        let number = number_from_column(row.try_get("number")?);
        let number = u32::try_from(number).map_err(|_| StoreError::Unreadable {
            what: "journal key",
            value: number.to_string(),
        })?;
        Ok(Some(JournalKeyRow {
            chain: KeyChain {
                number,
                key,
                seq: number_from_column(row.try_get("seq")?),
            },
            overdue: row
                .try_get::<Option<i64>, _>("overdue")?
                .map(number_from_column),
        }))
    }

    pub async fn set_journal_key(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        row: &JournalKeyRow,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO journal_keys (node, boot, number, public_key, seq, overdue) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (node, boot) DO UPDATE SET \
             number = excluded.number, public_key = excluded.public_key, seq = excluded.seq, \
             overdue = excluded.overdue",
        )
        .bind(node.to_string())
        .bind(boot.to_string())
        .bind(i64::from(row.chain.number))
        .bind(hex::encode(row.chain.key.point()))
        .bind(number_to_column(row.chain.seq))
        .bind(row.overdue.map(number_to_column))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
