//! Bootstrap tokens, and who used them.

use edgeward_identity::Timestamp;
use edgeward_policy::Labels;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{
    Store, StoreError, Tx, json_column, number_from_column, parse_column, time_from_column,
    to_column, to_json_column,
};
use crate::issue::NamePattern;

/// Most tokens in one answer.
pub const MAX_LISTED: i64 = 10_000;

/// A bootstrap token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub id: String,
    /// SHA-256 of the secret, lower-case hex.
    pub secret_hash: String,
    pub created: Timestamp,
    pub created_by: String,
    pub expires: Timestamp,
    pub uses: u32,
    pub used: u32,
    pub labels: Labels,
    /// Which names it may give; absent: any.
    pub name: Option<NamePattern>,
    /// SHA-256 of the only EK that may use it, lower-case hex.
    pub ek: Option<String>,
    /// Whether nodes that use it wait for an operator.
    pub approval: bool,
    pub revoked: Option<Timestamp>,
    pub revoked_by: Option<String>,
}

/// One machine's use of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    pub node: String,
    pub used: Timestamp,
}

const COLUMNS: &str = "id, secret_hash, created, created_by, expires, uses, used, labels, name, ek, approval, \
                       revoked, revoked_by";

impl Store {
    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM tokens WHERE id = $1"));
        sqlx::query(sql)
            .bind(id)
            .fetch_optional(&mut *self.read().await?)
            .await?
            .map(|row| token_of(&row))
            .transpose()
    }

    /// This machine's use of the token, if it used it.
    pub async fn token_use(&self, id: &str, root: &str) -> Result<Option<TokenUse>, StoreError> {
        token_use(&mut *self.read().await?, id, root).await
    }

    /// Newest first, at most [`MAX_LISTED`].
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM tokens ORDER BY created DESC LIMIT $1"
        ));
        sqlx::query(sql)
            .bind(MAX_LISTED)
            .fetch_all(&mut *self.read().await?)
            .await?
            .iter()
            .map(token_of)
            .collect()
    }
}

impl Tx {
    pub async fn insert_token(&mut self, token: &TokenRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO tokens (id, secret_hash, created, created_by, expires, uses, used, labels, name, ek, approval) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&token.id)
        .bind(&token.secret_hash)
        .bind(to_column(token.created))
        .bind(&token.created_by)
        .bind(to_column(token.expires))
        .bind(i64::from(token.uses))
        .bind(i64::from(token.used))
        .bind(to_json_column(&token.labels))
        .bind(token.name.as_ref().map(|name| name.as_str().to_owned()))
        .bind(token.ek.clone())
        .bind(i64::from(token.approval))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// False if there is no such token or it was revoked before.
    pub async fn revoke_token(
        &mut self,
        id: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE tokens SET revoked = $2, revoked_by = $3 WHERE id = $1 AND revoked IS NULL",
        )
        .bind(id)
        .bind(to_column(now))
        .bind(by)
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The token as this transaction sees it.
    pub async fn token(&mut self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM tokens WHERE id = $1"));
        sqlx::query(sql)
            .bind(id)
            .fetch_optional(self.connection())
            .await?
            .map(|row| token_of(&row))
            .transpose()
    }

    /// This machine's use of the token, if it used it.
    pub async fn token_use(
        &mut self,
        id: &str,
        root: &str,
    ) -> Result<Option<TokenUse>, StoreError> {
        token_use(self.connection(), id, root).await
    }

    /// Consumes one use. False if none is left, or the token was revoked: then nothing was consumed.
    pub async fn consume_token(
        &mut self,
        id: &str,
        root: &str,
        node: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE tokens SET used = used + 1 WHERE id = $1 AND used < uses AND revoked IS NULL AND expires > $2",
        )
        .bind(id)
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO token_uses (token, root, node, used) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(root)
            .bind(node)
            .bind(to_column(now))
            .execute(self.connection())
            .await?;
        Ok(true)
    }
}

