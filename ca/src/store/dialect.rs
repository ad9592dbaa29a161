//! One text of each migration, for two databases.

use std::borrow::Cow;

use sqlx::migrate::{Migration, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};

use super::Backend;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// What SQLite says, and PostgreSQL instead.
const WORDS: [(&str, &str); 3] = [
    (" BLOB", " BYTEA"),
    (" INTEGER PRIMARY KEY", " BIGINT PRIMARY KEY"),
    (") WITHOUT ROWID;", ");"),
];

/// The migrations as this database takes them. Their checksums are those of the files.
pub(super) fn migrations(kind: Backend) -> Migrator {
    let translated = match kind {
        Backend::Sqlite => MIGRATIONS.iter().cloned().collect(),
        Backend::Postgres => MIGRATIONS.iter().map(translated).collect(),
    };
    Migrator {
        migrations: Cow::Owned(translated),
        ..Migrator::DEFAULT
    }
}

fn translated(migration: &Migration) -> Migration {
    let text = WORDS
        .iter()
        .fold(migration.sql.as_str().to_owned(), |text, (from, to)| {
            text.replace(from, to)
        });
    Migration {
        // A migration is a file of this repository.
        sql: AssertSqlSafe(text).into_sql_str(),
        ..migration.clone()
    }
}
