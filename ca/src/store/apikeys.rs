//! API keys: stored as the SHA-256 of their secret.
//!
//! The secret is 256 random bits, so a plain hash is enough: there is nothing to guess that a slow password hash
//! would protect, and every request pays for the check.

use edgeward_identity::Timestamp;
use ring::digest::{SHA256, digest};
use sqlx::Row;
use sqlx::any::AnyRow;
use subtle::ConstantTimeEq;

use super::{Store, StoreError, Tx, parse_column, time_from_column, to_column};
use crate::access::Role;

/// Most API keys that are listed.
const MAX_LISTED: i64 = 10_000;

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Public part of the key string, by which it is found.
    pub id: String,
    /// What people and audit events call it.
    pub name: String,
    pub role: Role,
    pub created: Timestamp,
    pub created_by: String,
    pub expires: Timestamp,
    pub revoked: Option<Timestamp>,
    pub revoked_by: Option<String>,
}

impl Store {
    /// The key with this id and secret, whatever its standing; compared in constant time.
    pub async fn api_key(&self, id: &str, secret: &[u8]) -> Result<Option<ApiKey>, StoreError> {
        let row = sqlx::query(
            "SELECT id, name, role, created, created_by, expires, revoked, revoked_by, secret_hash \
             FROM api_keys WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(&mut *self.read().await?)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let stored: &str = row.try_get("secret_hash")?;
        match bool::from(stored.as_bytes().ct_eq(hash(secret).as_bytes())) {
            true => api_key_of(&row).map(Some),
            false => Ok(None),
        }
    }

    /// A key by name, whatever its standing.
    pub async fn api_key_named(&self, name: &str) -> Result<Option<ApiKey>, StoreError> {
        sqlx::query(
            "SELECT id, name, role, created, created_by, expires, revoked, revoked_by \
             FROM api_keys WHERE name = $1",
        )
        .bind(name)
        .fetch_optional(&mut *self.read().await?)
        .await?
        .as_ref()
        .map(api_key_of)
        .transpose()
    }

    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        sqlx::query(
            "SELECT id, name, role, created, created_by, expires, revoked, revoked_by \
             FROM api_keys ORDER BY name LIMIT $1",
        )
        .bind(MAX_LISTED)
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(api_key_of)
        .collect()
    }
}

impl Tx {
    /// Adds a key; [`StoreError::Exists`] if the name was ever used.
    pub async fn add_api_key(&mut self, key: &ApiKey, secret: &[u8]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO api_keys (id, name, secret_hash, role, created, created_by, expires) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key.id.as_str())
        .bind(key.name.as_str())
        .bind(hash(secret))
        .bind(key.role.as_str())
        .bind(to_column(key.created))
        .bind(key.created_by.as_str())
        .bind(to_column(key.expires))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Revokes a key by name; false if there is no such key or it was revoked before.
    pub async fn revoke_api_key(
        &mut self,
        name: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = sqlx::query(
            "UPDATE api_keys SET revoked = $1, revoked_by = $2 WHERE name = $3 AND revoked IS NULL",
        )
        .bind(to_column(now))
        .bind(by)
        .bind(name)
        .execute(self.connection())
        .await?
        .rows_affected();
        Ok(changed == 1)
    }
}

fn hash(secret: &[u8]) -> String {
    hex::encode(digest(&SHA256, secret))
}

fn api_key_of(row: &AnyRow) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: parse_column("role", row.try_get("role")?)?,
        created: time_from_column(row.try_get("created")?),
        created_by: row.try_get("created_by")?,
        expires: time_from_column(row.try_get("expires")?),
        revoked: row
            .try_get::<Option<i64>, _>("revoked")?
            .map(time_from_column),
        revoked_by: row.try_get("revoked_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn key(id: &str, name: &str) -> ApiKey {
        ApiKey {
            id: id.to_owned(),
            name: name.to_owned(),
            role: Role::Auditor,
            created: NOW,
            created_by: "cloud".to_owned(),
            expires: Timestamp::from_secs(2000),
            revoked: None,
            revoked_by: None,
        }
    }

    store_tests! {
        async fn a_wrong_secret_or_id_finds_nothing(store) {
            let mut tx = store.begin("test").await.unwrap();
            tx.add_api_key(&key("k1", "grafana"), b"secret").await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.api_key("k1", b"secreT").await.unwrap(), None);
            assert_eq!(store.api_key("k1", b"").await.unwrap(), None);
            assert_eq!(store.api_key("k2", b"secret").await.unwrap(), None);
            assert_eq!(
                store.api_key("k1", b"secret").await.unwrap(),
                Some(key("k1", "grafana"))
            );
        }

        async fn the_secret_itself_is_nowhere_in_the_store(store) {
            let mut tx = store.begin("test").await.unwrap();
            tx.add_api_key(&key("k1", "grafana"), b"topsecret").await.unwrap();
            let row = sqlx::query("SELECT secret_hash FROM api_keys")
                .fetch_one(tx.connection())
                .await
                .unwrap();
            let stored: String = row.try_get("secret_hash").unwrap();
            assert_eq!(stored.len(), 64);
            assert!(!stored.contains(&hex::encode(b"topsecret")));
        }

        async fn a_revoked_key_says_so_and_its_name_is_not_used_again(store) {
            let mut tx = store.begin("test").await.unwrap();
            tx.add_api_key(&key("k1", "grafana"), b"secret").await.unwrap();
            assert!(tx.revoke_api_key("grafana", "cloud", NOW).await.unwrap());
            assert!(!tx.revoke_api_key("grafana", "cloud", NOW).await.unwrap());
            tx.commit().await.unwrap();
            let found = store.api_key("k1", b"secret").await.unwrap().unwrap();
            assert_eq!(found.revoked, Some(NOW));
            let mut tx = store.begin("test").await.unwrap();
            assert!(matches!(
                tx.add_api_key(&key("k2", "grafana"), b"other").await,
                Err(StoreError::Exists)
            ));
        }
    }
}
