use edgeward_audit::Digest;
use edgeward_audit::batch::{Batch, JournalKeyStatement, VerifiedBatch};
use edgeward_audit::query::Filter;
use edgeward_audit::record::{KeyTurn, MAX_RECORDS_A_KEY, Salt, SealedRecord};
use edgeward_identity::{Kind, Signer, SoftwareKey, TrustDomain};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::keys::sites::Site;
use crate::store_tests;

mod chaos;
mod gaps;
mod heads;
mod late;
mod together;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn id(kind: Kind, name: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::new("plant.example").unwrap(), kind, name).unwrap()
}

async fn open(store: &Store, boot: u8) -> AuditLog {
    let boot = BootId::from_bytes([boot; 16]);
    let (log, writer) = AuditLog::open(store.clone(), id(Kind::Cloud, "c"), boot, NOW)
        .await
        .unwrap();
    tokio::spawn(writer.run(CancellationToken::new()));
    log
}

fn event(kind: EventKind) -> Event {
    Event::new(NOW, id(Kind::Node, "gw"), kind)
}

const SALT: Salt = Salt::from_bytes([7; 16]);

/// A node's journal, without files.
struct Journal {
    chain: Chain,
    records: Vec<SealedRecord>,
}

impl Journal {
    fn open(boot: u8, previous: Option<PreviousBoot>) -> Self {
        Self::of("gw", boot, previous)
    }

    fn of(node: &str, boot: u8, previous: Option<PreviousBoot>) -> Self {
        let chain = Chain::new(id(Kind::Node, node), BootId::from_bytes([boot; 16]));
        let opened = BootOpened {
            previous,
            reset_count: Some(1),
            restart_count: Some(0),
        };
        let record = chain
            .seal_opening(opened, event(EventKind::JournalOpened), SALT)
            .unwrap();
        let mut journal = Self {
            chain,
            records: Vec::new(),
        };
        journal.push(record);
        journal
    }

    fn write(&mut self, count: usize) {
        for _ in 0..count {
            let record = self
                .chain
                .seal(event(EventKind::FlowAllowed), SALT)
                .unwrap();
            self.push(record);
        }
    }

    fn push(&mut self, record: SealedRecord) {
        self.chain.advance(&record).unwrap();
        self.records.push(record);
    }

    fn turn(&mut self, by: &SoftwareKey, number: u32, to: &SoftwareKey) {
        let event = KeyTurn::event(&self.chain, by, (number, to.public_key()), NOW).unwrap();
        let record = self.chain.seal(event, SALT).unwrap();
        self.push(record);
    }

    fn batch(&self, from: usize, to: usize) -> VerifiedBatch {
        self.batch_by(&SoftwareKey::generate().unwrap(), from, to)
    }

    /// By the boot key `key`.
    fn batch_by(&self, key: &SoftwareKey, from: usize, to: usize) -> VerifiedBatch {
        let svid = SoftwareKey::generate().unwrap();
        let node = self.chain.node().clone();
        let statement =
            JournalKeyStatement::sign(&svid, &node, self.chain.boot(), key.public_key(), NOW)
                .unwrap();
        let journal_key = statement.verify(&node, svid.public_key(), NOW).unwrap();
        let records = self.records[from..to]
            .iter()
            .map(|record| record.bytes().to_vec())
            .collect();
        Batch::sign(&statement, key, records)
            .unwrap()
            .verify(&journal_key)
            .unwrap()
    }

    fn end(&self) -> PreviousBoot {
        let head = self.chain.head().unwrap();
        PreviousBoot {
            boot: self.chain.boot(),
            last_seq: head.seq,
            head: head.hash,
        }
    }
}

async fn kinds(store: &Store) -> Vec<EventKind> {
    let (events, _) = store.events(&Filter::default(), None, 1000).await.unwrap();
    events.into_iter().map(|stored| stored.event.kind).collect()
}

