use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_audit::event::{Actor, Event, EventKind, Subject, Text, Verdict};
use edgeward_audit::query::{ActorFilter, Field, Filter, KindFilter, StatsQuery};
use edgeward_audit::record::{BootOpened, Chain, Salt};
use edgeward_identity::{Kind, TrustDomain};

use super::*;
use crate::store_tests;

mod blocks;
mod erasures;
mod old;
mod sites;

const T0: u64 = 1_800_000_000_000;
const NODES: u64 = 4;

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

fn node(number: u64) -> SpiffeId {
    SpiffeId::new(
        &TrustDomain::new("plant.example").unwrap(),
        Kind::Node,
        &format!("gw-{number}"),
    )
    .unwrap()
}

const KINDS: [EventKind; 6] = [
    EventKind::FlowAllowed,
    EventKind::FlowAllowed,
    EventKind::FlowAllowed,
    EventKind::FlowDenied,
    EventKind::NodeQuarantined,
    EventKind::SvidRenewed,
];

fn event(numbers: &mut Numbers, at: u64) -> Event {
    // One clock in fifty is far off.
    let time = match numbers.below(50) {
        0 => 0,
        1 => T0 * 2,
        _ => T0 + at * 1000 + numbers.below(20_000),
    };
    let actor = match numbers.below(10) {
        0 => Actor::Anonymous(Some("10.0.0.7".parse().unwrap())),
        1 => Actor::Cloud,
        _ => Actor::Identity(node(numbers.below(NODES))),
    };
    let kind = numbers.one_of(&KINDS);
    let mut event = Event::new(Timestamp::from_millis(time), actor, kind);
    event.verdict = numbers.one_of(&Verdict::ALL);
    if numbers.below(2) == 0 {
        event.subject = Some(Subject::Identity(node(numbers.below(NODES))));
    }
    if numbers.below(3) == 0 {
        event.rule = Some(Text::lossy(&format!("rule-{}", numbers.below(3))));
    }
    if numbers.below(4) == 0 {
        event = event.detail("serial", format!("{:02x}", numbers.below(8)));
    }
    event
}

/// Stores `rounds` times a few records of each node, and gives all records in the log's order.
async fn fill(store: &Store, rounds: u64) -> Vec<SealedRecord> {
    let mut numbers = Numbers(7);
    let mut chains: Vec<Chain> = (0..NODES)
        .map(|number| Chain::new(node(number), BootId::from_bytes([1; 16])))
        .collect();
    let mut all = Vec::new();
    for round in 0..rounds {
        let mut tx = store.begin("test").await.unwrap();
        for chain in &mut chains {
            let mut records = Vec::new();
            if round == 0 {
                let opened = BootOpened {
                    previous: None,
                    reset_count: None,
                    restart_count: None,
                };
                let time = Timestamp::from_millis(T0);
                let event = Event::new(time, Actor::Cloud, EventKind::JournalOpened);
                records.push(
                    chain
                        .seal_opening(opened, event, Salt::from_bytes([7; 16]))
                        .unwrap(),
                );
                chain.advance(&records[0]).unwrap();
            }
            for _ in 0..10 {
                let at = all.len() as u64;
                let record = chain
                    .seal(event(&mut numbers, at), Salt::from_bytes([7; 16]))
                    .unwrap();
                chain.advance(&record).unwrap();
                records.push(record);
            }
            let received = Timestamp::from_millis(T0);
            tx.append_records(&records, received).await.unwrap();
            all.extend(records);
        }
        tx.commit().await.unwrap();
    }
    all
}

