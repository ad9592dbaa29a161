use proptest::prelude::*;

use super::*;
use crate::record::PreviousBoot;

mod faults;
mod loss;
mod marks;
mod recovery;
mod simulation;
mod turn;

pub(super) const TIME: Timestamp = Timestamp::from_secs(1_795_000_000);

pub(super) fn node() -> SpiffeId {
    "spiffe://plant.example/node/gw-3".parse().unwrap()
}

pub(super) fn boot(n: u8) -> Boot {
    Boot {
        id: BootId::from_bytes([n; 16]),
        reset_count: Some(u32::from(n)),
        restart_count: Some(0),
    }
}

pub(super) fn salts() -> Salts {
    Salts::from_seed([7; 32])
}

pub(super) fn limits() -> Limits {
    Limits::new(MIN_JOURNAL_BYTES, MIN_SEGMENT_BYTES).unwrap()
}

pub(super) fn at(millis: u64) -> BootTime {
    BootTime::from_duration(Duration::from_millis(millis))
}

pub(super) fn event(kind: EventKind, n: usize) -> Event {
    Event::new(TIME, node(), kind).detail("n", n)
}

pub(super) fn open(store: MemoryStore, n: u8) -> (Journal<MemoryStore>, Opened) {
    Journal::open(store, &node(), &boot(n), limits(), TIME, salts()).unwrap()
}

pub(super) fn fresh() -> Journal<MemoryStore> {
    open(MemoryStore::new(), 1).0
}

/// Everything that can be sent, in order, as the cloud would read it.
pub(super) fn all<S: SegmentStore>(journal: &mut Journal<S>) -> Vec<SealedRecord> {
    let mut found = Vec::new();
    let mut from = None;
    while let Some(pending) = journal.pending(from).unwrap() {
        from = Some(pending.next());
        found.extend(
            pending
                .records
                .iter()
                .map(|bytes| SealedRecord::parse(bytes).unwrap()),
        );
    }
    found
}

pub(super) fn kinds<S: SegmentStore>(journal: &mut Journal<S>) -> Vec<EventKind> {
    all(journal)
        .iter()
        .map(|record| record.event().kind)
        .collect()
}

#[test]
fn limits_that_cannot_work_are_refused() {
    assert_eq!(
        Limits::new(MIN_JOURNAL_BYTES - 1, MIN_SEGMENT_BYTES),
        Err(LimitsError::Journal(MIN_JOURNAL_BYTES - 1))
    );
    for bytes in [0, MIN_SEGMENT_BYTES - 1, MAX_SEGMENT_BYTES + 1] {
        assert_eq!(
            Limits::new(MIN_JOURNAL_BYTES, bytes),
            Err(LimitsError::Segment(bytes))
        );
    }
}

#[test]
fn another_nodes_journal_is_not_opened() {
    let other: SpiffeId = "spiffe://plant.example/node/other".parse().unwrap();
    let refused = Journal::open(
        fresh().into_store(),
        &other,
        &boot(1),
        limits(),
        TIME,
        salts(),
    );
    assert!(matches!(refused, Err(OpenError::Node(found)) if found == node()));
}

#[test]
fn an_acknowledgement_of_what_was_never_written_is_refused() {
    let mut journal = fresh();
    let refused = journal.acknowledge(boot(1).id, 2);
    assert!(matches!(
        refused,
        Err(JournalError::AcknowledgedUnknown { next: 2, .. })
    ));
    journal.acknowledge(boot(1).id, 1).unwrap();
    journal.acknowledge(boot(9).id, 1_000_000).unwrap();
    assert_eq!(all(&mut journal).len(), 1);
}

#[test]
fn a_restart_within_a_boot_goes_on_without_a_gap() {
    let mut journal = fresh();
    journal
        .append(event(EventKind::FlowDenied, 1), at(0))
        .unwrap();
    let (mut journal, opened) = open(journal.into_store(), 1);
    assert_eq!(
        opened,
        Opened {
            continued: true,
            cut: None
        }
    );
    let appended = journal
        .append(event(EventKind::AgentStarted, 2), at(0))
        .unwrap();
    assert_eq!(
        appended,
        Appended::Recorded(Position {
            boot: boot(1).id,
            seq: 2
        })
    );
    let mut chain = Chain::new(node(), boot(1).id);
    all(&mut journal)
        .iter()
        .for_each(|record| chain.advance(record).unwrap());
    assert_eq!(chain.next_seq(), Some(3));
}

