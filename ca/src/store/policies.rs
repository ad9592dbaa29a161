//! Policies as they were applied: sources, and the signature of the operator who did it.

use std::collections::BTreeMap;

use edgeward_evidence::Digest;
use edgeward_identity::Timestamp;
use edgeward_policy::SourceFile;
use serde::{Deserialize, Serialize};
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
    /// The earlier policy whose sources these are: it was gone back to.
    pub origin: Option<u64>,
}

/// A file as it is stored. Lists of digests are large and seldom change: they are kept once for all policies.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Text(String),
    List { sha256: String },
}

impl Store {
    /// Number of the newest policy; 0: none.
    pub async fn policy_number(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) AS number FROM policies")
            .fetch_one(&mut *self.read().await?)
            .await?;
        Ok(number_from_column(row.try_get("number")?))
    }

    /// Number of the policy in force everywhere, but for where a newer one is tried; 0: none.
    pub async fn policy_in_force(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT COALESCE(MAX(number), 0) AS number FROM policies \
             WHERE number NOT IN (SELECT number FROM rollouts WHERE phase <> 'done')",
        )
        .fetch_one(&mut *self.read().await?)
        .await?;
        Ok(number_from_column(row.try_get("number")?))
    }

    /// Newest first.
    pub async fn policies(&self) -> Result<Vec<PolicyRow>, StoreError> {
        sqlx::query(
            "SELECT number, hash, applied, applied_by, public_key, signature, summary, origin FROM policies \
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
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT number, hash, applied, applied_by, public_key, signature, summary, origin, files FROM policies \
             WHERE number = $1",
        )
        .bind(number_to_column(number))
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let stored: Vec<(String, Stored)> = json_column("policy files", row.try_get("files")?)?;
        let mut files = Vec::with_capacity(stored.len());
        for (path, stored) in stored {
            let text = match stored {
                Stored::Text(text) => text,
                Stored::List { sha256 } => {
                    sqlx::query("SELECT list FROM policy_lists WHERE hash = $1")
                        .bind(sha256)
                        .fetch_one(&mut *connection)
                        .await?
                        .try_get("list")?
                }
            };
            files.push(SourceFile::new(path, text));
        }
        Ok(Some((policy_of(&row)?, files)))
    }
}

impl Tx {
    /// Adds a policy; [`StoreError::Exists`] if its number is taken.
    pub async fn add_policy(
        &mut self,
        policy: &PolicyRow,
        files: &[SourceFile],
    ) -> Result<(), StoreError> {
        let mut stored = Vec::with_capacity(files.len());
        for file in files {
            let kept = match file.is_list() {
                true => Stored::List {
                    sha256: self.keep_list(&file.text).await?,
                },
                false => Stored::Text(file.text.clone()),
            };
            stored.push((file.path.as_str(), kept));
        }
        sqlx::query(
            "INSERT INTO policies (number, hash, applied, applied_by, public_key, signature, summary, origin, files) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(number_to_column(policy.number))
        .bind(policy.hash.as_str())
        .bind(to_column(policy.applied))
        .bind(policy.applied_by.as_str())
        .bind(policy.key.as_str())
        .bind(policy.signature.as_str())
        .bind(to_json_column(&policy.summary))
        .bind(policy.origin.map(number_to_column))
        .bind(to_json_column(&stored))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Its SHA-256, under which it is kept.
    async fn keep_list(&mut self, text: &str) -> Result<String, StoreError> {
        let hash = Digest::of(text.as_bytes()).to_string();
        sqlx::query(
            "INSERT INTO policy_lists (hash, list) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING",
        )
        .bind(hash.as_str())
        .bind(text)
        .execute(self.connection())
        .await?;
        Ok(hash)
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
        origin: row
            .try_get::<Option<i64>, _>("origin")?
            .map(number_from_column),
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
            origin: number.checked_sub(1).filter(|origin| *origin > 0),
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

        async fn a_list_that_many_policies_have_is_kept_once(store) {
            let list = "# é\nsha256:00\r\n".repeat(1000);
            let files = vec![
                SourceFile::new("a.toml", "x"),
                SourceFile::new("ima/a.allow", list.clone()),
                SourceFile::new("ima/b.deny", list),
            ];
            let mut tx = store.begin("test").await.unwrap();
            for number in 1..=3 {
                tx.add_policy(&policy(number), &files).await.unwrap();
            }
            tx.commit().await.unwrap();
            for number in 1..=3 {
                assert_eq!(store.policy(number).await.unwrap(), Some((policy(number), files.clone())));
            }
            let count: i64 = sqlx::query("SELECT COUNT(*) AS n FROM policy_lists")
                .fetch_one(&mut *store.read().await.unwrap())
                .await
                .unwrap()
                .try_get("n")
                .unwrap();
            assert_eq!(count, 1);
        }
    }
}
