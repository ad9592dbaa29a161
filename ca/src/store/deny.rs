//! The deny-list: which keys are refused, and its number.

use std::collections::BTreeMap;

use edgeward_identity::deny::Denied;
use edgeward_identity::{DenyList, SpkiHash, Timestamp};
use sqlx::{AnyConnection, Row};

use super::{Store, StoreError, Tx, number_to_column, parse_column, time_from_column, to_column};

const NUMBER: &str = "deny.number";

impl Store {
    /// The whole list as it is now.
    pub async fn deny_list(&self, now: Timestamp) -> Result<DenyList, StoreError> {
        load(&mut *self.read().await?, now).await
    }
}

impl Tx {
    /// Adds keys of a node; a key that is there already keeps the later end.
    pub async fn deny_keys(
        &mut self,
        node: &str,
        reason: &str,
        keys: &[(SpkiHash, Timestamp)],
    ) -> Result<(), StoreError> {
        for (key, until) in keys {
            sqlx::query(
                "INSERT INTO denied (key_hash, node, reason, until) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (key_hash) DO UPDATE SET reason = excluded.reason, \
                 until = CASE WHEN excluded.until > denied.until THEN excluded.until ELSE denied.until END",
            )
            .bind(key.to_string())
            .bind(node)
            .bind(reason)
            .bind(to_column(*until))
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }

    /// Takes a node's keys off the list that are on it for this reason.
    pub async fn allow_keys(&mut self, node: &str, reason: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM denied WHERE node = $1 AND reason = $2")
            .bind(node)
            .bind(reason)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Drops entries whose certificates have ended, gives the list the next number and returns it.
    pub async fn raise_deny_list(&mut self, now: Timestamp) -> Result<DenyList, StoreError> {
        sqlx::query("DELETE FROM denied WHERE until <= $1")
            .bind(to_column(now))
            .execute(self.connection())
            .await?;
        self.raise_number(NUMBER).await?;
        load(self.connection(), now).await
    }

    /// Whether this key is on the list.
    pub async fn is_denied(&mut self, key: &SpkiHash) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT reason FROM denied WHERE key_hash = $1")
            .bind(key.to_string())
            .fetch_optional(self.connection())
            .await?;
        Ok(row.is_some())
    }

    /// A number of the installation that only rises: its next value.
    pub async fn raise_number(&mut self, name: &str) -> Result<u64, StoreError> {
        let next = number(self.connection(), name).await?.saturating_add(1);
        sqlx::query(
            "INSERT INTO facts (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(number_to_column(next).to_string())
        .execute(self.connection())
        .await?;
        Ok(next)
    }
}

impl Store {
    /// A number of the installation that only rises: its value, zero before the first.
    pub async fn number(&self, name: &str) -> Result<u64, StoreError> {
        number(&mut *self.read().await?, name).await
    }
}

async fn number(connection: &mut AnyConnection, name: &str) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await?;
    match row {
        Some(row) => parse_column("number", row.try_get("value")?),
        None => Ok(0),
    }
}

async fn load(connection: &mut AnyConnection, now: Timestamp) -> Result<DenyList, StoreError> {
    let rows = sqlx::query("SELECT key_hash, reason, until FROM denied WHERE until > $1")
        .bind(to_column(now))
        .fetch_all(&mut *connection)
        .await?;
    let mut entries = BTreeMap::new();
    for row in rows {
        let key: SpkiHash = parse_column("key hash", row.try_get("key_hash")?)?;
        let denied = Denied {
            reason: row.try_get("reason")?,
            until: time_from_column(row.try_get("until")?),
        };
        entries.insert(key, denied);
    }
    let count = entries.len();
    DenyList::new(number(connection, NUMBER).await?, entries).map_err(|_| StoreError::Unreadable {
        what: "deny-list: too many entries",
        value: count.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    store_tests! {
        async fn the_number_rises_and_ended_entries_fall_off(store) {
            let (a, b) = (SpkiHash::from_bytes([1; 32]), SpkiHash::from_bytes([2; 32]));
            let soon = NOW.plus(Duration::from_secs(10));
            let later = NOW.plus(Duration::from_secs(100));
            let mut tx = store.begin("test").await.unwrap();
            tx.deny_keys("a", "removed", &[(a, soon), (b, later)]).await.unwrap();
            let list = tx.raise_deny_list(NOW).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!((list.number(), list.entries().len()), (1, 2));
            assert_eq!(store.deny_list(NOW).await.unwrap(), list);
            let mut tx = store.begin("test").await.unwrap();
            let list = tx.raise_deny_list(soon).await.unwrap();
            assert_eq!((list.number(), list.entries().len()), (2, 1));
            assert!(tx.is_denied(&b).await.unwrap() && !tx.is_denied(&a).await.unwrap());
        }

        async fn only_entries_for_the_given_reason_are_taken_off(store) {
            let (a, b) = (SpkiHash::from_bytes([1; 32]), SpkiHash::from_bytes([2; 32]));
            let later = NOW.plus(Duration::from_secs(100));
            let mut tx = store.begin("test").await.unwrap();
            tx.deny_keys("a", "quarantined", &[(a, later)]).await.unwrap();
            tx.deny_keys("a", "superseded", &[(b, later)]).await.unwrap();
            tx.allow_keys("a", "quarantined").await.unwrap();
            let list = tx.raise_deny_list(NOW).await.unwrap();
            assert!(list.get(&a).is_none() && list.get(&b).is_some());
        }
    }
}
