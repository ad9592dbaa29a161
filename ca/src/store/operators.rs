//! Operators: people and scripts with a certificate, and their role.

use edgeward_identity::{PublicKey, SpkiHash, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, Tx, parse_column, time_from_column, to_column};
use crate::access::Role;

/// Most operators that are listed.
const MAX_LISTED: i64 = 10_000;

/// An operator. Only the key named here counts, whatever older certificates say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    pub name: String,
    pub role: Role,
    pub key: PublicKey,
    /// When the certificate ends.
    pub expires: Timestamp,
    pub added: Timestamp,
    /// The actor, as audit events name it.
    pub added_by: String,
    pub revoked: Option<Timestamp>,
    pub revoked_by: Option<String>,
}

impl Operator {
    pub fn key_hash(&self) -> SpkiHash {
        self.key.spki_hash()
    }
}

const BY_NAME: &str = "SELECT name, role, public_key, expires, added, added_by, revoked, revoked_by \
     FROM operators WHERE name = $1";

impl Store {
    /// An operator by name, revoked ones included.
    pub async fn operator(&self, name: &str) -> Result<Option<Operator>, StoreError> {
        sqlx::query(BY_NAME)
            .bind(name)
            .fetch_optional(&mut *self.read().await?)
            .await?
            .as_ref()
            .map(operator_of)
            .transpose()
    }

    pub async fn operators(&self) -> Result<Vec<Operator>, StoreError> {
        sqlx::query(
            "SELECT name, role, public_key, expires, added, added_by, revoked, revoked_by \
             FROM operators ORDER BY name LIMIT $1",
        )
        .bind(MAX_LISTED)
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(operator_of)
        .collect()
    }
}

impl Tx {
    /// Adds an operator; [`StoreError::Exists`] if the name was ever used, or the key.
    pub async fn add_operator(&mut self, operator: &Operator) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO operators (name, role, key_hash, public_key, expires, added, added_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(operator.name.as_str())
        .bind(operator.role.as_str())
        .bind(operator.key_hash().to_string())
        .bind(hex::encode(operator.key.point()))
        .bind(to_column(operator.expires))
        .bind(to_column(operator.added))
        .bind(operator.added_by.as_str())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Gives an operator who is not revoked a new key; false if there is no such operator.
    pub async fn renew_operator(
        &mut self,
        name: &str,
        key: &PublicKey,
        expires: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = sqlx::query(
            "UPDATE operators SET key_hash = $1, public_key = $2, expires = $3 \
             WHERE name = $4 AND revoked IS NULL",
        )
        .bind(key.spki_hash().to_string())
        .bind(hex::encode(key.point()))
        .bind(to_column(expires))
        .bind(name)
        .execute(self.connection())
        .await?
        .rows_affected();
        Ok(changed == 1)
    }

    /// Revokes an operator; none if there is no such operator or it was revoked before.
    pub async fn revoke_operator(
        &mut self,
        name: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Option<Operator>, StoreError> {
        let changed = sqlx::query(
            "UPDATE operators SET revoked = $1, revoked_by = $2 WHERE name = $3 AND revoked IS NULL",
        )
        .bind(to_column(now))
        .bind(by)
        .bind(name)
        .execute(self.connection())
        .await?
        .rows_affected();
        if changed == 0 {
            return Ok(None);
        }
        sqlx::query(BY_NAME)
            .bind(name)
            .fetch_optional(self.connection())
            .await?
            .as_ref()
            .map(operator_of)
            .transpose()
    }

    /// How many operators with role admin could act now: the last one must not be revoked.
    pub async fn active_admins(&mut self, now: Timestamp) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS n FROM operators WHERE role = 'admin' AND revoked IS NULL AND expires > $1",
        )
        .bind(to_column(now))
        .fetch_one(self.connection())
        .await?;
        Ok(row.try_get("n")?)
    }
}

fn operator_of(row: &AnyRow) -> Result<Operator, StoreError> {
    let point: &str = row.try_get("public_key")?;
    let key = hex::decode(point)
        .ok()
        .and_then(|point| PublicKey::from_point(&point).ok())
        .ok_or_else(|| StoreError::Unreadable {
            what: "public key",
            value: point.to_owned(),
        })?;
    Ok(Operator {
        name: row.try_get("name")?,
        role: parse_column("role", row.try_get("role")?)?,
        key,
        expires: time_from_column(row.try_get("expires")?),
        added: time_from_column(row.try_get("added")?),
        added_by: row.try_get("added_by")?,
        revoked: row
            .try_get::<Option<i64>, _>("revoked")?
            .map(time_from_column),
        revoked_by: row.try_get("revoked_by")?,
    })
}

#[cfg(test)]
mod tests {
    use edgeward_identity::{Signer, SoftwareKey};

    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn operator(name: &str, role: Role) -> Operator {
        Operator {
            name: name.to_owned(),
            role,
            key: *SoftwareKey::generate().unwrap().public_key(),
            expires: Timestamp::from_secs(2000),
            added: NOW,
            added_by: "cloud".to_owned(),
            revoked: None,
            revoked_by: None,
        }
    }

    store_tests! {
        async fn a_name_is_used_once_even_after_revocation(store) {
            let li = operator("li", Role::Admin);
            let mut tx = store.begin("test").await.unwrap();
            tx.add_operator(&li).await.unwrap();
            let revoked = tx.revoke_operator("li", "cloud", NOW).await.unwrap().unwrap();
            assert_eq!(revoked.key, li.key);
            assert_eq!(revoked.revoked, Some(NOW));
            assert_eq!(tx.revoke_operator("li", "cloud", NOW).await.unwrap(), None);
            assert!(!tx.renew_operator("li", &li.key, NOW).await.unwrap());
            assert!(matches!(
                tx.add_operator(&operator("li", Role::Admin)).await,
                Err(StoreError::Exists)
            ));
        }

        async fn a_key_belongs_to_one_operator(store) {
            let li = operator("li", Role::Admin);
            let mut tx = store.begin("test").await.unwrap();
            tx.add_operator(&li).await.unwrap();
            let other = Operator { name: "wang".to_owned(), ..li };
            assert!(matches!(tx.add_operator(&other).await, Err(StoreError::Exists)));
        }

        async fn only_admins_who_can_act_are_counted(store) {
            let mut tx = store.begin("test").await.unwrap();
            for (name, role) in [("a", Role::Admin), ("b", Role::Admin), ("c", Role::Operator)] {
                tx.add_operator(&operator(name, role)).await.unwrap();
            }
            tx.revoke_operator("b", "cloud", NOW).await.unwrap();
            assert_eq!(tx.active_admins(NOW).await.unwrap(), 1);
            assert_eq!(tx.active_admins(Timestamp::from_secs(2000)).await.unwrap(), 0);
        }

        async fn what_is_added_is_read_back(store) {
            let li = operator("li", Role::Auditor);
            let mut tx = store.begin("test").await.unwrap();
            tx.add_operator(&li).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.operator("li").await.unwrap(), Some(li.clone()));
            assert_eq!(store.operators().await.unwrap(), vec![li]);
            assert_eq!(store.operator("nobody").await.unwrap(), None);
        }
    }
}
