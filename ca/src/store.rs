//! The store: the only place that speaks SQL. SQLite (one file) or PostgreSQL (several clouds), by one SQL text.
//!
//! How a table is added: a migration `ca/migrations/NNNN_name.sql` that both databases run unchanged, and a file
//! `store/<name>.rs` with `impl Store` for reads and `impl Tx` for writes, whose tests use `store_tests!` so that
//! they run on both. The rules that keep one text valid for both:
//!
//! * columns are `TEXT`, `BIGINT` or `BLOB` and nothing else (a few bytes as lower-case hex, structures as JSON text,
//!   times as milliseconds since the epoch); truth is `0`/`1`;
//! * what the two databases call by different names a migration writes as SQLite does, and `dialect` translates it:
//!   `BLOB`, `INTEGER PRIMARY KEY` (a number that is the row's own place), `WITHOUT ROWID`;
//! * parameters are `$1`, `$2`; no `AUTOINCREMENT`/`SERIAL`, no `RETURNING` of expressions, no `SUM` (PostgreSQL
//!   makes it `NUMERIC`); upserts as `INSERT ... ON CONFLICT (...) DO ...`, which both know;
//! * text is compared for equality only, or ordered where nobody relies on the collation.
//!
//! **One writer at a time, in both databases.** A [`Tx`] holds the write lock (SQLite: `BEGIN IMMEDIATE`; PostgreSQL: one
//! advisory lock, across all clouds) from its begin to its end. Every grant appends to the one audit log in its own
//! transaction, so writers would meet there anyway; taken first, the lock makes check-then-write correct without
//! `SELECT ... FOR UPDATE`, and there is no serialization failure or deadlock to retry. Work that is slow (signing in a
//! token, verifying evidence) is done before the begin.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgeward_identity::Timestamp;
use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor, Row};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub mod alerts;
pub mod apikeys;
pub mod approvals;
pub mod apps;
pub mod archive;
pub mod audit;
pub mod authorities;
pub mod break_glass;
mod database;
pub mod deny;
mod dialect;
pub mod director;
pub mod eks;
pub mod erasures;
pub mod evidence;
pub mod exports;
mod follow;
mod lease;
pub mod log;
pub mod nodes;
pub mod operators;
pub mod policies;
pub mod pruned;
pub mod recoveries;
pub mod results;
pub mod rollouts;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod witness;

/// Most connections to the database that one cloud holds.
pub const MAX_CONNECTIONS: u32 = 16;
/// How long a writer waits for its turn, and a reader for a connection.
pub const WAIT: Duration = Duration::from_secs(10);
/// The advisory lock of writers in PostgreSQL ("edgeward" in ASCII).
const WRITER_LOCK: i64 = 0x6564_6765_7761_7264;

pub use database::Database;
use database::Location;

use crate::keys::sites::{SiteKeyFault, SiteKeyId, SiteKeys};

/// The open store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: AnyPool,
    kind: Backend,
    writer: Arc<Mutex<()>>,
    committed: crate::store::follow::Committed,
    site_keys: SiteKeys,
}

