//! What fills a gap late is checked as what comes in order: turns of the journal's key before, in and behind it. Who takes note
//! of what stays lost.

use edgeward_audit::statement::LossStated;

use super::*;
use crate::store::audit::{FaultCounts, Gap, JournalFault, LossNote};

fn keys() -> Vec<SoftwareKey> {
    (0..6).map(|_| SoftwareKey::generate().unwrap()).collect()
}

/// Three records, the second of them turns the boot key to `keys[1]`.
fn begun(keys: &[SoftwareKey]) -> Journal {
    let mut journal = Journal::open(9, None);
    journal.turn(&keys[0], 0, &keys[1]);
    journal.write(1);
    journal
}

/// What is stored is 0 to 2 and 6 to the end; the node gave up what lies between.
async fn with_gap(log: &AuditLog, journal: &Journal, key: &SoftwareKey) {
    let end = journal.records.len();
    log.ingest(journal.batch_by(key, 0, 3), NOW).await.unwrap();
    log.ingest(journal.batch_by(key, 6, end), NOW)
        .await
        .unwrap_err();
    let loss = LossStated {
        boot: journal.chain.boot(),
        first_seq: 3,
        last_seq: 5,
    };
    assert!(log.lost(&id(Kind::Node, "gw"), &loss, NOW).await.unwrap());
    log.ingest(journal.batch_by(key, 6, end), NOW)
        .await
        .unwrap();
}

const NUMBER: &str = "audit_turn_number";
const SIGNATURE: &str = "audit_turn_signature";