fn filter(numbers: &mut Numbers) -> Filter {
    let mut filter = Filter::default();
    let time = |numbers: &mut Numbers| Timestamp::from_millis(T0 + numbers.below(3_000_000));
    if numbers.below(4) == 0 {
        filter.from = Some(time(numbers));
    }
    if numbers.below(4) == 0 {
        filter.to = Some(time(numbers));
    }
    if numbers.below(3) == 0 {
        filter.node = Some(node(numbers.below(NODES + 1)));
    }
    filter.actor = match numbers.below(6) {
        0 => Some(ActorFilter::AnyAnonymous),
        1 => Some(ActorFilter::Exactly(Actor::Identity(node(1)))),
        _ => None,
    };
    filter.kind = match numbers.below(5) {
        0 => Some(KindFilter::Exactly(numbers.one_of(&KINDS))),
        1 => Some(KindFilter::Family("flow")),
        2 => Some(KindFilter::Family("app")),
        _ => None,
    };
    if numbers.below(4) == 0 {
        filter.verdict = Some(numbers.one_of(&Verdict::ALL));
    }
    if numbers.below(4) == 0 {
        filter.rule = Some(Text::lossy("rule-1"));
    }
    if numbers.below(8) == 0 {
        filter.serial = Some(format!("{:02x}", numbers.below(9)));
    }
    filter
}

fn expected(all: &[SealedRecord], filter: &Filter) -> Vec<u64> {
    (0..)
        .zip(all)
        .filter(|(_, record)| filter.matches(record.record()))
        .map(|(index, _)| index)
        .collect()
}

fn stats_query(filter: Filter, by: Option<Field>, bucket: Option<Duration>) -> StatsQuery {
    StatsQuery {
        filter,
        by,
        top: 2,
        bucket,
    }
}

