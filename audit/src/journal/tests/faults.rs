//! Disks that end at every byte, that cannot be written, and that were copied; clocks that step.

use edgeward_identity::SoftwareKey;

use super::*;
use crate::batch::{Batch, DedupError, JournalKeyStatement, accept};
use crate::digest::Digest;
use crate::record::KeyChain;

/// What a node does in two boots, until its disk ends. Returns what it was promised: positions that are on disk.
fn live(store: MemoryStore, keys: &[SoftwareKey]) -> (Option<Journal<MemoryStore>>, Vec<Position>) {
    let mut promised = Vec::new();
    let Ok((mut journal, _)) = Journal::open(store, &node(), &boot(1), limits(), TIME, salts())
    else {
        return (None, promised);
    };
    promised.push(Position {
        boot: boot(1).id,
        seq: 0,
    });
    let mut turned = 0;
    for kind in [
        EventKind::JournalSealed,
        EventKind::FlowDenied,
        EventKind::BindOpened,
        EventKind::JournalSealed,
        EventKind::FlowDenied,
        EventKind::CutEffected,
    ] {
        if kind == EventKind::JournalSealed {
            let (signer, next) = (&keys[turned], keys[turned + 1].public_key());
            let number = u32::try_from(turned).unwrap();
            if journal.turn(signer, (number, next), TIME, at(0)).is_ok() {
                turned += 1;
            }
        } else {
            let _ = journal.append(event(kind, 1), at(0));
        }
        promised.extend((1..journal.durable).map(|seq| Position {
            boot: boot(1).id,
            seq,
        }));
    }
    (Some(journal), promised)
}

#[test]
fn a_power_cut_at_every_byte_of_two_turns_of_the_key_loses_nothing_that_was_promised() {
    let keys: Vec<SoftwareKey> = (0..3).map(|_| SoftwareKey::generate().unwrap()).collect();
    let whole = live(MemoryStore::new(), &keys).0.unwrap().bytes();
    for bytes in 0..=usize::try_from(whole).unwrap() {
        // Of what was not flushed: nothing is left, a part, or all.
        for keep in [0, 7, usize::MAX] {
            let mut store = MemoryStore::new();
            store.die_after(bytes);
            let (journal, promised) = live(store, &keys);
            let Some(journal) = journal else {
                // It ended while the journal was begun: nothing was promised.
                assert!(promised.is_empty());
                continue;
            };
            let mut store = journal.into_store();
            store.power_cut(keep);
            let opened = Journal::open(
                store.without_faults(),
                &node(),
                &boot(2),
                limits(),
                TIME,
                salts(),
            );
            let (mut journal, _) = opened.unwrap_or_else(|error| panic!("{bytes} {keep}: {error}"));
            let records = all(&mut journal);
            for position in &promised {
                assert!(
                    records.iter().any(|record| record.position() == *position),
                    "{bytes} {keep}: {position:?}"
                );
            }
            let mut known: Option<KeyChain> = None;
            for record in &records {
                if record.event().kind == EventKind::JournalSealed {
                    let root = Some(keys[0].public_key());
                    known = Some(KeyChain::advance(known.as_ref(), record, root).unwrap());
                }
            }
            // What is there is one chain from the first record on, and the new boot names its end.
            let second = records
                .iter()
                .position(|record| record.record().boot == boot(2).id)
                .unwrap();
            let mut chain = Chain::new(node(), boot(1).id);
            records[..second]
                .iter()
                .for_each(|record| chain.advance(record).unwrap());
            let named = records[second].record().opened.as_ref().unwrap().previous;
            assert_eq!(
                named.map(|previous| previous.head),
                chain.head().map(|head| head.hash)
            );
        }
    }
}

#[test]
fn a_read_only_disk_grants_nothing_sends_what_it_has_and_goes_on_when_it_is_well() {
    let mut journal = fresh();
    journal
        .append(event(EventKind::BindOpened, 1), at(0))
        .unwrap();
    journal.store.set_read_only();
    for kind in [
        EventKind::BindOpened,
        EventKind::CutEffected,
        EventKind::FlowDenied,
    ] {
        let refused = journal.append(event(kind, 2), at(0));
        assert!(
            matches!(
                refused,
                Err(JournalError::Storage(_) | JournalError::Broken)
            ),
            "{kind}: {refused:?}"
        );
    }
    // It is no damage: nobody may put the journal aside for it.
    let store = journal.into_store();
    let refused = Journal::open(store.clone(), &node(), &boot(2), limits(), TIME, salts());
    assert!(matches!(refused, Err(OpenError::Storage(_))));
    let (mut journal, opened) = open(store.without_faults(), 1);
    assert_eq!((opened.continued, opened.cut), (true, None));
    journal
        .append(event(EventKind::CutEffected, 3), at(0))
        .unwrap();
    let expected = [
        EventKind::JournalOpened,
        EventKind::BindOpened,
        EventKind::CutEffected,
    ];
    assert_eq!(kinds(&mut journal), expected);
}

#[test]
fn a_clock_that_steps_changes_neither_order_nor_what_is_flushed() {
    let mut journal = fresh();
    let times = [5_000, 1, 9_000_000, 0, u64::MAX, 7];
    for (n, millis) in times.iter().enumerate() {
        let mut event = event(EventKind::FlowDenied, n);
        event.time = Timestamp::from_millis(*millis);
        // The time since boot does not step, but a suspended machine may think so.
        let now = at(if n % 2 == 0 { 1_000_000 } else { 0 });
        journal.append(event, now).unwrap();
    }
    let mut last = event(EventKind::CutEffected, 9);
    last.time = Timestamp::default();
    journal.append(last, at(0)).unwrap();
    assert_eq!(journal.next_tick(), None);
    let (mut journal, _) = open(journal.into_store(), 1);
    let records = all(&mut journal);
    let found: Vec<u64> = records[1..7]
        .iter()
        .map(|record| record.event().time.millis())
        .collect();
    assert_eq!(found, times);
    let mut chain = Chain::new(node(), boot(1).id);
    records
        .iter()
        .for_each(|record| chain.advance(record).unwrap());
}

#[test]
fn a_copied_disk_that_records_the_very_same_event_is_an_equivocation() {
    let journal = fresh();
    let disk = journal.into_store();
    let key = SoftwareKey::generate().unwrap();
    let statement =
        JournalKeyStatement::sign(&key, &node(), boot(1).id, key.public_key(), TIME).unwrap();
    let verified = statement.verify(&node(), key.public_key(), TIME).unwrap();
    let mut batches = [[1; 32], [2; 32]].map(|seed| {
        let salts = Salts::from_seed(seed);
        let opened = Journal::open(disk.clone(), &node(), &boot(1), limits(), TIME, salts);
        let (mut journal, _) = opened.unwrap();
        journal
            .append(event(EventKind::BindOpened, 1), at(0))
            .unwrap();
        let pending = journal.pending(None).unwrap().unwrap();
        let batch = Batch::sign(&statement, &key, pending.records).unwrap();
        batch.verify(&verified).unwrap()
    });
    let [first, second] = &mut batches;
    let stored = accept(first, None, |_| None).unwrap();
    assert_eq!(stored.new.len(), 2);
    let hashes: Vec<Digest> = first.records().iter().map(SealedRecord::hash).collect();
    let refused = accept(second, Some(first.head()), |seq| {
        hashes.get(usize::try_from(seq).unwrap()).copied()
    });
    assert!(matches!(
        refused,
        Err(DedupError::Equivocation { seq: 1, .. })
    ));
}
