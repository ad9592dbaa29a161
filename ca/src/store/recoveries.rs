//! Coming back: recoveries that were given, those that wait, TPMs that may be replaced, and join counters.

use edgeward_identity::{SpkiHash, Tier, Timestamp};
use sqlx::Row;

use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

/// A node's next recovery needs an operator's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryWait {
    pub since: Timestamp,
    /// The word was given.
    pub approved: bool,
}

/// What a token allows beside the enrolment itself: another TPM under a name that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    pub node: String,
    /// The lowest tier that the other TPM may have.
    pub least_tier: Tier,
}

impl Store {
    /// Whether a node waits for an operator before it recovers again.
    pub async fn recovery_wait(&self, node: &str) -> Result<Option<RecoveryWait>, StoreError> {
        wait(&mut *self.read().await?, node).await
    }

    /// Automatic recoveries of a node after a moment.
    pub async fn recoveries_since(&self, node: &str, after: Timestamp) -> Result<u32, StoreError> {
        count(&mut *self.read().await?, node, after).await
    }

    /// Every join counter.
    pub async fn joins(&self) -> Result<Vec<(SpkiHash, u64)>, StoreError> {
        sqlx::query("SELECT key_hash, confirmed FROM joins")
            .fetch_all(&mut *self.read().await?)
            .await?
            .iter()
            .map(|row| {
                let key = parse_column("key hash", row.try_get("key_hash")?)?;
                Ok((key, number_from_column(row.try_get("confirmed")?)))
            })
            .collect()
    }
}

impl Tx {
    /// Automatic recoveries of a node after a moment.
    pub async fn recoveries_since(
        &mut self,
        node: &str,
        after: Timestamp,
    ) -> Result<u32, StoreError> {
        count(self.connection(), node, after).await
    }

