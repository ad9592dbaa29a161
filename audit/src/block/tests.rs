use edgeward_identity::{SpiffeId, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::digest::Digest;
use crate::event::{Actor, Event, EventKind, Subject, Verdict};
use crate::query::{ActorFilter, Filter, ISSUING_KINDS, KindFilter, SERIAL};
use crate::record::{BootId, BootOpened, Record, Salt, SealedRecord};
use crate::vectors::mutations;

const NODES: [&str; 3] = [
    "spiffe://plant.example/node/gw-1",
    "spiffe://plant.example/node/gw-2",
    "spiffe://plant.example/cloud/one",
];
const ACTORS: [&str; 8] = [
    "spiffe://plant.example/node/gw-1",
    "spiffe://plant.example/operator/ada",
    "apikey:anonymous",
    "apikey:ci",
    "cloud",
    "anonymous",
    "anonymous:192.0.2.7",
    "anonymous:2001:db8::1",
];
const SUBJECTS: [&str; 4] = [
    "spiffe://plant.example/node/gw-1",
    "spiffe://plant.example/workload/a",
    "press-4/modbus",
    "cloud",
];
const RULES: [&str; 3] = ["plant/press:read", "plant/press:write", "cloud"];
const SERIALS: [&str; 3] = ["0a", "0b", "not hex: ä"];
const KINDS: [EventKind; 5] = [
    EventKind::FlowDenied,
    EventKind::SvidIssued,
    EventKind::AttestationPassed,
    EventKind::NodeApproved,
    EventKind::CutEffected,
];

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn time(n: u64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + n)
}

fn events() -> impl Strategy<Value = Event> {
    let texts = (
        select(&ACTORS[..]),
        proptest::option::of(select(&SUBJECTS[..])),
        proptest::option::of(select(&RULES[..])),
        proptest::option::of(select(&SERIALS[..])),
    );
    let rest = (select(&KINDS[..]), select(&Verdict::ALL[..]), 0_u64..20);
    (texts, rest).prop_map(|((actor, subject, rule, serial), (kind, verdict, at))| {
        let mut event = Event::new(time(at), actor.parse::<Actor>().unwrap(), kind);
        event.verdict = verdict;
        event.subject = subject.map(|subject| subject.parse::<Subject>().unwrap());
        event.rule = rule.map(|rule| crate::event::RuleId::new(rule).unwrap());
        match serial {
            Some(serial) => event.detail(SERIAL, serial),
            None => event,
        }
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    use proptest::option::of;
    let actor = prop_oneof![
        3 => select(&ACTORS[..]).prop_map(|actor| ActorFilter::Exactly(actor.parse().unwrap())),
        1 => Just(ActorFilter::AnyAnonymous),
    ];
    let kind = prop_oneof![
        select(&KINDS[..]).prop_map(KindFilter::Exactly),
        select(&["svid", "flow", "event"][..]).prop_map(KindFilter::Family),
        Just(KindFilter::Exactly(EventKind::EventUnknown)),
    ];
    let times = (of(0_u64..20), of(0_u64..20));
    let nodes = select(&NODES[..]).prop_map(id);
    let rest = (
        of(select(&Verdict::ALL[..])),
        of(select(&RULES[..])),
        of(select(&SERIALS[..])),
    );
    (times, of(nodes), of(actor), of(kind), rest).prop_map(
        |((from, to), node, actor, kind, (verdict, rule, serial))| Filter {
            from: from.map(time),
            to: to.map(time),
            node,
            actor,
            kind,
            verdict,
            rule: rule.map(|rule| crate::event::RuleId::new(rule).unwrap()),
            serial: serial.map(str::to_owned),
        },
    )
}

/// How an event comes into a part: its place behind the one before, its journal, and what is odd about it.
#[derive(Clone, Debug)]
struct Step {
    skip: u8,
    journal: usize,
    /// Sequence numbers left out.
    gap: u64,
    /// Of format 1.
    is_old: bool,
    /// Of a type that came later.
    is_foreign: bool,
    event: Event,
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let odd = (
        prop_oneof![9 => Just(0_u64), 1 => 0_u64..1 << 60],
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
    );
    let step = (0_u8..3, 0_usize..5, odd, events()).prop_map(
        |(skip, journal, (gap, is_old, is_foreign), event)| Step {
            skip,
            journal,
            gap,
            is_old,
            is_foreign,
            event,
        },
    );
    proptest::collection::vec(step, 0..most)
}

/// The records of the steps with their places, as long as there are places.
fn records_of(steps: Vec<Step>) -> Vec<(u8, SealedRecord)> {
    let mut ends: Vec<(u64, Digest)> = vec![(0, Digest::ZERO); 5];
    let mut place: Option<u8> = None;
    let mut records = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        let next = place.map_or(Some(0), |place| place.checked_add(1));
        let Some(at) = next.and_then(|next| next.checked_add(step.skip)) else {
            break;
        };
        place = Some(at);
        let (last, prev) = ends[step.journal];
        let mut event = step.event;
        let opens = last == 0 && step.gap == 0;
        if opens {
            event.kind = EventKind::JournalOpened;
        }
        let mut salt = [7; 16];
        salt[0] = u8::try_from(n % 256).unwrap();
        let record = Record {
            salt: (!step.is_old).then(|| Salt::from_bytes(salt)),
            node: id(NODES[step.journal % NODES.len()]),
            boot: BootId::from_bytes([u8::try_from(step.journal).unwrap(); 16]),
            seq: last + step.gap,
            prev: if opens { Digest::ZERO } else { prev },
            opened: opens.then_some(BootOpened {
                previous: None,
                reset_count: None,
                restart_count: None,
            }),
            event,
        };
        let kind = format!("\"type\":\"{}\"", record.event.kind);
        let mut sealed = record.seal().unwrap();
        if step.is_foreign && !opens {
            let text = str::from_utf8(sealed.bytes()).unwrap();
            let foreign = text.replacen(&kind, "\"type\":\"flow.melted\",\"weight\":[1]", 1);
            sealed = SealedRecord::parse(foreign.as_bytes()).unwrap();
        }
        ends[step.journal] = (sealed.record().seq + 1, sealed.hash());
        records.push((at, sealed));
    }
    records
}

fn received(place: u8) -> Timestamp {
    time(1000 - u64::from(place / 7))
}

fn encoded(records: &[(u8, SealedRecord)]) -> EncodedPart {
    let mut writer = PartWriter::new();
    for (place, sealed) in records {
        writer.push(*place, received(*place), sealed).unwrap();
    }
    writer.finish().unwrap()
}

fn row_of<'a>(place: u8, sealed: &SealedRecord, texts: &'a [String; 5]) -> Row<'a> {
    let (record, event) = (sealed.record(), sealed.event());
    let optional = |text: &'a String| (!text.is_empty()).then_some(text.as_str());
    let [node, actor, subject, rule, serial] = texts;
    Row {
        place,
        received: received(place),
        time: event.time,
        node,
        boot: record.boot,
        seq: record.seq,
        kind: event.kind,
        actor,
        subject: optional(subject),
        verdict: event.verdict,
        rule: optional(rule),
        serial: optional(serial),
        claimed: sealed.is_claimed(),
    }
}

