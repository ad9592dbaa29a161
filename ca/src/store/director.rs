//! What the director remembers: what is revoked, what each node was given, and who was ordered back.

use std::collections::BTreeMap;

use edgeward_apps::{AppName, Digest, Version};
use edgeward_identity::Timestamp;
use sqlx::Row;

use super::{Store, StoreError, Tx, parse_column, time_from_column, to_column};
use crate::apps::director::Given;

/// Rises with every change of these tables that concerns nodes which were told before.
const CHANGES: &str = "director_changes";
/// Nothing this cloud signs for nodes goes below.
pub const NUMBER: &str = "director.number";

/// What runs nowhere any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedRow {
    pub digest: Digest,
    /// As an operator named it; empty for a digest alone.
    pub app: String,
    pub version: String,
    pub reason: String,
    pub since: Timestamp,
    pub denied_by: String,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) changes: u64,
    pub(crate) denied: BTreeMap<Digest, DeniedRow>,
    /// By name of the node.
    pub(crate) given: BTreeMap<String, BTreeMap<AppName, Given>>,
    pub(crate) back: BTreeMap<String, BTreeMap<AppName, Version>>,
}

impl Store {
    pub(crate) async fn director_changes(&self) -> Result<u64, StoreError> {
        self.number(CHANGES).await
    }

    /// What runs nowhere any more, and why.
    pub(crate) async fn denied_apps(&self) -> Result<BTreeMap<Digest, DeniedRow>, StoreError> {
        let mut connection = self.read().await?;
        let rows =
            sqlx::query("SELECT digest, app, version, reason, since, denied_by FROM apps_denied")
                .fetch_all(&mut *connection)
                .await?;
        let mut all = BTreeMap::new();
        for row in rows {
            let denied = denied_row(&row)?;
            all.insert(denied.digest, denied);
        }
        Ok(all)
    }

    /// One of them.
    pub(crate) async fn denied_app(
        &self,
        digest: &Digest,
    ) -> Result<Option<DeniedRow>, StoreError> {
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT digest, app, version, reason, since, denied_by FROM apps_denied WHERE digest = $1",
        )
        .bind(digest.to_string())
        .fetch_optional(&mut *connection)
        .await?;
        row.map(|row| denied_row(&row)).transpose()
    }

    /// Everything. Read at start, and whenever another cloud changed it.
    pub(crate) async fn remembered(&self) -> Result<Remembered, StoreError> {
        // First: what is changed meanwhile is read once more.
        let mut all = Remembered {
            changes: self.director_changes().await?,
            ..Remembered::default()
        };
        all.denied = self.denied_apps().await?;
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT node, app, highest, previous FROM apps_given")
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            let previous: Option<String> = row.try_get("previous")?;
            let given = Given {
                highest: parse_column("version of an app", row.try_get("highest")?)?,
                previous: match previous {
                    Some(text) => Some(parse_column("version of an app", &text)?),
                    None => None,
                },
            };
            let app = parse_column("name of an app", row.try_get("app")?)?;
            let node = all.given.entry(row.try_get("node")?).or_default();
            node.insert(app, given);
        }
        let rows = sqlx::query("SELECT node, app, from_version FROM apps_back")
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            let app = parse_column("name of an app", row.try_get("app")?)?;
            let from = parse_column("version of an app", row.try_get("from_version")?)?;
            let node = all.back.entry(row.try_get("node")?).or_default();
            node.insert(app, from);
        }
        Ok(all)
    }
}

fn denied_row(row: &sqlx::any::AnyRow) -> Result<DeniedRow, StoreError> {
    Ok(DeniedRow {
        digest: parse_column("denied digest", row.try_get("digest")?)?,
        app: row.try_get("app")?,
        version: row.try_get("version")?,
        reason: row.try_get("reason")?,
        since: time_from_column(row.try_get("since")?),
        denied_by: row.try_get("denied_by")?,
    })
}

impl Remembered {
    /// What was read takes the place of what was known. What was revoked stays so: no row of it is ever taken away, so it
    /// lacks there only because it was stored after the reading, or is still to be.
    pub(crate) fn read_again(&mut self, mut read: Self) {
        for (digest, row) in std::mem::take(&mut self.denied) {
            read.denied.entry(digest).or_insert(row);
        }
        *self = read;
    }

    /// Something that is remembered here was stored as this change. What another cloud changed before it is still to be
    /// read.
    pub(crate) fn changed_to(&mut self, changes: u64) {
        if changes == self.changes + 1 {
            self.changes = changes;
        }
    }
}

impl Tx {
    /// Returns the number that clouds compare.
    pub(crate) async fn director_changed(&mut self) -> Result<u64, StoreError> {
        self.raise_number(CHANGES).await
    }

