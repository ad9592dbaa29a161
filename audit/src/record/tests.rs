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

fn salt(n: usize) -> Salt {
    Salts::from_seed([u8::try_from(n).unwrap(); 32]).draw()
}

fn event(kind: EventKind) -> Event {
    Event::new(Timestamp::from_secs(1_795_000_000), node(), kind)
}

fn chain_of(count: usize) -> Vec<SealedRecord> {
    let mut chain = Chain::new(node(), boot(1));
    let mut records = Vec::new();
    for n in 0..count {
        let sealed = match n {
            0 => chain.seal_opening(opened(), event(EventKind::JournalOpened), salt(0)),
            _ => chain.seal(event(EventKind::FlowDenied).detail("n", n), salt(n)),
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
        "{\"salt\"",
        &format!("{{\"seq\":1,\"boot\":\"{}\",\"salt\"", boot(1)),
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
    let extra = text.replacen("{\"salt\"", "{\"more\":1,\"salt\"", 1);
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
        salt: None,
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
        let refused = chain.seal_opening(opened(), event(EventKind::JournalOpened), salt(0));
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
    let forged = at(2).seal(event(EventKind::CutEffected), salt(9)).unwrap();
    assert_eq!(
        at(3).advance(&at(3).seal(event(EventKind::CutEffected), salt(9)).unwrap()),
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
        .seal(event.subject(long), salt(9))
        .unwrap();
    assert!(SealedRecord::parse(sealed.bytes()).is_ok());
}

/// A record as a newer agent may write it: `change` is made to the event's bytes.
fn newer(seq: u64, change: impl FnOnce(&str) -> String) -> String {
    let records = chain_of(usize::try_from(seq).unwrap() + 1);
    let text = str::from_utf8(records.last().unwrap().bytes()).unwrap();
    let (envelope, event) = text.split_at(text.find("\"event\":").unwrap() + 8);
    format!("{envelope}{}}}", change(event.strip_suffix('}').unwrap()))
}

#[test]
fn what_is_around_an_unknown_event_is_as_strict_as_ever() {
    let good = newer(1, |event| event.replace("flow.denied", "flow.melted"));
    assert!(SealedRecord::parse(good.as_bytes()).is_ok());
    let not_an_object = |with: &str| newer(1, |_| with.to_owned());
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for bad in [
        good.replacen("{\"salt\"", "{\"more\":1,\"salt\"", 1),
        good.replacen(':', ": ", 1),
        good.replacen("\"event\"", "\"opened\":null,\"event\"", 1),
        good.replacen("\"seq\":1", "\"seq\":0", 1),
        good.replacen("\"seq\":1", "\"seq\":-1", 1),
        good.replacen("/node/", "/device/", 1),
        format!("{good} "),
        format!("{good}}}"),
        good.strip_suffix('}').unwrap().to_owned(),
        not_an_object("null"),
        not_an_object("[]"),
        not_an_object("\"flow.melted\""),
        not_an_object("{}},{"),
        not_an_object("{\"type\":\"a\"}{\"type\":\"b\"}"),
        not_an_object(&deep),
        // What this version reads has one encoding.
        newer(1, |event| event.replacen(':', ": ", 1)),
    ] {
        assert!(SealedRecord::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let second_opening = newer(1, |event| event.replace("flow.denied", "journal.opened"));
    assert!(matches!(
        SealedRecord::parse(second_opening.as_bytes()),
        Err(RecordError::Opening)
    ));
}

#[test]
fn an_event_that_cannot_be_read_cannot_be_written() {
    let unknown = event(EventKind::EventUnknown);
    let refused = Chain::resume(node(), boot(1), chain_of(1)[0].head()).seal(unknown, salt(1));
    assert!(matches!(refused, Err(RecordError::Unreadable)));
}

#[test]
fn an_event_of_a_newer_version_is_kept_as_it_came_and_the_chain_goes_on() {
    let changes: [(&str, &str, &str); 5] = [
        ("flow.denied", "flow.melted", "flow.melted"),
        ("\"flow.denied\"", "7", "none"),
        (
            "\"verdict\"",
            "\"weight\":{\"of\":[1,2]},\"verdict\"",
            "flow.denied",
        ),
        ("\"n\":\"1\"", "\"n\":1", "flow.denied"),
        ("flow.denied", "event.unknown", "event.unknown"),
    ];
    for (from, to, shown) in changes {
        let text = newer(1, |event| event.replacen(from, to, 1));
        assert!(text.contains(to), "{text}");
        let sealed = SealedRecord::parse(text.as_bytes()).unwrap();
        assert_eq!(sealed.bytes(), text.as_bytes());
        assert_ne!(sealed.hash(), chain_of(2)[1].hash());
        let event = sealed.event();
        assert_eq!(event.kind, EventKind::EventUnknown, "{text}");
        assert_eq!(event.detail.get(UNKNOWN_TYPE), Some(shown), "{text}");
        assert_eq!(event.time, Timestamp::from_secs(1_795_000_000));
        assert_eq!(event.actor, node().into());
        assert!(sealed.is_claimed());
        let mut chain = Chain::new(node(), boot(1));
        chain.advance(&chain_of(1)[0]).unwrap();
        chain.advance(&sealed).unwrap();
        let next = chain.seal(self::event(EventKind::AgentStopped), salt(2));
        chain.advance(&next.unwrap()).unwrap();
    }
    // A boot that a newer agent opened, too.
    let opening = newer(0, |event| {
        event.replacen("\"verdict\"", "\"x\":1,\"verdict\"", 1)
    });
    let opening = SealedRecord::parse(opening.as_bytes()).unwrap();
    assert_eq!(opening.record().opened, Some(opened()));
    Chain::new(node(), boot(1)).advance(&opening).unwrap();
}

#[test]
fn nothing_in_an_unknown_event_steers_a_terminal_or_breaks_a_limit() {
    let hostile = format!(
        "{{\"type\":\"\\u001b[2J{}\",\"time\":-1,\"actor\":\"root\",\"detail\":{{\"\\u202e\":\"\\u0007{}\",\"unknown_type\":\"flow.allowed\"}}}}",
        "a".repeat(500),
        "b".repeat(5000),
    );
    let text = newer(1, |_| hostile);
    let sealed = SealedRecord::parse(text.as_bytes()).unwrap();
    let event = sealed.event();
    assert_eq!(event.time, Timestamp::default());
    assert_eq!(event.actor, node().into());
    assert!(event.detail.get(UNKNOWN_TYPE).unwrap().ends_with('…'));
    let json = serde_json::to_vec(event).unwrap();
    assert!(json.len() <= crate::event::MAX_EVENT_BYTES);
    assert!(!json.contains(&0x1b) && !json.contains(&7));
}

#[test]
fn an_unknown_event_that_was_changed_anywhere_has_another_hash_or_is_refused() {
    let text = newer(1, |event| event.replace("flow.denied", "flow.melted"));
    let record = SealedRecord::parse(text.as_bytes()).unwrap();
    mutations(text.as_bytes(), |bytes| {
        if let Ok(other) = SealedRecord::parse(bytes) {
            assert_ne!(other.hash(), record.hash());
            assert_eq!(other.bytes(), bytes);
        }
    });
}

#[test]
fn a_record_of_format_1_is_read_and_hashed_by_its_own_label() {
    let record = Record {
        salt: None,
        ..chain_of(1)[0].record().clone()
    };
    let sealed = record.seal().unwrap();
    assert!(sealed.bytes().starts_with(b"{\"node\":"));
    let again = SealedRecord::parse(sealed.bytes()).unwrap();
    let by_hand = Digest::of(&[b"edgeward journal record v1\n", sealed.bytes()]);
    assert_eq!((again.hash(), sealed.hash()), (by_hand, by_hand));
    // A chain goes on from it with salted records, as after an upgrade.
    let mut chain = Chain::starting_at(&again);
    let next = chain
        .seal(event(EventKind::AgentUpgraded), salt(1))
        .unwrap();
    chain.advance(&next).unwrap();
    let by_hand = Digest::of(&[b"edgeward journal record v2\n", next.bytes()]);
    assert_eq!(next.hash(), by_hand);
}

#[test]
fn the_hash_of_a_record_tells_nothing_without_its_salt() {
    let chain = Chain::resume(node(), boot(1), chain_of(1)[0].head());
    let sealed = |n| chain.seal(event(EventKind::FlowDenied), salt(n)).unwrap();
    let (one, two) = (sealed(1), sealed(2));
    assert_eq!(one.event(), two.event());
    assert_ne!(one.hash(), two.hash());
    assert!(one.bytes().starts_with(SALTED));
}

#[test]
fn a_node_that_states_what_only_the_cloud_decides_only_claims_it() {
    let of = |keeper: Kind, kind| {
        let keeper = SpiffeId::new(node().trust_domain(), keeper, "x").unwrap();
        let chain = Chain::resume(keeper, boot(1), chain_of(1)[0].head());
        chain.seal(event(kind), salt(1)).unwrap().is_claimed()
    };
    assert!(of(Kind::Node, EventKind::NodeQuarantined));
    assert!(of(Kind::Node, EventKind::AttestationFailed));
    assert!(of(Kind::Cloud, EventKind::GlassOpened));
    assert!(!of(Kind::Cloud, EventKind::NodeQuarantined));
    assert!(!of(Kind::Node, EventKind::GlassOpened));
    assert!(!chain_of(1)[0].is_claimed());
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