fn texts_of(sealed: &SealedRecord) -> [String; 5] {
    let (record, event) = (sealed.record(), sealed.event());
    let serial = event
        .detail
        .get(SERIAL)
        .filter(|_| ISSUING_KINDS.contains(&event.kind));
    [
        record.node.to_string(),
        event.actor.to_string(),
        event
            .subject
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        event
            .rule
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        serial.unwrap_or_default().to_owned(),
    ]
}

fn check_round_trip(records: &[(u8, SealedRecord)]) {
    let part = encoded(records);
    let bodies = Bodies::parse(&part.bodies).unwrap();
    let columns = Columns::parse(&part.columns).unwrap();
    assert_eq!(
        (bodies.len(), columns.len()),
        (records.len(), records.len())
    );
    for (number, ((place, sealed), row)) in records.iter().zip(columns.rows()).enumerate() {
        assert_eq!(bodies.record(number), Some(sealed.bytes()));
        assert_eq!(row, row_of(*place, sealed, &texts_of(sealed)));
    }
    assert_eq!(bodies.record(records.len()), None);
}

fn full_part() -> Vec<(u8, SealedRecord)> {
    let step = |n: usize| Step {
        skip: 0,
        journal: n % 5,
        gap: 0,
        is_old: false,
        is_foreign: false,
        event: Event::new(time(n as u64), id(NODES[0]), KINDS[n % KINDS.len()])
            .subject(SUBJECTS[n % SUBJECTS.len()])
            .detail("n", n),
    };
    records_of((0..300).map(step).collect())
}

#[test]
fn a_place_that_is_not_behind_the_last_one_is_refused() {
    let records = full_part();
    let mut writer = PartWriter::new();
    writer.push(4, time(0), &records[0].1).unwrap();
    for place in [4, 3, 0] {
        let refused = writer.push(place, time(0), &records[1].1);
        assert!(matches!(refused, Err(BlockError::Places)), "{place}");
    }
}

#[test]
fn whatever_is_changed_or_cut_in_a_part_is_refused_or_read_without_harm() {
    let part = encoded(&full_part()[..20]);
    mutations(&part.columns, |bytes| {
        if let Ok(columns) = Columns::parse(bytes) {
            assert!(columns.rows().len() <= MAX_PART_EVENTS);
            assert!(columns.rows().all(|row| row.node.len() <= 2048));
        }
    });
    mutations(&part.bodies, |bytes| {
        if let Ok(bodies) = Bodies::parse(bytes) {
            assert!((0..bodies.len()).all(|number| bodies.record(number).is_some()));
        }
    });
    for bytes in [&part.columns, &part.bodies] {
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Columns::parse(&longer).is_err() && Bodies::parse(&longer).is_err());
        let mut other = bytes.clone();
        other[0] = 2;
        assert!(matches!(Columns::parse(&other), Err(BlockError::Format(2))));
        assert!(matches!(Bodies::parse(&other), Err(BlockError::Format(2))));
    }
}

