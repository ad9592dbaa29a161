use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use edgeward_audit::block::Bodies;
use edgeward_audit::log_proof::LogProof;
use edgeward_audit::record::{BootId, SealedRecord};
use edgeward_identity::{Kind, SpiffeId, SystemClock, TrustDomain};

use super::*;
use crate::audit::Integrator;
use crate::keys::CloudKeys;
use crate::keys::sites::{Site, SiteKeyId, Unopened};
use crate::store::audit::Sealed;
use crate::store::testing::TestStore;
use crate::store_tests;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A cloud's log that is covered as it grows.
pub(crate) struct Bench {
    pub(crate) keys: Arc<CloudKeys>,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) store: Store,
    node: SpiffeId,
    pub(crate) archive: tempfile::TempDir,
    _data: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl Bench {
    pub(crate) async fn new(store: &TestStore) -> Self {
        store.cover_by_checkpoints();
        let data = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("plant.example").unwrap();
        let keys = Arc::new(CloudKeys::create(data.path(), &domain, NOW, |_| Ok(())).unwrap());
        let keeper = SpiffeId::new(&domain, Kind::Cloud, "c").unwrap();
        static BOOT: AtomicU8 = AtomicU8::new(1);
        let boot = BootId::from_bytes([BOOT.fetch_add(1, Ordering::Relaxed); 16]);
        let store: Store = (**store).clone();
        let (audit, writer) = AuditLog::open(store.clone(), keeper, boot, NOW)
            .await
            .unwrap();
        let audit = Arc::new(audit);
        let tree = Integrator::new(
            audit.clone(),
            store.clone(),
            keys.clone(),
            data.path().to_owned(),
            Arc::new(SystemClock),
        );
        let stop = CancellationToken::new();
        tokio::spawn(writer.run(stop.clone()));
        tokio::spawn(tree.run(stop.clone()));
        Self {
            keys,
            audit,
            store,
            node: SpiffeId::new(&domain, Kind::Node, "gw").unwrap(),
            archive: tempfile::tempdir().unwrap(),
            _data: data,
            _stop: stop.drop_guard(),
        }
    }

    /// Events until the log has so many, all covered.
    pub(crate) async fn grow_to(&self, size: u64) {
        let mut covered = self.audit.covered();
        let leaves = self
            .store
            .last_leaf()
            .await
            .unwrap()
            .map_or(0, |leaf| leaf + 1);
        let mut tx = self.store.begin("test").await.unwrap();
        for _ in leaves..size {
            let event = Event::new(NOW, Actor::Cloud, EventKind::NodeApproved);
            let event = event.subject(self.node.clone());
            self.audit.record_in(&mut tx, event).await.unwrap();
        }
        tx.commit().await.unwrap();
        let all = covered.wait_for(|covered| *covered >= size);
        tokio::time::timeout(Duration::from_secs(30), all)
            .await
            .unwrap()
            .unwrap();
    }

    pub(crate) fn to(&self) -> Archive {
        Archive::Folder(self.archive.path().to_owned())
    }

    pub(crate) fn archiver(&self) -> Archiver {
        let clock = Arc::new(SystemClock);
        let mut archiver = Archiver::new(&self.to(), self.store.clone(), self.audit.clone(), clock);
        archiver.blocks = 2;
        archiver
    }

    pub(crate) fn segment(&self, first: u64) -> Segment {
        let name = format!("plant.example/audit/{first:016}.segment");
        Segment::parse(&std::fs::read(self.archive.path().join(name)).unwrap()).unwrap()
    }
}

impl Archiver {
    /// Writes one segment, which must be there to be written.
    pub(crate) async fn turn_once(&mut self) {
        assert_eq!(self.turn().await.unwrap(), Turn::Wrote);
    }
}

/// The records of a segment's first block that belong to a node, and their places, as long as the key lives.
fn records(bench: &Bench, segment: &Segment) -> Result<Vec<(u8, SealedRecord)>, Unopened> {
    let parts = segment.blocks[0].parts.iter();
    let part = parts.max_by_key(|part| part.places.count()).unwrap();
    let key = SiteKeyId::from_number(part.site_key).unwrap();
    let context = Sealed::Bodies(segment.first / BLOCK_LEAVES).context();
    let plain = bench
        .store
        .site_keys()
        .open_sealed(key, &context, &part.bodies)?;
    let bodies = Bodies::parse(&plain).unwrap();
    let records =
        (0..bodies.len()).map(|n| SealedRecord::parse(bodies.record(n).unwrap()).unwrap());
    Ok(part.places.iter().zip(records).collect())
}

