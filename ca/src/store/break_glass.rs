//! Break-glass grants and what became of them.

use edgeward_identity::Timestamp;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, json_column, number_from_column, number_to_column, time_from_column,
    to_column, to_json_column,
};

/// Most grants that are listed, and that may be open to use at once.
pub const MAX_GRANTS: i64 = 4096;

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlassRow {
    pub number: u64,
    /// `[break-glass.<name>]` of the policy.
    pub name: String,
    /// Name of the node.
    pub node: String,
    pub rules: Vec<String>,
    /// Names of operators.
    pub approvers: Vec<String>,
    pub quorum: u64,
    pub ttl_seconds: u64,
    pub ends: Timestamp,
    pub issued: Timestamp,
    pub issued_by: String,
    pub revoked: Option<Timestamp>,
    pub revoked_by: Option<String>,
    /// By the node's journal.
    pub opened: Option<Timestamp>,
    /// Names of the operators who approved, as the journal has them.
    pub opened_by: Option<String>,
    pub closed: Option<Timestamp>,
    pub acknowledged: Option<Timestamp>,
    pub acknowledged_by: Option<String>,
}

impl GlassRow {
    /// Opened, and nobody has said that they saw it.
    pub fn is_loud(&self) -> bool {
        self.opened.is_some() && self.acknowledged.is_none()
    }
}

const COLUMNS: &str = "SELECT number, name, node, rules, approvers, quorum, ttl, ends, issued, issued_by, revoked, \
     revoked_by, opened, opened_by, closed, acknowledged, acknowledged_by FROM break_glass";

impl Store {
    /// Newest first, ended ones too.
    pub async fn break_glass(&self) -> Result<Vec<GlassRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{COLUMNS} ORDER BY number DESC LIMIT $1"
        )))
        .bind(MAX_GRANTS)
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(glass_of)
        .collect()
    }

    /// Those that were opened and that nobody has acknowledged.
    pub async fn loud_break_glass(&self) -> Result<Vec<GlassRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE opened IS NOT NULL AND acknowledged IS NULL ORDER BY number LIMIT $1"
        )))
        .bind(MAX_GRANTS)
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(glass_of)
        .collect()
    }

    /// Node, name and number of those that have not ended and open nothing any more: revoked, or used.
    pub async fn void_break_glass(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(String, String, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT node, name, number FROM break_glass \
             WHERE ends > $1 AND (revoked IS NOT NULL OR opened IS NOT NULL) ORDER BY number LIMIT $2",
        )
        .bind(to_column(now))
        .bind(MAX_GRANTS)
        .fetch_all(&mut *self.read().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok((
                    row.try_get("node")?,
                    row.try_get("name")?,
                    number_from_column(row.try_get("number")?),
                ))
            })
            .collect()
    }
}

impl Tx {
    pub async fn add_break_glass(&mut self, row: &GlassRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO break_glass (number, name, node, rules, approvers, quorum, ttl, ends, issued, issued_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(number_to_column(row.number))
        .bind(row.name.as_str())
        .bind(row.node.as_str())
        .bind(to_json_column(&row.rules))
        .bind(to_json_column(&row.approvers))
        .bind(number_to_column(row.quorum))
        .bind(number_to_column(row.ttl_seconds))
        .bind(to_column(row.ends))
        .bind(to_column(row.issued))
        .bind(row.issued_by.as_str())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// How many have not ended, whatever became of them.
    pub async fn break_glass_in_force(&mut self, now: Timestamp) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM break_glass WHERE ends > $1")
            .bind(to_column(now))
            .fetch_one(self.connection())
            .await?;
        Ok(row.try_get("n")?)
    }

    pub async fn break_glass_numbered(
        &mut self,
        number: u64,
    ) -> Result<Option<GlassRow>, StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE number = $1")))
            .bind(number_to_column(number))
            .fetch_optional(self.connection())
            .await?
            .as_ref()
            .map(glass_of)
            .transpose()
    }

    /// Whether it was there, and was not revoked before.
    pub async fn revoke_break_glass(
        &mut self,
        number: u64,
        by: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = sqlx::query(
            "UPDATE break_glass SET revoked = $1, revoked_by = $2 WHERE number = $3 AND revoked IS NULL",
        )
        .bind(to_column(now))
        .bind(by)
        .bind(number_to_column(number))
        .execute(self.connection())
        .await?
        .rows_affected();
        Ok(changed == 1)
    }

    /// Whether it was opened, and was not acknowledged before.
    pub async fn acknowledge_break_glass(
        &mut self,
        number: u64,
        by: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = sqlx::query(
            "UPDATE break_glass SET acknowledged = $1, acknowledged_by = $2 \
             WHERE number = $3 AND opened IS NOT NULL AND acknowledged IS NULL",
        )
        .bind(to_column(now))
        .bind(by)
        .bind(number_to_column(number))
        .execute(self.connection())
        .await?
        .rows_affected();
        Ok(changed == 1)
    }

