//! Witnessing: what this cloud cosigned of the logs of others, and what witnesses cosigned of its own.

use edgeward_audit::Digest;
use edgeward_audit::cosignature::{Cosignature, WitnessKey};
use edgeward_audit::note::{Note, NoteSignature};
use edgeward_audit::witness::Known;
use edgeward_identity::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::log::StoredCheckpoint;
use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

/// Cosigned checkpoints that are kept beside the first of each hour.
pub const KEPT_NEWEST: u32 = 16;
/// Most cosignatures of one checkpoint that are read.
const MAX_COSIGNATURES: u32 = 16;
/// Begins the name of the fact that a key of this cloud cosigns by what this database remembers.
const KEY_FACT: &str = "witness_key ";
/// Milliseconds in an hour.
const HOUR: u64 = 3_600_000;

const WITNESSED: &str = "origin, size, root, note, cosigned, fork, forked";

/// A log of others, as this cloud saw it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    pub origin: String,
    pub size: u64,
    pub root: Digest,
    /// The signed note with this cloud's cosignature.
    pub note: String,
    pub cosigned: Timestamp,
    /// The first note that contradicts what was cosigned.
    pub fork: Option<(String, Timestamp)>,
}

/// A checkpoint of the own log with what witnesses put under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    pub size: u64,
    /// The signed note, cosignatures included.
    pub note: String,
    pub signed: Timestamp,
}

/// What one witness cosigned last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCosigned {
    /// Its key as signed notes write keys.
    pub witness: String,
    pub size: u64,
    /// When, by its own clock.
    pub time: Timestamp,
}

impl Witnessed {
    pub fn known(&self) -> Known {
        Known {
            size: self.size,
            root: self.root,
        }
    }
}

impl Store {
    /// What was cosigned last of this log.
    pub async fn witnessed(&self, origin: &str) -> Result<Option<Witnessed>, StoreError> {
        witnessed(&mut *self.read().await?, origin).await
    }

    /// Lines under the checkpoint of the own log of this size.
    pub async fn cosignatures(&self, size: u64) -> Result<Vec<String>, StoreError> {
        cosignatures(&mut *self.read().await?, size).await
    }

    /// Of the cosigned checkpoints of `least` events or more that were signed at `since` or later the one that most
    /// witnesses cosigned; of several the newest.
    pub async fn cosigned(
        &self,
        least: u64,
        since: Timestamp,
    ) -> Result<Option<Cosigned>, StoreError> {
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT c.size, c.note, c.signed, COUNT(*) AS lines FROM cosigned_checkpoints c \
             JOIN log_cosignatures s ON s.size = c.size WHERE c.size >= $1 AND c.signed >= $2 \
             GROUP BY c.size, c.note, c.signed ORDER BY lines DESC, c.size DESC LIMIT 1",
        )
        .bind(number_to_column(least))
        .bind(to_column(since))
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let size = number_from_column(row.try_get("size")?);
        let lines = cosignatures(&mut connection, size).await?;
        Ok(Some(Cosigned {
            size,
            note: with_lines(row.try_get("note")?, &lines),
            signed: time_from_column(row.try_get("signed")?),
        }))
    }

    /// The newest cosignature of this witness.
    pub async fn last_cosigned(
        &self,
        witness: &WitnessKey,
    ) -> Result<Option<LastCosigned>, StoreError> {
        sqlx::query(
            "SELECT witness, size, time FROM log_cosignatures WHERE witness = $1 ORDER BY size DESC LIMIT 1",
        )
        .bind(witness.to_string())
        .fetch_optional(&mut *self.read().await?)
        .await?
        .map(|row| {
            Ok(LastCosigned {
                witness: row.try_get("witness")?,
                size: number_from_column(row.try_get("size")?),
                time: time_from_column(row.try_get("time")?),
            })
        })
        .transpose()
    }
}

impl Tx {
    /// As [`Store::witnessed`], with all other writers waiting: what is judged by it stays true until the commit.
    pub async fn witnessed(&mut self, origin: &str) -> Result<Option<Witnessed>, StoreError> {
        witnessed(self.connection(), origin).await
    }

