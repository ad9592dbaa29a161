//! Archives of the audit log: how far each has come, and the blocks that go into a segment.

use edgeward_audit::block::{BLOCK_LEAVES, Places};
use edgeward_audit::digest::{DIGEST_BYTES, Digest};
use edgeward_audit::segment::{SegmentBlock, SegmentPart};
use edgeward_identity::Timestamp;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, time_from_column, to_column,
};

const COLUMNS: &str = "name, next_leaf, holder, leased, segments, bytes, updated, error, failing";

/// Begins what [`Tx::note_absent`] writes.
const ABSENT: &str = "nothing is pruned: ";

/// How far an archive has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveRow {
    pub name: String,
    /// The first leaf that is not in it.
    pub next: u64,
    pub holder: String,
    pub leased: Timestamp,
    pub segments: u64,
    pub bytes: u64,
    pub updated: Timestamp,
    /// Why nothing goes there, and since when.
    pub failing: Option<(String, Timestamp)>,
}

/// Some blocks, as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredBlocks {
    pub entries: Vec<Digest>,
    pub blocks: Vec<SegmentBlock>,
}

impl Tx {
    /// Takes an archive for `holder` until `until`, if nobody else holds it. One that is new begins with leaf `begin`.
    pub async fn take_archive(
        &mut self,
        name: &str,
        holder: &str,
        begin: u64,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<ArchiveRow>, StoreError> {
        sqlx::query(
            "INSERT INTO log_archives (name, next_leaf, holder, leased, segments, bytes, updated) \
             VALUES ($1, $2, $3, 0, 0, 0, $4) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(number_to_column(begin))
        .bind(holder)
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        if !self
            .take_lease("log_archives", name, holder, (now, until))
            .await?
        {
            return Ok(None);
        }
        let text = format!("SELECT {COLUMNS} FROM log_archives WHERE name = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(name)
            .fetch_one(self.connection())
            .await?;
        archive_of(&row).map(Some)
    }

    /// Has an archive go on at leaf `begin`: what is before it and not there was pruned.
    pub async fn skip_archive(&mut self, name: &str, begin: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE log_archives SET next_leaf = $1 WHERE name = $2 AND next_leaf < $1")
            .bind(number_to_column(begin))
            .bind(name)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Notes that a segment is in an archive.
    pub async fn note_segment(
        &mut self,
        name: &str,
        first: u64,
        bytes: u64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO log_segments (archive, first_leaf, bytes) VALUES ($1, $2, $3) \
             ON CONFLICT (archive, first_leaf) DO UPDATE SET bytes = excluded.bytes",
        )
        .bind(name)
        .bind(number_to_column(first))
        .bind(number_to_column(bytes))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Notes, or takes back, that segments which are to be pruned are not in the archive. What else fails there stays.
    pub async fn note_absent(
        &mut self,
        name: &str,
        absent: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let text = match absent {
            Some(_) => {
                "UPDATE log_archives SET error = $2, failing = COALESCE(failing, $3) WHERE name = $1"
            }
            None => {
                "UPDATE log_archives SET error = NULL, failing = NULL WHERE name = $1 AND error LIKE $2 AND $3 >= 0"
            }
        };
        sqlx::query(text)
            .bind(name)
            .bind(absent.map_or_else(|| format!("{ABSENT}%"), |why| format!("{ABSENT}{why}")))
            .bind(to_column(now))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Writes how far an archive has come and renews its lease. False: somebody else has taken it.
    pub async fn put_archive(&mut self, row: &ArchiveRow) -> Result<bool, StoreError> {
        let (error, failing) = match &row.failing {
            Some((error, since)) => (Some(error.as_str()), Some(to_column(*since))),
            None => (None, None),
        };
        let written = sqlx::query(
            "UPDATE log_archives SET next_leaf = $1, leased = $2, segments = $3, bytes = $4, updated = $5, \
             error = $6, failing = $7 WHERE name = $8 AND holder = $9",
        )
        .bind(number_to_column(row.next))
        .bind(to_column(row.leased))
        .bind(number_to_column(row.segments))
        .bind(number_to_column(row.bytes))
        .bind(to_column(row.updated))
        .bind(error)
        .bind(failing)
        .bind(&row.name)
        .bind(&row.holder)
        .execute(self.connection())
        .await?;
        Ok(written.rows_affected() == 1)
    }
}

impl Store {
    /// How far an archive has come; none if nothing was ever written to it.
    pub async fn archive(&self, name: &str) -> Result<Option<ArchiveRow>, StoreError> {
        let text = format!("SELECT {COLUMNS} FROM log_archives WHERE name = $1");
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(name)
            .fetch_optional(&mut *self.read().await?)
            .await?
            .as_ref()
            .map(archive_of)
            .transpose()
    }

    /// The length of a segment that was written to an archive, as far as it was noted: older versions did not.
    pub async fn segment_bytes(&self, name: &str, first: u64) -> Result<Option<u64>, StoreError> {
        let row =
            sqlx::query("SELECT bytes FROM log_segments WHERE archive = $1 AND first_leaf = $2")
                .bind(name)
                .bind(number_to_column(first))
                .fetch_optional(&mut *self.read().await?)
                .await?;
        let bytes: Option<i64> = row.map(|row| row.try_get("bytes")).transpose()?;
        Ok(bytes.map(number_from_column))
    }

    /// The newest segment of an archive that begins before `end`, as far as it was noted.
    pub async fn last_segment(&self, name: &str, end: u64) -> Result<Option<u64>, StoreError> {
        let row = sqlx::query(
            "SELECT first_leaf FROM log_segments WHERE archive = $1 AND first_leaf < $2 \
             ORDER BY first_leaf DESC LIMIT 1",
        )
        .bind(name)
        .bind(number_to_column(end))
        .fetch_optional(&mut *self.read().await?)
        .await?;
        let first: Option<i64> = row.map(|row| row.try_get("first_leaf")).transpose()?;
        Ok(first.map(number_from_column))
    }

    /// Blocks `first` to before `end`, as they are stored; none where one of them is not there.
    pub async fn stored_blocks(
        &self,
        first: u64,
        end: u64,
    ) -> Result<Option<StoredBlocks>, StoreError> {
        let mut connection = self.read().await?;
        let mut found = StoredBlocks::default();
        for block in first..end {
            let row =
                sqlx::query("SELECT earliest, latest, entries FROM event_blocks WHERE block = $1")
                    .bind(number_to_column(block))
                    .fetch_optional(&mut *connection)
                    .await?;
            let Some(row) = row else { return Ok(None) };
            let entries: Vec<u8> = row.try_get("entries")?;
            match entries.as_chunks::<DIGEST_BYTES>() {
                (hashes, []) if hashes.len() as u64 == BLOCK_LEAVES => {
                    found
                        .entries
                        .extend(hashes.iter().copied().map(Digest::from_bytes));
                }
                _ => return Err(unreadable("entries of block", block)),
            }
            let parts = sqlx::query(
                "SELECT site_key, places, columns, bodies FROM event_parts WHERE block = $1 ORDER BY site_key",
            )
            .bind(number_to_column(block))
            .fetch_all(&mut *connection)
            .await?;
            found.blocks.push(SegmentBlock {
                earliest: row.try_get("earliest")?,
                latest: row.try_get("latest")?,
                parts: parts
                    .iter()
                    .map(|part| part_of(part, block))
                    .collect::<Result<_, _>>()?,
            });
        }
        Ok(Some(found))
    }
}

fn part_of(row: &AnyRow, block: u64) -> Result<SegmentPart, StoreError> {
    let places: Vec<u8> = row.try_get("places")?;
    Ok(SegmentPart {
        site_key: number_from_column(row.try_get("site_key")?),
        places: Places::parse(&places).map_err(|_| unreadable("places of block", block))?,
        columns: row.try_get("columns")?,
        bodies: row.try_get("bodies")?,
    })
}

fn archive_of(row: &AnyRow) -> Result<ArchiveRow, StoreError> {
    let error: Option<String> = row.try_get("error")?;
    let failing: Option<i64> = row.try_get("failing")?;
    Ok(ArchiveRow {
        name: row.try_get("name")?,
        next: number_from_column(row.try_get("next_leaf")?),
        holder: row.try_get("holder")?,
        leased: time_from_column(row.try_get("leased")?),
        segments: number_from_column(row.try_get("segments")?),
        bytes: number_from_column(row.try_get("bytes")?),
        updated: time_from_column(row.try_get("updated")?),
        failing: error.zip(failing.map(time_from_column)),
    })
}

fn unreadable(what: &'static str, value: u64) -> StoreError {
    StoreError::Unreadable {
        what,
        value: value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    store_tests! {
        async fn one_writes_to_an_archive_until_its_lease_ends(store) {
            let mut tx = store.begin("test").await.unwrap();
            let mut mine = tx.take_archive("file:///a", "a", 512, at(10), at(20)).await.unwrap().unwrap();
            assert_eq!(mine.next, 512);
            assert_eq!(tx.take_archive("file:///a", "b", 0, at(19), at(29)).await.unwrap(), None);
            mine.next = 1024;
            mine.failing = Some(("disk full".to_owned(), at(11)));
            assert!(tx.put_archive(&mine).await.unwrap());
            let theirs = tx.take_archive("file:///a", "b", 0, at(20), at(30)).await.unwrap().unwrap();
            assert_eq!((theirs.next, &theirs.failing), (1024, &mine.failing));
            assert!(!tx.put_archive(&mine).await.unwrap(), "who lost it moves nothing");
            tx.commit().await.unwrap();
            assert_eq!(store.archive("file:///a").await.unwrap(), Some(theirs));
            assert_eq!(store.archive("file:///b").await.unwrap(), None);
            assert_eq!(store.stored_blocks(0, 1).await.unwrap(), None);
        }
    }
}