/// A named write transaction. Dropped without [`Tx::commit`], nothing of it happened.
pub struct Tx {
    inner: sqlx::Transaction<'static, Any>,
    name: &'static str,
    begun: Instant,
    /// Size of the log with what this transaction appended.
    appended: Option<u64>,
    committed: crate::store::follow::Committed,
    site_keys: SiteKeys,
    _turn: OwnedMutexGuard<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Sqlite,
    Postgres,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator's: configuration.
    #[error("database is neither a path nor a postgres:// url: {0}")]
    Url(String),
    /// The operator's: a secret where none belongs.
    #[error(
        "a database url may not hold a password: use a pgpass file (PGPASSFILE) or peer authentication"
    )]
    PasswordInUrl,
    /// The operator's: a server elsewhere, reached without knowing that it is the right one.
    #[error(
        "a database on another machine needs ?sslmode=verify-full (and sslrootcert=FILE for a CA of your own)"
    )]
    Plaintext,
    /// The operator's: a file that cannot be made or opened.
    #[error("database file {path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The operator's: the schema is newer than this program, or was changed by hand.
    #[error("database schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// The caller's: a row with this key exists.
    #[error("already exists")]
    Exists,
    /// Ours or the operator's: overload or a lost database. Worth trying again.
    #[error("database is not available: {0}")]
    Unavailable(String),
    /// Ours: the store holds something this version does not write.
    #[error("store holds an unreadable {what}: {value}")]
    Unreadable { what: &'static str, value: String },
    /// Nobody's: the key of the event's site was destroyed, or its record let go, as somebody wished.
    #[error("event {0} was erased")]
    Erased(u64),
    /// Nobody's: deleted under the stated policy.
    #[error(
        "event {index} was pruned: the smallest index that is kept is {minimum}; what is below is in the archive, if there is one"
    )]
    Pruned { index: u64, minimum: u64 },
    /// The operator's: a key that is neither here nor known to be erased.
    #[error("the key of a site is missing, with which event {leaf} can be read: {key}")]
    NoSiteKey { key: SiteKeyId, leaf: u64 },
    /// The operator's: the folder does not show what another cloud put there.
    #[error("the newest key of a site is not in its folder: {0}")]
    NewerSiteKey(SiteKeyId),
    /// The operator's: these are not the keys that the database was written with.
    #[error("the folder of the sites' keys is not the one that this database was written with")]
    OtherSiteKeys,
    /// The operator's or the disk's.
    #[error("key of a site: {0}")]
    SiteKey(#[from] SiteKeyFault),
    /// Ours.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
}

