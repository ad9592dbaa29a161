//! A database of an older version: a row for each event, tiles in hex.

use sqlx::Row;

use super::*;
use crate::keys::sites::SiteKeys;
use crate::store::Database;
use crate::store::testing::{new_postgresql, new_sqlite, old_schema};

/// More than one step moves.
const EVENTS: usize = 2500;
const COVERED: i64 = 2345;

fn records() -> Vec<SealedRecord> {
    let mut numbers = Numbers(5);
    let mut chains: Vec<Chain> = (0..2)
        .map(|number| Chain::new(node(number), BootId::from_bytes([1; 16])))
        .collect();
    let mut all = Vec::new();
    for at in 0..EVENTS {
        // Runs of different lengths.
        let chain = &mut chains[at / 9 % 2];
        let salt = Salt::from_bytes([7; 16]);
        let record = match chain.head() {
            Some(_) => chain.seal(event(&mut numbers, at as u64), salt).unwrap(),
            None => {
                let opened = BootOpened {
                    previous: None,
                    reset_count: None,
                    restart_count: None,
                };
                let time = Timestamp::from_millis(T0);
                let event = Event::new(time, Actor::Cloud, EventKind::JournalOpened);
                chain.seal_opening(opened, event, salt).unwrap()
            }
        };
        chain.advance(&record).unwrap();
        all.push(record);
    }
    all
}