/// The codes of all alarms over journals that fork.
async fn alarms(store: &Store) -> Vec<String> {
    let filter = Filter {
        kind: Some(edgeward_audit::query::KindFilter::Exactly(
            EventKind::JournalForked,
        )),
        ..Filter::default()
    };
    let (found, _) = store.events(&filter, None, 100).await.unwrap();
    found
        .iter()
        .map(|stored| stored.event.code.as_ref().unwrap().to_string())
        .collect()
}

/// How many refused calls are in the log, or told there as not recorded.
async fn refusals(store: &Store) -> u64 {
    let number = |stored: &crate::store::audit::StoredEvent, key| {
        let said = stored.event.detail.get(key)?;
        Some(said.parse::<u64>().unwrap())
    };
    store
        .all_events()
        .await
        .iter()
        .filter(|stored| stored.event.kind == EventKind::ApiRefused)
        .map(|stored| {
            number(stored, "count").unwrap_or(1)
                + number(stored, "not_recorded_before").unwrap_or(0)
        })
        .sum()
}

async fn faults(store: &Store) -> Vec<(FaultKind, u64, u64, bool)> {
    store
        .journal_faults(None, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|fault| {
            (
                fault.kind,
                fault.first_seq,
                fault.last_seq,
                fault.resolved.is_some(),
            )
        })
        .collect()
}

