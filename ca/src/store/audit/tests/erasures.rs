//! Erasures where several clouds share database and keys, and where a crash comes in between.

use std::path::Path;

use super::*;
use crate::keys::sites::{Site, SiteKeyState, SiteKeys};
use crate::store::Database;
use crate::store::testing::{new_postgresql, new_sqlite};

const NOW: Timestamp = Timestamp::from_millis(T0);

/// A journal of a node that has no label.
struct Journal(Chain, bool);

impl Journal {
    fn new(boot: u8) -> Self {
        Self(Chain::new(node(3), BootId::from_bytes([boot; 16])), false)
    }

    async fn append(&mut self, store: &Store) -> Result<u64, StoreError> {
        let kind = match self.1 {
            true => EventKind::FlowAllowed,
            false => EventKind::JournalOpened,
        };
        let event = Event::new(NOW, node(3), kind);
        let salt = Salt::from_bytes([7; 16]);
        let opened = BootOpened {
            previous: None,
            reset_count: None,
            restart_count: None,
        };
        let record = match self.1 {
            true => self.0.seal(event, salt).unwrap(),
            false => self.0.seal_opening(opened, event, salt).unwrap(),
        };
        let mut tx = store.begin("test").await?;
        let leaf = tx.next_leaf().await?;
        tx.append_records(std::slice::from_ref(&record), NOW)
            .await?;
        tx.commit().await?;
        self.0.advance(&record).unwrap();
        self.1 = true;
        Ok(leaf)
    }
}

async fn cloud(database: &Database, folder: &Path) -> Store {
    let keys = SiteKeys::open(folder).unwrap();
    Store::open(database, keys).await.unwrap()
}

async fn begin_erasure(store: &Store) {
    let mut tx = store.begin("test").await.unwrap();
    let old = tx.begin_erasure(&Site::rest(), NOW).await.unwrap();
    assert!(!old.is_empty());
    tx.commit().await.unwrap();
}

async fn is_erased(store: &Store, leaf: u64) -> bool {
    match store.event_at(leaf).await {
        Ok(found) => found.is_none(),
        Err(StoreError::Erased(_)) => true,
        Err(error) => panic!("{error}"),
    }
}

async fn what_is_recorded_after_an_erasure_is_kept(database: &Database) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("sites");
    let one = cloud(database, &folder).await;
    let two = cloud(database, &folder).await;
    let (mut ours, mut theirs) = (Journal::new(1), Journal::new(2));
    let before = [
        ours.append(&one).await.unwrap(),
        theirs.append(&two).await.unwrap(),
    ];
    begin_erasure(&one).await;
    // Recorded, and not destroyed yet.
    let between = theirs.append(&two).await.unwrap();
    one.end_erasures(false).await.unwrap();
    let after = theirs.append(&two).await.unwrap();
    let own = ours.append(&one).await.unwrap();
    let fresh = cloud(database, &folder).await;
    for leaf in before {
        assert!(is_erased(&fresh, leaf).await, "{leaf}");
    }
    for leaf in [between, after, own] {
        assert!(!is_erased(&fresh, leaf).await, "{leaf}");
    }
    // A key that another cloud made is among those that go.
    begin_erasure(&two).await;
    two.end_erasures(false).await.unwrap();
    let last = ours.append(&one).await.unwrap();
    let fresh = cloud(database, &folder).await;
    assert!(is_erased(&fresh, own).await && !is_erased(&fresh, last).await);
    // Where the folder shows less than there is, nothing is appended.
    begin_erasure(&one).await;
    let newest = one.site_keys().current(&Site::rest()).unwrap();
    let (path, away) = (
        folder.join(format!("{newest}.key")),
        folder.join("away.new"),
    );
    std::fs::rename(&path, &away).unwrap();
    let refused = theirs.append(&two).await;
    assert!(matches!(refused, Err(StoreError::NewerSiteKey(key)) if key == newest));
    std::fs::rename(&away, &path).unwrap();
    theirs.append(&two).await.unwrap();
}

async fn what_was_recorded_is_erased_after_a_crash(database: &Database) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("sites");
    let store = cloud(database, &folder).await;
    let mut journal = Journal::new(1);
    let leaf = journal.append(&store).await.unwrap();
    let alive = |keys: Vec<SiteKeyState>| keys.into_iter().find(|key| key.site == Site::rest());
    let key = alive(store.site_keys().list()).unwrap();
    let path = folder.join(format!("{}.key", key.id));
    let kept = std::fs::read(&path).unwrap();
    // Nothing was recorded: nothing is erased.
    let mut tx = store.begin("test").await.unwrap();
    assert_eq!(
        tx.begin_erasure(&Site::rest(), NOW).await.unwrap(),
        [key.id]
    );
    drop(tx);
    let store = cloud(database, &folder).await;
    assert!(!is_erased(&store, leaf).await);
    begin_erasure(&store).await;
    assert!(path.exists());
    let store = cloud(database, &folder).await;
    assert!(is_erased(&store, leaf).await && !path.exists());
    // Nor does a backup of the folder bring it back, the tombstone missing.
    std::fs::remove_file(path.with_extension("erased")).unwrap();
    crate::keys::files::write_private(&path, &folder.join("x.new"), &kept).unwrap();
    let store = cloud(database, &folder).await;
    assert!(is_erased(&store, leaf).await && !path.exists());
    // Whoever can write the database and has no key of the cloud destroys nothing.
    journal.append(&store).await.unwrap();
    let current = store.site_keys().current(&Site::rest()).unwrap();
    let mut tx = store.begin("test").await.unwrap();
    sqlx::query("UPDATE site_erasures SET site_key = $1, destroyed = 0 WHERE site_key = $2")
        .bind(current.to_column())
        .bind(key.id.to_column())
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let store = cloud(database, &folder).await;
    assert!(!store.site_keys().is_erased(current));
}

#[tokio::test]
async fn what_is_recorded_after_an_erasure_is_kept_whoever_seals_it_on_sqlite() {
    let (database, _folder) = new_sqlite();
    what_is_recorded_after_an_erasure_is_kept(&database).await;
}

#[tokio::test]
async fn what_is_recorded_after_an_erasure_is_kept_whoever_seals_it_on_postgresql() {
    what_is_recorded_after_an_erasure_is_kept(&new_postgresql().await).await;
}

#[tokio::test]
async fn what_was_recorded_as_erased_is_erased_after_a_crash_on_sqlite() {
    let (database, _folder) = new_sqlite();
    what_was_recorded_is_erased_after_a_crash(&database).await;
}

#[tokio::test]
async fn what_was_recorded_as_erased_is_erased_after_a_crash_on_postgresql() {
    what_was_recorded_is_erased_after_a_crash(&new_postgresql().await).await;
}