#[test]
fn the_first_record_of_a_boot_names_the_end_of_the_one_before() {
    let mut journal = fresh();
    journal
        .append(event(EventKind::FlowDenied, 1), at(0))
        .unwrap();
    let end = journal.chain().head().unwrap();
    let (mut journal, opened) = open(journal.into_store(), 2);
    assert!(!opened.continued);
    let records = all(&mut journal);
    let opening = records[2].record().opened.clone().unwrap();
    let previous = PreviousBoot {
        boot: boot(1).id,
        last_seq: end.seq,
        head: end.hash,
    };
    assert_eq!(opening.previous, Some(previous));
    assert_eq!(
        (opening.reset_count, opening.restart_count),
        (Some(2), Some(0))
    );
    assert_eq!(
        records[2].position(),
        Position {
            boot: boot(2).id,
            seq: 0
        }
    );
    // And again over a boot that wrote nothing else.
    let (mut journal, _) = open(journal.into_store(), 3);
    let opening = all(&mut journal)[3].record().opened.clone().unwrap();
    assert_eq!(
        opening
            .previous
            .map(|previous| (previous.boot, previous.last_seq)),
        Some((boot(2).id, 0))
    );
}

#[test]
fn must_events_are_flushed_at_once_and_others_within_their_bounds() {
    // Beginning a segment flushes too: one is enough here.
    let opened = Journal::open(
        MemoryStore::new(),
        &node(),
        &boot(1),
        Limits::default(),
        TIME,
        salts(),
    );
    let (mut journal, _) = opened.unwrap();
    journal
        .append(event(EventKind::FlowDenied, 1), at(10))
        .unwrap();
    assert_eq!(journal.next_tick(), Some(at(510)));
    journal.tick(at(509)).unwrap();
    assert_eq!(journal.durable, 1);
    journal.tick(at(510)).unwrap();
    assert_eq!((journal.durable, journal.next_tick()), (2, None));
    journal
        .append(event(EventKind::FlowDenied, 2), at(600))
        .unwrap();
    journal
        .append(event(EventKind::NodeQuarantined, 3), at(600))
        .unwrap();
    assert_eq!((journal.durable, journal.next_tick()), (4, None));
    for n in 0..MAX_UNFLUSHED_RECORDS {
        assert_eq!(journal.durable, 4);
        journal
            .append(event(EventKind::FlowDenied, n), at(700))
            .unwrap();
    }
    assert_eq!(journal.durable, 4 + MAX_UNFLUSHED_RECORDS as u64);
}

#[test]
fn what_is_sent_is_on_disk() {
    let mut journal = fresh();
    journal
        .append(event(EventKind::FlowDenied, 1), at(0))
        .unwrap();
    let sent = journal.pending(None).unwrap().unwrap();
    assert_eq!(sent.records.len(), 2);
    let mut store = journal.into_store();
    store.power_cut(0);
    let (mut journal, _) = open(store, 2);
    assert_eq!(all(&mut journal)[1].bytes(), sent.records[1]);
}

#[test]
fn pending_stays_within_a_batch_and_within_a_boot() {
    let mut journal = fresh();
    for n in 0..1100 {
        journal
            .append(event(EventKind::FlowDenied, n), at(0))
            .unwrap();
    }
    let (mut journal, _) = open(journal.into_store(), 2);
    let mut sizes = Vec::new();
    let mut from = None;
    while let Some(pending) = journal.pending(from).unwrap() {
        from = Some(pending.next());
        sizes.push((
            pending.boot == boot(1).id,
            pending.first_seq,
            pending.records.len(),
        ));
    }
    assert_eq!(
        sizes,
        [
            (true, 0, 500),
            (true, 500, 500),
            (true, 1000, 101),
            (false, 0, 1)
        ]
    );
    let middle = journal
        .pending(Some(Position {
            boot: boot(1).id,
            seq: 777,
        }))
        .unwrap()
        .unwrap();
    assert_eq!((middle.first_seq, middle.records.len()), (777, 324));
    let record = SealedRecord::parse(&middle.records[0]).unwrap();
    assert_eq!(record.record().seq, 777);
    // Of an unknown boot: from the oldest.
    let oldest = journal
        .pending(Some(Position {
            boot: boot(9).id,
            seq: 5,
        }))
        .unwrap()
        .unwrap();
    assert_eq!((oldest.boot, oldest.first_seq), (boot(1).id, 0));
}

