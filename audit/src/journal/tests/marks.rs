//! Marks: an older or another journal in the place of the one that was marked is told from one that was only emptied.

use super::*;

/// Many records: several segments of the smallest size.
fn written(journal: &mut Journal<MemoryStore>, from: usize, count: usize) {
    for n in from..from + count {
        journal
            .append(event(EventKind::FlowDenied, n), at(0))
            .unwrap();
    }
    journal.flush().unwrap();
}

#[test]
fn a_journal_put_back_to_before_the_mark_is_behind_it() {
    let mut journal = fresh();
    written(&mut journal, 0, 10);
    let older = journal.into_store();
    let (mut journal, _) = open(older.clone(), 1);
    written(&mut journal, 10, 5);
    let mark = journal.mark().unwrap().unwrap();
    assert_eq!(mark.head.seq, 15);
    assert_eq!(journal.stands_to(&mark).unwrap(), Marked::Holds);
    let (mut back, _) = open(older, 1);
    assert_eq!(back.stands_to(&mark).unwrap(), Marked::Behind);
    // An empty one is behind, too.
    assert_eq!(
        open(MemoryStore::new(), 1)
            .0
            .mark()
            .unwrap()
            .unwrap()
            .head
            .seq,
        0
    );
    assert_eq!(fresh().stands_to(&mark).unwrap(), Marked::Behind);
}

#[test]
fn a_journal_that_went_on_otherwise_is_another() {
    let mut journal = fresh();
    written(&mut journal, 0, 10);
    let store = journal.into_store();
    let (mut one, _) = open(store.clone(), 1);
    written(&mut one, 10, 5);
    let mark = one.mark().unwrap().unwrap();
    let (mut other, _) = open(store.clone(), 1);
    written(&mut other, 20, 5);
    assert_eq!(other.stands_to(&mark).unwrap(), Marked::Another);
    // Another boot in the marked place.
    let (mut next, _) = open(one.into_store(), 2);
    let second = next.mark().unwrap().unwrap();
    let (mut third, _) = open(store, 3);
    assert_eq!(third.stands_to(&second).unwrap(), Marked::Another);
}

#[test]
fn a_marked_record_that_was_acknowledged_and_deleted_is_no_fault() {
    let mut journal = fresh();
    written(&mut journal, 0, 50);
    let mark = journal.mark().unwrap().unwrap();
    let mut n = 50;
    while journal.segments.len() < 4 {
        written(&mut journal, n, 50);
        n += 50;
    }
    assert_eq!(journal.stands_to(&mark).unwrap(), Marked::Holds);
    let end = journal.chain().next_seq().unwrap();
    journal
        .acknowledge(BootId::from_bytes([1; 16]), end)
        .unwrap();
    assert_eq!(journal.stands_to(&mark).unwrap(), Marked::Deleted);
    // And still over a restart and a new boot.
    let (mut next, _) = open(journal.into_store(), 2);
    assert_eq!(next.stands_to(&mark).unwrap(), Marked::Deleted);
}

#[test]
fn every_kept_record_has_its_hash_and_no_other() {
    let mut journal = fresh();
    written(&mut journal, 0, 200);
    for record in all(&mut journal) {
        let found = journal.hash_at(record.position()).unwrap();
        assert_eq!(found, Some(record.hash()));
    }
    let boot = BootId::from_bytes([1; 16]);
    for (boot, seq) in [
        (boot, 201),
        (boot, u64::MAX),
        (BootId::from_bytes([9; 16]), 0),
    ] {
        assert_eq!(journal.hash_at(Position { boot, seq }).unwrap(), None);
    }
}
