use std::collections::BTreeSet;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::record::BootId;
use edgeward_identity::{SpiffeId, SystemClock};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;
use crate::config::exports::{Begin, Format, Target};
use crate::dial::Endpoint;
use crate::store::exports::ExportRow;
use crate::store::testing::TestStore;
use crate::store_tests;

mod rsyslog;

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    store: Store,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
}

impl Bench {
    async fn new(store: &Store, boot: u8) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let keeper: SpiffeId = "spiffe://plant.example/cloud/c".parse().unwrap();
        let boot = BootId::from_bytes([boot; 16]);
        let (audit, writer) = AuditLog::open(store.clone(), keeper, boot, clock.now())
            .await
            .unwrap();
        tokio::spawn(writer.run(CancellationToken::new()));
        Self {
            store: store.clone(),
            audit: Arc::new(audit),
            clock,
        }
    }

    fn start(&self, export: &Export) -> Exports {
        Exports::start(
            std::slice::from_ref(export),
            &self.store,
            &self.audit,
            &self.clock,
        )
    }

    /// Records so many events.
    async fn record(&self, count: usize) {
        for number in 0..count {
            let event = Event::new(self.clock.now(), Actor::Cloud, EventKind::TokenCreated)
                .detail("number", number);
            self.audit.record(event).await.unwrap();
        }
    }

    async fn row(&self) -> Option<ExportRow> {
        self.store.exports().await.unwrap().pop()
    }

    /// Waits until the export stands as asked.
    async fn until(&self, what: &str, is: impl Fn(&ExportRow) -> bool) -> ExportRow {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let row = self.row().await;
            match row {
                Some(row) if is(&row) => return row,
                row => assert!(tokio::time::Instant::now() < end, "{what}: {row:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_all_arrived(&self) -> ExportRow {
        let last = self.store.last_leaf().await.unwrap();
        self.until("all arrived", |row| row.position >= last).await
    }
}

/// Takes JSON by lines; refuses what it is told to.
#[derive(Clone, Default)]
struct Receiver {
    taken: Arc<Mutex<Vec<u64>>>,
    poison: Arc<Mutex<BTreeSet<u64>>>,
    refuses_all: Arc<Mutex<bool>>,
}

impl Receiver {
    async fn serve(&self, listener: TcpListener) {
        let receiver = self.clone();
        let app = Router::new().route(
            "/",
            post(move |body: String| async move { receiver.take(&body) }),
        );
        axum::serve(listener, app).await.unwrap();
    }

    fn take(&self, body: &str) -> (StatusCode, &'static str) {
        let indices: Vec<u64> = body
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["index"].as_u64().unwrap()
            })
            .collect();
        let is_bad = indices
            .iter()
            .any(|index| self.poison.lock().contains(index));
        if is_bad || *self.refuses_all.lock() {
            return (StatusCode::BAD_REQUEST, "I do not like it");
        }
        self.taken.lock().extend(indices);
        (StatusCode::OK, "")
    }
}

async fn http(batch: u32) -> (Receiver, TcpListener, Export) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let export = Export {
        name: "siem".to_owned(),
        format: Format::Json,
        to: Target::Http {
            endpoint: Endpoint {
                host: "127.0.0.1".to_owned(),
                port: listener.local_addr().unwrap().port(),
                tls: None,
            },
            path: "/".to_owned(),
            token_file: None,
        },
        kinds: None,
        from: Begin::Start,
        facility: 13,
        batch,
        timeout: Duration::from_secs(2),
    };
    (Receiver::default(), listener, export)
}

