use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use edgeward_audit::Digest;
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::merkle::{consistency_proof, leaf_hash, root, verify_inclusion};
use edgeward_audit::query::Filter;
use edgeward_audit::record::BootId;
use edgeward_audit::tiles::{tiles_of_consistency, tiles_of_root};
use edgeward_identity::{Kind, SpiffeId, SystemClock, Timestamp, TrustDomain};
use sqlx::{Executor, Row};
use tokio_util::sync::CancellationToken;

use super::round::{RoundFault, Rounds};
use super::self_check::{CheckFault, check};
use super::*;
use crate::audit::AuditLog;
use crate::keys::CloudKeys;
use crate::keys::notes::log_origin;
use crate::store::log::StoredCheckpoint;
use crate::store::{Store, StoreError};
use crate::store_tests;

/// The first tile, to be changed.
const TILE: (&str, &str) = (
    "SELECT hashes AS bytes FROM log_tiles WHERE level = 0 AND idx = 0",
    "UPDATE log_tiles SET hashes = $1 WHERE level = 0 AND idx = 0",
);
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

/// A cloud's folder and its log.
struct Bench {
    folder: tempfile::TempDir,
    keys: Arc<CloudKeys>,
    audit: Arc<AuditLog>,
    store: Store,
}

impl Bench {
    async fn new(store: &Store) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = CloudKeys::create(folder.path(), &domain(), NOW, |_| Ok(())).unwrap();
        store.cover_by_checkpoints();
        let keeper = SpiffeId::new(&domain(), Kind::Cloud, "c").unwrap();
        static BOOT: AtomicU8 = AtomicU8::new(1);
        let boot = BootId::from_bytes([BOOT.fetch_add(1, Ordering::Relaxed); 16]);
        let (audit, _) = AuditLog::open(store.clone(), keeper, boot, NOW)
            .await
            .unwrap();
        Self {
            folder,
            keys: Arc::new(keys),
            audit: Arc::new(audit),
            store: store.clone(),
        }
    }

    /// The log's task as after a start.
    fn rounds(&self) -> Rounds {
        let data = self.folder.path().to_owned();
        Rounds::new(self.store.clone(), self.keys.clone(), data)
    }

    async fn write(&self, count: usize) {
        let mut tx = self.store.begin("test").await.unwrap();
        for _ in 0..count {
            let event = Event::new(NOW, Actor::Cloud, EventKind::NodeApproved);
            self.audit.record_in(&mut tx, event).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// As before, from the tables that were kept.
    async fn restore(&self, tables: &[&str]) {
        for table in tables {
            self.sql_of(format!("DELETE FROM {table}")).await;
            self.sql_of(format!("INSERT INTO {table} SELECT * FROM kept_{table}"))
                .await;
        }
    }

    async fn is_found(&self, newest: &StoredCheckpoint, change: &str) {
        let found = check(&self.store, &self.keys, newest, 0, false).await;
        assert!(
            matches!(found, Err(CheckFault::Damaged(_))),
            "{change}: {found:?}"
        );
    }

    async fn sql_of(&self, text: String) {
        let mut tx = self.store.begin("test").await.unwrap();
        let query = sqlx::query(sqlx::AssertSqlSafe(text));
        query.execute(tx.connection()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn sql(&self, text: &'static str) {
        let mut tx = self.store.begin("test").await.unwrap();
        tx.connection().execute(text).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Changes the bytes that `select` gives as `bytes`; `update` puts them back as `$1`.
    async fn bytes(
        &self,
        (select, update): (&'static str, &'static str),
        change: fn(&mut Vec<u8>),
    ) {
        let mut tx = self.store.begin("test").await.unwrap();
        let row = sqlx::query(select)
            .fetch_one(tx.connection())
            .await
            .unwrap();
        let mut bytes: Vec<u8> = row.try_get("bytes").unwrap();
        change(&mut bytes);
        let query = sqlx::query(update).bind(bytes);
        query.execute(tx.connection()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn leaves(&self) -> Vec<Digest> {
        let leaves = self.store.leaf_entries(0, 10_000).await.unwrap();
        let entries = leaves.entries.iter();
        entries.map(|entry| leaf_hash(entry.as_bytes())).collect()
    }

    async fn halted(&self) -> &'static str {
        let mut rounds = self.rounds();
        let mut codes = Vec::new();
        // The next round does not take for granted what the one before refused.
        for _ in 0..2 {
            match rounds.round(NOW).await {
                Err(RoundFault::Halt(halt)) => codes.push(halt.code()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(codes[0], codes[1]);
        codes[0]
    }

    fn open(&self, note: &str) -> Checkpoint {
        let verifier = self.keys.checkpoint_verifier();
        Checkpoint::open(note.as_bytes(), &log_origin(&domain()), verifier).unwrap()
    }
}

store_tests! {
    async fn a_database_that_went_back_gets_no_signature(store) {
        let bench = Bench::new(&store).await;
        bench.write(300).await;
        bench.rounds().round(NOW).await.unwrap();
        bench.sql("CREATE TABLE kept_tiles AS SELECT * FROM log_tiles").await;
        bench.sql("CREATE TABLE kept_checkpoints AS SELECT * FROM log_checkpoints").await;
        bench.write(100).await;
        bench.rounds().round(NOW).await.unwrap();
        // A backup is restored, and the cloud goes on writing over it.
        bench.sql("DELETE FROM event_tail WHERE leaf >= 301").await;
        bench.sql("DELETE FROM log_tiles").await;
        bench.sql("DELETE FROM log_checkpoints").await;
        assert_eq!(bench.halted().await, "log_went_back");
        bench.sql("INSERT INTO log_tiles SELECT * FROM kept_tiles").await;
        bench.sql("INSERT INTO log_checkpoints SELECT * FROM kept_checkpoints").await;
        assert_eq!(bench.halted().await, "log_went_back");
        let newest = bench.store.newest_checkpoint().await.unwrap().unwrap();
        assert_eq!(newest.size, 301, "nothing was signed");
    }

    async fn another_tree_than_the_one_that_was_signed_gets_no_signature(store) {
        let bench = Bench::new(&store).await;
        bench.write(30).await;
        bench.rounds().round(NOW).await.unwrap();
        // Everything in the database is made anew, with the right key, from one changed record on.
        bench.sql("DELETE FROM log_tiles").await;
        bench.sql("DELETE FROM log_checkpoints").await;
        bench
            .sql("UPDATE event_tail SET hash = (SELECT hash FROM event_tail WHERE leaf = 4) WHERE leaf = 3")
            .await;
        bench.write(10).await;
        let kept = bench.folder.path().join("log-checkpoint");
        let signed = std::fs::read(&kept).unwrap();
        std::fs::remove_file(&kept).unwrap();
        bench.rounds().round(NOW).await.unwrap();
        std::fs::write(&kept, signed).unwrap();
        assert_eq!(bench.halted().await, "log_forked");
    }

    async fn a_tile_or_note_that_was_changed_in_the_database_gets_no_signature(store) {
        let bench = Bench::new(&store).await;
        bench.write(30).await;
        bench.rounds().round(NOW).await.unwrap();
        bench.write(1).await;
        bench.sql("CREATE TABLE kept AS SELECT * FROM log_tiles").await;
        let changes: [fn(&mut Vec<u8>); 4] = [
            |bytes| bytes.truncate(bytes.len() - 1),
            Vec::clear,
            |bytes| bytes.extend([0; 32]),
            |bytes| bytes[7] ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            bench.bytes(TILE, change).await;
            assert_eq!(bench.halted().await, "log_damaged", "{number}");
            bench.sql("DELETE FROM log_tiles").await;
            assert_eq!(bench.halted().await, "log_damaged", "gone");
            bench.sql("INSERT INTO log_tiles SELECT * FROM kept").await;
        }
        let mut rounds = bench.rounds();
        assert_eq!(rounds.round(NOW).await.unwrap().leaves, 1, "repaired, it goes on");
        bench.sql("UPDATE log_checkpoints SET note = 'no note'").await;
        assert_eq!(bench.halted().await, "log_damaged");
    }

    async fn leaves_that_are_missing_are_noticed(store) {
        let bench = Bench::new(&store).await;
        bench.write(30).await;
        bench.sql("DELETE FROM event_tail WHERE leaf = 7").await;
        assert_eq!(bench.halted().await, "log_damaged");
        assert!(bench.store.newest_checkpoint().await.unwrap().is_none());
    }

    async fn events_below_a_checkpoint_that_are_gone_are_noticed_at_the_next_start(store) {
        let bench = Bench::new(&store).await;
        bench.write(30).await;
        bench.rounds().round(NOW).await.unwrap();
        bench.sql("DELETE FROM event_tail WHERE leaf > 20").await;
        assert_eq!(bench.halted().await, "log_damaged");
    }

    async fn a_round_that_another_cloud_overtook_is_no_damage_and_true_damage_still_is(store) {
        let bench = Bench::new(&store).await;
        let folder = tempfile::tempdir().unwrap();
        // Another cloud: the same keys, a folder of its own.
        let start = || Rounds::new(bench.store.clone(), bench.keys.clone(), folder.path().to_owned());
        let (mut slow, mut quick) = (start(), bench.rounds());
        bench.write(200).await;
        slow.round(NOW).await.unwrap();
        // Each time the other one makes blocks of what is about to be read, and the tiles grow.
        for fresh in [false, true] {
            let stale = store.newest_checkpoint().await.unwrap();
            bench.write(400).await;
            quick.round(NOW).await.unwrap();
            if fresh {
                slow = start();
            }
            let done = slow.round_on(stale.as_ref(), NOW).await.unwrap();
            assert!(done.more && done.leaves == 0, "{done:?}");
            let done = slow.round(NOW).await.unwrap();
            let newest = store.newest_checkpoint().await.unwrap().unwrap();
            assert_eq!(done.published.map(|published| published.size), Some(newest.size));
            assert!(!done.more, "{fresh}");
        }
        // Overtaken once more, and then the tiles are gone: nothing moves any more, and that is damage.
        let stale = store.newest_checkpoint().await.unwrap();
        bench.write(10).await;
        quick.round(NOW).await.unwrap();
        bench.write(1).await;
        bench.sql("DELETE FROM log_tiles").await;
        assert!(slow.round_on(stale.as_ref(), NOW).await.unwrap().more);
        let halted = slow.round(NOW).await;
        assert!(matches!(halted, Err(RoundFault::Halt(Halt::Damaged(_)))), "{halted:?}");
        assert_eq!(bench.halted().await, "log_damaged");
    }

    async fn a_checkpoint_of_another_key_is_not_continued(store) {
        let bench = Bench::new(&store).await;
        bench.write(3).await;
        bench.rounds().round(NOW).await.unwrap();
        let other = Bench::new(&store.another().await).await;
        assert_eq!(other.halted().await, "log_key_changed");
        std::fs::write(bench.folder.path().join("log-checkpoint"), "torn").unwrap();
        assert_eq!(bench.halted().await, "log_anchor_unreadable");
    }

    async fn a_log_whose_key_is_lost_for_good_is_signed_anew_over_the_same_leaves(store) {
        let bench = Bench::new(&store).await;
        bench.write(700).await;
        let old = bench.rounds().round(NOW).await.unwrap().published.unwrap();
        let other = Bench::new(&store.another().await).await;
        assert_eq!(other.halted().await, "log_key_changed");
        for table in ["log_checkpoints", "log_tiles", "log_cosignatures", "cosigned_checkpoints"] {
            other.sql_of(format!("DELETE FROM {table}")).await;
        }
        let anew = other.rounds().round(NOW).await.unwrap().published.unwrap();
        assert_eq!(other.open(&anew.note).size, anew.size);
        let leaves = other.leaves().await;
        assert_eq!(old.root, root(&leaves[..], old.size).unwrap(), "the tree is the same");
        assert_eq!(anew.root, root(&leaves[..], anew.size).unwrap());
    }

    async fn a_round_covers_what_is_stored_and_every_proof_from_the_tiles_holds(store) {
        let bench = Bench::new(&store).await;
        let mut rounds = bench.rounds();
        let mut sizes = Vec::new();
        for more in [0, 200, 55, 1, 300, 0] {
            bench.write(more).await;
            let done = rounds.round(NOW).await.unwrap();
            if let Some(published) = done.published {
                let opened = bench.open(&published.note);
                assert_eq!((opened.size, opened.root), (published.size, published.root));
                sizes.push((published.size, published.root));
            }
        }
        let counts: Vec<u64> = sizes.iter().map(|(size, _)| *size).collect();
        assert_eq!(counts, [1, 201, 256, 257, 557], "a round without news publishes nothing");
        let leaves = bench.leaves().await;
        let (size, whole) = *sizes.last().unwrap();
        for (from, old) in &sizes {
            assert_eq!(*old, root(&leaves[..], *from).unwrap());
            let wanted = tiles_of_consistency(*from, size).unwrap();
            let tiles = bench.store.log_tiles(&wanted).await.unwrap();
            consistency_proof(&tiles, *from, size).unwrap();
        }
        let tiles = bench.store.log_tiles(&tiles_of_root(size)).await.unwrap();
        assert_eq!(root(&tiles, size).unwrap(), whole);
        for index in [0, 1, 255, 256, 500, 556] {
            let proof = bench.store.inclusion(index, size).await.unwrap();
            let leaf = leaves[usize::try_from(index).unwrap()];
            verify_inclusion(&leaf, index, size, &proof, &whole).unwrap();
        }
        assert!(bench.store.inclusion(557, 557).await.is_err());
        // As after a crash between the commit and the file beside the database.
        let file = bench.folder.path().join("log-checkpoint");
        let behind = std::fs::read(&file).unwrap();
        bench.write(5).await;
        rounds.round(NOW).await.unwrap();
        std::fs::write(&file, behind).unwrap();
        let taken = bench.rounds().round(NOW).await.unwrap().published.unwrap();
        assert_eq!(taken.size, 562);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), taken.note);
    }

    async fn a_self_check_finds_every_change_of_the_database(store) {
        let bench = Bench::new(&store).await;
        let mut rounds = bench.rounds();
        for more in [100, 200, 300] {
            bench.write(more).await;
            rounds.round(NOW).await.unwrap();
        }
        let newest = store.newest_checkpoint().await.unwrap().unwrap();
        const TABLES: [&str; 6] =
            ["event_tail", "event_blocks", "event_parts", "event_terms", "log_tiles", "log_checkpoints"];
        for table in TABLES {
            bench.sql_of(format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
        }
        assert_eq!(check(&store, &bench.keys, &newest, 0, false).await.unwrap(), 2);
        assert_eq!(check(&store, &bench.keys, &newest, 512, false).await.unwrap(), 1);
        for change in [
            "UPDATE event_tail SET body = (SELECT body FROM kept_event_tail WHERE leaf = 518) WHERE leaf = 517",
            "UPDATE event_tail SET hash = (SELECT hash FROM kept_event_tail WHERE leaf = 518), \
             body = (SELECT body FROM kept_event_tail WHERE leaf = 518) WHERE leaf = 517",
            "DELETE FROM event_tail WHERE leaf = 517",
            "DELETE FROM event_blocks WHERE block = 0",
            "DELETE FROM event_parts WHERE block = 1",
            "UPDATE event_parts SET bodies = (SELECT bodies FROM kept_event_parts WHERE block = 1) WHERE block = 0",
            "UPDATE event_parts SET columns = (SELECT columns FROM kept_event_parts WHERE block = 1) WHERE block = 0",
            "UPDATE event_parts SET bodies = columns WHERE block = 0",
            "UPDATE event_blocks SET entries = (SELECT entries FROM kept_event_blocks WHERE block = 1) WHERE block = 0",
            "DELETE FROM event_terms WHERE block = 1",
            "DELETE FROM log_tiles WHERE level = 0 AND idx = 1",
            "UPDATE log_tiles SET hashes = (SELECT hashes FROM kept_log_tiles WHERE level = 0 AND idx = 1) \
             WHERE level = 0 AND idx = 0",
            "UPDATE log_checkpoints SET root = \
             '0000000000000000000000000000000000000000000000000000000000000000' WHERE size = 101",
            "UPDATE log_checkpoints SET note = (SELECT note FROM kept_log_checkpoints WHERE size = 601) \
             WHERE size = 101",
        ] {
            bench.sql(change).await;
            bench.is_found(&newest, change).await;
            bench.restore(&TABLES).await;
        }
        for what in [
            TILE,
            ("SELECT hashes AS bytes FROM log_tiles WHERE level = 1", "UPDATE log_tiles SET hashes = $1 WHERE level = 1"),
            ("SELECT body AS bytes FROM event_tail WHERE leaf = 517", "UPDATE event_tail SET body = $1 WHERE leaf = 517"),
            ("SELECT hash AS bytes FROM event_tail WHERE leaf = 517", "UPDATE event_tail SET hash = $1 WHERE leaf = 517"),
            ("SELECT entries AS bytes FROM event_blocks WHERE block = 1", "UPDATE event_blocks SET entries = $1 WHERE block = 1"),
            ("SELECT bodies AS bytes FROM event_parts WHERE block = 1", "UPDATE event_parts SET bodies = $1 WHERE block = 1"),
            ("SELECT columns AS bytes FROM event_parts WHERE block = 1", "UPDATE event_parts SET columns = $1 WHERE block = 1"),
            ("SELECT places AS bytes FROM event_parts WHERE block = 1", "UPDATE event_parts SET places = $1 WHERE block = 1"),
        ] {
            let changes: [fn(&mut Vec<u8>); 3] =
                [|bytes| bytes[31] ^= 1, |bytes| bytes.truncate(bytes.len() - 1), Vec::clear];
            for change in changes {
                bench.bytes(what, change).await;
                bench.is_found(&newest, what.0).await;
                bench.restore(&TABLES).await;
            }
        }
        assert!(check(&store, &bench.keys, &newest, 0, false).await.is_ok());
    }

    async fn a_damaged_log_is_an_event_and_stays_on_show(store) {
        let bench = Bench::new(&store).await;
        bench.write(20).await;
        bench.rounds().round(NOW).await.unwrap();
        bench.sql("UPDATE event_tail SET body = (SELECT body FROM event_tail WHERE leaf = 18) WHERE leaf = 17").await;
        let checking = SelfCheck::new(
            bench.audit.clone(),
            bench.store.clone(),
            bench.keys.clone(),
            Arc::new(SystemClock),
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn(checking.run(stop.clone()));
        let head = bench.audit.log_head();
        crate::testing::eventually(|| async { head.last_check().is_some() }).await;
        let request = head.request_check();
        let done = || head.last_check().filter(|last| last.request >= request);
        crate::testing::eventually(|| async { done().is_some() }).await;
        let fault = done().unwrap().fault.clone().unwrap();
        assert!(fault.contains("event 17"), "{fault}");
        stop.cancel();
        running.await.unwrap().unwrap();
        let (events, _) = store.events(&Filter::default(), Some(17), 100).await.unwrap();
        let said = events.iter().filter(|stored| stored.event.kind == EventKind::AuditDamaged);
        assert_eq!(said.count(), 1, "said once");
        let shown = store.events(&Filter::default(), None, 100).await;
        assert!(matches!(shown, Err(StoreError::Unreadable { .. })), "never passed over in silence");
    }

    async fn events_that_cannot_be_opened_go_into_their_block_as_hashes_and_are_told_of(store) {
        let bench = Bench::new(&store).await;
        bench.write(100).await;
        bench.rounds().round(NOW).await.unwrap();
        let before = bench.leaves().await;
        bench.sql("UPDATE event_tail SET body = (SELECT body FROM event_tail WHERE leaf = 18) WHERE leaf = 17").await;
        let body = ("SELECT body AS bytes FROM event_tail WHERE leaf = 19", "UPDATE event_tail SET body = $1 WHERE leaf = 19");
        bench.bytes(body, Vec::clear).await;
        bench.write(200).await;
        let stop = CancellationToken::new();
        let integrator = Integrator::new(
            bench.audit.clone(),
            bench.store.clone(),
            bench.keys.clone(),
            bench.folder.path().to_owned(),
            Arc::new(SystemClock),
        );
        let running = tokio::spawn(integrator.run(stop.clone()));
        let mut covered = bench.audit.covered();
        // The word of it is covered, too.
        covered.wait_for(|covered| *covered >= 302).await.unwrap();
        assert!(bench.audit.log_head().halted().is_none());
        stop.cancel();
        running.await.unwrap();
        for (index, is_there) in [(16, true), (17, false), (18, true), (19, false), (20, true)] {
            let found = store.event_at(index).await;
            match is_there {
                true => assert_eq!(found.unwrap().unwrap().index, index),
                false => assert!(matches!(found, Err(StoreError::Unreadable { .. })), "{found:?}"),
            }
        }
        assert_eq!(bench.leaves().await[..before.len()], before[..], "what was signed stays");
        let (events, _) = store.events(&Filter::default(), Some(256), 100).await.unwrap();
        let said: Vec<&Event> = events
            .iter()
            .map(|stored| &stored.event)
            .filter(|event| event.kind == EventKind::AuditDamaged)
            .collect();
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].detail.get("events"), Some("17 19"));
        // The self-check does not get used to it.
        let newest = store.newest_checkpoint().await.unwrap().unwrap();
        bench.is_found(&newest, "event 17").await;
    }

    async fn two_clouds_of_one_database_and_key_sign_one_tree(store) {
        let bench = Bench::new(&store).await;
        let mut first = bench.rounds();
        let other = tempfile::tempdir().unwrap();
        let mut second = Rounds::new(store.another().await, bench.keys.clone(), other.path().to_owned());
        for _ in 0..4 {
            bench.write(9).await;
            first.round(NOW).await.unwrap();
            let followed = second.round(NOW).await.unwrap();
            assert_eq!(followed.leaves, 0);
            bench.write(9).await;
            assert_eq!(second.round(NOW).await.unwrap().leaves, 9);
        }
        let leaves = bench.leaves().await;
        let newest = store.newest_checkpoint().await.unwrap().unwrap();
        assert_eq!((newest.size, newest.root), (73, root(&leaves[..], 73).unwrap()));
    }

    async fn what_is_appended_is_covered_within_the_bound_and_the_last_of_it_at_the_end(store) {
        let bench = Bench::new(&store).await;
        let mut covered = bench.audit.covered();
        let stop = CancellationToken::new();
        let integrator = Integrator::new(
            bench.audit.clone(),
            bench.store.clone(),
            bench.keys.clone(),
            bench.folder.path().to_owned(),
            Arc::new(SystemClock),
        );
        assert_eq!(*covered.borrow(), 0, "stored is not covered");
        let running = tokio::spawn(integrator.run(stop.clone()));
        for size in [1_u64, 4, 7, 10] {
            let begun = Instant::now();
            covered.wait_for(|covered| *covered >= size).await.unwrap();
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
            let head = bench.audit.log_head().newest().unwrap();
            assert!(head.size >= size);
            assert_eq!(bench.open(&head.note).size, head.size);
            bench.write(3).await;
        }
        bench.write(3).await;
        stop.cancel();
        running.await.unwrap();
        assert_eq!(*covered.borrow(), 16);
        assert!(bench.audit.log_head().halted().is_none());
    }

    async fn a_halt_is_an_event_once_and_so_is_its_end(store) {
        let bench = Bench::new(&store).await;
        bench.write(3).await;
        let file = bench.folder.path().join("log-checkpoint");
        std::fs::write(&file, "torn").unwrap();
        let integrator = Integrator::new(
            bench.audit.clone(),
            bench.store.clone(),
            bench.keys.clone(),
            bench.folder.path().to_owned(),
            Arc::new(SystemClock),
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn(integrator.run(stop.clone()));
        crate::testing::eventually(|| async { bench.audit.log_head().halted().is_some() }).await;
        assert_eq!(*bench.audit.covered().borrow(), 0);
        assert!(bench.audit.log_head().newest().is_none());
        std::fs::remove_file(&file).unwrap();
        stop.cancel();
        running.await.unwrap();
        assert!(bench.audit.log_head().halted().is_none());
        let (events, _) = bench.store.events(&Filter::default(), None, 100).await.unwrap();
        let count = |kind| events.iter().filter(|stored| stored.event.kind == kind).count();
        assert_eq!((count(EventKind::AuditHalted), count(EventKind::AuditResumed)), (1, 1));
    }
}