store_tests! {
    async fn a_turn_that_comes_late_and_does_not_follow_the_one_before_is_an_alarm(store) {
        let (log, keys) = (open(&store, 1).await, keys());
        let mut forged = begun(&keys);
        forged.write(1);
        // Whoever has the newest key has none before it: this one is made up.
        forged.turn(&keys[5], 1, &keys[2]);
        forged.write(2);
        forged.turn(&keys[2], 2, &keys[3]);
        forged.write(1);
        with_gap(&log, &forged, &keys[0]).await;
        assert_eq!(alarms(&store).await, [NUMBER]);
        log.ingest(forged.batch_by(&keys[0], 3, 6), NOW).await.unwrap();
        // The one that was taken on trust follows nothing that holds.
        assert_eq!(alarms(&store).await, [NUMBER, SIGNATURE, NUMBER]);
    }

    async fn a_gap_that_is_filled_without_the_turn_that_was_due_in_it_is_an_alarm(store) {
        let (log, keys) = (open(&store, 1).await, keys());
        let mut forged = begun(&keys);
        forged.write(4);
        forged.turn(&keys[2], 2, &keys[3]);
        forged.write(1);
        with_gap(&log, &forged, &keys[0]).await;
        log.ingest(forged.batch_by(&keys[0], 3, 6), NOW).await.unwrap();
        assert_eq!(alarms(&store).await, [NUMBER, NUMBER]);
    }

    async fn a_turn_put_into_a_gap_before_one_that_follows_already_is_an_alarm(store) {
        let (log, keys) = (open(&store, 1).await, keys());
        let mut forged = begun(&keys);
        forged.write(1);
        forged.turn(&keys[1], 1, &keys[4]);
        forged.write(2);
        forged.turn(&keys[1], 1, &keys[2]);
        with_gap(&log, &forged, &keys[0]).await;
        assert_eq!(alarms(&store).await, [""; 0]);
        log.ingest(forged.batch_by(&keys[0], 3, 6), NOW).await.unwrap();
        assert_eq!(alarms(&store).await, [NUMBER]);
    }

    async fn turns_that_come_late_and_hold_say_nothing_and_the_next_one_follows_them(store) {
        let (log, keys) = (open(&store, 1).await, keys());
        let mut journal = begun(&keys);
        journal.write(1);
        journal.turn(&keys[1], 1, &keys[2]);
        journal.write(2);
        with_gap(&log, &journal, &keys[0]).await;
        // Piece by piece.
        for (from, to) in [(3, 5), (5, 6)] {
            log.ingest(journal.batch_by(&keys[0], from, to), NOW).await.unwrap();
        }
        journal.turn(&keys[2], 2, &keys[3]);
        log.ingest(journal.batch_by(&keys[0], 7, 8), NOW).await.unwrap();
        assert_eq!(alarms(&store).await, [""; 0]);
        journal.turn(&keys[1], 3, &keys[4]);
        log.ingest(journal.batch_by(&keys[0], 8, 9), NOW).await.unwrap();
        assert_eq!(alarms(&store).await, [SIGNATURE]);
    }

    async fn a_turn_that_was_taken_on_trust_is_proven_by_those_that_come_late(store) {
        let (log, keys) = (open(&store, 1).await, keys());
        let mut journal = begun(&keys);
        journal.write(1);
        journal.turn(&keys[1], 1, &keys[2]);
        journal.write(2);
        journal.turn(&keys[2], 2, &keys[3]);
        with_gap(&log, &journal, &keys[0]).await;
        assert_eq!(alarms(&store).await, [NUMBER]);
        log.ingest(journal.batch_by(&keys[0], 3, 6), NOW).await.unwrap();
        assert_eq!(alarms(&store).await, [NUMBER]);
        let mut tx = store.begin("test").await.unwrap();
        let node = id(Kind::Node, "gw");
        let turn = tx.turn_before(&node, journal.chain.boot(), 99).await.unwrap().unwrap();
        assert_eq!((turn.seq, turn.trusted), (7, false));
    }

    async fn taking_note_of_a_loss_counts_for_what_lies_within_it_and_for_nothing_wider(store) {
        let (node, boot) = (id(Kind::Node, "gw"), BootId::from_bytes([9; 16]));
        let gap = |first_seq, last_seq, lost| Gap { first_seq, last_seq, lost };
        let fault = |first_seq, last_seq| JournalFault {
            node: node.clone(), boot, first_seq, last_seq, kind: FaultKind::Missing,
            noticed: NOW, lost: None, resolved: None,
        };
        let counts = async || {
            let counts = store.fault_counts(None).await.unwrap();
            (counts.open, counts.lost, counts.acknowledged)
        };
        let mut tx = store.begin("test").await.unwrap();
        assert_eq!(tx.missing_from(&node, boot, 3).await.unwrap(), None);
        tx.note_fault(&fault(3, 9)).await.unwrap();
        tx.replace_gap(&node, boot, gap(3, 9, false), &[gap(3, 9, true)], NOW).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(counts().await, (0, 1, 0));
        let mut tx = store.begin("test").await.unwrap();
        let lost = tx.missing_from(&node, boot, 3).await.unwrap().unwrap();
        let note = LossNote { at: NOW, operator: "li".to_owned(), reason: "disk".to_owned() };
        tx.note_loss(&lost.fault, &note).await.unwrap();
        // Half of it came after all.
        tx.replace_gap(&node, boot, gap(3, 9, true), &[gap(6, 9, true)], NOW).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(counts().await, (0, 0, 1));
        let faults = store.faults_of_unknown_boots(Some(&node), 9).await.unwrap();
        assert_eq!(faults[0].note, Some(note));
        // More is lost than was noted.
        let mut tx = store.begin("test").await.unwrap();
        tx.note_fault(&fault(6, 12)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(counts().await, (1, 0, 0));
        let mut tx = store.begin("test").await.unwrap();
        tx.replace_gap(&node, boot, gap(6, 12, false), &[gap(6, 12, true)], NOW).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(counts().await, (0, 1, 0));
        assert_eq!(store.faults_of_unknown_boots(None, 9).await.unwrap()[0].note, None);
        let other = id(Kind::Node, "other");
        assert_eq!(store.fault_counts(Some(&other)).await.unwrap(), FaultCounts::default());
    }

    async fn journals_are_told_page_by_page_each_once(store) {
        let log = open(&store, 1).await;
        for boot in 2..7 {
            log.ingest(Journal::open(boot, None).batch(0, 1), NOW).await.unwrap();
        }
        let node = id(Kind::Node, "gw");
        let mut boots = Vec::new();
        let mut after: Option<(String, String)> = None;
        loop {
            let place = after.as_ref().map(|(node, boot)| (node.as_str(), boot.as_str()));
            let page = store.journals_behind(Some(&node), place, 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.node.to_string(), last.boot.to_string()));
            boots.extend(page.iter().map(|journal| journal.boot));
        }
        let expected: Vec<BootId> = (2..7).map(|boot| BootId::from_bytes([boot; 16])).collect();
        assert_eq!(boots, expected);
    }
}
