use sqlx::Row;

use super::*;
use crate::store_tests;

#[test]
fn a_database_that_is_neither_a_path_nor_postgresql_is_refused() {
    for text in [
        "",
        "mysql://host/db",
        "sqlite::memory:",
        "sqlite://",
        "http://x",
    ] {
        assert!(
            matches!(text.parse::<Database>(), Err(StoreError::Url(_))),
            "{text}"
        );
    }
}

#[test]
fn a_password_in_a_database_url_is_refused() {
    for text in [
        "postgres://user:secret@host/db",
        "postgresql://user:@host/db",
        "postgres:///db?host=/run&password=secret",
    ] {
        assert!(
            matches!(text.parse::<Database>(), Err(StoreError::PasswordInUrl)),
            "{text}"
        );
    }
}

#[test]
fn a_database_elsewhere_must_prove_who_it_is() {
    for text in [
        "postgres://user@host:5432/db",
        "postgres://user@host/db?sslmode=require",
        "postgres://host/db?sslmode=verify-ca",
        "postgres:///db?host=db.example",
        "postgres://localhost/db?hostaddr=192.0.2.1",
        "postgres://[2001:db8::1]:5432/db",
    ] {
        assert!(
            matches!(text.parse::<Database>(), Err(StoreError::Plaintext)),
            "{text}"
        );
    }
    for text in [
        "postgres://user@host:5432/db?sslmode=verify-full",
        "postgres:///db?host=/run/postgresql&user=edgeward",
        "postgres://user@localhost:5432/db",
        "postgres://[::1]/db",
        "postgres://%2Frun%2Fpostgresql/db",
    ] {
        assert!(text.parse::<Database>().is_ok(), "{text}");
    }
}

#[tokio::test]
async fn a_new_sqlite_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd ?#%name.db");
    let store = Store::open(&Database::file(&path), SiteKeys::temporary())
        .await
        .unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    store.close().await;
}

#[tokio::test]
async fn after_a_full_disk_the_store_works_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(
        &Database::file(folder.path().join("full.db")),
        SiteKeys::temporary(),
    )
    .await
    .unwrap();
    for name in ["a", "b", "c"] {
        let mut tx = store.begin("test").await.unwrap();
        // No page more than there are: what SQLite then says is what it says of a full disk.
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(tx.connection())
            .await
            .unwrap();
        let refused = put(&mut tx, name, &"x".repeat(1_000_000)).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
        drop(tx);
    }
    let mut tx = store.begin("test").await.unwrap();
    put(&mut tx, "after", "1").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&store).await, 1);
}

async fn put(tx: &mut Tx, name: &str, value: &str) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO facts (name, value) VALUES ($1, $2)")
        .bind(name)
        .bind(value)
        .execute(tx.connection())
        .await?;
    Ok(())
}

async fn count(store: &Store) -> i64 {
    // The store keeps facts of its own.
    let row = sqlx::query("SELECT COUNT(*) AS n FROM facts WHERE substr(name, 1, 6) <> 'audit_'")
        .fetch_one(&mut *store.read().await.unwrap())
        .await
        .unwrap();
    row.try_get("n").unwrap()
}

store_tests! {
    async fn a_dropped_transaction_leaves_nothing(store) {
        let mut tx = store.begin("test").await.unwrap();
        put(&mut tx, "a", "1").await.unwrap();
        drop(tx);
        assert_eq!(count(&store).await, 0);
    }

    async fn a_second_row_with_the_same_key_is_told_apart_from_other_errors(store) {
        let mut tx = store.begin("test").await.unwrap();
        put(&mut tx, "a", "1").await.unwrap();
        assert!(matches!(put(&mut tx, "a", "2").await, Err(StoreError::Exists)));
    }

    async fn writers_of_two_clouds_take_turns(store) {
        let other = store.another().await;
        let mut tasks = Vec::new();
        for i in 0..40_u32 {
            let store = if i % 2 == 0 { (*store).clone() } else { other.clone() };
            tasks.push(tokio::spawn(async move {
                let mut tx = store.begin("test").await.unwrap();
                // The store keeps facts of its own.
    let row = sqlx::query("SELECT COUNT(*) AS n FROM facts WHERE substr(name, 1, 6) <> 'audit_'")
                    .fetch_one(tx.connection())
                    .await
                    .unwrap();
                let n: i64 = row.try_get("n").unwrap();
                tokio::task::yield_now().await;
                put(&mut tx, &n.to_string(), "").await.unwrap();
                tx.commit().await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(count(&store).await, 40);
    }

    async fn an_absent_value_keeps_its_absence(store) {
        let row = sqlx::query("SELECT CAST($1 AS TEXT) AS a, CAST($2 AS BIGINT) AS b")
            .bind(None::<String>)
            .bind(None::<i64>)
            .fetch_one(&mut *store.read().await.unwrap())
            .await
            .unwrap();
        assert_eq!(row.try_get::<Option<String>, _>("a").unwrap(), None);
        assert_eq!(row.try_get::<Option<i64>, _>("b").unwrap(), None);
    }
}