    /// Whether this database remembers what the key cosigned: whether it, or one that it continues, saw the key made.
    pub async fn knows_witness_key(&mut self, key: &WitnessKey) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
            .bind(format!("{KEY_FACT}{key}"))
            .fetch_optional(self.connection())
            .await?;
        Ok(row.is_some())
    }

    /// Remembers a key of this cloud's: before its file is written, so that no key is used that no database knows.
    pub async fn put_witness_key(
        &mut self,
        key: &WitnessKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let name = format!("{KEY_FACT}{key}");
        self.fact_or(&name, &now.millis().to_string()).await?;
        Ok(())
    }

    /// Remembers what is cosigned from now on. A fork that was noticed stays noticed.
    pub async fn put_witnessed(
        &mut self,
        origin: &str,
        known: Known,
        note: &Note,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO witnessed_logs (origin, size, root, note, cosigned) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root, \
             note = excluded.note, cosigned = excluded.cosigned",
        )
        .bind(origin)
        .bind(number_to_column(known.size))
        .bind(known.root.to_string())
        .bind(note.to_string())
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Keeps the first note that contradicts what was cosigned. False: there is one already.
    pub async fn put_fork(
        &mut self,
        origin: &str,
        note: &Note,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let kept = sqlx::query(
            "UPDATE witnessed_logs SET fork = $1, forked = $2 WHERE origin = $3 AND fork IS NULL",
        )
        .bind(note.to_string())
        .bind(to_column(now))
        .bind(origin)
        .execute(self.connection())
        .await?;
        Ok(kept.rows_affected() == 1)
    }

    /// Keeps a verified cosignature of a checkpoint of the own log; of those long past the first of each hour stays.
    pub async fn put_cosignature(
        &mut self,
        checkpoint: &StoredCheckpoint,
        witness: &WitnessKey,
        cosignature: &Cosignature,
    ) -> Result<(), StoreError> {
        let hour = number_to_column(checkpoint.signed.millis() / HOUR);
        sqlx::query(
            "INSERT INTO cosigned_checkpoints (size, note, signed, hour) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (size) DO NOTHING",
        )
        .bind(number_to_column(checkpoint.size))
        .bind(&checkpoint.note)
        .bind(to_column(checkpoint.signed))
        .bind(hour)
        .execute(self.connection())
        .await?;
        sqlx::query(
            "INSERT INTO log_cosignatures (size, witness, line, time) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (size, witness) DO UPDATE SET line = excluded.line, time = excluded.time",
        )
        .bind(number_to_column(checkpoint.size))
        .bind(witness.to_string())
        .bind(cosignature.line().to_string())
        .bind(to_column(cosignature.time()))
        .execute(self.connection())
        .await?;
        self.let_cosigned_go(hour).await
    }

    /// In this hour and the one before, which no other call has looked at since it ended.
    async fn let_cosigned_go(&mut self, hour: i64) -> Result<(), StoreError> {
        let kept = sqlx::query(
            "SELECT size FROM cosigned_checkpoints ORDER BY size DESC LIMIT 1 OFFSET $1",
        )
        .bind(i64::from(KEPT_NEWEST))
        .fetch_optional(self.connection())
        .await?;
        let Some(kept) = kept else {
            return Ok(());
        };
        let newest_gone: i64 = kept.try_get("size")?;
        let gone = sqlx::query(
            "SELECT c.size FROM cosigned_checkpoints c WHERE c.hour >= $1 AND c.size <= $2 AND EXISTS \
             (SELECT 1 FROM cosigned_checkpoints e WHERE e.hour = c.hour AND e.size < c.size)",
        )
        .bind(hour.saturating_sub(1))
        .bind(newest_gone)
        .fetch_all(self.connection())
        .await?;
        for row in gone {
            let size: i64 = row.try_get("size")?;
            for text in [
                "DELETE FROM log_cosignatures WHERE size = $1",
                "DELETE FROM cosigned_checkpoints WHERE size = $1",
            ] {
                sqlx::query(text)
                    .bind(size)
                    .execute(self.connection())
                    .await?;
            }
        }
        Ok(())
    }
}

/// A note with these lines behind its own, as they are.
pub fn with_lines(note: &str, lines: &[String]) -> String {
    let mut whole = note.to_owned();
    for line in lines {
        whole.push_str(line);
        whole.push('\n');
    }
    whole
}

async fn cosignatures(
    connection: &mut AnyConnection,
    size: u64,
) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(
        "SELECT line FROM log_cosignatures WHERE size = $1 ORDER BY time, witness LIMIT $2",
    )
    .bind(number_to_column(size))
    .bind(i64::from(MAX_COSIGNATURES))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let line: String = row.try_get("line")?;
            match NoteSignature::parse(&line) {
                Ok(_) => Ok(line),
                Err(_) => Err(StoreError::Unreadable {
                    what: "cosignature",
                    value: line,
                }),
            }
        })
        .collect()
}

async fn witnessed(
    connection: &mut AnyConnection,
    origin: &str,
) -> Result<Option<Witnessed>, StoreError> {
    let text = format!("SELECT {WITNESSED} FROM witnessed_logs WHERE origin = $1");
    sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(origin)
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(witnessed_of)
        .transpose()
}

fn witnessed_of(row: &AnyRow) -> Result<Witnessed, StoreError> {
    let fork: Option<String> = row.try_get("fork")?;
    let forked: Option<i64> = row.try_get("forked")?;
    Ok(Witnessed {
        origin: row.try_get("origin")?,
        size: number_from_column(row.try_get("size")?),
        root: parse_column("hash", row.try_get("root")?)?,
        note: row.try_get("note")?,
        cosigned: time_from_column(row.try_get("cosigned")?),
        fork: fork.zip(forked.map(time_from_column)),
    })
}

#[cfg(test)]
mod tests;