store_tests! {
    async fn a_batch_with_a_gap_is_refused_noted_once_and_repaired_later(store) {
        let log = open(&store, 1).await;
        let mut journal = Journal::open(9, None);
        journal.write(9);
        log.ingest(journal.batch(0, 3), NOW).await.unwrap();
        for _ in 0..2 {
            let refused = log.ingest(journal.batch(5, 10), NOW).await.unwrap_err();
            assert_eq!(refused.code(), "audit_gap");
            assert!(matches!(refused, IngestError::Refused { acknowledged, .. } if acknowledged.next_seq == 3));
        }
        assert_eq!(faults(&store).await, [(FaultKind::Missing, 3, 4, false)]);
        let gaps = kinds(&store).await.into_iter().filter(|kind| *kind == EventKind::JournalGap);
        assert_eq!(gaps.count(), 1);
        log.ingest(journal.batch(3, 10), NOW).await.unwrap();
        assert_eq!(faults(&store).await, [(FaultKind::Missing, 3, 4, true)]);
    }

    async fn a_second_record_for_one_number_is_an_alarm_and_changes_nothing(store) {
        let log = open(&store, 1).await;
        let mut journal = Journal::open(9, None);
        journal.write(2);
        log.ingest(journal.batch(0, 3), NOW).await.unwrap();
        let mut clone = Journal::open(9, None);
        let forged = clone.chain.seal(event(EventKind::FlowDenied), SALT).unwrap();
        clone.push(forged);
        clone.write(3);
        let refused = log.ingest(clone.batch(0, 5), NOW).await.unwrap_err();
        assert_eq!(refused.code(), "audit_equivocation");
        assert!(kinds(&store).await.contains(&EventKind::JournalForked));
        assert!(!kinds(&store).await.contains(&EventKind::FlowDenied));
        let node = id(Kind::Node, "gw");
        assert_eq!(store.next_record(&node, BootId::from_bytes([9; 16])).await.unwrap(), 3);
    }

    async fn a_batch_sent_twice_or_overlapping_is_stored_once(store) {
        let log = open(&store, 1).await;
        let mut journal = Journal::open(9, None);
        journal.write(99);
        for (from, to, next) in [(0, 50, 50), (0, 50, 50), (10, 20, 50), (40, 100, 100), (0, 100, 100)] {
            let acknowledged = log.ingest(journal.batch(from, to), NOW).await.unwrap();
            assert_eq!(acknowledged.next_seq, next);
        }
        let flows = kinds(&store).await.into_iter().filter(|kind| *kind == EventKind::FlowAllowed);
        assert_eq!(flows.count(), 99);
        assert!(faults(&store).await.is_empty());
    }

    async fn a_boot_that_denies_what_is_stored_of_the_one_before_is_a_fault(store) {
        let log = open(&store, 1).await;
        let mut first = Journal::open(9, None);
        first.write(5);
        log.ingest(first.batch(0, 4), NOW).await.unwrap();
        // Two records of the first boot are still to come.
        let second = Journal::open(10, Some(first.end()));
        log.ingest(second.batch(0, 1), NOW).await.unwrap();
        assert_eq!(faults(&store).await, [(FaultKind::Missing, 4, 5, false)]);
        log.ingest(first.batch(4, 6), NOW).await.unwrap();
        assert_eq!(faults(&store).await, [(FaultKind::Missing, 4, 5, true)]);
        // The same boot, said to have ended earlier.
        let rolled_back = PreviousBoot { last_seq: 2, head: first.records[2].hash(), ..first.end() };
        let third = Journal::open(11, Some(rolled_back));
        log.ingest(third.batch(0, 1), NOW).await.unwrap();
        // And with another end.
        let forked = PreviousBoot { head: Digest::ZERO, ..first.end() };
        let fourth = Journal::open(12, Some(forked));
        log.ingest(fourth.batch(0, 1), NOW).await.unwrap();
        // And as if there had never been one.
        log.ingest(Journal::open(13, None).batch(0, 1), NOW).await.unwrap();
        let found: Vec<_> = faults(&store).await.into_iter().map(|fault| fault.0).collect();
        for kind in FaultKind::ALL {
            assert!(found.contains(&kind), "{kind:?} in {found:?}");
        }
    }

    async fn what_is_not_a_nodes_to_say_is_kept_as_claimed_and_a_newer_event_as_unknown(store) {
        let log = open(&store, 1).await;
        let mut journal = Journal::open(9, None);
        let quarantined = event(EventKind::NodeQuarantined);
        let claimed = journal.chain.seal(quarantined, SALT).unwrap();
        journal.push(claimed);
        let denied = journal.chain.seal(event(EventKind::FlowDenied), SALT).unwrap();
        let newer = String::from_utf8(denied.bytes().to_vec()).unwrap();
        let newer = newer.replace("flow.denied", "flow.melted");
        journal.push(SealedRecord::parse(newer.as_bytes()).unwrap());
        journal.write(1);
        log.ingest(journal.batch(0, 4), NOW).await.unwrap();
        let (events, _) = store.events(&Filter::default(), None, 100).await.unwrap();
        let shown: Vec<(EventKind, bool)> = events
            .iter()
            .filter(|stored| stored.node == id(Kind::Node, "gw"))
            .map(|stored| (stored.event.kind, stored.claimed))
            .collect();
        assert_eq!(shown, [
            (EventKind::JournalOpened, false),
            (EventKind::NodeQuarantined, true),
            (EventKind::EventUnknown, true),
            (EventKind::FlowAllowed, false),
        ]);
        let unknown = Filter {
            kind: Some(edgeward_audit::query::KindFilter::Exactly(EventKind::EventUnknown)),
            ..Filter::default()
        };
        let (found, _) = store.events(&unknown, None, 10).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].record, newer);
        assert_eq!(found[0].event.detail.get("unknown_type"), Some("flow.melted"));
    }

    async fn a_turn_of_the_journals_key_that_does_not_hold_is_an_alarm_and_is_kept(store) {
        let log = open(&store, 1).await;
        let mut journal = Journal::open(9, None);
        let keys: Vec<SoftwareKey> = (0..4).map(|_| SoftwareKey::generate().unwrap()).collect();
        let turn = |journal: &mut Journal, by: usize, number: u32, to: usize| {
            journal.turn(&keys[by], number, &keys[to]);
        };
        turn(&mut journal, 0, 0, 1);
        journal.write(2);
        turn(&mut journal, 1, 1, 2);
        log.ingest(journal.batch_by(&keys[0], 0, 5), NOW).await.unwrap();
        assert!(alarms(&store).await.is_empty());
        // Key 1 is gone since; whoever holds another key, or the boot key, cannot go on from it.
        turn(&mut journal, 3, 2, 3);
        turn(&mut journal, 0, 2, 3);
        turn(&mut journal, 1, 1, 3);
        log.ingest(journal.batch_by(&keys[0], 5, 8), NOW).await.unwrap();
        let expected = ["audit_turn_signature", "audit_turn_signature", "audit_turn_number"];
        assert_eq!(alarms(&store).await, expected);
        // The key in use still turns, by its own word.
        turn(&mut journal, 2, 2, 3);
        log.ingest(journal.batch_by(&keys[0], 8, 9), NOW).await.unwrap();
        assert_eq!(alarms(&store).await.len(), 3);
        // Turns that are missing are said once; from there on the chain is checked again.
        turn(&mut journal, 0, 7, 1);
        turn(&mut journal, 1, 8, 2);
        log.ingest(journal.batch_by(&keys[0], 9, 11), NOW).await.unwrap();
        assert_eq!(alarms(&store).await.len(), 4);
        turn(&mut journal, 0, 9, 3);
        log.ingest(journal.batch_by(&keys[0], 11, 12), NOW).await.unwrap();
        assert_eq!(alarms(&store).await.len(), 5);
        let boot = BootId::from_bytes([9; 16]);
        assert_eq!(store.next_record(&id(Kind::Node, "gw"), boot).await.unwrap(), 12);
    }

    async fn the_first_turn_is_by_the_boot_key_and_later_ones_may_not_stay_away(store) {
        let log = open(&store, 1).await;
        let (boot_key, other) = (SoftwareKey::generate().unwrap(), SoftwareKey::generate().unwrap());
        let mut forged = Journal::open(8, None);
        forged.turn(&other, 0, &other);
        log.ingest(forged.batch_by(&boot_key, 0, 2), NOW).await.unwrap();
        assert_eq!(alarms(&store).await, ["audit_turn_signature"]);
        let mut journal = Journal::open(9, None);
        journal.turn(&boot_key, 0, &other);
        journal.write(usize::try_from(MAX_RECORDS_A_KEY).unwrap() + 502);
        for at in (0..journal.records.len()).step_by(500) {
            let to = (at + 500).min(journal.records.len());
            let on_time = u64::try_from(to).unwrap() <= 2 + MAX_RECORDS_A_KEY;
            log.ingest(journal.batch_by(&boot_key, at, to), NOW).await.unwrap();
            let expected = if on_time { 1 } else { 2 };
            assert_eq!(alarms(&store).await.len(), expected, "{to}");
        }
        // Once is enough, and a turn ends it.
        assert_eq!(alarms(&store).await, ["audit_turn_signature", "audit_turn_overdue"]);
        journal.turn(&other, 1, &boot_key);
        let end = journal.records.len();
        log.ingest(journal.batch_by(&boot_key, end - 1, end), NOW).await.unwrap();
        let mut tx = store.begin("test").await.unwrap();
        let boot = BootId::from_bytes([9; 16]);
        let row = tx.journal_key(&id(Kind::Node, "gw"), boot).await.unwrap().unwrap();
        assert_eq!((row.chain.number, row.overdue), (1, None));
    }

    async fn a_commit_whose_caller_goes_away_wakes_whoever_waits_for_events(store) {
        use futures::FutureExt;
        let log = open(&store, 1).await;
        let mut appended = store.appended();
        appended.mark_unchanged();
        let mut tx = store.begin("test").await.unwrap();
        log.record_in(&mut tx, event(EventKind::TokenCreated)).await.unwrap();
        assert!(tx.commit().now_or_never().is_none(), "it takes a moment");
        let woken = tokio::time::timeout(std::time::Duration::from_secs(10), appended.changed()).await;
        woken.unwrap().unwrap();
        assert!(kinds(&store).await.contains(&EventKind::TokenCreated));
    }

    async fn a_record_in_a_dropped_transaction_never_was(store) {
        let log = open(&store, 1).await;
        let mut tx = store.begin("test").await.unwrap();
        log.record_in(&mut tx, event(EventKind::TokenCreated)).await.unwrap();
        drop(tx);
        log.record(event(EventKind::TokenRevoked)).await.unwrap();
        assert_eq!(
            kinds(&store).await,
            [EventKind::JournalOpened, EventKind::TokenRevoked]
        );
    }

    async fn two_clouds_share_one_order_and_each_start_names_the_one_before(store) {
        let other = store.another().await;
        let (one, two) = (open(&store, 1).await, AuditLog::open(
            other.clone(), id(Kind::Cloud, "d"), BootId::from_bytes([2; 16]), NOW,
        ).await.unwrap().0);
        for _ in 0..5 {
            one.record(event(EventKind::TokenCreated)).await.unwrap();
            two.record(event(EventKind::TokenRevoked)).await.unwrap();
        }
        let again = open(&store, 3).await;
        again.record(event(EventKind::NodeApproved)).await.unwrap();
        let (events, more) = store.events(&Filter::default(), None, 1000).await.unwrap();
        assert!(!more);
        let indexes: Vec<u64> = events.iter().map(|event| event.index).collect();
        assert_eq!(indexes, (0..14).collect::<Vec<u64>>());
        assert!(faults(&store).await.is_empty());
    }

    async fn a_flood_becomes_a_count_and_flush_waits_for_it(store) {
        let log = open(&store, 1).await;
        for _ in 0..100 {
            log.later(event(EventKind::ApiRefused).denied("forbidden"));
        }
        log.flush().await;
        let (events, _) = store.events(&Filter::default(), None, 1000).await.unwrap();
        let refused: Vec<_> = events
            .iter()
            .filter(|stored| stored.event.kind == EventKind::ApiRefused)
            .collect();
        let counted: u64 = refused
            .iter()
            .map(|stored| stored.event.detail.get("count").map_or(1, |count| count.parse().unwrap()))
            .sum();
        assert_eq!(counted, 100);
        assert!(refused.len() < 100);
    }

    async fn events_wait_for_a_database_that_is_busy_and_what_is_given_up_is_counted(store) {
        let boot = BootId::from_bytes([1; 16]);
        let (log, writer) = AuditLog::open(store.another().await, id(Kind::Cloud, "c"), boot, NOW).await.unwrap();
        let stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(stop.clone()));
        // Longer than a writer waits for its turn.
        let busy = store.begin("test").await.unwrap();
        for _ in 0..3 {
            log.later(event(EventKind::ApiRefused).denied("forbidden"));
        }
        tokio::time::sleep(crate::store::WAIT + std::time::Duration::from_secs(1)).await;
        drop(busy);
        log.flush().await;
        assert_eq!(refusals(&store).await, 3);
        assert_eq!(log.dropped.load(Ordering::Relaxed), 0);
        // The cloud ends without its database.
        log.store.close().await;
        for _ in 0..4 {
            log.later(event(EventKind::ApiRefused).denied("forbidden"));
        }
        stop.cancel();
        writing.await.unwrap();
        assert_eq!(log.dropped.load(Ordering::Relaxed), 4);
        assert_eq!(refusals(&store).await, 3);
    }

    async fn every_event_that_nothing_waits_for_is_recorded_or_counted_once(store) {
        let log = std::sync::Arc::new(open(&store, 1).await);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let log = log.clone();
                tokio::task::spawn_blocking(move || {
                    for _ in 0..20_000 {
                        log.later(event(EventKind::ApiRefused).denied("forbidden"));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.await.unwrap();
        }
        log.flush().await;
        assert_eq!(refusals(&store).await + log.dropped.load(Ordering::Relaxed), 80_000);
    }

    async fn filters_agree_with_what_the_filter_itself_says(store) {
        let log = open(&store, 1).await;
        let mut journal = Journal::open(9, None);
        journal.write(3);
        log.ingest(journal.batch(0, 4), NOW).await.unwrap();
        let late = NOW.plus(std::time::Duration::from_secs(5));
        for event in [
            Event::new(late, Actor::Cloud, EventKind::NodeQuarantined).subject(id(Kind::Node, "gw")),
            Event::new(late, Actor::api_key("k"), EventKind::TokenCreated).allowed(),
            Event::new(late, Actor::Anonymous(None), EventKind::ApiRefused).denied("x").rule("r-1"),
            Event::new(late, std::net::IpAddr::from([192, 0, 2, 1]), EventKind::ApiRefused).denied("x"),
        ] {
            log.record(event).await.unwrap();
        }
        let (all, _) = store.events(&Filter::default(), None, 1000).await.unwrap();
        use edgeward_audit::event::{Text, Verdict};
        use edgeward_audit::query::{ActorFilter, KindFilter};
        let filters = [
            Filter { from: Some(late), ..Filter::default() },
            Filter { to: Some(late), ..Filter::default() },
            Filter { node: Some(id(Kind::Node, "gw")), ..Filter::default() },
            Filter { actor: Some(ActorFilter::AnyAnonymous), ..Filter::default() },
            Filter { actor: Some(ActorFilter::Exactly(Actor::api_key("k"))), ..Filter::default() },
            Filter { kind: Some(KindFilter::Family("journal")), ..Filter::default() },
            Filter { kind: Some(KindFilter::Exactly(EventKind::FlowAllowed)), ..Filter::default() },
            Filter { verdict: Some(Verdict::Deny), ..Filter::default() },
            Filter { rule: Some(Text::lossy("r-1")), verdict: Some(Verdict::Deny), ..Filter::default() },
        ];
        for filter in filters {
            let (found, _) = store.events(&filter, None, 1000).await.unwrap();
            let found: Vec<u64> = found.iter().map(|event| event.index).collect();
            let expected: Vec<u64> = all
                .iter()
                .filter(|stored| {
                    let record = edgeward_audit::Record {
                        salt: None,
                        node: stored.node.clone(),
                        boot: stored.boot,
                        seq: stored.seq,
                        prev: Digest::ZERO,
                        opened: None,
                        event: stored.event.clone(),
                    };
                    filter.matches(&record)
                })
                .map(|stored| stored.index)
                .collect();
            assert!(!expected.is_empty(), "{filter:?}");
            assert_eq!(found, expected, "{filter:?}");
        }
    }

    async fn pages_follow_one_another_without_a_hole(store) {
        let log = open(&store, 1).await;
        let mut journal = Journal::open(9, None);
        journal.write(24);
        log.ingest(journal.batch(0, 25), NOW).await.unwrap();
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let (page, more) = store.events(&Filter::default(), after, 7).await.unwrap();
            after = page.last().map(|event| event.index);
            seen.extend(page.into_iter().map(|event| event.index));
            if !more {
                break;
            }
        }
        assert_eq!(seen, (0..26).collect::<Vec<u64>>());
    }

    async fn a_feed_passes_over_what_was_erased_and_waits_for_what_comes(store) {
        let log = open(&store, 1).await;
        for _ in 0..5 {
            log.record(event(EventKind::NodeApproved)).await.unwrap();
        }
        store.site_keys().erase(&Site::rest(), NOW).unwrap();
        let mut feed = log.feed();
        // What the cloud did at its start belongs to no site of nodes, and stays.
        let waits = feed.next(Some(0), 2);
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(50), waits).await;
        assert!(nothing.is_err(), "nothing is left");
        log.record(event(EventKind::NodeRemoved)).await.unwrap();
        let page = feed.next(Some(0), 2).await.unwrap();
        assert_eq!(page.iter().map(|event| event.index).collect::<Vec<_>>(), [6]);
    }

    async fn a_feed_gives_every_covered_event_once_and_waits_for_more(store) {
        let log = open(&store, 1).await;
        let mut feed = log.feed();
        for _ in 0..5 {
            log.record(event(EventKind::NodeApproved)).await.unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 6 {
            let page = feed.next(seen.last().copied(), 4).await.unwrap();
            assert!(page.len() <= 4);
            seen.extend(page.iter().map(|event| event.index));
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        let waits = feed.next(Some(5), 4);
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(50), waits).await;
        assert!(nothing.is_err(), "there is nothing after the last");
        let (_, page) = tokio::join!(
            async { log.record(event(EventKind::NodeRemoved)).await.unwrap() },
            feed.next(Some(5), 4)
        );
        let [page] = page.unwrap().try_into().unwrap();
        assert_eq!((page.index, page.event.kind), (6, EventKind::NodeRemoved));
        let parsed = SealedRecord::parse(page.record.as_bytes()).unwrap();
        assert_eq!(parsed.hash(), page.hash);
    }
}
