use edgeward_identity::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::vectors::mutations;

fn node() -> SpiffeId {
    "spiffe://plant.example/node/gw-3".parse().unwrap()
}

fn boot(n: u8) -> BootId {
    BootId::from_bytes([n; BOOT_ID_BYTES])
}

fn opened() -> BootOpened {
    let previous = PreviousBoot {
        boot: boot(0),
        last_seq: 41,
        head: Digest::of(&[b"head"]),
    };
    BootOpened {
        previous: Some(previous),
        reset_count: Some(7),
        restart_count: Some(0),
    }
}

fn event(kind: EventKind) -> Event {
    Event::new(Timestamp::from_secs(1_795_000_000), node(), kind)
}

fn chain_of(count: usize) -> Vec<SealedRecord> {
    let mut chain = Chain::new(node(), boot(1));
    let mut records = Vec::new();
    for n in 0..count {
        let sealed = match n {
            0 => chain.seal_opening(opened(), event(EventKind::JournalOpened)),
            _ => chain.seal(event(EventKind::FlowDenied).detail("n", n)),
        }
        .unwrap();
        chain.advance(&sealed).unwrap();
        records.push(sealed);
    }
    records
}

#[test]
fn another_encoding_of_the_same_record_is_refused() {
    let sealed = &chain_of(2)[1];
    let text = str::from_utf8(sealed.bytes()).unwrap();
    let spaced = text.replacen(':', ": ", 1);
    let reordered = text.replacen(&format!("\"boot\":\"{}\",\"seq\":1", boot(1)), "", 1);
    let reordered = reordered.replacen(
        "{\"node\"",
        &format!("{{\"seq\":1,\"boot\":\"{}\",\"node\"", boot(1)),
        1,
    );
    let reordered = reordered.replacen(",,", ",", 1);
    let null = text.replacen("\"event\"", "\"opened\":null,\"event\"", 1);
    let upper = text.replacen(
        &sealed.record().prev.to_string(),
        &sealed.record().prev.to_string().to_uppercase(),
        1,
    );
    for other in [spaced, reordered, null, upper] {
        assert_ne!(other, text);
        let refused = SealedRecord::parse(other.as_bytes());
        assert!(
            matches!(refused, Err(RecordError::NotCanonical)),
            "{other}: {refused:?}"
        );
    }
    assert_eq!(SealedRecord::parse(sealed.bytes()).unwrap(), *sealed);
}

#[test]
fn records_with_unknown_fields_or_above_the_limit_are_refused() {
    let text = String::from_utf8(chain_of(1)[0].bytes().to_vec()).unwrap();
    let extra = text.replacen("{\"node\"", "{\"more\":1,\"node\"", 1);
    assert!(matches!(
        SealedRecord::parse(extra.as_bytes()),
        Err(RecordError::Json(_))
    ));
    let long = format!("{text}{}", " ".repeat(MAX_RECORD_BYTES));
    assert!(matches!(
        SealedRecord::parse(long.as_bytes()),
        Err(RecordError::TooLong)
    ));
}

#[test]
fn only_the_first_record_of_a_boot_opens_it() {
    let record = |seq, prev, opened, kind| Record {
        node: node(),
        boot: boot(1),
        seq,
        prev,
        opened,
        event: event(kind),
    };
    let other = Digest::of(&[b"other"]);
    let mut same_boot = opened();
    same_boot.previous.as_mut().unwrap().boot = boot(1);
    let bad = [
        record(0, Digest::ZERO, None, EventKind::JournalOpened),
        record(0, Digest::ZERO, Some(opened()), EventKind::AgentStarted),
        record(0, other, Some(opened()), EventKind::JournalOpened),
        record(0, Digest::ZERO, Some(same_boot), EventKind::JournalOpened),
        record(1, other, Some(opened()), EventKind::JournalOpened),
        record(1, other, None, EventKind::JournalOpened),
        record(1, other, Some(opened()), EventKind::AgentStarted),
    ];
    for record in bad {
        assert!(
            matches!(record.clone().seal(), Err(RecordError::Opening)),
            "{record:?}"
        );
    }
}

#[test]
fn only_nodes_and_clouds_keep_journals() {
    for kind in [Kind::Device, Kind::Operator, Kind::Workload] {
        let keeper = SpiffeId::new(node().trust_domain(), kind, "x").unwrap();
        let chain = Chain::new(keeper, boot(1));
        let refused = chain.seal_opening(opened(), event(EventKind::JournalOpened));
        assert!(matches!(refused, Err(RecordError::Keeper(found)) if found == kind));
    }
}

