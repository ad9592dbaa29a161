//! Policies as they were applied: sources, and the signature of the operator who did it.

use std::collections::BTreeMap;

use edgeward_identity::Timestamp;
use edgeward_policy::SourceFile;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, json_column, number_from_column, number_to_column, time_from_column,
    to_column, to_json_column,
};

/// Most policies in one answer.
const MAX_LISTED: i64 = 1000;

/// An applied policy without its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// From 1, without gaps.
    pub number: u64,
    /// SHA-256 of the sources, hex.
    pub hash: String,
    pub applied: Timestamp,
    pub applied_by: String,
    /// P-256 point of the operator's key, hex.
    pub key: String,
    /// ECDSA, DER, hex.
    pub signature: String,
    /// How much of what there is.
    pub summary: BTreeMap<String, u64>,
}

impl Store {
    /// Number of the newest policy; 0: none.
    pub async fn policy_number(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) AS number FROM policies")
            .fetch_one(&mut *self.read().await?)
            .await?;
        Ok(number_from_column(row.try_get("number")?))
    }

    /// Newest first.
    pub async fn policies(&self) -> Result<Vec<PolicyRow>, StoreError> {
        sqlx::query(
            "SELECT number, hash, applied, applied_by, public_key, signature, summary FROM policies \
             ORDER BY number DESC LIMIT $1",
        )
        .bind(MAX_LISTED)
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(policy_of)
        .collect()
    }

    /// One policy with its sources.
    pub async fn policy(
        &self,
        number: u64,
    ) -> Result<Option<(PolicyRow, Vec<SourceFile>)>, StoreError> {
        sqlx::query(
            "SELECT number, hash, applied, applied_by, public_key, signature, summary, files FROM policies \
             WHERE number = $1",
        )
        .bind(number_to_column(number))
        .fetch_optional(&mut *self.read().await?)
        .await?
        .map(|row| {
            let files: Vec<(String, String)> = json_column("policy files", row.try_get("files")?)?;
            let files = files
                .into_iter()
                .map(|(path, text)| SourceFile::new(path, text))
                .collect();
            Ok((policy_of(&row)?, files))
        })
        .transpose()
    }
}

impl Tx {
    /// Adds a policy; [`StoreError::Exists`] if its number is taken.
    pub async fn add_policy(
        &mut self,
        policy: &PolicyRow,
        files: &[SourceFile],
    ) -> Result<(), StoreError> {
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|file| (file.path.as_str(), file.text.as_str()))
            .collect();
        sqlx::query(
            "INSERT INTO policies (number, hash, applied, applied_by, public_key, signature, summary, files) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(number_to_column(policy.number))
        .bind(policy.hash.as_str())
        .bind(to_column(policy.applied))
        .bind(policy.applied_by.as_str())
        .bind(policy.key.as_str())
        .bind(policy.signature.as_str())
        .bind(to_json_column(&policy.summary))
        .bind(to_json_column(&files))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Number of the newest policy, inside the transaction.
    pub async fn policy_number(&mut self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) AS number FROM policies")
            .fetch_one(self.connection())
            .await?;
        Ok(number_from_column(row.try_get("number")?))
    }
}

fn policy_of(row: &AnyRow) -> Result<PolicyRow, StoreError> {
    Ok(PolicyRow {
        number: number_from_column(row.try_get("number")?),
        hash: row.try_get("hash")?,
        applied: time_from_column(row.try_get("applied")?),
        applied_by: row.try_get("applied_by")?,
        key: row.try_get("public_key")?,
        signature: row.try_get("signature")?,
        summary: json_column("policy summary", row.try_get("summary")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    fn policy(number: u64) -> PolicyRow {
        PolicyRow {
            number,
            hash: "ab".repeat(32),
            applied: Timestamp::from_secs(7),
            applied_by: "spiffe://plant.example/operator/li".to_owned(),
            key: "04".to_owned(),
            signature: "30".to_owned(),
            summary: BTreeMap::from([("rules".to_owned(), 3)]),
        }
    }

    store_tests! {
        async fn a_number_is_given_once(store) {
            let mut tx = store.begin("test").await.unwrap();
            tx.add_policy(&policy(1), &[]).await.unwrap();
            assert!(matches!(tx.add_policy(&policy(1), &[]).await, Err(StoreError::Exists)));
        }

        async fn sources_come_back_byte_for_byte(store) {
            assert_eq!(store.policy_number().await.unwrap(), 0);
            let files = vec![SourceFile::new("a/b.toml", "x = \"é\"\r\n"), SourceFile::new("c.toml", "")];
            let mut tx = store.begin("test").await.unwrap();
            tx.add_policy(&policy(1), &files).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.policy(1).await.unwrap(), Some((policy(1), files)));
            assert_eq!(store.policies().await.unwrap(), vec![policy(1)]);
            assert_eq!(store.policy(2).await.unwrap(), None);
            assert_eq!(store.policy_number().await.unwrap(), 1);
        }
    }
}