impl Store {
    /// Opens the database, makes a SQLite file (mode 0600) where there is none, and brings the schema up to date.
    /// `site_keys` seal the events, and must be those with which the database was written before.
    pub async fn open(database: &Database, site_keys: SiteKeys) -> Result<Self, StoreError> {
        install_default_drivers();
        let kind = match database.location() {
            Location::Sqlite(path) => {
                make_file(path)?;
                Backend::Sqlite
            }
            Location::Postgres(_) => Backend::Postgres,
        };
        let pool = AnyPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(WAIT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    connection.execute(kind.session_settings()).await?;
                    Ok(())
                })
            })
            .after_release(|connection, _| Box::pin(is_clean(connection)))
            .connect(&database.url())
            .await?;
        dialect::migrations(kind).run(&pool).await?;
        let store = Self {
            pool,
            kind,
            writer: Arc::default(),
            committed: crate::store::follow::Committed::default(),
            site_keys,
        };
        store.check_site_keys().await?;
        store.begin_following().await?;
        store.end_erasures(true).await?;
        store.move_old_events().await?;
        Ok(store)
    }

    /// Whether other clouds may write there, too.
    pub fn is_shared(&self) -> bool {
        self.kind == Backend::Postgres
    }

    /// The keys that seal events.
    pub fn site_keys(&self) -> &SiteKeys {
        &self.site_keys
    }

    /// A connection for reading.
    pub async fn read(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Begins a write transaction. The name says why (`token.consume`) and labels its metrics.
    pub async fn begin(&self, name: &'static str) -> Result<Tx, StoreError> {
        let begun = Instant::now();
        let turn = tokio::time::timeout(WAIT, self.writer.clone().lock_owned())
            .await
            .map_err(|_| StoreError::Unavailable("too many writers".to_owned()))?;
        let inner = match self.kind {
            Backend::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
            Backend::Postgres => {
                let mut inner = self.pool.begin().await?;
                sqlx::query("SELECT pg_advisory_xact_lock($1)")
                    .bind(WRITER_LOCK)
                    .execute(&mut *inner)
                    .await?;
                inner
            }
        };
        Ok(Tx {
            inner,
            name,
            begun,
            appended: None,
            committed: self.committed.clone(),
            site_keys: self.site_keys.clone(),
            _turn: turn,
        })
    }

    /// Whether the database answers (readiness).
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read().await?.ping().await?;
        Ok(())
    }

    /// Waits for running statements and closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Tx {
    /// The connection, inside the transaction.
    pub fn connection(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    /// A single value of the installation; written with `value` if it is not there yet.
    pub async fn fact_or(&mut self, name: &str, value: &str) -> Result<String, StoreError> {
        sqlx::query(
            "INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(value)
        .execute(self.connection())
        .await?;
        let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
            .bind(name)
            .fetch_one(self.connection())
            .await?;
        Ok(row.try_get("value")?)
    }

    /// Makes everything since the begin durable (SQLite: `synchronous=FULL`), all of it or nothing. A task of its own: where
    /// the caller goes away meanwhile, it is done all the same, and whoever waits for events is woken after it.
    pub async fn commit(self) -> Result<(), StoreError> {
        let ended = tokio::spawn(self.commit_now()).await;
        ended.unwrap_or_else(|error| {
            Err(StoreError::Unavailable(format!(
                "a commit was ended: {error}"
            )))
        })
    }

    async fn commit_now(self) -> Result<(), StoreError> {
        let result = self.inner.commit().await;
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        metrics::histogram!("edgeward_store_transaction_seconds", "name" => self.name, "outcome" => outcome)
            .record(self.begun.elapsed().as_secs_f64());
        result?;
        if let Some(size) = self.appended {
            self.committed.wake(size);
        }
        Ok(())
    }
}

impl Backend {
    fn session_settings(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;"
            }
            Self::Postgres => {
                "SET lock_timeout = '10s'; SET statement_timeout = '60s'; SET synchronous_commit = 'on'; \
                 SET idle_in_transaction_session_timeout = '60s'; SET default_transaction_isolation = 'read committed'"
            }
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Exists,
            // PostgreSQL: lock not available, query cancelled, shutdown, disk full; SQLite: busy, locked, disk full.
            sqlx::Error::Database(database)
                if matches!(
                    database.code().as_deref(),
                    Some(
                        "55P03"
                            | "57014"
                            | "57P01"
                            | "57P02"
                            | "57P03"
                            | "53100"
                            | "5"
                            | "6"
                            | "13"
                            | "517"
                    )
                ) =>
            {
                Self::Unavailable(database.message().to_owned())
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Database(error),
        }
    }
}

/// A time as the store keeps it.
pub fn to_column(time: Timestamp) -> i64 {
    number_to_column(time.millis())
}

/// A time from the store.
pub fn time_from_column(column: i64) -> Timestamp {
    Timestamp::from_millis(number_from_column(column))
}

/// A counter as the store keeps it. Counters never reach 2^63; one that did would stay there.
pub fn number_to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub fn number_from_column(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// Text from the store as the type that was written.
pub fn parse_column<T: FromStr>(what: &'static str, value: &str) -> Result<T, StoreError> {
    value.parse().map_err(|_| StoreError::Unreadable {
        what,
        value: value.to_owned(),
    })
}

/// JSON from the store as the type that was written.
pub fn json_column<T: serde::de::DeserializeOwned>(
    what: &'static str,
    value: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(value).map_err(|_| StoreError::Unreadable {
        what,
        value: value.to_owned(),
    })
}

/// A structure as JSON text for the store.
pub fn to_json_column<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value)
        .expect("maps with string keys and plain structures always serialise")
}

/// Whether a connection may be used again. After a failure such as a full disk SQLite has ended the transaction by
/// itself, and sqlx goes on counting it: such a connection would refuse every later `BEGIN`.
async fn is_clean(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    // Lets a rollback that is still queued happen first.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

fn make_file(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| StoreError::File {
            path: path.to_owned(),
            source,
        })
}
