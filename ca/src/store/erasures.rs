//! Erasures: which keys of sites are destroyed, written down in the transaction that tells the log so, and brought to
//! their end by whoever comes next.
//!
//! **Nothing that the log holds after an erasure is sealed by a key that it destroys**, whichever cloud seals it. Events
//! are sealed under the writers' lock. Under the same lock an erasure looks at the folder, so that it knows every key
//! that ever sealed for the site; puts the next key on disk; names the old ones; and writes down the next key's id as the
//! newest of all. It commits at once with `audit.erased`. Whoever appends after that reads the newest id, before it
//! seals: if it is not the one it followed last it looks at the folder, where the next key has been since before the
//! commit, and is the site's current one, being the newest made. That the old keys still live at that moment, since they
//! are destroyed after the commit, changes nothing: they are not current any more. A look that fails, or does not find
//! the newest key (a share that shows an old listing), fails the append.

use edgeward_identity::Timestamp;
use sqlx::{AnyConnection, Row};

use super::{Store, StoreError, Tx};
use crate::keys::sites::{Site, SiteKeyFault, SiteKeyId, SiteKeyState, SiteKeys, Unopened};

/// Names the fact that holds the newest key which an erasure made.
pub(super) const NEWEST_KEY: &str = "audit_site_key";

impl Tx {
    /// Begins the erasure of a site: gives it a new key, and writes down which keys are to be destroyed. None if it has
    /// none. The event of it belongs into this transaction; after its commit comes [`Store::end_erasures`].
    pub async fn begin_erasure(
        &mut self,
        site: &Site,
        now: Timestamp,
    ) -> Result<Vec<SiteKeyId>, StoreError> {
        let (keys, turned) = (self.site_keys.clone(), site.clone());
        let turn = move || -> Result<_, SiteKeyFault> {
            keys.look_again()?;
            let old = keys.turn_over(&turned, now)?;
            if old.is_empty() {
                return Ok((old, None));
            }
            Ok((old, Some(keys.current(&turned)?)))
        };
        // Files are flushed there: not a task's work.
        let (old, new) = tokio::task::spawn_blocking(turn)
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))??;
        let Some(new) = new else { return Ok(old) };
        for key in self.site_keys.list() {
            if old.contains(&key.id) {
                self.note_erasure(&key, now).await?;
            }
        }
        sqlx::query(
            "INSERT INTO facts (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(NEWEST_KEY)
        .bind(new.to_string())
        .execute(self.connection())
        .await?;
        Ok(old)
    }

    async fn note_erasure(&mut self, key: &SiteKeyState, now: Timestamp) -> Result<(), StoreError> {
        let text = format!("{}\n{}\n{}", key.site, key.made.millis(), now.millis());
        let by = self.site_keys.current(&Site::cloud())?;
        let body = self.site_keys.seal(by, &context(key.id), text.as_bytes())?;
        // One that an earlier erasure named, and that still lives, is destroyed now.
        sqlx::query(
            "INSERT INTO site_erasures (site_key, sealed_by, body, destroyed) VALUES ($1, $2, $3, 0) \
             ON CONFLICT (site_key) DO UPDATE SET sealed_by = excluded.sealed_by, body = excluded.body, destroyed = 0",
        )
        .bind(key.id.to_column())
        .bind(by.to_column())
        .bind(body)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Sees to it that what this transaction seals is sealed by keys that are current.
    pub(super) fn follow_erasures(&self, newest: Option<SiteKeyId>) -> Result<(), StoreError> {
        match newest {
            Some(newest) if !self.site_keys.follows(newest)? => {
                Err(StoreError::NewerSiteKey(newest))
            }
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Ends erasures that were recorded. `all`: at a start; also those whose keys a backup brought back.
    pub async fn end_erasures(&self, all: bool) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT site_key, sealed_by, body, destroyed FROM site_erasures WHERE destroyed <= $1 ORDER BY site_key",
        )
        .bind(i64::from(all))
        .fetch_all(&mut *self.read().await?)
        .await?;
        for row in &rows {
            let id = SiteKeyId::from_column(row.try_get("site_key")?);
            let by = SiteKeyId::from_column(row.try_get("sealed_by")?);
            let was_ended = row.try_get::<i64, _>("destroyed")? == 1;
            if was_ended && self.site_keys().is_erased(id) {
                continue;
            }
            let key = match named(self.site_keys(), id, by, row.try_get("body")?) {
                Ok(key) => key,
                Err(fault) => {
                    tracing::error!(key = %id, reason = %fault, "the note of an erased key of a site cannot be read");
                    continue;
                }
            };
            let (keys, named) = (self.site_keys().clone(), key.clone());
            tokio::task::spawn_blocking(move || keys.destroy_named(&named))
                .await
                .map_err(|error| StoreError::Unavailable(error.to_string()))??;
            if was_ended {
                tracing::warn!(key = %id, site = %key.site, "an erased key of a site was back, and is destroyed again");
                continue;
            }
            let mut tx = self.begin("audit.erased").await?;
            sqlx::query("UPDATE site_erasures SET destroyed = 1 WHERE site_key = $1")
                .bind(id.to_column())
                .execute(tx.connection())
                .await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// At a start: what is in the folder is what there is. A folder that was restored from before the last erasure has
    /// its newest key no more, and the log goes on all the same.
    pub(super) async fn begin_following(&self) -> Result<(), StoreError> {
        let newest = newest_key(&mut *self.read().await?).await?;
        if let Some(newest) = newest
            && !self.site_keys().follows(newest)?
        {
            tracing::error!(key = %newest,
                "the newest key of a site is missing in its folder: what it sealed cannot be read (docs/audit-retention.md)");
            self.site_keys().follow_without(newest);
        }
        Ok(())
    }
}

async fn newest_key(connection: &mut AnyConnection) -> Result<Option<SiteKeyId>, StoreError> {
    let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
        .bind(NEWEST_KEY)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    parse_newest(Some(row.try_get("value")?))
}

/// What the fact says.
pub(super) fn parse_newest(value: Option<String>) -> Result<Option<SiteKeyId>, StoreError> {
    let Some(value) = value else { return Ok(None) };
    let id = u64::from_str_radix(&value, 16)
        .ok()
        .and_then(SiteKeyId::from_number);
    id.map(Some).ok_or(StoreError::Unreadable {
        what: "newest key of a site",
        value,
    })
}

fn context(id: SiteKeyId) -> Vec<u8> {
    let mut context = b"edgeward erased site key v1\n".to_vec();
    context.extend_from_slice(&id.get().to_be_bytes());
    context
}

fn named(
    keys: &SiteKeys,
    id: SiteKeyId,
    by: SiteKeyId,
    body: &[u8],
) -> Result<SiteKeyState, Unopened> {
    let plain = keys.open_sealed(by, &context(id), body)?;
    let text = std::str::from_utf8(&plain).map_err(|_| Unopened::Damaged)?;
    let mut lines = text.lines();
    let site = lines.next().and_then(Site::parse);
    let mut time = || lines.next()?.parse().ok().map(Timestamp::from_millis);
    let (made, erased) = (time(), time());
    let (Some(site), Some(made), Some(erased)) = (site, made, erased) else {
        return Err(Unopened::Damaged);
    };
    Ok(SiteKeyState {
        site,
        id,
        made,
        erased: Some(erased),
    })
}
