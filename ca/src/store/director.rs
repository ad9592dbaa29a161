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
            let digest: Digest = parse_column("denied digest", row.try_get("digest")?)?;
            let denied = DeniedRow {
                digest,
                app: row.try_get("app")?,
                version: row.try_get("version")?,
                reason: row.try_get("reason")?,
                since: time_from_column(row.try_get("since")?),
                denied_by: row.try_get("denied_by")?,
            };
            all.insert(digest, denied);
        }
        Ok(all)
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