    pub async fn deny_app(&mut self, row: &DeniedRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO apps_denied (digest, app, version, reason, since, denied_by) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (digest) DO NOTHING",
        )
        .bind(row.digest.to_string())
        .bind(row.app.as_str())
        .bind(row.version.as_str())
        .bind(row.reason.as_str())
        .bind(to_column(row.since))
        .bind(row.denied_by.as_str())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub(crate) async fn give_app(
        &mut self,
        node: &str,
        app: &AppName,
        given: &Given,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO apps_given (node, app, highest, previous) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (node, app) DO UPDATE SET highest = excluded.highest, previous = excluded.previous",
        )
        .bind(node)
        .bind(app.to_string())
        .bind(given.highest.to_string())
        .bind(given.previous.as_ref().map(ToString::to_string))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub async fn order_back(
        &mut self,
        node: &str,
        app: &AppName,
        from: &Version,
        (by, now): (&str, Timestamp),
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO apps_back (node, app, from_version, ordered, ordered_by) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (node, app) DO UPDATE SET from_version = excluded.from_version, \
             ordered = excluded.ordered, ordered_by = excluded.ordered_by",
        )
        .bind(node)
        .bind(app.to_string())
        .bind(from.to_string())
        .bind(to_column(now))
        .bind(by)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Nothing is signed for a node at or below this after a restart.
    pub(crate) async fn keep_director_number(&mut self, number: u64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO facts (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(NUMBER)
        .bind(number.to_string())
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    fn denied(of: &[u8], reason: &str) -> DeniedRow {
        DeniedRow {
            digest: Digest::of(of),
            app: "acme/x".to_owned(),
            version: "1.0".to_owned(),
            reason: reason.to_owned(),
            since: Timestamp::from_secs(1000),
            denied_by: "li".to_owned(),
        }
    }

    fn given(highest: &str, previous: Option<&str>) -> Given {
        Given {
            highest: highest.parse().unwrap(),
            previous: previous.map(|version| version.parse().unwrap()),
        }
    }

    store_tests! {
        async fn what_was_revoked_stays_so_with_its_first_reason(store) {
            let first = denied(b"bad", "a stolen key");
            let mut tx = store.begin("test").await.unwrap();
            tx.deny_app(&first).await.unwrap();
            // Dropped: as if nobody had.
            drop(tx);
            assert_eq!(store.denied_app(&first.digest).await.unwrap(), None);
            for reason in ["a stolen key", "another"] {
                let mut tx = store.begin("test").await.unwrap();
                tx.deny_app(&denied(b"bad", reason)).await.unwrap();
                tx.director_changed().await.unwrap();
                tx.commit().await.unwrap();
            }
            assert_eq!(store.denied_app(&first.digest).await.unwrap(), Some(first.clone()));
            assert_eq!(store.denied_app(&Digest::of(b"good")).await.unwrap(), None);
            let all = store.denied_apps().await.unwrap();
            assert_eq!(all, BTreeMap::from([(first.digest, first)]));
            let read = store.remembered().await.unwrap();
            assert_eq!((read.denied, read.changes), (all, 2));
        }

        async fn what_nodes_were_given_and_led_back_from_is_read_as_it_was_written_last(store) {
            let app: AppName = "acme/x".parse().unwrap();
            let mut tx = store.begin("test").await.unwrap();
            tx.give_app("a", &app, &given("1.0", None)).await.unwrap();
            tx.give_app("b", &app, &given("1.0", None)).await.unwrap();
            tx.give_app("a", &app, &given("2.0.1", Some("1.0"))).await.unwrap();
            for (from, by) in [("1.0", "li"), ("2.0.1", "jo")] {
                let from = from.parse().unwrap();
                tx.order_back("a", &app, &from, (by, Timestamp::from_secs(7))).await.unwrap();
            }
            tx.keep_director_number(7).await.unwrap();
            tx.keep_director_number(9).await.unwrap();
            tx.commit().await.unwrap();
            let read = store.remembered().await.unwrap();
            assert_eq!(read.given["a"][&app], given("2.0.1", Some("1.0")));
            assert_eq!(read.given["b"][&app], given("1.0", None));
            assert_eq!(read.back["a"][&app], "2.0.1".parse().unwrap());
            assert!(!read.back.contains_key("b"));
            assert_eq!(store.number(NUMBER).await.unwrap(), 9);
            assert_eq!(read.changes, 0, "only what concerns other clouds counts");
        }
    }

    #[test]
    fn what_is_read_again_takes_no_revocation_back() {
        let (old, new) = (denied(b"old", "read"), denied(b"new", "not read yet"));
        let mut remembered = Remembered {
            denied: [old.clone(), new.clone()]
                .map(|row| (row.digest, row))
                .into(),
            ..Remembered::default()
        };
        let stored = denied(b"old", "as it is stored");
        let other = denied(b"other", "of another cloud");
        remembered.read_again(Remembered {
            changes: 7,
            denied: [stored.clone(), other.clone()]
                .map(|row| (row.digest, row))
                .into(),
            ..Remembered::default()
        });
        let all = [stored, other, new].map(|row| (row.digest, row));
        assert_eq!(remembered.denied, all.into());
        assert_eq!(remembered.changes, 7);
    }

    #[test]
    fn what_another_cloud_changed_meanwhile_is_still_to_be_read() {
        let mut remembered = Remembered {
            changes: 4,
            ..Remembered::default()
        };
        remembered.changed_to(6);
        assert_eq!(remembered.changes, 4);
        remembered.changed_to(5);
        assert_eq!(remembered.changes, 5);
    }
}
