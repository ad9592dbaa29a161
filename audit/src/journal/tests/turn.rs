//! The key's turns, in files that break.

use edgeward_identity::SoftwareKey;

use super::*;
use crate::record::{KeyChain, RECORDS_A_KEY};

fn key() -> SoftwareKey {
    SoftwareKey::generate().unwrap()
}

#[test]
fn a_turn_is_not_taken_for_done_where_it_cannot_be_written() {
    let mut journal = fresh();
    let (root, next) = (key(), key());
    journal.store.inject(Fault::AppendAfter(17));
    let refused = journal.turn(&root, (0, next.public_key()), TIME, at(0));
    assert!(matches!(refused, Err(JournalError::Storage(_))));
    assert_eq!(journal.last_turn(), None);
    assert_eq!(kinds(&mut journal), [EventKind::JournalOpened]);
    while journal
        .append(event(EventKind::BindOpened, 1), at(0))
        .is_ok()
    {}
    let refused = journal.turn(&root, (0, next.public_key()), TIME, at(0));
    assert!(matches!(refused, Err(JournalError::Full)));
    assert_eq!(journal.last_turn(), None);
    assert!(journal.is_turn_due());
}

#[test]
fn a_key_is_due_to_turn_after_a_thousand_records_and_not_by_the_clock() {
    let mut journal = fresh();
    let keys = [key(), key(), key()];
    let turn = |journal: &mut Journal<MemoryStore>, n: usize| {
        let number = u32::try_from(n).unwrap();
        journal
            .turn(&keys[n], (number, keys[n + 1].public_key()), TIME, at(0))
            .unwrap();
    };
    turn(&mut journal, 0);
    for n in 0..RECORDS_A_KEY {
        assert!(!journal.is_turn_due(), "{n}");
        let far_away = at(n * 86_400_000);
        journal
            .append(event(EventKind::FlowDenied, 1), far_away)
            .unwrap();
    }
    assert!(journal.is_turn_due());
    turn(&mut journal, 1);
    assert!(!journal.is_turn_due());
    // Whoever reads the records alone proves the keys, from the boot key on.
    let mut known: Option<KeyChain> = None;
    for record in all(&mut journal) {
        if record.event().kind == EventKind::JournalSealed {
            let root = Some(keys[0].public_key());
            known = Some(KeyChain::advance(known.as_ref(), &record, root).unwrap());
        }
    }
    let known = known.unwrap();
    assert_eq!((known.number, known.key), (1, *keys[2].public_key()));
    assert_eq!(Some(known.seq + 1), journal.chain().next_seq());
}

#[test]
fn a_journal_that_is_opened_again_knows_its_last_turn_and_a_new_boot_has_none() {
    let mut journal = fresh();
    let (root, next) = (key(), key());
    journal
        .append(event(EventKind::FlowDenied, 1), at(0))
        .unwrap();
    journal
        .turn(&root, (0, next.public_key()), TIME, at(0))
        .unwrap();
    for n in 0..300 {
        journal
            .append(event(EventKind::FlowDenied, n), at(0))
            .unwrap();
    }
    let (journal, opened) = open(journal.into_store(), 1);
    assert!(opened.continued);
    let turn = journal.last_turn().unwrap();
    assert_eq!((turn.number, turn.key), (0, *next.public_key()));
    assert_eq!(journal.since_turn, 300);
    let (journal, _) = open(journal.into_store(), 2);
    assert_eq!((journal.last_turn(), journal.since_turn), (None, 1));
}