async fn fill_old(database: &Database, all: &[SealedRecord]) {
    let pool = old_schema(database).await;
    let mut tx = pool.begin().await.unwrap();
    for (leaf, sealed) in (0_i64..).zip(all) {
        let (record, event) = (sealed.record(), sealed.event());
        sqlx::query(
            "INSERT INTO events (leaf, node, boot, seq, hash, leaf_hash, time, received, type, actor, verdict, record) \
             VALUES ($1, $2, $3, $4, $5, '', $6, $7, $8, $9, $10, $11)",
        )
        .bind(leaf)
        .bind(record.node.to_string())
        .bind(record.boot.to_string())
        .bind(number_to_column(record.seq))
        .bind(sealed.hash().to_string())
        .bind(to_column(event.time))
        .bind(leaf)
        .bind(event.kind.name())
        .bind(event.actor.to_string())
        .bind(event.verdict.as_str())
        .bind(String::from_utf8(sealed.bytes().to_vec()).unwrap())
        .execute(&mut *tx)
        .await
        .unwrap();
        if record.seq == 0 {
            sqlx::query(
                "INSERT INTO journals (node, boot, last_seq, head, opened_leaf, opened, updated) \
                 VALUES ($1, $2, 0, '', $3, 0, 0)",
            )
            .bind(record.node.to_string())
            .bind(record.boot.to_string())
            .bind(leaf)
            .execute(&mut *tx)
            .await
            .unwrap();
        }
        sqlx::query("UPDATE journals SET last_seq = $1, head = $2 WHERE node = $3 AND boot = $4")
            .bind(number_to_column(record.seq))
            .bind(sealed.hash().to_string())
            .bind(record.node.to_string())
            .bind(record.boot.to_string())
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    for index in 0..300_i64 {
        sqlx::query("INSERT INTO log_tiles (level, idx, hashes) VALUES (0, $1, $2)")
            .bind(index)
            .bind(Digest::of(&[&index.to_be_bytes()]).to_string())
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    sqlx::query("INSERT INTO log_checkpoints (size, root, note, signed, hour) VALUES ($1, $2, 'note', 0, 0)")
        .bind(COVERED)
        .bind(Digest::ZERO.to_string())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    pool.close().await;
}

async fn is_moved_over_whole(database: &Database) {
    let all = records();
    fill_old(database, &all).await;
    let keys = SiteKeys::temporary();
    let store = Store::open(database, keys.clone()).await.unwrap();
    let hashes: Vec<Digest> = all.iter().map(SealedRecord::hash).collect();
    assert_eq!(store.leaf_entries(0, 10_000).await.unwrap().entries, hashes);
    let found = store.all_events().await;
    assert_eq!(found.len(), all.len());
    for (index, (stored, sealed)) in (0..).zip(found.iter().zip(&all)) {
        assert_eq!(
            (stored.index, stored.received),
            (index, Timestamp::from_millis(index))
        );
        assert_eq!(stored.record.as_bytes(), sealed.bytes());
    }
    let mut numbers = Numbers(3);
    for _ in 0..20 {
        let filter = filter(&mut numbers);
        let (events, _) = store.events(&filter, None, 1000).await.unwrap();
        let places: Vec<u64> = events.iter().map(|event| event.index).collect();
        assert_eq!(
            places,
            expected(&all, &filter)
                .into_iter()
                .take(1000)
                .collect::<Vec<_>>()
        );
    }
    let mut connection = store.read().await.unwrap();
    let row = sqlx::query("SELECT COUNT(*) AS blocks FROM event_blocks")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(
        row.get::<i64, _>("blocks"),
        COVERED / 256,
        "what is not covered is in no block"
    );
    drop(connection);
    let tiles = store
        .log_tiles(&(0..300).map(|index| (0, index)).collect())
        .await
        .unwrap();
    for index in 0..300_i64 {
        let expected = Digest::of(&[&index.to_be_bytes()]);
        assert_eq!(
            tiles.get((0, u64::try_from(index).unwrap())),
            Some(&[expected][..])
        );
    }
    let mut tx = store.begin("test").await.unwrap();
    for sealed in all.iter().step_by(50) {
        let record = sealed.record();
        let hash = tx
            .record_hash(&record.node, record.boot, record.seq)
            .await
            .unwrap();
        assert_eq!(hash, Some(sealed.hash()));
    }
    let again = tx.append_records(&all[20..21], Timestamp::default()).await;
    assert!(matches!(again, Err(StoreError::Exists)), "{again:?}");
    drop(tx);
    let mut tx = store.begin("test").await.unwrap();
    let boot = BootId::from_bytes([1; 16]);
    let head = tx.journal_head(&node(0), boot).await.unwrap().unwrap();
    let reach = tx
        .reach(&node(0), boot, head.seq + 1)
        .await
        .unwrap()
        .unwrap();
    let last = all
        .iter()
        .rposition(|sealed| sealed.record().node == node(0))
        .unwrap();
    assert_eq!(reach.leaves, last as u64 + 1);
    drop(tx);
    store.close().await;
    // The next start finds nothing left to do.
    let store = Store::open(database, keys).await.unwrap();
    assert_eq!(store.last_leaf().await.unwrap(), Some(all.len() as u64 - 1));
    let old = sqlx::query("SELECT leaf FROM events")
        .fetch_all(&mut *store.read().await.unwrap())
        .await;
    assert!(old.is_err(), "the old table is gone");
}

#[tokio::test]
async fn a_database_of_an_older_version_is_moved_over_whole_on_sqlite() {
    let (database, _folder) = new_sqlite();
    is_moved_over_whole(&database).await;
}

#[tokio::test]
async fn a_database_of_an_older_version_is_moved_over_whole_on_postgresql() {
    is_moved_over_whole(&new_postgresql().await).await;
}

/// Whether this text stands anywhere in the files of a folder.
fn is_readable(folder: &std::path::Path, text: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|some| some == text)
    })
}

#[tokio::test]
async fn nothing_of_a_record_can_be_read_in_the_files_of_a_database_that_was_moved_over() {
    let (database, folder) = new_sqlite();
    fill_old(&database, &records()).await;
    let text = b"\"rule-2\"";
    assert!(is_readable(folder.path(), text), "it was readable before");
    let keys = SiteKeys::temporary();
    let store = Store::open(&database, keys.clone()).await.unwrap();
    assert!(!is_readable(folder.path(), text));
    // A start that ended before the last step is taken up.
    let storage = async |store: &Store| {
        let row = sqlx::query("SELECT value FROM facts WHERE name = 'audit_storage'")
            .fetch_one(&mut *store.read().await.unwrap())
            .await
            .unwrap();
        row.get::<String, _>("value")
    };
    assert_eq!(storage(&store).await, "blocks");
    let mut tx = store.begin("test").await.unwrap();
    sqlx::query("UPDATE facts SET value = 'dropped' WHERE name = 'audit_storage'")
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    store.close().await;
    let store = Store::open(&database, keys).await.unwrap();
    assert_eq!(storage(&store).await, "blocks");
}