store_tests! {
    async fn a_refused_event_is_put_aside_and_every_other_arrives_once(store) {
        let bench = Bench::new(&store, 1).await;
        let (receiver, listener, export) = http(8).await;
        *receiver.poison.lock() = [3, 4, 17].into();
        bench.record(20).await;
        let serving = receiver.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let exports = bench.start(&export);
        let row = bench.until("refused", |row| row.refused == 3).await;
        assert_eq!(row.failing, None);
        bench.until_all_arrived().await;
        // Each refusal is an event of its own, and these arrive, too.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let taken = receiver.taken.lock().clone();
        let expected: Vec<u64> = (0..=23).filter(|index| ![3, 4, 17].contains(index)).collect();
        assert_eq!(taken, expected);
        exports.finish().await;
        let refused = bench.store.export_refused("siem", 10).await.unwrap();
        assert_eq!(refused.iter().map(|row| row.first).collect::<Vec<_>>(), [17, 4, 3]);
        assert!(refused[0].reason.contains("400 Bad Request: I do not like it"), "{refused:?}");
    }

    async fn what_was_put_aside_is_given_again_when_somebody_asks_and_stays_aside_if_refused_again(store) {
        let bench = Bench::new(&store, 1).await;
        let (receiver, listener, export) = http(8).await;
        *receiver.poison.lock() = [3, 4].into();
        bench.record(8).await;
        let serving = receiver.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let exports = bench.start(&export);
        bench.until("refused", |row| row.refused == 2).await;
        receiver.poison.lock().remove(&4);
        let ask = async |index| {
            let mut tx = bench.store.begin("test").await.unwrap();
            let count = tx.retry_refused("siem", index, bench.clock.now()).await.unwrap();
            tx.commit().await.unwrap();
            count
        };
        assert_eq!(ask(Some(5)).await, 0);
        assert_eq!(ask(None).await, 2);
        bench.until("given again", |row| row.refused == 1).await;
        assert_eq!(receiver.taken.lock().iter().filter(|index| **index == 4).count(), 1);
        bench.record(1).await;
        bench.until_all_arrived().await;
        let left = bench.store.export_refused("siem", 10).await.unwrap();
        assert_eq!(left.iter().map(|row| (row.first, row.retry)).collect::<Vec<_>>(), [(3, None)]);
        receiver.poison.lock().clear();
        assert_eq!(ask(Some(3)).await, 1);
        bench.until("all given", |row| row.refused == 0).await;
        exports.finish().await;
        assert!(bench.store.export_refused("siem", 10).await.unwrap().is_empty());
    }

    async fn what_was_put_aside_and_then_pruned_stays_refused_and_says_so(store) {
        let bench = Bench::new(&store, 1).await;
        let (receiver, listener, export) = http(8).await;
        let mut tx = bench.store.begin("test").await.unwrap();
        for _ in 0..310 {
            let event = Event::new(bench.clock.now(), Actor::Cloud, EventKind::TokenCreated);
            bench.audit.record_in(&mut tx, event).await.unwrap();
        }
        tx.take_export("siem", "a", Some(310), bench.clock.now(), bench.clock.now()).await.unwrap().unwrap();
        for (first, last) in [(3, 4), (250, 259), (300, 301)] {
            let refused = crate::store::exports::Refused {
                first, last, count: last + 1 - first, reason: "why".to_owned(), noticed: bench.clock.now(), retry: None,
            };
            tx.put_refused("siem", &refused).await.unwrap();
        }
        tx.raise_minimum(256, "policy", bench.clock.now()).await.unwrap();
        assert_eq!(tx.retry_refused("siem", None, bench.clock.now()).await.unwrap(), 3);
        tx.commit().await.unwrap();
        tokio::spawn(async move { receiver.serve(listener).await });
        let exports = bench.start(&export);
        let rows = async || bench.store.export_refused("siem", 10).await.unwrap();
        crate::testing::eventually(|| async { rows().await.iter().all(|row| row.retry.is_none()) }).await;
        let left: Vec<_> = rows().await.into_iter().map(|row| (row.first, row.reason)).collect();
        let expected = [(250, "pruned: 250 to 255; what is kept was taken"), (3, "pruned: 3 to 4")];
        assert_eq!(left, expected.map(|(first, why)| (first, why.to_owned())));
        exports.finish().await;
    }

    async fn an_export_with_no_room_for_refused_events_stands_until_one_of_them_is_taken_after_all(store) {
        let bench = Bench::new(&store, 1).await;
        let (receiver, listener, export) = http(8).await;
        *receiver.poison.lock() = [3, 12].into();
        bench.record(8).await;
        let serving = receiver.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let exports = bench.start(&export);
        bench.until("refused", |row| row.refused == 1).await;
        let mut tx = bench.store.begin("test").await.unwrap();
        sqlx::query(
            "INSERT INTO export_refused (name, first_leaf, last_leaf, count, reason, noticed) \
             WITH RECURSIVE n(leaf) AS (SELECT 1000 UNION ALL SELECT leaf + 1 FROM n WHERE leaf < 10998) \
             SELECT 'siem', leaf, leaf, 1, 'bad', 0 FROM n",
        )
        .execute(tx.connection())
        .await
        .unwrap();
        tx.commit().await.unwrap();
        bench.record(5).await;
        let row = bench.until("stands", |row| row.failing.is_some()).await;
        assert!(row.failing.unwrap().0.contains("too many refused events"));
        assert_eq!((row.position, row.refused), (Some(11), 1));
        // It can be ended, and begins with what it stands at.
        exports.finish().await;
        let exports = bench.start(&export);
        receiver.poison.lock().remove(&3);
        let mut tx = bench.store.begin("test").await.unwrap();
        assert_eq!(tx.retry_refused("siem", Some(3), bench.clock.now()).await.unwrap(), 1);
        tx.commit().await.unwrap();
        let row = bench.until("goes on", |row| row.failing.is_none() && row.position == Some(15)).await;
        assert_eq!(row.refused, 1);
        exports.finish().await;
        let mut taken = receiver.taken.lock().clone();
        taken.sort_unstable();
        assert_eq!(taken, (0..=15).filter(|index| *index != 12).collect::<Vec<u64>>(), "none twice");
    }

    async fn an_export_goes_on_where_it_stood_and_begins_where_it_was_told(store) {
        let bench = Bench::new(&store, 1).await;
        let (receiver, listener, mut export) = http(100).await;
        export.from = Begin::Now;
        bench.record(5).await;
        let serving = receiver.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let exports = bench.start(&export);
        bench.until("begun", |row| row.position == Some(5)).await;
        bench.record(2).await;
        bench.until("sent", |row| row.sent == 2).await;
        exports.finish().await;
        bench.record(3).await;
        let exports = bench.start(&export);
        bench.until_all_arrived().await;
        exports.finish().await;
        assert_eq!(*receiver.taken.lock(), [6, 7, 8, 9, 10]);
    }
}