#[test]
fn long_records_make_batches_by_bytes() {
    let mut journal = fresh();
    let long = "\"".repeat(400);
    for n in 0..200 {
        let mut event = event(EventKind::FlowDenied, n);
        for key in 0..10 {
            event = event.detail(&format!("k{key}"), &long);
        }
        journal.append(event, at(0)).unwrap();
    }
    let pending = journal.pending(None).unwrap().unwrap();
    let bytes: usize = pending.records.iter().map(|record| record.len() + 2).sum();
    assert!(
        pending.records.len() < 70 && bytes <= crate::batch::MAX_BATCH_RECORD_BYTES,
        "{bytes}"
    );
    assert_eq!(all(&mut journal).len(), 201);
}

#[test]
fn an_acknowledgement_deletes_whole_segments_and_never_the_end_of_the_chain() {
    let mut journal = fresh();
    for n in 0..600 {
        journal
            .append(event(EventKind::FlowDenied, n), at(0))
            .unwrap();
    }
    let segments = journal.segments.len();
    assert!(segments > 2, "{segments}");
    let second = journal.segments[1].first_seq;
    journal.acknowledge(boot(1).id, second - 1).unwrap();
    assert_eq!(journal.segments.len(), segments);
    journal.acknowledge(boot(1).id, second).unwrap();
    assert_eq!(
        (journal.segments.len(), all(&mut journal)[0].record().seq),
        (segments - 1, second)
    );
    journal.acknowledge(boot(1).id, 601).unwrap();
    assert_eq!(journal.segments.len(), 1);
    let end = journal.chain().head().unwrap();
    let (mut journal, _) = open(journal.into_store(), 2);
    let opening = all(&mut journal)
        .last()
        .unwrap()
        .record()
        .opened
        .clone()
        .unwrap();
    assert_eq!(
        opening.previous.map(|previous| previous.head),
        Some(end.hash)
    );
}

#[test]
fn an_older_boots_records_are_kept_until_they_are_acknowledged_themselves() {
    let (mut journal, _) = open(fresh().into_store(), 2);
    journal.acknowledge(boot(2).id, 1).unwrap();
    assert_eq!(kinds(&mut journal).len(), 2);
    journal.acknowledge(boot(1).id, 1).unwrap();
    assert_eq!(kinds(&mut journal).len(), 1);
}

#[test]
fn files_hold_what_memory_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let store = FileStore::open(&path).unwrap();
    assert!(matches!(FileStore::open(&path), Err(StorageError::Locked)));
    let (mut journal, _) =
        Journal::open(store, &node(), &boot(1), limits(), TIME, salts()).unwrap();
    for n in 0..400 {
        journal
            .append(event(EventKind::FlowDenied, n), at(0))
            .unwrap();
    }
    journal
        .append(event(EventKind::CutEffected, 400), at(0))
        .unwrap();
    let before = all(&mut journal);
    assert_eq!(before.len(), 402);
    let reserve = std::fs::metadata(path.join("reserve")).unwrap();
    assert_eq!(reserve.len(), TAKE_AWAY_RESERVE_BYTES);
    drop(journal);
    // A torn end on a real file.
    let last = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let last = last
        .filter(|path| path.extension().is_some_and(|e| e == "segment"))
        .max()
        .unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&last).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let length = std::fs::metadata(&last).unwrap().len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&last)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let store = FileStore::open(&path).unwrap();
    let (mut journal, opened) =
        Journal::open(store, &node(), &boot(1), limits(), TIME, salts()).unwrap();
    assert!(opened.continued && opened.cut.is_some());
    let after = all(&mut journal);
    assert_eq!(after[..401], before[..401]);
    assert_eq!(after[401].event().kind, EventKind::JournalRecovered);
    journal.acknowledge(boot(1).id, 402).unwrap();
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 3);
    let mut store = journal.into_store();
    store.release_reserve().unwrap();
    store.release_reserve().unwrap();
    assert!(!path.join("reserve").exists());
}
