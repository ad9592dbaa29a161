//! Moving over what an older version stored: a row for each event, tiles in hex. Once, when the store is opened, in
//! steps of which each is all or nothing: what a crash left is moved at the next start.

use edgeward_audit::block::{BLOCK_LEAVES, Term, terms_wanted};
use edgeward_audit::digest::Digest;
use edgeward_audit::event::Verdict;
use edgeward_audit::query::Filter;
use edgeward_audit::record::SealedRecord;
use edgeward_identity::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{Executor, Row};

use super::blocks::SealedBlock;
use super::sealing::seal_body;
use super::sites::Sites;
use super::tail::{TailRow, size};
use crate::store::{
    Backend, Store, StoreError, Tx, number_from_column, number_to_column, parse_column,
    time_from_column,
};

/// Events of one step.
const STEP: u64 = 8 * BLOCK_LEAVES;
/// Tiles of one step.
const TILES: i64 = 256;
/// What the migration wrote, and what is written when everything is moved.
const STORAGE: &str = "audit_storage";
const MOVED: &str = "blocks";
/// What is written between the two in SQLite: the old tables are gone, and what they held may still stand in the log of
/// writes.
const DROPPED: &str = "dropped";
/// Names the key of terms, as the index itself does.
const TERMS: &str = "audit_terms";

/// An event as it was stored.
struct OldRow {
    leaf: u64,
    hash: Digest,
    received: Timestamp,
    record: SealedRecord,
}

impl Store {
    /// Refuses keys with which the index of terms was not made: it would find nothing, and say so with confidence.
    pub(in crate::store) async fn check_site_keys(&self) -> Result<(), StoreError> {
        let asked = Filter {
            verdict: Some(Verdict::Allow),
            ..Filter::default()
        };
        let terms = terms_wanted(self.site_keys().term_key(), &asked);
        let name = terms
            .iter()
            .flatten()
            .copied()
            .map(Term::to_column)
            .map(|term| term.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        let mut tx = self.begin("audit.keys").await?;
        let known = tx.fact_or(TERMS, &name).await?;
        tx.commit().await?;
        match known == name {
            true => Ok(()),
            false => Err(StoreError::OtherSiteKeys),
        }
    }

    /// Moves over what there is.
    pub(in crate::store) async fn move_old_events(&self) -> Result<(), StoreError> {
        let mut steps = 0_u64;
        while self.move_some().await? {
            steps += 1;
            if steps == 1 {
                tracing::info!("events are moved over to the new form; this happens once");
            }
        }
        match self.storage().await?.as_deref() {
            Some(DROPPED) => self.forget_old_writes().await,
            _ => Ok(()),
        }
    }

    async fn storage(&self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
            .bind(STORAGE)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        Ok(row.map(|row| row.try_get("value")).transpose()?)
    }

    /// One step. Tells whether there is more.
    async fn move_some(&self) -> Result<bool, StoreError> {
        if matches!(self.storage().await?.as_deref(), Some(MOVED | DROPPED)) {
            return Ok(false);
        }
        let mut tx = self.begin("audit.move").await?;
        // Another cloud may have moved the last in between.
        if tx.fact_or(STORAGE, MOVED).await? == MOVED {
            return Ok(false);
        }
        let moved = tx.move_tiles().await? || tx.move_events().await?;
        if !moved {
            tx.forget_old_tables(self.kind).await?;
        }
        tx.commit().await?;
        Ok(moved)
    }

    /// SQLite: what was written goes from the log of writes into the file, over what stood there, and the log is cut.
    /// Repeated by the next start if it could not be done.
    async fn forget_old_writes(&self) -> Result<(), StoreError> {
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(&mut *self.read().await?)
            .await?;
        if row.try_get::<i64, _>(0)? != 0 {
            tracing::warn!(
                "the database is read by somebody else: what an older version wrote is not overwritten yet; \
                 the next start tries again"
            );
            return Ok(());
        }
        let mut tx = self.begin("audit.moved").await?;
        tx.note_storage(MOVED).await?;
        tx.commit().await
    }
}

impl Tx {
    async fn move_tiles(&mut self) -> Result<bool, StoreError> {
        let rows = sqlx::query(
            "SELECT level, idx, hashes FROM log_tiles_hex ORDER BY level, idx LIMIT $1",
        )
        .bind(TILES)
        .fetch_all(self.connection())
        .await?;
        for row in &rows {
            let (level, index): (i64, i64) = (row.try_get("level")?, row.try_get("idx")?);
            let text: &str = row.try_get("hashes")?;
            // What is no hex was damaged before: the tree's own checks say so, not this.
            let hashes = hex::decode(text).unwrap_or_default();
            sqlx::query("INSERT INTO log_tiles (level, idx, hashes) VALUES ($1, $2, $3)")
                .bind(level)
                .bind(index)
                .bind(hashes)
                .execute(self.connection())
                .await?;
            sqlx::query("DELETE FROM log_tiles_hex WHERE level = $1 AND idx = $2")
                .bind(level)
                .bind(index)
                .execute(self.connection())
                .await?;
        }
        Ok(!rows.is_empty())
    }

