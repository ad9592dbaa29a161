//! Gaps: passed over only under the node's signed word, filled by what fits and by nothing else, bounded.

use edgeward_audit::statement::LossStated;

use super::*;
use crate::store::audit::{Gap, MAX_FAULTS};

fn loss(boot: u8, first_seq: u64, last_seq: u64) -> LossStated {
    LossStated {
        boot: BootId::from_bytes([boot; 16]),
        first_seq,
        last_seq,
    }
}

async fn gaps(store: &Store) -> Vec<(u64, u64, bool)> {
    let mut tx = store.begin("test").await.unwrap();
    tx.gaps(&id(Kind::Node, "gw"), BootId::from_bytes([9; 16]))
        .await
        .unwrap()
        .iter()
        .map(|gap: &Gap| (gap.first_seq, gap.last_seq, gap.lost))
        .collect()
}

/// Sequence numbers of the node's boot as the log has them, sorted.
async fn stored(store: &Store) -> Vec<u64> {
    let (events, _) = store.events(&Filter::default(), None, 1000).await.unwrap();
    let mut seqs: Vec<u64> = events
        .iter()
        .filter(|event| event.boot == BootId::from_bytes([9; 16]))
        .map(|event| event.seq)
        .collect();
    seqs.sort_unstable();
    seqs
}

async fn forks(store: &Store) -> Vec<(Option<String>, Option<String>)> {
    let (events, _) = store.events(&Filter::default(), None, 1000).await.unwrap();
    events
        .into_iter()
        .filter(|stored| stored.event.kind == EventKind::JournalForked)
        .map(|stored| {
            let proof = stored.event.detail.get("proof").map(str::to_owned);
            (stored.event.code.map(|code| code.to_string()), proof)
        })
        .collect()
}

