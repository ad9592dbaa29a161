//! What a node says of its journal's end, and copies of its disk.

use edgeward_audit::record::Head;
use edgeward_audit::statement::HeadStated;

use super::*;

fn stated(journal: &Journal, seq: usize) -> HeadStated {
    HeadStated {
        boot: journal.chain.boot(),
        head: journal.records[seq].head(),
        oldest: journal.chain.boot(),
        answers: 0,
    }
}

async fn kinds_of(store: &Store) -> Vec<FaultKind> {
    faults(store)
        .await
        .into_iter()
        .map(|fault| fault.0)
        .collect()
}

async fn proofs(store: &Store) -> usize {
    let (events, _) = store.events(&Filter::default(), None, 1000).await.unwrap();
    let proven = |stored: &&crate::store::audit::StoredEvent| {
        stored.event.kind == EventKind::JournalForked
            && stored.event.detail.get("proof") == Some("equivocation")
    };
    events.iter().filter(proven).count()
}

store_tests! {
    async fn a_journal_that_was_cut_short_is_noticed_by_its_head_alone(store) {
        let log = open(&store, 1).await;
        let node = id(Kind::Node, "gw");
        let mut journal = Journal::open(9, None);
        journal.write(9);
        log.ingest(journal.batch(0, 8), NOW).await.unwrap();
        assert_eq!(log.hear_head(&node, &stated(&journal, 9), (8, true), NOW).await.unwrap(), None);
        // Late, from before the last batch: fine. Before what was stored when it was asked: not.
        assert_eq!(log.hear_head(&node, &stated(&journal, 5), (6, false), NOW).await.unwrap(), None);
        assert!(kinds_of(&store).await.is_empty());
        let heard = log.hear_head(&node, &stated(&journal, 5), (8, false), NOW).await.unwrap();
        assert_eq!(heard, Some(StatedFault::Behind { stated: 5, known: 7 }));
        // In a new session everything that was said before counts, stored or not.
        let heard = log.hear_head(&node, &stated(&journal, 8), (8, true), NOW).await.unwrap();
        assert_eq!(heard, Some(StatedFault::Behind { stated: 8, known: 9 }));
        assert_eq!(kinds_of(&store).await, [FaultKind::RolledBack, FaultKind::RolledBack]);
        assert_eq!(proofs(&store).await, 0);
    }

    async fn a_journal_that_goes_on_in_two_places_is_proven_before_a_body_arrives(store) {
        let log = open(&store, 1).await;
        let node = id(Kind::Node, "gw");
        let mut one = Journal::open(9, None);
        one.write(3);
        let mut two = Journal { chain: one.chain.clone(), records: one.records.clone() };
        one.write(2);
        let denied = two.chain.seal(event(EventKind::FlowDenied), SALT).unwrap();
        two.push(denied);
        two.write(1);
        log.ingest(one.batch(0, 4), NOW).await.unwrap();
        assert_eq!(log.hear_head(&node, &stated(&one, 5), (4, true), NOW).await.unwrap(), None);
        let heard = log.hear_head(&node, &stated(&two, 5), (4, true), NOW).await.unwrap();
        assert_eq!(heard, Some(StatedFault::Forked { seq: 5 }));
        assert_eq!(proofs(&store).await, 1);
        // And by the bodies, where the other one's head was heard first.
        log.ingest(two.batch(4, 6), NOW).await.unwrap();
        assert_eq!(kinds_of(&store).await, [FaultKind::Forked]);
    }

    async fn a_boot_that_ends_before_what_its_node_said_was_put_back(store) {
        let log = open(&store, 1).await;
        let node = id(Kind::Node, "gw");
        let mut first = Journal::open(9, None);
        first.write(5);
        log.ingest(first.batch(0, 4), NOW).await.unwrap();
        log.hear_head(&node, &stated(&first, 5), (4, true), NOW).await.unwrap();
        // The disk is put back to what was sent, and booted.
        let back = PreviousBoot {
            boot: first.chain.boot(),
            last_seq: 3,
            head: first.records[3].hash(),
        };
        log.ingest(Journal::open(10, Some(back)).batch(0, 1), NOW).await.unwrap();
        assert_eq!(faults(&store).await, [(FaultKind::RolledBack, 4, 5, false)]);
    }

    async fn a_copy_of_a_disk_that_boots_by_itself_is_an_alarm(store) {
        let log = open(&store, 1).await;
        let mut first = Journal::open(9, None);
        first.write(5);
        log.ingest(first.batch(0, 6), NOW).await.unwrap();
        let mut original = Journal::open(10, Some(first.end()));
        original.write(1);
        log.ingest(original.batch(0, 2), NOW).await.unwrap();
        assert!(kinds_of(&store).await.is_empty());
        let copy = Journal::open(11, Some(first.end()));
        log.ingest(copy.batch(0, 1), NOW).await.unwrap();
        assert_eq!(faults(&store).await, [(FaultKind::Forked, 5, 5, false)]);
        assert!(kinds(&store).await.contains(&EventKind::JournalForked));
        // A disk that lost what it had promised looks the same: alarm, no proof.
        assert_eq!(proofs(&store).await, 0);
        // Sent again, it is told once.
        log.ingest(copy.batch(0, 1), NOW).await.unwrap();
        assert_eq!(kinds_of(&store).await.len(), 1);
    }

    async fn of_many_boots_only_the_newest_ends_are_remembered(store) {
        let log = open(&store, 1).await;
        let node = id(Kind::Node, "gw");
        for n in 1..=20 {
            let mut journal = Journal::open(n, None);
            journal.write(1);
            let now = NOW.plus(std::time::Duration::from_secs(u64::from(n)));
            log.hear_head(&node, &stated(&journal, 1), (0, true), now).await.unwrap();
        }
        let mut tx = store.begin("test").await.unwrap();
        let mut known = Vec::new();
        for n in 1..=20 {
            let head: Option<Head> = tx.stated_head(&node, BootId::from_bytes([n; 16])).await.unwrap();
            known.extend(head.map(|_| n));
        }
        assert_eq!(known, (13..=20).collect::<Vec<u8>>());
    }
}
