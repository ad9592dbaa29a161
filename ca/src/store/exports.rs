//! Exports of the audit log: how far each receiver has come, who sends, and what was refused.

use edgeward_identity::Timestamp;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, time_from_column, to_column,
};

/// Most rows of refused events that one export keeps. An export whose rows are full stops at the next.
pub const MAX_REFUSED: u32 = 10_000;

const COLUMNS: &str = "name, position, holder, leased, sent, refused, updated, error, failing";

/// Where an export stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRow {
    pub name: String,
    /// Index of the last event that the receiver has.
    pub position: Option<u64>,
    pub holder: String,
    pub leased: Timestamp,
    pub sent: u64,
    pub refused: u64,
    pub updated: Timestamp,
    /// Why nothing goes out, and since when.
    pub failing: Option<(String, Timestamp)>,
}

/// Events that a receiver refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub first: u64,
    pub last: u64,
    /// How many of these; an OTLP collector says no more than that.
    pub count: u64,
    pub reason: String,
    pub noticed: Timestamp,
    /// Since when somebody wants it to be given once more.
    pub retry: Option<Timestamp>,
}

impl Tx {
    /// Takes an export for `holder` until `until`, if nobody else holds it. One that is new begins after `begin`.
    pub async fn take_export(
        &mut self,
        name: &str,
        holder: &str,
        begin: Option<u64>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<ExportRow>, StoreError> {
        sqlx::query(
            "INSERT INTO exports (name, position, holder, leased, sent, refused, updated) \
             VALUES ($1, $2, $3, 0, 0, 0, $4) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(begin.map_or(-1, number_to_column))
        .bind(holder)
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        if !self
            .take_lease("exports", name, holder, (now, until))
            .await?
        {
            return Ok(None);
        }
        let text = format!("SELECT {COLUMNS} FROM exports WHERE name = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(name)
            .fetch_one(self.connection())
            .await?;
        export_of(&row).map(Some)
    }

    /// Writes where an export stands and renews its lease. False: somebody else has taken it.
    pub async fn put_export(&mut self, row: &ExportRow) -> Result<bool, StoreError> {
        let (error, failing) = match &row.failing {
            Some((error, since)) => (Some(error.as_str()), Some(to_column(*since))),
            None => (None, None),
        };
        let written = sqlx::query(
            "UPDATE exports SET position = $1, leased = $2, sent = $3, refused = $4, updated = $5, error = $6, \
             failing = $7 WHERE name = $8 AND holder = $9",
        )
        .bind(row.position.map_or(-1, number_to_column))
        .bind(to_column(row.leased))
        .bind(number_to_column(row.sent))
        .bind(number_to_column(row.refused))
        .bind(to_column(row.updated))
        .bind(error)
        .bind(failing)
        .bind(&row.name)
        .bind(&row.holder)
        .execute(self.connection())
        .await?;
        Ok(written.rows_affected() == 1)
    }

    /// Puts events aside. False: too many are already.
    pub async fn put_refused(&mut self, name: &str, refused: &Refused) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS rows FROM export_refused WHERE name = $1")
            .bind(name)
            .fetch_one(self.connection())
            .await?;
        if row.try_get::<i64, _>("rows")? >= i64::from(MAX_REFUSED) {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO export_refused (name, first_leaf, last_leaf, count, reason, noticed) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name, first_leaf) DO NOTHING",
        )
        .bind(name)
        .bind(number_to_column(refused.first))
        .bind(number_to_column(refused.last))
        .bind(number_to_column(refused.count))
        .bind(&refused.reason)
        .bind(to_column(refused.noticed))
        .execute(self.connection())
        .await?;
        Ok(true)
    }

    /// What was put aside is to be given once more: what `index` is among, or everything. Says how many rows.
    pub async fn retry_refused(
        &mut self,
        name: &str,
        index: Option<u64>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let wanted = sqlx::query(
            "UPDATE export_refused SET retry = $1 WHERE name = $2 AND ($3 < 0 OR (first_leaf <= $3 AND last_leaf >= $3))",
        )
        .bind(to_column(now))
        .bind(name)
        .bind(index.map_or(-1, number_to_column))
        .execute(self.connection())
        .await?;
        Ok(wanted.rows_affected())
    }

    /// The receiver has taken it, or it exists no more.
    pub async fn end_refused(&mut self, name: &str, first: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM export_refused WHERE name = $1 AND first_leaf = $2")
            .bind(name)
            .bind(number_to_column(first))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// The receiver has refused it again.
    pub async fn keep_refusing(
        &mut self,
        name: &str,
        first: u64,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE export_refused SET retry = NULL, reason = $1, noticed = $2 WHERE name = $3 AND first_leaf = $4",
        )
        .bind(reason)
        .bind(to_column(now))
        .bind(name)
        .bind(number_to_column(first))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// All exports that ever ran, by name.
    pub async fn exports(&self) -> Result<Vec<ExportRow>, StoreError> {
        let text = format!("SELECT {COLUMNS} FROM exports ORDER BY name");
        sqlx::query(sqlx::AssertSqlSafe(text))
            .fetch_all(&mut *self.read().await?)
            .await?
            .iter()
            .map(export_of)
            .collect()
    }

    /// How many rows of refused events an export keeps.
    pub async fn count_refused(&self, name: &str) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM export_refused WHERE name = $1")
            .bind(name)
            .fetch_one(&mut *self.read().await?)
            .await?;
        Ok(number_from_column(row.try_get("n")?))
    }

    /// What an export's receiver refused, newest first.
    pub async fn export_refused(&self, name: &str, limit: u32) -> Result<Vec<Refused>, StoreError> {
        sqlx::query(
            "SELECT first_leaf, last_leaf, count, reason, noticed, retry FROM export_refused WHERE name = $1 \
             ORDER BY first_leaf DESC LIMIT $2",
        )
        .bind(name)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(refused_of)
        .collect()
    }

    /// The first of what an export is to give once more.
    pub async fn next_retry(&self, name: &str) -> Result<Option<Refused>, StoreError> {
        sqlx::query(
            "SELECT first_leaf, last_leaf, count, reason, noticed, retry FROM export_refused WHERE name = $1 \
             AND retry IS NOT NULL ORDER BY first_leaf LIMIT 1",
        )
        .bind(name)
        .fetch_optional(&mut *self.read().await?)
        .await?
        .map(|row| refused_of(&row))
        .transpose()
    }
}

fn refused_of(row: &AnyRow) -> Result<Refused, StoreError> {
    let retry: Option<i64> = row.try_get("retry")?;
    Ok(Refused {
        first: number_from_column(row.try_get("first_leaf")?),
        last: number_from_column(row.try_get("last_leaf")?),
        count: number_from_column(row.try_get("count")?),
        reason: row.try_get("reason")?,
        noticed: time_from_column(row.try_get("noticed")?),
        retry: retry.map(time_from_column),
    })
}

fn export_of(row: &AnyRow) -> Result<ExportRow, StoreError> {
    let error: Option<String> = row.try_get("error")?;
    let failing: Option<i64> = row.try_get("failing")?;
    Ok(ExportRow {
        name: row.try_get("name")?,
        position: u64::try_from(row.try_get::<i64, _>("position")?).ok(),
        holder: row.try_get("holder")?,
        leased: time_from_column(row.try_get("leased")?),
        sent: number_from_column(row.try_get("sent")?),
        refused: number_from_column(row.try_get("refused")?),
        updated: time_from_column(row.try_get("updated")?),
        failing: error.zip(failing.map(time_from_column)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    store_tests! {
        async fn one_holds_an_export_until_its_lease_ends(store) {
            let mut tx = store.begin("test").await.unwrap();
            let mut mine = tx.take_export("siem", "a", Some(6), at(10), at(20)).await.unwrap().unwrap();
            assert_eq!(mine.position, Some(6));
            assert_eq!(tx.take_export("siem", "b", None, at(19), at(29)).await.unwrap(), None);
            mine.position = Some(9);
            mine.leased = at(22);
            mine.failing = Some(("no answer".to_owned(), at(11)));
            assert!(tx.put_export(&mine).await.unwrap());
            assert_eq!(tx.take_export("siem", "b", None, at(21), at(31)).await.unwrap(), None);
            let theirs = tx.take_export("siem", "b", None, at(22), at(32)).await.unwrap().unwrap();
            assert_eq!(theirs.position, Some(9), "goes on where the other stopped");
            assert_eq!(theirs.failing, mine.failing);
            assert!(!tx.put_export(&mine).await.unwrap(), "who lost it moves nothing");
            tx.commit().await.unwrap();
            assert_eq!(store.exports().await.unwrap(), [theirs]);
        }

        async fn what_was_refused_is_kept_once(store) {
            let refused = |first| Refused {
                first, last: first + 1, count: 2, reason: "too long".to_owned(), noticed: at(5), retry: None,
            };
            let mut tx = store.begin("test").await.unwrap();
            for first in [3, 7, 3] {
                assert!(tx.put_refused("siem", &refused(first)).await.unwrap());
            }
            tx.commit().await.unwrap();
            assert_eq!(store.export_refused("siem", 10).await.unwrap(), [refused(7), refused(3)]);
            assert!(store.export_refused("other", 10).await.unwrap().is_empty());
        }
    }
}