    /// What a node's journal says of one of its grants. False for a grant that is not this node's.
    pub async fn note_glass_opened(
        &mut self,
        (node, number): (&str, u64),
        by: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = sqlx::query(
            "UPDATE break_glass SET opened = $1, opened_by = $2 WHERE number = $3 AND node = $4",
        )
        .bind(to_column(at))
        .bind(by)
        .bind(number_to_column(number))
        .bind(node)
        .execute(self.connection())
        .await?
        .rows_affected();
        Ok(changed == 1)
    }

    pub async fn note_glass_closed(
        &mut self,
        (node, number): (&str, u64),
        at: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE break_glass SET closed = $1 WHERE number = $2 AND node = $3")
            .bind(to_column(at))
            .bind(number_to_column(number))
            .bind(node)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn glass_of(row: &AnyRow) -> Result<GlassRow, StoreError> {
    let time = |column: &str| -> Result<Option<Timestamp>, StoreError> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(time_from_column))
    };
    Ok(GlassRow {
        number: number_from_column(row.try_get("number")?),
        name: row.try_get("name")?,
        node: row.try_get("node")?,
        rules: json_column("break-glass rules", row.try_get("rules")?)?,
        approvers: json_column("break-glass approvers", row.try_get("approvers")?)?,
        quorum: number_from_column(row.try_get("quorum")?),
        ttl_seconds: number_from_column(row.try_get("ttl")?),
        ends: time_from_column(row.try_get("ends")?),
        issued: time_from_column(row.try_get("issued")?),
        issued_by: row.try_get("issued_by")?,
        revoked: time("revoked")?,
        revoked_by: row.try_get("revoked_by")?,
        opened: time("opened")?,
        opened_by: row.try_get("opened_by")?,
        closed: time("closed")?,
        acknowledged: time("acknowledged")?,
        acknowledged_by: row.try_get("acknowledged_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1500);

    fn row(number: u64) -> GlassRow {
        GlassRow {
            number,
            name: "line3".to_owned(),
            node: "gw-3".to_owned(),
            rules: vec!["vendor".to_owned()],
            approvers: vec!["li".to_owned(), "wu".to_owned()],
            quorum: 2,
            ttl_seconds: 3600,
            ends: Timestamp::from_secs(2000),
            issued: Timestamp::from_secs(1000),
            issued_by: "spiffe://plant.example/operator/root".to_owned(),
            revoked: None,
            revoked_by: None,
            opened: None,
            opened_by: None,
            closed: None,
            acknowledged: None,
            acknowledged_by: None,
        }
    }

    store_tests! {
        async fn a_grant_is_loud_from_its_opening_until_somebody_acknowledges_it(store) {
            let mut tx = store.begin("test").await.unwrap();
            tx.add_break_glass(&row(1)).await.unwrap();
            tx.add_break_glass(&row(2)).await.unwrap();
            assert_eq!(tx.break_glass_in_force(NOW).await.unwrap(), 2);
            assert!(!tx.acknowledge_break_glass(1, "li", NOW).await.unwrap());
            assert!(!tx.note_glass_opened(("gw-4", 1), "li wu", NOW).await.unwrap());
            assert!(tx.note_glass_opened(("gw-3", 1), "li wu", NOW).await.unwrap());
            tx.note_glass_closed(("gw-3", 1), NOW).await.unwrap();
            tx.commit().await.unwrap();
            let loud = store.loud_break_glass().await.unwrap();
            assert_eq!(loud.len(), 1);
            assert_eq!((loud[0].opened, loud[0].closed), (Some(NOW), Some(NOW)));
            assert!(loud[0].is_loud());
            let mut tx = store.begin("test").await.unwrap();
            assert!(tx.acknowledge_break_glass(1, "li", NOW).await.unwrap());
            assert!(!tx.acknowledge_break_glass(1, "li", NOW).await.unwrap());
            tx.commit().await.unwrap();
            assert!(store.loud_break_glass().await.unwrap().is_empty());
        }

        async fn what_is_revoked_or_used_is_void_until_it_ends(store) {
            let mut tx = store.begin("test").await.unwrap();
            for number in 1..=3 {
                tx.add_break_glass(&row(number)).await.unwrap();
            }
            assert!(tx.revoke_break_glass(1, "li", NOW).await.unwrap());
            assert!(!tx.revoke_break_glass(1, "li", NOW).await.unwrap());
            assert!(!tx.revoke_break_glass(9, "li", NOW).await.unwrap());
            tx.note_glass_opened(("gw-3", 2), "li", NOW).await.unwrap();
            assert_eq!(tx.break_glass_numbered(3).await.unwrap(), Some(row(3)));
            tx.commit().await.unwrap();
            let void = |number| ("gw-3".to_owned(), "line3".to_owned(), number);
            assert_eq!(store.void_break_glass(NOW).await.unwrap(), [void(1), void(2)]);
            assert!(store.void_break_glass(row(1).ends).await.unwrap().is_empty());
            assert_eq!(store.break_glass().await.unwrap().len(), 3);
        }
    }
}
