use edgeward_audit::query::{Filter, StatsQuery};
use edgeward_identity::{BootTime, SystemClock};

use super::*;
use crate::archive::tests::Bench;
use crate::store::audit::{MAX_EXAMINED, PageLimits};
use crate::store_tests;

const DAY: Duration = Duration::from_secs(86_400);
const PAGE: PageLimits = PageLimits {
    events: 1000,
    bytes: 1 << 20,
    examined: MAX_EXAMINED,
};

/// So much later than it is.
struct Later(Duration);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.0)
    }

    fn boottime(&self) -> BootTime {
        SystemClock.boottime()
    }
}

fn pruner(bench: &Bench, retention: &Retention, exports: &[&str], later: Duration) -> Pruner {
    Pruner {
        retention: retention.clone(),
        exports: exports.iter().map(|name| (*name).to_owned()).collect(),
        store: bench.store.clone(),
        audit: bench.audit.clone(),
        clock: Arc::new(Later(later)),
        leaves: 512,
        swept: None,
        archive: retention.archive.as_ref().map(|archive| {
            Kept::new(
                archive,
                "plant.example/audit".to_owned(),
                bench.store.clone(),
            )
        }),
        told: false,
    }
}

/// The rules of alerts have looked at everything up to here.
async fn alerts_passed(bench: &Bench, leaf: u64) {
    let now = Timestamp::from_secs(1);
    let mut tx = bench.store.begin("test").await.unwrap();
    tx.take_alert_duty("a", now, DAY).await.unwrap();
    assert!(tx.move_alert_position("a", leaf).await.unwrap());
    tx.commit().await.unwrap();
}

async fn held(mut pruner: Pruner) -> (u64, Holder) {
    pruner.turn().await.unwrap();
    let names: Vec<&str> = pruner.exports.iter().map(String::as_str).collect();
    let now = pruner.clock.now();
    let found = outlook(&pruner.store, &pruner.retention, &names, 512, now)
        .await
        .unwrap();
    (found.minimum, found.held_by)
}