    async fn move_events(&mut self) -> Result<bool, StoreError> {
        let first = size(self.connection()).await?;
        let rows = sqlx::query(
            "SELECT leaf, hash, received, record FROM events WHERE leaf >= $1 ORDER BY leaf LIMIT $2",
        )
        .bind(number_to_column(first))
        .bind(number_to_column(STEP))
        .fetch_all(self.connection())
        .await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let rows: Vec<OldRow> = rows.iter().map(old_row).collect::<Result<_, _>>()?;
        if !(first..).zip(&rows).all(|(leaf, row)| leaf == row.leaf) {
            return Err(super::tail::missing_before(first + rows.len() as u64));
        }
        self.move_runs(&rows).await?;
        let covered = self
            .newest_checkpoint()
            .await?
            .map_or(0, |newest| newest.size);
        let sealed = self.sealed(rows).await?;
        let mut blocks = Vec::new();
        for some in sealed.chunks(usize::try_from(BLOCK_LEAVES).unwrap_or(1)) {
            let end = some.last().map_or(0, |row| row.leaf + 1);
            let block = some.first().map_or(0, |row| row.leaf / BLOCK_LEAVES);
            if some.len() as u64 == BLOCK_LEAVES && end <= covered {
                blocks.push(SealedBlock::of(block, some, &self.site_keys)?);
            } else {
                self.put_tail_rows(some).await?;
            }
        }
        self.put_blocks(&blocks).await?;
        Ok(true)
    }

    async fn sealed(&mut self, rows: Vec<OldRow>) -> Result<Vec<TailRow>, StoreError> {
        let mut sites = Sites::default();
        let mut sealed = Vec::with_capacity(rows.len());
        for row in rows {
            let record = std::slice::from_ref(&row.record);
            for site in sites.of_all(self.connection(), record).await? {
                let (key, body) = seal_body(&self.site_keys, &site, row.leaf, &row.record)?;
                sealed.push(TailRow {
                    leaf: row.leaf,
                    hash: row.hash,
                    received: row.received,
                    key,
                    body,
                });
            }
        }
        Ok(sealed)
    }

    /// Notes which records of which journals these are.
    async fn move_runs(&mut self, rows: &[OldRow]) -> Result<(), StoreError> {
        let follows = |one: &OldRow, next: &OldRow| {
            let (one, next) = (one.record.record(), next.record.record());
            one.node == next.node && one.boot == next.boot && one.seq + 1 == next.seq
        };
        for run in rows.chunk_by(follows) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            let record = first.record.record();
            let (node, boot) = (record.node.to_string(), record.boot.to_string());
            let journal = self.journal_by_name(&node, &boot).await?;
            let journal = journal.ok_or_else(|| StoreError::Unreadable {
                what: "journal",
                value: boot.clone(),
            })?;
            self.put_run(journal, (record.seq, run.len() as u64), first.leaf)
                .await?;
            sqlx::query("UPDATE journals SET last_leaf = $1 WHERE node = $2 AND boot = $3")
                .bind(number_to_column(last.leaf))
                .bind(node)
                .bind(boot)
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }

    async fn forget_old_tables(&mut self, kind: Backend) -> Result<(), StoreError> {
        let is_sqlite = kind == Backend::Sqlite;
        // The records stood there readable. SQLite would leave them in pages that are free; so it writes zeros over every
        // page that these tables had. Only here: what is stored now is sealed.
        if is_sqlite {
            self.set_secure_delete("ON").await?;
        }
        for text in [
            "DROP TABLE events",
            "DROP TABLE event_spans",
            "DROP TABLE event_serials",
            "DROP TABLE log_tiles_hex",
            "DELETE FROM facts WHERE name = 'audit_serials'",
        ] {
            self.connection().execute(text).await?;
        }
        if is_sqlite {
            self.set_secure_delete("OFF").await?;
        }
        self.note_storage(if is_sqlite { DROPPED } else { MOVED })
            .await
    }

    async fn set_secure_delete(&mut self, state: &'static str) -> Result<(), StoreError> {
        let text = format!("PRAGMA secure_delete = {state}");
        sqlx::query(sqlx::AssertSqlSafe(text))
            .fetch_all(self.connection())
            .await?;
        Ok(())
    }

    async fn note_storage(&mut self, storage: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE facts SET value = $1 WHERE name = $2")
            .bind(storage.to_owned())
            .bind(STORAGE)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn old_row(row: &AnyRow) -> Result<OldRow, StoreError> {
    let leaf = number_from_column(row.try_get("leaf")?);
    let hash: Digest = parse_column("hash", row.try_get("hash")?)?;
    let text: &str = row.try_get("record")?;
    let record = SealedRecord::parse(text.as_bytes()).ok();
    let record = record
        .filter(|record| record.hash() == hash)
        .ok_or_else(|| StoreError::Unreadable {
            what: "record of event",
            value: leaf.to_string(),
        })?;
    Ok(OldRow {
        leaf,
        hash,
        received: time_from_column(row.try_get("received")?),
        record,
    })
}