store_tests! {
    async fn an_empty_log_has_nothing_to_find_or_count(store) {
        let limits = PageLimits { events: 10, bytes: 1000, examined: 10 };
        let page = store.find(&Filter::default(), None, limits).await.unwrap();
        assert_eq!(page, Page { events: Vec::new(), reached: None, more: false });
        let filter = Filter { from: Some(Timestamp::from_millis(T0)), ..Filter::default() };
        let page = store.find(&filter, Some(5), limits).await.unwrap();
        assert_eq!(page, Page { events: Vec::new(), reached: Some(5), more: false });
        let stats = store.stats(&stats_query(Filter::default(), Some(Field::Node), None)).await.unwrap();
        assert_eq!(stats, Stats::default());
        assert_eq!(store.event_at(0).await.unwrap(), None);
    }

    async fn whatever_is_asked_for_together_is_found_once_in_order_page_by_page(store) {
        let all = fill(&store, 60).await;
        // Seven blocks; the rest is in the tail.
        store.make_blocks(2000).await;
        let mut numbers = Numbers(11);
        let mut found_some = 0;
        for _ in 0..150 {
            let filter = filter(&mut numbers);
            let limits = PageLimits {
                events: usize::try_from(1 + numbers.below(300)).unwrap(),
                bytes: usize::try_from(600 + numbers.below(100_000)).unwrap(),
                examined: usize::try_from(1 + numbers.below(3000)).unwrap(),
            };
            let (mut found, mut after) = (Vec::new(), None);
            for pages in 0.. {
                let page = store.find(&filter, after, limits).await.unwrap();
                assert!(page.events.len() <= limits.events);
                let bytes: usize = page.events.iter().map(|event| event.record.len()).sum();
                assert!(bytes <= limits.bytes || page.events.len() == 1);
                assert!(page.reached > after || !page.more, "a page goes on: {filter:?}");
                found.extend(page.events.iter().map(|event| event.index));
                after = page.reached;
                if !page.more {
                    break;
                }
                assert!(pages < 5000, "{filter:?}");
            }
            assert_eq!(found, expected(&all, &filter), "{filter:?} {limits:?}");
            found_some += usize::from(!found.is_empty());
            assert_eq!(after, Some(all.len() as u64 - 1));
        }
        assert!(found_some > 50);
    }

    async fn looking_for_what_is_not_there_costs_what_the_limit_says(store) {
        let all = fill(&store, 60).await;
        // Each filter matches much, both together nothing.
        let filter = Filter {
            kind: Some(KindFilter::Family("flow")),
            serial: None,
            rule: Some(Text::lossy("rule-1")),
            verdict: Some(Verdict::Deny),
            to: Some(Timestamp::from_millis(T0 + 1)),
            from: Some(Timestamp::from_millis(T0)),
            ..Filter::default()
        };
        let limits = PageLimits { events: 10, bytes: MAX_PAGE_BYTES, examined: 10 };
        for blocks in [0, 2048] {
            store.make_blocks(blocks).await;
            let page = store.find(&filter, None, limits).await.unwrap();
            assert!(page.events.is_empty() && page.more);
            assert!(page.reached < Some(all.len() as u64 - 1));
        }
    }

    async fn denied_flows_are_counted_by_node_wherever_they_stand(store) {
        let nothing = (BTreeMap::new(), None);
        assert_eq!(store.denials(None, Timestamp::default(), None).await.unwrap(), nothing);
        let all = fill(&store, 20).await;
        let (from, until) = (Timestamp::from_millis(T0 + 1), Timestamp::from_millis(T0 + 400_000));
        for blocks in [0, 512] {
            store.make_blocks(blocks).await;
            for after in [None, Some(3), Some(300), Some(700)] {
                let mut expected: BTreeMap<String, u64> = BTreeMap::new();
                let mut last = after;
                for (index, record) in (0_u64..).zip(&all) {
                    let event = record.event();
                    let counts = event.kind == EventKind::FlowDenied && (from..until).contains(&event.time);
                    if counts && Some(index) > after {
                        *expected.entry(record.record().node.name().to_owned()).or_default() += 1;
                        last = Some(index);
                    }
                }
                let found = store.denials(after, from, Some(until)).await.unwrap();
                assert_eq!(found, (expected, last));
            }
        }
    }

    async fn counts_agree_with_the_events_that_match(store) {
        let all = fill(&store, 30).await;
        let mut numbers = Numbers(13);
        for round in 0..80 {
            if round == 40 {
                store.make_blocks(1000).await;
            }
            let filter = filter(&mut numbers);
            let by = (round % 8 < 7).then(|| Field::ALL[round % 7]);
            let bucket = (round % 2 == 0).then_some(Duration::from_secs(60));
            let asked = stats_query(filter.clone(), by, bucket);
            let stats = store.stats(&asked).await.unwrap();
            let matching: Vec<&SealedRecord> =
                all.iter().filter(|record| filter.matches(record.record())).collect();
            assert_eq!(stats.total, matching.len() as u64);
            let value = |record: &SealedRecord| {
                let event = record.event();
                match by.unwrap() {
                    Field::Type => event.kind.name().to_owned(),
                    Field::Family => event.kind.family().to_owned(),
                    Field::Verdict => event.verdict.to_string(),
                    Field::Node => record.record().node.to_string(),
                    Field::Actor => event.actor.to_string(),
                    Field::Subject => event.subject.as_ref().map_or_else(String::new, ToString::to_string),
                    Field::Rule => event.rule.as_ref().map_or_else(String::new, ToString::to_string),
                }
            };
            if by.is_some() {
                let mut counts: BTreeMap<String, u64> = BTreeMap::new();
                for record in &matching {
                    *counts.entry(value(record)).or_default() += 1;
                }
                let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
                counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                counts.truncate(2);
                assert_eq!(stats.values, counts, "{asked:?}");
            }
            for bucket in &stats.buckets {
                let start = bucket.start.millis();
                let inside: Vec<&&SealedRecord> = matching
                    .iter()
                    .filter(|record| (start..start + 60_000).contains(&record.event().time.millis()))
                    .collect();
                assert_eq!(bucket.total, inside.len() as u64);
                for (kept, _) in &stats.values {
                    let counted = inside.iter().filter(|record| value(record) == *kept).count();
                    assert_eq!(bucket.values.get(kept).copied().unwrap_or(0), counted as u64, "{asked:?}");
                }
            }
            if bucket.is_some() {
                let sum: u64 = stats.buckets.iter().map(|bucket| bucket.total).sum();
                assert_eq!(sum, stats.total);
            }
        }
    }
}
