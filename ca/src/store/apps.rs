//! The image repository's metadata, and the releases that it names. Content is not here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_apps::{AppName, Digest, ImageFloors, PublisherName, Version};
use edgeward_identity::Timestamp;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, json_column, number_from_column, number_to_column, parse_column,
    time_from_column, to_column, to_json_column,
};

/// Rises with every change of either table.
const CHANGES: &str = "apps_changes";
const FLOORS: &str = "apps_floors";

/// A file in force of one role, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRow {
    pub name: String,
    pub role: String,
    pub version: u64,
    pub expires: Timestamp,
    pub sha256: Digest,
    /// In bytes.
    pub length: u64,
    pub added: Timestamp,
    pub added_by: String,
}

/// A file that comes into force.
#[derive(Clone, Copy, Debug)]
pub struct NewRole<'b> {
    pub name: &'b str,
    pub role: &'b str,
    pub version: u64,
    pub expires: Timestamp,
    pub bytes: &'b [u8],
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRow {
    pub app: AppName,
    pub version: Version,
    /// Of its manifest.
    pub digest: Digest,
    /// Of its manifest, in bytes.
    pub length: u64,
    /// Of its files, in bytes.
    pub size: u64,
    pub published: Timestamp,
    pub published_by: String,
    /// When its publisher named it no longer.
    pub withdrawn: Option<Timestamp>,
}

impl Store {
    pub async fn apps_changes(&self) -> Result<u64, StoreError> {
        self.number(CHANGES).await
    }

    /// Files in force, by role.
    pub async fn apps_roles(&self) -> Result<Vec<RoleRow>, StoreError> {
        sqlx::query(
            "SELECT name, role, version, expires, sha256, length, added, added_by \
             FROM apps_metadata WHERE current = 1 ORDER BY role",
        )
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(role_of)
        .collect()
    }

    /// The content of a file, in force or not long ago.
    pub async fn apps_metadata(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT content FROM apps_metadata WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let content: &str = row.try_get("content")?;
        let bytes = STANDARD
            .decode(content)
            .map_err(|_| StoreError::Unreadable {
                what: "metadata",
                value: name.to_owned(),
            })?;
        Ok(Some(bytes))
    }

    /// Withdrawn ones too.
    pub async fn apps_releases(&self) -> Result<Vec<ReleaseRow>, StoreError> {
        sqlx::query(
            "SELECT app, version, digest, length, size, published, published_by, withdrawn \
             FROM apps_releases ORDER BY app, published",
        )
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(release_of)
        .collect()
    }

    /// The highest versions that the repository reached.
    pub async fn apps_floors(&self) -> Result<ImageFloors, StoreError> {
        let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
            .bind(FLOORS)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        match row {
            None => Ok(ImageFloors::default()),
            Some(row) => json_column("floors of the image repository", row.try_get("value")?),
        }
    }
}

impl Tx {
    /// As [`Store::apps_changes`], where nobody else writes.
    pub async fn apps_changes(&mut self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
            .bind(CHANGES)
            .fetch_optional(self.connection())
            .await?;
        match row {
            None => Ok(0),
            Some(row) => parse_column("changes of apps", row.try_get("value")?),
        }
    }

    pub async fn apps_changed(&mut self) -> Result<u64, StoreError> {
        self.raise_number(CHANGES).await
    }

