use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use edgeward_audit::{Event, Verdict};
use edgeward_identity::testing::TEST_NOW;
use proptest::prelude::*;

use super::*;
use crate::enforce::RecordRefused;
use crate::enforce::testing::id;

/// Takes as many events as it is told to, then none.
#[derive(Default)]
struct Book {
    room: AtomicUsize,
    events: Mutex<Vec<Event>>,
}

#[async_trait]
impl Recorder for Book {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        let room = self.room.load(Ordering::Relaxed);
        if room == 0 {
            return Err(RecordRefused("full".to_owned()));
        }
        self.room.store(room - 1, Ordering::Relaxed);
        self.events.lock().push(event);
        Ok(())
    }

    fn record_after(&self, _event: Event) {
        panic!("sums wait for their record");
    }
}

impl Book {
    /// What all events come to, by verdict.
    fn sums(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for event in self.events.lock().iter() {
            let count = ["packets", "requests", "verdicts", "left_out"]
                .iter()
                .find_map(|unit| event.detail.get(unit))
                .unwrap()
                .parse::<u64>()
                .unwrap();
            let verdict = if event.kind == edgeward_audit::EventKind::FlowAllowed {
                "allow"
            } else {
                "deny"
            };
            *sums.entry(verdict).or_default() += count;
        }
        sums
    }
}

fn records() -> Records {
    Records { node: id("a") }
}

fn row(source: u8, port: u16, allow: bool) -> Row {
    Row {
        allow,
        guard: Guard::Lan,
        from: Source::Stranger(Some([192, 0, 2, source].into())),
        to: id("a"),
        protocol: 6,
        port,
        interface: Some("line3/modbus".into()),
        action: None,
        request: None,
        reason: "no-rule".into(),
        rule: None,
        state: None,
        tier: None,
        address: Some([192, 0, 2, source].into()),
        mac: None,
        destination: None,
    }
}

fn small() -> Posture {
    Posture {
        waiting: Mutex::default(),
        limits: Limits {
            rows: 6,
            rows_per_source: 4,
            events: 3,
        },
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #[test]
    fn what_is_recorded_in_the_end_is_what_was_decided_however_the_journal_fares(
        steps in prop::collection::vec(
            (0_u8..6, 0_u16..8, any::<bool>(), 1_u64..50, 0_usize..6, any::<bool>()),
            1..120,
        ),
    ) {
        let (posture, book, records) = (small(), Book::default(), records());
        let mut expected = BTreeMap::<&str, u64>::new();
        let mut at = TEST_NOW;
        for (source, port, allow, count, room, write) in steps {
            at = at.plus(std::time::Duration::from_secs(1));
            posture.add(row(source, port, allow), Sum::of(count, at));
            *expected.entry(if allow { "allow" } else { "deny" }).or_default() += count;
            if write {
                book.room.store(room, Ordering::Relaxed);
                block_on(posture.write(&book, &records));
            }
            let waiting = posture.waiting.lock();
            prop_assert!(waiting.rows.len() <= 12 && waiting.others.len() <= 2);
            prop_assert_eq!(waiting.by_source.values().sum::<usize>(), waiting.rows.len());
        }
        book.room.store(usize::MAX, Ordering::Relaxed);
        for _ in 0..16 {
            block_on(posture.write(&book, &records));
        }
        prop_assert!(posture.is_empty());
        prop_assert_eq!(book.sums(), expected);
    }
}

#[test]
fn a_scan_from_one_place_does_not_hide_another_source() {
    let (posture, book) = (small(), Book::default());
    for port in 0..100 {
        posture.add(row(1, port, false), Sum::once(TEST_NOW));
    }
    posture.add(row(2, 502, false), Sum::once(TEST_NOW));
    book.room.store(usize::MAX, Ordering::Relaxed);
    for _ in 0..4 {
        block_on(posture.write(&book, &records()));
    }
    let events = book.events.lock();
    assert!(
        events
            .iter()
            .any(|event| event.actor.to_string() == "anonymous:192.0.2.2")
    );
    // Four of the scan, one of the other, and one that counts the rest.
    assert_eq!(events.len(), 6);
    drop(events);
    assert_eq!(book.sums(), BTreeMap::from([("deny", 101)]));
}

#[test]
fn denials_are_written_before_what_was_allowed_and_few_at_a_time() {
    let (posture, book) = (small(), Book::default());
    for source in 0..4 {
        posture.add(row(source, 1, true), Sum::once(TEST_NOW));
    }
    let later = TEST_NOW.plus(std::time::Duration::from_secs(5));
    for source in 0..2 {
        posture.add(row(source, 1, false), Sum::once(later));
    }
    book.room.store(usize::MAX, Ordering::Relaxed);
    block_on(posture.write(&book, &records()));
    let verdicts: Vec<Verdict> = book
        .events
        .lock()
        .iter()
        .map(|event| event.verdict)
        .collect();
    assert_eq!(verdicts, [Verdict::Deny, Verdict::Deny, Verdict::Allow]);
}

#[test]
fn an_event_says_who_what_where_and_from_when_to_when() {
    let device: SpiffeId = "spiffe://plant.example/device/plc-17".parse().unwrap();
    let denied = Row {
        from: Source::Known(device.clone()),
        action: Some("read".into()),
        request: Some("function 3".into()),
        reason: "window".into(),
        rule: Some("plc-reads".into()),
        state: Some(AttestationState::Vouched),
        tier: Some(Tier::Hardware),
        guard: Guard::Gateway,
        ..row(7, 502, false)
    };
    let sum = Sum {
        count: 9,
        first: TEST_NOW,
        last: TEST_NOW.plus(std::time::Duration::from_secs(4)),
    };
    let event = records().decided(&denied, &sum);
    assert_eq!(event.time, sum.last);
    assert_eq!(event.actor.identity(), Some(&device));
    assert_eq!(
        event.subject.as_ref().and_then(|to| to.identity()),
        Some(&id("a"))
    );
    assert_eq!(
        event.rule.as_ref().map(|rule| rule.as_str()),
        Some("plc-reads")
    );
    assert_eq!(
        event.code.as_ref().map(|code| code.as_str()),
        Some("window")
    );
    for (key, value) in [
        ("guard", "gateway"),
        ("protocol", "tcp"),
        ("port", "502"),
        ("interface", "line3/modbus"),
        ("action", "read"),
        ("request", "function 3"),
        ("state", "vouched"),
        ("tier", "hardware"),
        ("source", "192.0.2.7"),
        ("requests", "9"),
        ("since", &sum.first.to_string()),
    ] {
        assert_eq!(event.detail.get(key), Some(value), "{key}");
    }
}

#[test]
fn an_operator_is_told_with_the_node_that_he_came_through_and_nothing_is_left_out() {
    let ada: SpiffeId = "spiffe://plant.example/operator/ada".parse().unwrap();
    let denied = Row {
        from: Source::Through {
            id: ada.clone(),
            node: id("b"),
        },
        action: Some("read".into()),
        state: Some(AttestationState::Trusted),
        tier: Some(Tier::Hardware),
        guard: Guard::Gateway,
        ..row(7, 502, false)
    };
    let event = records().decided(&denied, &Sum::once(TEST_NOW));
    assert_eq!(event.actor.identity(), Some(&ada));
    assert_eq!(
        event.detail.get("through"),
        Some(id("b").to_string().as_str())
    );
    assert_eq!(event.detail.get("source"), Some("192.0.2.7"));
    assert_eq!(event.detail.get("left_out"), None);
}