#[tokio::test]
async fn a_receiver_that_refuses_everything_has_nothing_put_aside() {
    let store = TestStore::sqlite().await;
    let bench = Bench::new(&store, 1).await;
    let (receiver, listener, export) = http(100).await;
    *receiver.refuses_all.lock() = true;
    bench.record(30).await;
    let serving = receiver.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let exports = bench.start(&export);
    let row = bench.until("fails", |row| row.failing.is_some()).await;
    assert_eq!((row.position, row.refused, row.sent), (None, 0, 0));
    *receiver.refuses_all.lock() = false;
    let row = bench.until_all_arrived().await;
    assert_eq!((row.refused, row.failing), (0, None));
    assert_eq!(*receiver.taken.lock(), (0..=30).collect::<Vec<_>>());
    exports.finish().await;
}

#[tokio::test]
async fn a_receiver_that_is_away_holds_up_nobody_and_gets_everything_when_it_comes() {
    let store = TestStore::sqlite().await;
    let bench = Bench::new(&store, 1).await;
    let (receiver, listener, export) = http(10).await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let exports = bench.start(&export);
    bench.record(40).await;
    let row = bench.until("fails", |row| row.failing.is_some()).await;
    assert!(row.failing.unwrap().0.contains("cannot connect"));
    let listener = TcpListener::bind(address).await.unwrap();
    let serving = receiver.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let row = bench.until_all_arrived().await;
    assert_eq!(row.failing, None);
    assert_eq!(*receiver.taken.lock(), (0..=40).collect::<Vec<_>>());
    exports.finish().await;
}

#[tokio::test]
async fn only_the_kinds_that_were_asked_for_are_given() {
    let store = TestStore::sqlite().await;
    let bench = Bench::new(&store, 1).await;
    let (receiver, listener, mut export) = http(10).await;
    export.kinds = Some([EventKind::NodeCloned].into());
    bench.record(25).await;
    let cloned = Event::new(bench.clock.now(), Actor::Cloud, EventKind::NodeCloned);
    bench.audit.record(cloned).await.unwrap();
    bench.record(25).await;
    let serving = receiver.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let exports = bench.start(&export);
    let row = bench.until_all_arrived().await;
    assert_eq!((row.position, row.sent), (Some(51), 1));
    assert_eq!(*receiver.taken.lock(), [26]);
    exports.finish().await;
}

#[tokio::test]
async fn of_two_clouds_on_one_database_one_sends_and_the_other_takes_over() {
    let store = TestStore::postgresql().await;
    let (receiver, listener, export) = http(10).await;
    let serving = receiver.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let first = Bench::new(&store, 1).await;
    let second = Bench::new(&store.another().await, 2).await;
    first.record(5).await;
    let ours = first.start(&export);
    first.until_all_arrived().await;
    let theirs = second.start(&export);
    first.record(5).await;
    first.until_all_arrived().await;
    let holder = first.row().await.unwrap().holder;
    assert_eq!(holder, BootId::from_bytes([1; 16]).to_string());
    // Ended in order it gives its lease back at once.
    ours.finish().await;
    second.record(5).await;
    let row = second.until_all_arrived().await;
    assert_eq!(row.holder, BootId::from_bytes([2; 16]).to_string());
    theirs.finish().await;
    let taken = receiver.taken.lock().clone();
    assert_eq!(taken, (0..=16).collect::<Vec<_>>(), "none lost, none twice");
}