    pub async fn insert_recovery(
        &mut self,
        serial: &str,
        node: &str,
        recovered: Timestamp,
        approved: bool,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO recoveries (serial, node, recovered, approved) VALUES ($1, $2, $3, $4)",
        )
        .bind(serial)
        .bind(node)
        .bind(to_column(recovered))
        .bind(i64::from(approved))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Forgets recoveries that no window reaches any more.
    pub async fn prune_recoveries(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM recoveries WHERE recovered <= $1")
            .bind(to_column(before))
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected())
    }

    /// Whether a node waits for an operator before it recovers again.
    pub async fn recovery_wait(&mut self, node: &str) -> Result<Option<RecoveryWait>, StoreError> {
        wait(self.connection(), node).await
    }

    pub async fn put_recovery_wait(
        &mut self,
        node: &str,
        wait: RecoveryWait,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO recovery_waits (node, since, approved) VALUES ($1, $2, $3) \
             ON CONFLICT (node) DO UPDATE SET since = excluded.since, approved = excluded.approved",
        )
        .bind(node)
        .bind(to_column(wait.since))
        .bind(i64::from(wait.approved))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub async fn end_recovery_wait(&mut self, node: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM recovery_waits WHERE node = $1")
            .bind(node)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// A name that is given to another machine starts anew.
    pub async fn forget_recoveries(&mut self, node: &str) -> Result<(), StoreError> {
        self.end_recovery_wait(node).await?;
        for sql in [
            "DELETE FROM recoveries WHERE node = $1",
            "DELETE FROM replacements WHERE node = $1",
            "DELETE FROM joins WHERE node = $1",
        ] {
            sqlx::query(sql)
                .bind(node)
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }

    pub async fn insert_replacement(
        &mut self,
        token: &str,
        replacement: &Replacement,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO replacements (token, node, least_tier) VALUES ($1, $2, $3)")
            .bind(token)
            .bind(&replacement.node)
            .bind(replacement.least_tier.as_str())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// What a token allows to replace.
    pub async fn replacement(&mut self, token: &str) -> Result<Option<Replacement>, StoreError> {
        sqlx::query("SELECT node, least_tier FROM replacements WHERE token = $1")
            .bind(token)
            .fetch_optional(self.connection())
            .await?
            .map(|row| {
                Ok(Replacement {
                    node: row.try_get("node")?,
                    least_tier: parse_column("tier", row.try_get("least_tier")?)?,
                })
            })
            .transpose()
    }

    /// A counter only rises: whoever writes late takes nothing back.
    pub async fn raise_join(
        &mut self,
        key: &SpkiHash,
        node: &str,
        confirmed: u64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO joins (key_hash, node, confirmed) VALUES ($1, $2, $3) \
             ON CONFLICT (key_hash) DO UPDATE SET confirmed = \
             CASE WHEN excluded.confirmed > joins.confirmed THEN excluded.confirmed ELSE joins.confirmed END",
        )
        .bind(key.to_string())
        .bind(node)
        .bind(number_to_column(confirmed))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// An operator has looked: the next to come says where the count stands.
    pub async fn forget_joins(&mut self, node: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM joins WHERE node = $1")
            .bind(node)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Forgets counters of keys that have no certificate any more.
    pub async fn prune_joins(&mut self) -> Result<u64, StoreError> {
        let done =
            sqlx::query("DELETE FROM joins WHERE key_hash NOT IN (SELECT key_hash FROM svids)")
                .execute(self.connection())
                .await?;
        Ok(done.rows_affected())
    }
}

async fn wait(
    connection: &mut sqlx::AnyConnection,
    node: &str,
) -> Result<Option<RecoveryWait>, StoreError> {
    sqlx::query("SELECT since, approved FROM recovery_waits WHERE node = $1")
        .bind(node)
        .fetch_optional(connection)
        .await?
        .map(|row| {
            Ok(RecoveryWait {
                since: time_from_column(row.try_get("since")?),
                approved: row.try_get::<i64, _>("approved")? != 0,
            })
        })
        .transpose()
}

async fn count(
    connection: &mut sqlx::AnyConnection,
    node: &str,
    after: Timestamp,
) -> Result<u32, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n FROM recoveries WHERE node = $1 AND recovered > $2 AND approved = 0",
    )
    .bind(node)
    .bind(to_column(after))
    .fetch_one(connection)
    .await?;
    Ok(u32::try_from(row.try_get::<i64, _>("n")?).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    store_tests! {
        async fn only_automatic_recoveries_within_the_window_count(store) {
            let at = |seconds| NOW.plus(Duration::from_secs(seconds));
            let mut tx = store.begin("test").await.unwrap();
            tx.insert_recovery("01", "a", NOW, false).await.unwrap();
            tx.insert_recovery("02", "a", at(10), false).await.unwrap();
            tx.insert_recovery("03", "a", at(20), true).await.unwrap();
            tx.insert_recovery("04", "b", at(20), false).await.unwrap();
            assert!(matches!(tx.insert_recovery("04", "b", at(30), false).await, Err(StoreError::Exists)));
            drop(tx);
            let mut tx = store.begin("test").await.unwrap();
            tx.insert_recovery("01", "a", NOW, false).await.unwrap();
            tx.insert_recovery("02", "a", at(10), false).await.unwrap();
            tx.insert_recovery("03", "a", at(20), true).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.recoveries_since("a", NOW.minus(Duration::from_secs(1))).await.unwrap(), 2);
            assert_eq!(store.recoveries_since("a", NOW).await.unwrap(), 1);
            let mut tx = store.begin("test").await.unwrap();
            assert_eq!(tx.prune_recoveries(at(10)).await.unwrap(), 2);
            assert_eq!(tx.recoveries_since("a", Timestamp::default()).await.unwrap(), 0);
        }

        async fn a_wait_is_approved_once_and_ends(store) {
            let wait = RecoveryWait { since: NOW, approved: false };
            let mut tx = store.begin("test").await.unwrap();
            assert_eq!(tx.recovery_wait("a").await.unwrap(), None);
            tx.put_recovery_wait("a", wait).await.unwrap();
            tx.put_recovery_wait("a", RecoveryWait { approved: true, ..wait }).await.unwrap();
            tx.commit().await.unwrap();
            assert!(store.recovery_wait("a").await.unwrap().unwrap().approved);
            let mut tx = store.begin("test").await.unwrap();
            tx.end_recovery_wait("a").await.unwrap();
            assert_eq!(tx.recovery_wait("a").await.unwrap(), None);
        }

        async fn a_join_counter_never_falls_and_goes_with_its_certificates(store) {
            let key = SpkiHash::from_bytes([1; 32]);
            let mut tx = store.begin("test").await.unwrap();
            tx.raise_join(&key, "a", 7).await.unwrap();
            tx.raise_join(&key, "a", 6).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.joins().await.unwrap(), [(key, 7)]);
            let mut tx = store.begin("test").await.unwrap();
            assert_eq!(tx.prune_joins().await.unwrap(), 1);
            tx.raise_join(&key, "a", 7).await.unwrap();
            tx.forget_joins("a").await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.joins().await.unwrap(), []);
        }

        async fn a_removed_node_leaves_nothing_to_come_back_by(store) {
            let replacement = Replacement { node: "a".to_owned(), least_tier: Tier::Listed };
            let mut tx = store.begin("test").await.unwrap();
            tx.insert_replacement("t1", &replacement).await.unwrap();
            tx.insert_recovery("01", "a", NOW, false).await.unwrap();
            tx.put_recovery_wait("a", RecoveryWait { since: NOW, approved: true }).await.unwrap();
            tx.raise_join(&SpkiHash::from_bytes([1; 32]), "a", 7).await.unwrap();
            assert_eq!(tx.replacement("t1").await.unwrap(), Some(replacement));
            tx.forget_recoveries("a").await.unwrap();
            assert_eq!(tx.replacement("t1").await.unwrap(), None);
            assert_eq!(tx.recovery_wait("a").await.unwrap(), None);
            assert_eq!(tx.recoveries_since("a", Timestamp::default()).await.unwrap(), 0);
            tx.commit().await.unwrap();
            assert_eq!(store.joins().await.unwrap(), []);
        }
    }
}