#[test]
fn a_record_that_does_not_continue_the_chain_is_refused_with_its_reason() {
    let records = chain_of(4);
    let at = |count: usize| {
        let mut chain = Chain::new(node(), boot(1));
        records[..count]
            .iter()
            .for_each(|record| chain.advance(record).unwrap());
        chain
    };
    assert_eq!(
        at(2).advance(&records[3]),
        Err(ChainError::Sequence {
            expected: 2,
            found: 3
        })
    );
    assert_eq!(
        at(2).advance(&records[1]),
        Err(ChainError::Sequence {
            expected: 2,
            found: 1
        })
    );
    assert_eq!(
        at(0).advance(&records[1]),
        Err(ChainError::Sequence {
            expected: 0,
            found: 1
        })
    );
    let forged = at(2).seal(event(EventKind::CutEffected)).unwrap();
    assert_eq!(
        at(3).advance(&at(3).seal(event(EventKind::CutEffected)).unwrap()),
        Ok(())
    );
    let mut fork = at(2);
    fork.advance(&forged).unwrap();
    assert_eq!(fork.advance(&records[3]), Err(ChainError::Link { seq: 3 }));
    let other: SpiffeId = "spiffe://plant.example/node/other".parse().unwrap();
    let refused = Chain::resume(other, boot(1), records[1].head()).advance(&records[2]);
    assert_eq!(refused, Err(ChainError::Node(node())));
    let refused = Chain::resume(node(), boot(2), records[1].head()).advance(&records[2]);
    assert_eq!(refused, Err(ChainError::Boot(boot(1))));
    let end = Head {
        seq: u64::MAX,
        hash: Digest::ZERO,
    };
    let refused = Chain::resume(node(), boot(1), end).advance(&records[2]);
    assert_eq!(refused, Err(ChainError::Exhausted));
}

#[test]
fn a_record_that_was_changed_anywhere_has_another_hash_or_is_refused() {
    for record in chain_of(2) {
        mutations(record.bytes(), |bytes| {
            if let Ok(other) = SealedRecord::parse(bytes) {
                assert_ne!(other.hash(), record.hash());
            }
        });
    }
}

#[test]
fn a_frame_that_was_changed_anywhere_is_refused() {
    let record = &chain_of(1)[0];
    let mut bytes = Vec::new();
    frame::write(&mut bytes, record.bytes(), &record.hash(), 9);
    assert_eq!(
        frame::read(&bytes).unwrap(),
        frame::Frame {
            record: record.bytes(),
            durable: 9
        }
    );
    mutations(&bytes, |changed| {
        if !changed.starts_with(&bytes) {
            assert!(frame::read(changed).is_err());
        }
    });
    let mut huge = bytes.clone();
    huge[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(frame::read(&huge), Err(frame::FrameFault::Length));
}

#[test]
fn the_largest_record_fits_its_limit() {
    let quotes = "\"".repeat(5000);
    let mut event = event(EventKind::EnrolmentAcknowledged)
        .rule(&quotes)
        .denied(&quotes);
    for n in 10..40 {
        event = event.detail(&format!("{n}{quotes}"), &quotes);
    }
    let long: SpiffeId = format!("spiffe://plant.example/workload/{}", "a".repeat(2016))
        .parse()
        .unwrap();
    event.actor = long.clone().into();
    let head = Head {
        seq: u64::MAX - 1,
        hash: Digest::ZERO,
    };
    let sealed = Chain::resume(node(), boot(1), head)
        .seal(event.subject(long))
        .unwrap();
    assert!(SealedRecord::parse(sealed.bytes()).is_ok());
}

proptest! {
    #[test]
    fn a_chain_with_one_record_left_out_or_swapped_does_not_hold(
        count in 3_usize..12, at in 0_usize..12, swap in any::<bool>(),
    ) {
        let mut records = chain_of(count);
        let at = at % (count - 1);
        if swap { records.swap(at, at + 1) } else { records.remove(at); }
        let mut chain = Chain::new(node(), boot(1));
        let held = records.iter().all(|record| chain.advance(record).is_ok());
        prop_assert!(!held);
    }
}