async fn token_use(
    connection: &mut AnyConnection,
    id: &str,
    root: &str,
) -> Result<Option<TokenUse>, StoreError> {
    sqlx::query("SELECT node, used FROM token_uses WHERE token = $1 AND root = $2")
        .bind(id)
        .bind(root)
        .fetch_optional(connection)
        .await?
        .map(|row| {
            Ok(TokenUse {
                node: row.try_get("node")?,
                used: time_from_column(row.try_get("used")?),
            })
        })
        .transpose()
}

fn token_of(row: &AnyRow) -> Result<TokenRow, StoreError> {
    let count = |column: i64| u32::try_from(number_from_column(column)).unwrap_or(u32::MAX);
    let name: Option<String> = row.try_get("name")?;
    Ok(TokenRow {
        id: row.try_get("id")?,
        secret_hash: row.try_get("secret_hash")?,
        created: time_from_column(row.try_get("created")?),
        created_by: row.try_get("created_by")?,
        expires: time_from_column(row.try_get("expires")?),
        uses: count(row.try_get("uses")?),
        used: count(row.try_get("used")?),
        labels: json_column("labels", row.try_get("labels")?)?,
        name: name
            .map(|name| parse_column("name pattern", &name))
            .transpose()?,
        ek: row.try_get("ek")?,
        approval: row.try_get::<i64, _>("approval")? != 0,
        revoked: row
            .try_get::<Option<i64>, _>("revoked")?
            .map(time_from_column),
        revoked_by: row.try_get("revoked_by")?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn token(id: &str, uses: u32) -> TokenRow {
        TokenRow {
            id: id.to_owned(),
            secret_hash: "00".repeat(32),
            created: NOW,
            created_by: "cloud".to_owned(),
            expires: NOW.plus(Duration::from_secs(60)),
            uses,
            used: 0,
            labels: Labels::from([("role".to_owned(), "gateway".to_owned())]),
            name: Some("gw-*".parse().unwrap()),
            ek: None,
            approval: false,
            revoked: None,
            revoked_by: None,
        }
    }

    store_tests! {
        async fn a_used_up_revoked_or_expired_token_is_not_consumed(store) {
            let mut tx = store.begin("test").await.unwrap();
            tx.insert_token(&token("once", 1)).await.unwrap();
            tx.insert_token(&token("gone", 1)).await.unwrap();
            assert!(tx.consume_token("once", "ek:a", "a", NOW).await.unwrap());
            assert!(!tx.consume_token("once", "ek:b", "b", NOW).await.unwrap());
            assert!(tx.revoke_token("gone", "cloud", NOW).await.unwrap());
            assert!(!tx.revoke_token("gone", "cloud", NOW).await.unwrap());
            assert!(!tx.consume_token("gone", "ek:a", "a", NOW).await.unwrap());
            assert!(!tx.consume_token("none", "ek:a", "a", NOW).await.unwrap());
            tx.insert_token(&token("late", 1)).await.unwrap();
            let late = NOW.plus(Duration::from_secs(60));
            assert!(!tx.consume_token("late", "ek:a", "a", late).await.unwrap());
            assert_eq!(tx.token_use("late", "ek:a").await.unwrap(), None);
            tx.commit().await.unwrap();
        }

        async fn a_token_is_read_back_as_written(store) {
            let mut tx = store.begin("test").await.unwrap();
            tx.insert_token(&token("t1", 5)).await.unwrap();
            tx.consume_token("t1", "ek:a", "a", NOW).await.unwrap();
            let used = TokenUse { node: "a".to_owned(), used: NOW };
            assert_eq!(tx.token_use("t1", "ek:a").await.unwrap(), Some(used));
            tx.commit().await.unwrap();
            let read = store.token("t1").await.unwrap().unwrap();
            assert_eq!(read, TokenRow { used: 1, ..token("t1", 5) });
            assert_eq!(store.tokens().await.unwrap(), [read]);
            assert_eq!(store.token("t2").await.unwrap(), None);
        }
    }
}
