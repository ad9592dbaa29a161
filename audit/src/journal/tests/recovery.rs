//! Torn ends, damage and failing writes.

use super::*;
use crate::journal::SegmentFault;

const FIRST: SegmentId = SegmentId(0);

/// A journal of one segment whose frames are all flushed, and where each frame begins.
fn three_records() -> (MemoryStore, Vec<usize>) {
    let mut journal = fresh();
    let mut starts = vec![segment::HEADER_BYTES as usize];
    for n in 1..3 {
        starts.push(journal.bytes() as usize);
        journal
            .append(event(EventKind::AgentStarted, n), at(0))
            .unwrap();
    }
    starts.push(journal.bytes() as usize);
    (journal.into_store(), starts)
}

#[test]
fn an_end_torn_at_any_byte_of_the_last_frame_is_cut_off_and_recorded() {
    let (store, starts) = three_records();
    for length in starts[2]..starts[3] {
        let mut torn = store.clone();
        torn.segment_mut(FIRST).unwrap().truncate(length);
        let (mut journal, opened) = open(torn, 1);
        let bytes = (length - starts[2]) as u64;
        let cut = Cut {
            segment: FIRST,
            offset: starts[2] as u64,
            bytes,
        };
        assert_eq!(
            opened,
            Opened {
                continued: true,
                cut: (bytes > 0).then_some(cut)
            }
        );
        journal
            .append(event(EventKind::AgentStopped, 9), at(0))
            .unwrap();
        let mut expected = vec![EventKind::JournalOpened, EventKind::AgentStarted];
        expected.extend((bytes > 0).then_some(EventKind::JournalRecovered));
        expected.push(EventKind::AgentStopped);
        let records = all(&mut journal);
        assert_eq!(
            records
                .iter()
                .map(|record| record.event().kind)
                .collect::<Vec<_>>(),
            expected
        );
        let mut chain = Chain::new(node(), boot(1).id);
        records
            .iter()
            .for_each(|record| chain.advance(record).unwrap());
        if bytes > 0 {
            assert_eq!(
                records[2].event().detail.get("bytes"),
                Some(bytes.to_string().as_str())
            );
        }
    }
}

#[test]
fn a_segment_torn_within_its_header_is_begun_again() {
    let (store, starts) = three_records();
    for length in 0..starts[0] {
        let mut torn = store.clone();
        torn.segment_mut(FIRST).unwrap().truncate(length);
        let (mut journal, opened) = open(torn, 1);
        assert_eq!(
            opened.cut.map(|cut| cut.bytes),
            (length > 0).then_some(length as u64)
        );
        assert_eq!(kinds(&mut journal)[0], EventKind::JournalOpened);
    }
    let mut zeros = store;
    zeros.segment_mut(FIRST).unwrap().fill(0);
    assert!(open(zeros, 1).1.cut.is_some());
}

#[test]
fn damage_at_any_byte_before_the_last_frame_is_an_error_that_names_the_offset() {
    let (store, starts) = three_records();
    for at in starts[0]..starts[2] {
        let mut damaged = store.clone();
        damaged.segment_mut(FIRST).unwrap()[at] ^= 1;
        let frame_start = if at < starts[1] { starts[0] } else { starts[1] } as u64;
        match Journal::open(damaged, &node(), &boot(1), limits(), TIME, salts()) {
            Err(OpenError::Segment {
                segment: FIRST,
                source: SegmentFault::Frame { offset, .. },
            }) => {
                assert_eq!(offset, frame_start, "byte {at}");
            }
            other => panic!("byte {at}: {:?}", other.map(|(_, opened)| opened)),
        }
    }
}

#[test]
fn a_damaged_header_is_an_error() {
    let (store, starts) = three_records();
    for at in 0..starts[0] {
        let mut damaged = store.clone();
        damaged.segment_mut(FIRST).unwrap()[at] ^= 1;
        let refused = Journal::open(damaged, &node(), &boot(1), limits(), TIME, salts());
        assert!(
            matches!(
                refused,
                Err(OpenError::Segment {
                    source: SegmentFault::Header,
                    ..
                })
            ),
            "byte {at}"
        );
    }
}

#[test]
fn a_changed_byte_anywhere_in_the_last_frame_cuts_that_frame_only() {
    let (store, starts) = three_records();
    for at in starts[2]..starts[3] {
        let mut damaged = store.clone();
        damaged.segment_mut(FIRST).unwrap()[at] ^= 0x80;
        let (mut journal, opened) = open(damaged, 1);
        assert_eq!(
            opened.cut.map(|cut| cut.offset),
            Some(starts[2] as u64),
            "byte {at}"
        );
        assert_eq!(kinds(&mut journal)[2], EventKind::JournalRecovered);
    }
}

#[test]
fn damage_to_what_was_never_flushed_is_a_torn_end() {
    // Pages reach a disk in any order: the second frame of an unflushed group may be whole and the first not.
    let mut journal = fresh();
    let start = journal.bytes();
    journal
        .append(event(EventKind::FlowDenied, 1), at(0))
        .unwrap();
    journal
        .append(event(EventKind::FlowDenied, 2), at(0))
        .unwrap();
    let bytes = journal.bytes() - start;
    let mut store = journal.into_store();
    store.segment_mut(FIRST).unwrap()[start as usize + 40] = 0;
    let (mut journal, opened) = open(store, 1);
    assert_eq!(
        opened.cut,
        Some(Cut {
            segment: FIRST,
            offset: start,
            bytes
        })
    );
    assert_eq!(
        kinds(&mut journal),
        [EventKind::JournalOpened, EventKind::JournalRecovered]
    );
}