#[test]
fn a_frame_that_holds_more_than_it_says_or_than_the_limit_is_refused() {
    let plain = vec![0; MAX_BODIES_BYTES + 4096];
    let mut frame = Vec::new();
    squeeze::put_squeezed(&mut frame, &plain).unwrap();
    let mut columns = vec![1];
    columns.extend_from_slice(&frame);
    assert!(matches!(
        Columns::parse(&columns),
        Err(BlockError::TooLarge(_))
    ));
    let mut bodies = vec![1, 0];
    bodies.extend_from_slice(&frame);
    assert!(matches!(
        Bodies::parse(&bodies),
        Err(BlockError::TooLarge(_))
    ));
    // The frame says 4 MiB, the length before it 1.
    let at = frame
        .windows(4)
        .position(|four| four == [0x28, 0xb5, 0x2f, 0xfd])
        .unwrap();
    let mut lying = vec![1, 1];
    lying.extend_from_slice(&frame[at..]);
    assert!(matches!(
        Columns::parse(&lying),
        Err(BlockError::Decompress(_))
    ));
}

#[test]
fn a_full_part_comes_back_and_takes_few_bytes() {
    let records = full_part();
    assert_eq!(records.len(), MAX_PART_EVENTS);
    check_round_trip(&records);
    check_round_trip(&[]);
    let part = encoded(&records);
    let plain: usize = records.iter().map(|(_, sealed)| sealed.bytes().len()).sum();
    assert!(
        part.columns.len() < 10 * records.len(),
        "{}",
        part.columns.len()
    );
    assert!(
        part.bodies.len() * 8 < plain,
        "{} of {plain}",
        part.bodies.len()
    );
}

#[test]
fn terms_of_another_key_field_or_value_are_others() {
    let (key, other) = (TermKey::from_bytes([1; 32]), TermKey::from_bytes([2; 32]));
    assert!(!format!("{key:?}").contains('1'), "{key:?}");
    let (_, sealed) = &full_part()[9];
    let terms = terms_of(&key, sealed.record());
    assert!(terms.is_disjoint(&terms_of(&other, sealed.record())));
    let by = |filter: Filter| terms_wanted(&key, &filter).concat();
    // `cloud` as an actor and as a rule.
    let rule = by(Filter {
        rule: Some(crate::event::RuleId::new("cloud").unwrap()),
        ..Filter::default()
    });
    let actor = by(Filter {
        actor: Some(ActorFilter::Exactly(Actor::Cloud)),
        ..Filter::default()
    });
    assert_eq!((rule.len(), actor.len()), (1, 1));
    assert_ne!(rule, actor);
    assert!(by(Filter::default()).is_empty());
}

proptest! {
    #[test]
    fn rows_and_terms_agree_with_the_filter_on_the_record(
        steps in steps(60), filters in proptest::collection::vec(filters(), 1..20),
    ) {
        let records = records_of(steps);
        let columns = Columns::parse(&encoded(&records).columns).unwrap();
        let key = TermKey::from_bytes([5; 32]);
        let mut block = BlockTerms::new();
        records.iter().for_each(|(place, sealed)| block.add(*place, sealed.record()));
        let index = block.finish(&key);
        for filter in &filters {
            let asked: Vec<usize> = columns.asked(filter).map(|(number, _)| number).collect();
            let mut candidates = Places::ALL;
            for any_of in terms_wanted(&key, filter) {
                let places = any_of.iter().filter_map(|term| index.get(term));
                candidates = candidates.and(places.fold(Places::NONE, |all, places| all.or(*places)));
            }
            for (number, ((place, sealed), row)) in records.iter().zip(columns.rows()).enumerate() {
                let wanted = filter.matches(sealed.record());
                prop_assert_eq!(row.matches(filter), wanted, "{:?} {:?}", filter, row);
                prop_assert_eq!(asked.contains(&number), wanted, "{:?} {:?}", filter, row);
                prop_assert!(candidates.contains(*place) || !wanted, "{:?} {:?}", filter, row);
                let terms = terms_of(&key, sealed.record());
                prop_assert!(terms.iter().all(|term| index[term].contains(*place)));
            }
        }
    }

    #[test]
    fn parts_come_back(steps in steps(257)) {
        check_round_trip(&records_of(steps));
    }

    #[test]
    fn bytes_of_anybody_are_read_without_harm(bytes: Vec<u8>) {
        let _ = (Columns::parse(&bytes), Bodies::parse(&bytes), Places::parse(&bytes));
        // And what is compressed well.
        let mut columns = vec![1];
        squeeze::put_squeezed(&mut columns, &bytes).unwrap();
        let _ = Columns::parse(&columns);
        let mut bodies = vec![1, 0];
        squeeze::put_squeezed(&mut bodies, &bytes).unwrap();
        let _ = Bodies::parse(&bodies);
    }
}