store_tests! {
    async fn what_follows_a_gap_waits_for_the_nodes_word_and_for_nothing_else(store) {
        let log = open(&store, 1).await;
        let node = id(Kind::Node, "gw");
        let mut journal = Journal::open(9, None);
        journal.write(9);
        log.ingest(journal.batch(0, 3), NOW).await.unwrap();
        log.ingest(journal.batch(5, 10), NOW).await.unwrap_err();
        // Words about something else change nothing.
        for (boot, first, last) in [(8, 3, 4), (9, 4, 4), (9, 2, 4), (9, 5, 9)] {
            assert!(!log.lost(&node, &loss(boot, first, last), NOW).await.unwrap());
        }
        assert!(!log.lost(&id(Kind::Node, "other"), &loss(9, 3, 4), NOW).await.unwrap());
        // Half of it is not all of it.
        assert!(log.lost(&node, &loss(9, 3, 3), NOW).await.unwrap());
        log.ingest(journal.batch(5, 10), NOW).await.unwrap_err();
        assert!(log.lost(&node, &loss(9, 4, 4), NOW).await.unwrap());
        let acknowledged = log.ingest(journal.batch(5, 10), NOW).await.unwrap();
        assert_eq!(acknowledged.next_seq, 10);
        assert_eq!(acknowledged.reach.unwrap().next_seq, 10);
        assert_eq!(gaps(&store).await, [(3, 3, true), (4, 4, true)]);
        assert_eq!(stored(&store).await, [0, 1, 2, 5, 6, 7, 8, 9]);
        // It stays a fault, and each range is in the record as lost, once.
        assert!(store.journal_faults(None, 9).await.unwrap().iter().all(|fault| fault.resolved.is_none()));
        assert!(!log.lost(&node, &loss(9, 3, 3), NOW).await.unwrap());
        let (events, _) = store.events(&Filter::default(), None, 1000).await.unwrap();
        let told = events.iter().filter(|stored| {
            stored.event.code.as_ref().is_some_and(|code| code.to_string() == "audit_gap_lost")
        });
        assert_eq!(told.count(), 2);
    }

    async fn records_that_turn_up_after_all_fill_the_gap_once(store) {
        let log = open(&store, 1).await;
        let node = id(Kind::Node, "gw");
        let mut journal = Journal::open(9, None);
        journal.write(19);
        log.ingest(journal.batch(0, 3), NOW).await.unwrap();
        log.ingest(journal.batch(10, 15), NOW).await.unwrap_err();
        log.lost(&node, &loss(9, 3, 9), NOW).await.unwrap();
        log.ingest(journal.batch(10, 15), NOW).await.unwrap();
        log.ingest(journal.batch(3, 6), NOW).await.unwrap();
        assert_eq!(gaps(&store).await, [(6, 9, true)]);
        // The rest, with what is known on both sides and what is new.
        let acknowledged = log.ingest(journal.batch(0, 20), NOW).await.unwrap();
        assert_eq!(acknowledged.next_seq, 20);
        assert_eq!(gaps(&store).await, []);
        assert_eq!(stored(&store).await, (0..20).collect::<Vec<u64>>());
        for (from, to) in [(3, 6), (6, 10), (0, 20)] {
            log.ingest(journal.batch(from, to), NOW).await.unwrap();
        }
        assert_eq!(stored(&store).await, (0..20).collect::<Vec<u64>>());
        assert_eq!(forks(&store).await, []);
        // Of the last record stored, and everything of this node is below so many leaves.
        let reach = acknowledged.reach.unwrap();
        assert_eq!(reach.hash, journal.records[19].hash());
        assert_eq!(reach.leaves, store.last_leaf().await.unwrap().unwrap() + 1);
    }

    async fn records_that_do_not_join_what_is_stored_around_a_gap_are_an_alarm(store) {
        let log = open(&store, 1).await;
        let node = id(Kind::Node, "gw");
        let mut journal = Journal::open(9, None);
        journal.write(9);
        log.ingest(journal.batch(0, 3), NOW).await.unwrap();
        log.ingest(journal.batch(5, 10), NOW).await.unwrap_err();
        log.lost(&node, &loss(9, 3, 4), NOW).await.unwrap();
        log.ingest(journal.batch(5, 10), NOW).await.unwrap();
        // Joins in front, not behind.
        let mut other = Journal::open(9, None);
        other.write(2);
        let forged = other.chain.seal(event(EventKind::FlowDenied), SALT).unwrap();
        other.push(forged);
        other.write(5);
        for (from, to) in [(3, 5), (2, 5)] {
            let refused = log.ingest(other.batch(from, to), NOW).await.unwrap_err();
            assert_eq!(refused.code(), "audit_equivocation");
        }
        assert_eq!(stored(&store).await, [0, 1, 2, 5, 6, 7, 8, 9]);
        let signed = Some("equivocation".to_owned());
        let code = Some("audit_equivocation".to_owned());
        assert_eq!(forks(&store).await, [(code, signed)]);
    }

    async fn nothing_beyond_a_gap_is_called_stored_until_the_node_gave_it_up(store) {
        let log = open(&store, 1).await;
        let mut first = Journal::open(9, None);
        first.write(9);
        log.ingest(first.batch(0, 4), NOW).await.unwrap();
        let second = Journal::open(10, Some(first.end()));
        let acknowledged = log.ingest(second.batch(0, 1), NOW).await.unwrap();
        let wanted = acknowledged.wanted.unwrap();
        assert_eq!((wanted.boot, wanted.first_seq, wanted.last_seq), (first.chain.boot(), 4, 9));
        let node = id(Kind::Node, "gw");
        let asked = store.wanted(&node, 10).await.unwrap();
        assert_eq!(asked.len(), 1);
        let reaches = store.reaches(&node, first.chain.boot(), 10).await.unwrap();
        let places: Vec<_> = reaches.iter().map(|reach| (reach.boot, reach.next_seq)).collect();
        assert_eq!(places, [(first.chain.boot(), 4), (second.chain.boot(), 1)]);
        log.ingest(first.batch(4, 10), NOW).await.unwrap();
        assert!(store.wanted(&node, 10).await.unwrap().is_empty());
        let reaches = store.reaches(&node, first.chain.boot(), 10).await.unwrap();
        assert_eq!(reaches[0].next_seq, 10);
        // From a boot that is not known nothing can be told.
        let unknown = store.reaches(&node, BootId::from_bytes([77; 16]), 10).await.unwrap();
        assert!(unknown.is_empty());
    }

    async fn a_node_that_skips_numbers_all_the_time_gets_wider_rows_and_no_more_of_them(store) {
        let log = open(&store, 1).await;
        let node = id(Kind::Node, "gw");
        let mut journal = Journal::open(9, None);
        let gaps_made = MAX_FAULTS + 10;
        journal.write(2 * gaps_made + 1);
        log.ingest(journal.batch(0, 1), NOW).await.unwrap();
        for n in 1..=gaps_made {
            let at = 2 * n;
            log.ingest(journal.batch(at, at + 1), NOW).await.unwrap_err();
            let lost = loss(9, at as u64 - 1, at as u64 - 1);
            log.lost(&node, &lost, NOW).await.unwrap();
            log.ingest(journal.batch(at, at + 1), NOW).await.unwrap();
        }
        let rows = gaps(&store).await;
        assert_eq!(rows.len(), MAX_FAULTS);
        assert!(rows.iter().all(|(_, _, lost)| *lost), "{rows:?}");
        assert_eq!(rows.last().unwrap().1, 2 * gaps_made as u64 - 1);
        assert_eq!(stored(&store).await.len(), gaps_made + 1);
        // What comes after all fills the widest row around what it holds and is stored.
        let first = usize::try_from(rows.last().unwrap().0).unwrap();
        let end = 2 * gaps_made + 1;
        for (from, to) in [(first, first + 4), (first + 4, end)] {
            log.ingest(journal.batch(from, to), NOW).await.unwrap();
        }
        assert_eq!(gaps(&store).await.len(), MAX_FAULTS - 1);
        let all = stored(&store).await;
        assert_eq!(all.len(), gaps_made + 1 + (end - first) / 2);
    }
}