#[test]
fn a_missing_or_swapped_segment_is_an_error() {
    let mut journal = fresh();
    for n in 0..900 {
        journal
            .append(event(EventKind::FlowDenied, n), at(0))
            .unwrap();
    }
    journal.flush().unwrap();
    assert!(journal.segments.len() > 3);
    let store = journal.into_store();
    let mut missing = store.clone();
    missing.delete(SegmentId(1)).unwrap();
    let refused = Journal::open(missing, &node(), &boot(1), limits(), TIME, salts());
    assert!(matches!(refused, Err(OpenError::Broken(SegmentId(2)))));
    let mut swapped = store.clone();
    let other = swapped.segment_mut(SegmentId(2)).unwrap().clone();
    *swapped.segment_mut(SegmentId(1)).unwrap() = other;
    let refused = Journal::open(swapped, &node(), &boot(1), limits(), TIME, salts());
    assert!(matches!(
        refused,
        Err(OpenError::Segment {
            segment: SegmentId(1),
            source: SegmentFault::Header
        })
    ));
    let mut torn = store.clone();
    let length = torn.len(SegmentId(1)).unwrap();
    torn.truncate(SegmentId(1), length - 1).unwrap();
    let refused = Journal::open(torn, &node(), &boot(1), limits(), TIME, salts());
    assert!(matches!(
        refused,
        Err(OpenError::TornInside {
            segment: SegmentId(1),
            ..
        })
    ));
    let mut huge = store;
    huge.segment_mut(SegmentId(0))
        .unwrap()
        .resize(MAX_SEGMENT_BYTES as usize + 1, 0);
    let refused = Journal::open(huge, &node(), &boot(1), limits(), TIME, salts());
    assert!(matches!(refused, Err(OpenError::TooLarge(SegmentId(0)))));
}

#[test]
fn a_boot_that_does_not_name_the_end_before_it_is_an_error() {
    let mut first = fresh();
    first
        .append(event(EventKind::AgentStarted, 1), at(0))
        .unwrap();
    let (second, _) = open(first.into_store(), 2);
    let mut store = second.into_store();
    let mut other = fresh();
    other
        .append(event(EventKind::AgentStopped, 1), at(0))
        .unwrap();
    *store.segment_mut(FIRST).unwrap() = other.into_store().segment_mut(FIRST).unwrap().clone();
    let refused = Journal::open(store, &node(), &boot(2), limits(), TIME, salts());
    assert!(matches!(refused, Err(OpenError::Broken(SegmentId(1)))));
}

#[test]
fn a_write_that_fails_at_any_byte_leaves_no_trace() {
    let length = {
        let mut journal = fresh();
        let before = journal.bytes();
        journal
            .append(event(EventKind::AgentStarted, 1), at(0))
            .unwrap();
        (journal.bytes() - before) as usize
    };
    for written in 0..=length {
        let mut journal = fresh();
        journal.store.inject(Fault::AppendAfter(written));
        let refused = journal.append(event(EventKind::AgentStarted, 1), at(0));
        assert!(matches!(refused, Err(JournalError::Storage(_))));
        journal
            .append(event(EventKind::AgentStarted, 2), at(0))
            .unwrap();
        let (mut journal, opened) = open(journal.into_store(), 1);
        assert_eq!(opened.cut, None);
        assert_eq!(
            kinds(&mut journal),
            [EventKind::JournalOpened, EventKind::AgentStarted]
        );
    }
}

#[test]
fn a_journal_that_cannot_tell_what_the_disk_holds_refuses_everything_until_opened_anew() {
    let broken: [&[Fault]; 2] = [&[Fault::AppendAfter(9), Fault::Truncate], &[Fault::Sync]];
    for faults in broken {
        let mut journal = fresh();
        faults.iter().for_each(|fault| journal.store.inject(*fault));
        let refused = journal.append(event(EventKind::BindOpened, 1), at(0));
        assert!(matches!(refused, Err(JournalError::Storage(_))));
        for _ in 0..2 {
            let refused = journal.append(event(EventKind::BindOpened, 2), at(0));
            assert!(matches!(refused, Err(JournalError::Broken)));
        }
        assert!(matches!(journal.pending(None), Err(JournalError::Broken)));
        assert!(matches!(journal.flush(), Err(JournalError::Broken)));
        let (mut journal, _) = open(journal.into_store(), 1);
        journal
            .append(event(EventKind::BindOpened, 3), at(0))
            .unwrap();
        let mut chain = Chain::new(node(), boot(1).id);
        all(&mut journal)
            .iter()
            .for_each(|record| chain.advance(record).unwrap());
    }
}

#[test]
fn an_end_that_was_lost_while_a_segment_was_begun_does_not_end_the_chain() {
    let mut journal = fresh();
    while journal.segments.len() == 1 {
        journal
            .append(event(EventKind::FlowDenied, 1), at(0))
            .unwrap();
    }
    let end = journal.segments[0].next_seq;
    let mut store = journal.into_store();
    store.power_cut(0);
    let (journal, opened) = open(store, 1);
    assert!(opened.continued);
    assert_eq!(journal.chain().next_seq(), Some(end));
}