store_tests! {
    async fn an_archive_that_cannot_be_written_moves_nothing_and_says_why(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(600).await;
        let missing = Archive::Folder(bench.archive.path().join("not-mounted"));
        let clock = Arc::new(SystemClock);
        let mut archiver = Archiver::new(&missing, bench.store.clone(), bench.audit.clone(), clock);
        archiver.blocks = 2;
        assert!(matches!(archiver.turn().await, Err(Fault::NotArchived(_))));
        let row = store.archive(&missing.describe()).await.unwrap().unwrap();
        assert_eq!((row.next, row.segments), (0, 0));
        assert!(row.failing.unwrap().0.contains("no such folder"));
        std::fs::create_dir(Path::new(bench.archive.path()).join("not-mounted")).unwrap();
        assert_eq!(archiver.turn().await.unwrap(), Turn::Wrote);
        let row = store.archive(&missing.describe()).await.unwrap().unwrap();
        assert_eq!((row.next, row.segments, row.failing), (512, 1, None));
    }

    async fn segments_prove_themselves_and_their_records_go_with_their_keys(store) {
        let bench = Bench::new(&store).await;
        let mut archiver = bench.archiver();
        assert_eq!(archiver.turn().await.unwrap(), Turn::NothingYet);
        bench.grow_to(1300).await;
        for _ in 0..2 {
            assert_eq!(archiver.turn().await.unwrap(), Turn::Wrote);
        }
        assert_eq!(archiver.turn().await.unwrap(), Turn::NothingYet);
        // After a crash between the segment and its place it is written once more.
        let mut tx = store.begin("test").await.unwrap();
        let mut row = store.archive(&bench.to().describe()).await.unwrap().unwrap();
        row.next = 512;
        assert!(tx.put_archive(&row).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(bench.archiver().turn().await.unwrap(), Turn::Wrote);
        let log = bench.keys.checkpoint_verifier();
        for first in [0, 512] {
            let segment = bench.segment(first);
            let verified = segment.verify("plant.example/audit", log).unwrap();
            assert_eq!((verified.first, verified.end, verified.sealed), (first, first + 512, 512));
            let found = records(&bench, &segment).unwrap();
            // The cloud's first word is its own.
            assert_eq!(found.len(), if first == 0 { 255 } else { 256 });
            for (place, record) in &found {
                assert_eq!(segment.entry(first + u64::from(*place)), Ok(record.hash()));
            }
            let (place, record) = &found[7];
            let proof = segment.proof_of(first + u64::from(*place)).unwrap().to_string();
            let proof = LogProof::parse(proof.as_bytes()).unwrap();
            proof.verify(record.hash().as_bytes(), "plant.example/audit", log).unwrap();
        }
        let erased = store.site_keys().erase(&Site::rest(), NOW).unwrap();
        assert_eq!(erased.len(), 1);
        let segment = bench.segment(0);
        assert_eq!(records(&bench, &segment).map(|_| ()), Err(Unopened::Erased));
        segment.verify("plant.example/audit", log).unwrap();
    }

    async fn what_is_gone_and_was_not_pruned_stalls_the_archive(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(1100).await;
        let mut archiver = bench.archiver();
        archiver.turn_once().await;
        let mut tx = store.begin("test").await.unwrap();
        sqlx::query("DELETE FROM event_blocks WHERE block = 2").execute(tx.connection()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(archiver.turn().await, Err(Fault::Missing(512))));
        let row = store.archive(&bench.to().describe()).await.unwrap().unwrap();
        assert!(row.failing.unwrap().0.contains("missing"), "it is shown");
        assert_eq!(row.next, 512);
    }

    async fn an_archive_that_comes_back_goes_on_behind_what_was_pruned_and_says_so(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(1700).await;
        bench.archiver().turn_once().await;
        // Pruned while there was no archive.
        let mut tx = store.begin("test").await.unwrap();
        assert!(tx.raise_minimum(1024, "why", NOW).await.unwrap());
        tx.commit().await.unwrap();
        while store.delete_pruned().await.unwrap() {}
        let mut archiver = bench.archiver();
        archiver.turn_once().await;
        let row = store.archive(&bench.to().describe()).await.unwrap().unwrap();
        assert_eq!((row.next, row.segments, row.failing), (1536, 2, None));
        assert_eq!(bench.segment(1024).first, 1024);
        let events = store.all_events().await;
        let said: Vec<_> = events.iter().filter(|event| event.event.kind == EventKind::ArchiveResumed).collect();
        let [said] = said.as_slice() else { panic!("{said:?}") };
        let detail = |name| said.event.detail.get(name).map(|value| value.to_string());
        assert_eq!(detail("skipped_from").as_deref(), Some("512"));
        assert_eq!(detail("skipped_to").as_deref(), Some("1023"));
    }

    async fn a_folder_without_what_was_written_last_is_not_the_archive(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(1300).await;
        let mut archiver = bench.archiver();
        archiver.turn_once().await;
        // Not mounted any more; then another disk, which holds one of that name.
        let (there, away) = (bench.archive.path().join("plant.example"), bench.archive.path().join("away"));
        std::fs::rename(&there, &away).unwrap();
        let name = there.join("audit/0000000000000000.segment");
        for other in [None, Some("short")] {
            if let Some(text) = other {
                std::fs::create_dir_all(name.parent().unwrap()).unwrap();
                std::fs::write(&name, text).unwrap();
            }
            let refused = archiver.turn().await;
            assert!(matches!(refused, Err(Fault::NotArchived(NotArchived::Elsewhere(_)))), "{refused:?}");
            let row = store.archive(&bench.to().describe()).await.unwrap().unwrap();
            assert_eq!((row.next, row.segments), (512, 1));
            assert!(row.failing.unwrap().0.contains("not mounted"));
        }
        std::fs::remove_dir_all(&there).unwrap();
        std::fs::rename(&away, &there).unwrap();
        archiver.turn_once().await;
        let row = store.archive(&bench.to().describe()).await.unwrap().unwrap();
        assert_eq!((row.next, row.failing), (1024, None));
    }
}
