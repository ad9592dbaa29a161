//! What operators approved, one row for each signature.

use edgeward_identity::{PublicKey, SpiffeId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

/// Most approvals that are listed, and that are in force at once.
pub const MAX_APPROVALS: i64 = 4096;

/// One operator's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRow {
    pub number: u64,
    pub rule: String,
    /// SHA-256 over the rule as it was written, hex.
    pub digest: String,
    pub subject: SpiffeId,
    pub until: Timestamp,
    /// Name of the operator.
    pub approver: String,
    pub key: PublicKey,
    /// ECDSA, DER, hex.
    pub signature: String,
    pub given: Timestamp,
    pub revoked: Option<Timestamp>,
    pub revoked_by: Option<String>,
}

const COLUMNS: &str = "SELECT number, rule, digest, subject, until, approver, public_key, signature, \
     given, revoked, revoked_by FROM approvals";

impl Store {
    /// Those that have not ended at `now`, newest first; revoked ones too.
    pub async fn approvals(&self, now: Timestamp) -> Result<Vec<ApprovalRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE until > $1 ORDER BY number DESC LIMIT $2"
        )))
        .bind(to_column(now))
        .bind(MAX_APPROVALS)
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(approval_of)
        .collect()
    }
}

impl Tx {
    pub async fn add_approval(&mut self, row: &ApprovalRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO approvals (number, rule, digest, subject, until, approver, public_key, signature, given) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(number_to_column(row.number))
        .bind(row.rule.as_str())
        .bind(row.digest.as_str())
        .bind(row.subject.to_string())
        .bind(to_column(row.until))
        .bind(row.approver.as_str())
        .bind(hex::encode(row.key.point()))
        .bind(row.signature.as_str())
        .bind(to_column(row.given))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// How many have not ended and are not revoked.
    pub async fn approvals_in_force(&mut self, now: Timestamp) -> Result<i64, StoreError> {
        let row =
            sqlx::query("SELECT COUNT(*) AS n FROM approvals WHERE until > $1 AND revoked IS NULL")
                .bind(to_column(now))
                .fetch_one(self.connection())
                .await?;
        Ok(row.try_get("n")?)
    }

    /// Revokes one; none if there is no such approval or it was revoked before.
    pub async fn revoke_approval(
        &mut self,
        number: u64,
        by: &str,
        now: Timestamp,
    ) -> Result<Option<ApprovalRow>, StoreError> {
        let changed = sqlx::query(
            "UPDATE approvals SET revoked = $1, revoked_by = $2 WHERE number = $3 AND revoked IS NULL",
        )
        .bind(to_column(now))
        .bind(by)
        .bind(number_to_column(number))
        .execute(self.connection())
        .await?
        .rows_affected();
        if changed == 0 {
            return Ok(None);
        }
        sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE number = $1")))
            .bind(number_to_column(number))
            .fetch_optional(self.connection())
            .await?
            .as_ref()
            .map(approval_of)
            .transpose()
    }
}

fn approval_of(row: &AnyRow) -> Result<ApprovalRow, StoreError> {
    let point: &str = row.try_get("public_key")?;
    let key = hex::decode(point)
        .ok()
        .and_then(|point| PublicKey::from_point(&point).ok())
        .ok_or_else(|| StoreError::Unreadable {
            what: "public key",
            value: point.to_owned(),
        })?;
    Ok(ApprovalRow {
        number: number_from_column(row.try_get("number")?),
        rule: row.try_get("rule")?,
        digest: row.try_get("digest")?,
        subject: parse_column("subject", row.try_get("subject")?)?,
        until: time_from_column(row.try_get("until")?),
        approver: row.try_get("approver")?,
        key,
        signature: row.try_get("signature")?,
        given: time_from_column(row.try_get("given")?),
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

    fn row(number: u64) -> ApprovalRow {
        ApprovalRow {
            number,
            rule: "vendor".to_owned(),
            digest: "ab".repeat(32),
            subject: "spiffe://plant.example/operator/acme".parse().unwrap(),
            until: Timestamp::from_secs(2000),
            approver: "li".to_owned(),
            key: *SoftwareKey::generate().unwrap().public_key(),
            signature: "30".to_owned(),
            given: Timestamp::from_secs(1000),
            revoked: None,
            revoked_by: None,
        }
    }

    store_tests! {
        async fn an_approval_is_kept_until_it_ends_and_is_revoked_once(store) {
            let (one, two) = (row(1), row(2));
            let now = Timestamp::from_secs(1500);
            let mut tx = store.begin("test").await.unwrap();
            tx.add_approval(&one).await.unwrap();
            tx.add_approval(&two).await.unwrap();
            assert!(matches!(tx.add_approval(&two).await, Err(StoreError::Exists)));
            drop(tx);
            let mut tx = store.begin("test").await.unwrap();
            tx.add_approval(&one).await.unwrap();
            tx.add_approval(&two).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.approvals(now).await.unwrap(), vec![two.clone(), one.clone()]);
            assert_eq!(store.approvals(one.until).await.unwrap(), vec![]);
            let mut tx = store.begin("test").await.unwrap();
            assert_eq!(tx.approvals_in_force(now).await.unwrap(), 2);
            let revoked = tx.revoke_approval(1, "li", now).await.unwrap().unwrap();
            assert_eq!(revoked.revoked, Some(now));
            assert_eq!(tx.revoke_approval(1, "li", now).await.unwrap(), None);
            assert_eq!(tx.revoke_approval(7, "li", now).await.unwrap(), None);
            assert_eq!(tx.approvals_in_force(now).await.unwrap(), 1);
            tx.commit().await.unwrap();
        }
    }
}