store_tests! {
    async fn nothing_is_deleted_that_is_young_not_archived_or_not_passed(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(1300).await;
        let forever = Retention::default();
        let month = Retention { keep: Some(30 * DAY), archive: Some(bench.to()) };
        assert_eq!(held(pruner(&bench, &forever, &[], 4000 * DAY)).await, (0, Holder::Forever));
        assert_eq!(held(pruner(&bench, &month, &[], 29 * DAY)).await, (0, Holder::Age));
        let later = || pruner(&bench, &month, &["siem"], 31 * DAY);
        assert_eq!(held(later()).await, (0, Holder::Alerts));
        alerts_passed(&bench, 1200).await;
        assert_eq!(held(later()).await, (0, Holder::Export("siem".to_owned())));
        let now = Timestamp::from_secs(1);
        let mut tx = store.begin("test").await.unwrap();
        tx.take_export("siem", "a", Some(1100), now, now.plus(DAY)).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert_eq!(held(later()).await, (0, Holder::Archive));
        let mut archiver = bench.archiver();
        archiver.turn_once().await;
        assert_eq!(held(later()).await, (512, Holder::Archive));
        archiver.turn_once().await;
        // The third is not full.
        assert_eq!(held(later()).await, (1024, Holder::Age));
    }

    async fn what_is_pruned_is_recorded_and_what_is_kept_is_proven_and_found(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(1300).await;
        alerts_passed(&bench, 1299).await;
        bench.archiver().turn_once().await;
        let month = Retention { keep: Some(30 * DAY), archive: Some(bench.to()) };
        pruner(&bench, &month, &[], 31 * DAY).turn().await.unwrap();
        bench.grow_to(1302).await;
        let pruned = store.pruned().await.unwrap().unwrap();
        assert_eq!((pruned.minimum, pruned.deleted), (512, 512));
        assert!(pruned.policy.contains("30 days"));
        let page = store.find(&Filter::default(), None, PAGE).await.unwrap();
        assert_eq!(page.events.first().map(|event| event.index), Some(512));
        assert_eq!(page.events.len(), 790, "all that is kept");
        let said: Vec<_> = page
            .events
            .iter()
            .filter(|event| event.event.kind == EventKind::AuditPruned)
            .map(|event| event.event.detail.get("minimum_index").map(|value| value.to_string()))
            .collect();
        assert_eq!(said, [Some("512".to_owned())]);
        assert!(matches!(store.event_at(100).await, Err(StoreError::Pruned { index: 100, minimum: 512 })));
        assert!(store.event_at(512).await.unwrap().is_some());
        let counted = StatsQuery::parse([("by", "type")], bench.keys.trust_domain()).unwrap();
        assert_eq!(store.stats(&counted).await.unwrap().total, 790);
        let size = store.newest_checkpoint().await.unwrap().unwrap().size;
        // Also of what is gone: the tree is whole.
        for index in [100, 600] {
            assert!(!store.inclusion(index, size).await.unwrap().is_empty());
        }
        let log = bench.keys.checkpoint_verifier();
        bench.segment(0).verify("plant.example/audit", log).unwrap();
    }

    async fn a_log_of_which_every_block_was_pruned_goes_on(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(600).await;
        alerts_passed(&bench, 599).await;
        let month = Retention { keep: Some(30 * DAY), archive: None };
        assert_eq!(held(pruner(&bench, &month, &[], 31 * DAY)).await, (512, Holder::Age));
        assert_eq!(store.block_count().await.unwrap(), 2, "they were made, and are gone");
        let all = StatsQuery::parse([("by", "type")], bench.keys.trust_domain()).unwrap();
        assert_eq!(store.stats(&all).await.unwrap().total, 89);
        // Covered: the log was not halted, and blocks are made of what comes.
        bench.grow_to(1300).await;
        assert!(bench.audit.log_head().halted().is_none());
        assert_eq!(store.block_count().await.unwrap(), 5);
        let page = store.find(&Filter::default(), None, PAGE).await.unwrap();
        assert_eq!((page.events.first().map(|event| event.index), page.events.len()), (Some(512), 788));
        // Also by a cloud that begins with nothing but the tail.
        alerts_passed(&bench, 1299).await;
        assert_eq!(held(pruner(&bench, &month, &[], 31 * DAY)).await, (1024, Holder::Age));
    }

    async fn the_index_is_swept_by_whoever_comes_after_a_crash(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(1300).await;
        alerts_passed(&bench, 1299).await;
        let terms_below = async |block: i64| {
            let row = sqlx::query("SELECT COUNT(*) AS terms FROM event_terms WHERE block < $1")
                .bind(block)
                .fetch_one(&mut *store.read().await.unwrap())
                .await
                .unwrap();
            sqlx::Row::get::<i64, _>(&row, "terms")
        };
        // As far as one came before it ended: blocks are gone, terms are not.
        let mut tx = store.begin("test").await.unwrap();
        assert!(tx.raise_minimum(512, "why", Timestamp::from_secs(1)).await.unwrap());
        tx.commit().await.unwrap();
        while store.delete_pruned().await.unwrap() {}
        assert!(terms_below(2).await > 0);
        let forever = Retention::default();
        let mut next = pruner(&bench, &forever, &[], DAY);
        next.turn().await.unwrap();
        assert_eq!(terms_below(2).await, 0);
        assert!(terms_below(5).await > 0);
        assert_eq!(store.pruned().await.unwrap().unwrap().terms_swept, 512);
        // A day has not passed: what comes waits, and is not forgotten.
        let month = Retention { keep: Some(30 * DAY), archive: None };
        let mut same = Pruner { retention: month.clone(), clock: Arc::new(Later(31 * DAY)), ..next };
        same.turn().await.unwrap();
        assert_eq!(store.pruned().await.unwrap().unwrap().deleted, 1024);
        assert!(terms_below(4).await > 0);
        pruner(&bench, &month, &[], 31 * DAY).turn().await.unwrap();
        assert_eq!(terms_below(4).await, 0);
    }

    async fn what_is_not_in_the_archive_any_more_is_not_deleted(store) {
        let bench = Bench::new(&store).await;
        bench.grow_to(1300).await;
        alerts_passed(&bench, 1299).await;
        let mut archiver = bench.archiver();
        archiver.turn_once().await;
        archiver.turn_once().await;
        let month = Retention { keep: Some(30 * DAY), archive: Some(bench.to()) };
        let path = bench.archive.path().join("plant.example/audit/0000000000000512.segment");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[1..]).unwrap();
        let mut pruner = pruner(&bench, &month, &[], 31 * DAY);
        let minimum = async |pruner: &mut Pruner| {
            pruner.turn().await.unwrap();
            store.minimum_index().await.unwrap()
        };
        assert_eq!(minimum(&mut pruner).await, 512, "the first is there");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(minimum(&mut pruner).await, 512);
        let failing = async || store.archive(&bench.to().describe()).await.unwrap().unwrap().failing;
        let (why, _) = failing().await.unwrap();
        assert!(why.contains("nothing is pruned") && why.contains("512.segment is gone"), "{why}");
        assert!(store.event_at(512).await.unwrap().is_some());
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(minimum(&mut pruner).await, 1024);
        assert_eq!(failing().await, None);
        bench.audit.flush().await;
        let told = |event: &crate::store::audit::StoredEvent| match event.event.kind {
            EventKind::ArchiveStalled | EventKind::ArchiveResumed => Some(event.event.kind),
            _ => None,
        };
        let told: Vec<_> = store.all_events().await.iter().filter_map(told).collect();
        assert_eq!(told, [EventKind::ArchiveStalled, EventKind::ArchiveResumed]);
    }
}