    /// Brings a file into force in the place of its role's before.
    pub async fn put_apps_metadata(
        &mut self,
        file: &NewRole<'_>,
        now: Timestamp,
        by: &str,
    ) -> Result<(), StoreError> {
        self.end_apps_role(file.role).await?;
        sqlx::query(
            "INSERT INTO apps_metadata (name, role, version, expires, current, sha256, length, content, added, added_by) \
             VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9) \
             ON CONFLICT (name) DO UPDATE SET version = excluded.version, expires = excluded.expires, current = 1, \
             sha256 = excluded.sha256, length = excluded.length, content = excluded.content, \
             added = excluded.added, added_by = excluded.added_by",
        )
        .bind(file.name)
        .bind(file.role)
        .bind(number_to_column(file.version))
        .bind(to_column(file.expires))
        .bind(Digest::of(file.bytes).to_string())
        .bind(number_to_column(file.bytes.len() as u64))
        .bind(STANDARD.encode(file.bytes))
        .bind(to_column(now))
        .bind(by)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// No file of this role is in force any more.
    pub async fn end_apps_role(&mut self, role: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE apps_metadata SET current = 0 WHERE role = $1 AND current = 1")
            .bind(role)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Forgets all but the newest `keep` files of a role.
    pub async fn prune_apps_role(&mut self, role: &str, keep: u32) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM apps_metadata WHERE role = $1 AND current = 0 AND name NOT IN \
             (SELECT name FROM apps_metadata WHERE role = $1 ORDER BY added DESC, version DESC LIMIT $2)",
        )
        .bind(role)
        .bind(i64::from(keep))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Adds a release, or names again one that was withdrawn.
    pub async fn put_apps_release(&mut self, row: &ReleaseRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO apps_releases (app, publisher, version, digest, length, size, published, published_by, withdrawn) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL) \
             ON CONFLICT (app, version) DO UPDATE SET published = excluded.published, \
             published_by = excluded.published_by, withdrawn = NULL",
        )
        .bind(row.app.to_string())
        .bind(row.app.publisher().as_str())
        .bind(row.version.to_string())
        .bind(row.digest.to_string())
        .bind(number_to_column(row.length))
        .bind(number_to_column(row.size))
        .bind(to_column(row.published))
        .bind(row.published_by.as_str())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub async fn withdraw_apps_release(
        &mut self,
        app: &AppName,
        version: &Version,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE apps_releases SET withdrawn = $3 WHERE app = $1 AND version = $2 AND withdrawn IS NULL",
        )
        .bind(app.to_string())
        .bind(version.to_string())
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// All of a publisher's that the image role names no longer.
    pub async fn withdraw_apps_publisher(
        &mut self,
        publisher: &PublisherName,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE apps_releases SET withdrawn = $2 WHERE publisher = $1 AND withdrawn IS NULL",
        )
        .bind(publisher.as_str())
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub async fn set_apps_floors(&mut self, floors: &ImageFloors) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO facts (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(FLOORS)
        .bind(to_json_column(floors))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

fn role_of(row: &AnyRow) -> Result<RoleRow, StoreError> {
    Ok(RoleRow {
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        version: number_from_column(row.try_get("version")?),
        expires: time_from_column(row.try_get("expires")?),
        sha256: parse_column("metadata digest", row.try_get("sha256")?)?,
        length: number_from_column(row.try_get("length")?),
        added: time_from_column(row.try_get("added")?),
        added_by: row.try_get("added_by")?,
    })
}

fn release_of(row: &AnyRow) -> Result<ReleaseRow, StoreError> {
    let withdrawn: Option<i64> = row.try_get("withdrawn")?;
    Ok(ReleaseRow {
        app: parse_column("app", row.try_get("app")?)?,
        version: parse_column("version of an app", row.try_get("version")?)?,
        digest: parse_column("manifest digest", row.try_get("digest")?)?,
        length: number_from_column(row.try_get("length")?),
        size: number_from_column(row.try_get("size")?),
        published: time_from_column(row.try_get("published")?),
        published_by: row.try_get("published_by")?,
        withdrawn: withdrawn.map(time_from_column),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn release(version: &str) -> ReleaseRow {
        ReleaseRow {
            app: "acme/x".parse().unwrap(),
            version: version.parse().unwrap(),
            digest: Digest::of(version.as_bytes()),
            length: 9,
            size: 5_000_000_000,
            published: NOW,
            published_by: "operator:li".to_owned(),
            withdrawn: None,
        }
    }

    fn file<'b>(name: &'b str, role: &'b str, version: u64, bytes: &'b [u8]) -> NewRole<'b> {
        NewRole {
            name,
            role,
            version,
            expires: NOW,
            bytes,
        }
    }

    store_tests! {
        async fn one_file_of_a_role_is_in_force_and_few_of_the_others_stay(store) {
            assert_eq!(store.apps_metadata("1.snapshot.json").await.unwrap(), None);
            let mut tx = store.begin("test").await.unwrap();
            for version in 1..=5_u64 {
                let name = format!("{version}.snapshot.json");
                let at = Timestamp::from_millis(NOW.millis() + version);
                tx.put_apps_metadata(&file(&name, "snapshot", version, name.as_bytes()), at, "cloud").await.unwrap();
            }
            tx.put_apps_metadata(&file("1.acme.json", "acme", 1, b"a"), NOW, "operator:li").await.unwrap();
            tx.put_apps_metadata(&file("1.acme.json", "acme", 1, b"b"), NOW, "operator:li").await.unwrap();
            tx.prune_apps_role("snapshot", 2).await.unwrap();
            tx.commit().await.unwrap();
            let roles = store.apps_roles().await.unwrap();
            let told: Vec<(&str, u64)> = roles.iter().map(|row| (row.role.as_str(), row.version)).collect();
            assert_eq!(told, [("acme", 1), ("snapshot", 5)]);
            assert_eq!(store.apps_metadata("1.acme.json").await.unwrap().unwrap(), b"b");
            assert_eq!(store.apps_metadata("3.snapshot.json").await.unwrap(), None);
            assert_eq!(store.apps_metadata("4.snapshot.json").await.unwrap().unwrap(), b"4.snapshot.json");
            let mut tx = store.begin("test").await.unwrap();
            tx.end_apps_role("acme").await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.apps_roles().await.unwrap().len(), 1);
        }

        async fn what_was_withdrawn_is_remembered(store) {
            let mut tx = store.begin("test").await.unwrap();
            tx.put_apps_release(&release("2.3")).await.unwrap();
            tx.put_apps_release(&release("2.3.0")).await.unwrap();
            tx.withdraw_apps_release(&"acme/x".parse().unwrap(), &"2.3".parse().unwrap(), NOW).await.unwrap();
            tx.commit().await.unwrap();
            let withdrawn = |rows: Vec<ReleaseRow>| -> Vec<String> {
                rows.into_iter().filter(|row| row.withdrawn == Some(NOW)).map(|row| row.version.to_string()).collect()
            };
            assert_eq!(withdrawn(store.apps_releases().await.unwrap()), ["2.3"]);
            let mut tx = store.begin("test").await.unwrap();
            tx.withdraw_apps_publisher(&"other".parse().unwrap(), NOW).await.unwrap();
            tx.put_apps_release(&release("2.3")).await.unwrap();
            tx.commit().await.unwrap();
            let mut rows = store.apps_releases().await.unwrap();
            rows.sort_by_key(|row| row.version.to_string());
            assert_eq!(rows, [release("2.3"), release("2.3.0")]);
            let mut tx = store.begin("test").await.unwrap();
            tx.withdraw_apps_publisher(&"acme".parse().unwrap(), NOW).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(withdrawn(store.apps_releases().await.unwrap()).len(), 2);
        }

        async fn floors_and_changes_are_kept(store) {
            assert_eq!(store.apps_floors().await.unwrap(), ImageFloors::default());
            assert_eq!(store.apps_changes().await.unwrap(), 0);
            let floors = ImageFloors { root: 7, ..ImageFloors::default() };
            let mut tx = store.begin("test").await.unwrap();
            tx.set_apps_floors(&floors).await.unwrap();
            tx.set_apps_floors(&floors).await.unwrap();
            assert_eq!(tx.apps_changes().await.unwrap(), 0);
            assert_eq!(tx.apps_changed().await.unwrap(), 1);
            assert_eq!(tx.apps_changes().await.unwrap(), 1);
            tx.commit().await.unwrap();
            assert_eq!(store.apps_floors().await.unwrap(), floors);
            assert_eq!(store.apps_changes().await.unwrap(), 1);
        }
    }
}
