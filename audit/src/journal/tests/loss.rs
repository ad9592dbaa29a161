//! Too little space.

use super::*;

fn losses<S: SegmentStore>(journal: &mut Journal<S>) -> Vec<String> {
    let records = all(journal);
    let lost = records
        .iter()
        .filter(|record| record.event().kind == EventKind::JournalLost)
        .filter(|record| record.event().detail.get("state") != Some("continues"));
    lost.map(|record| {
        let detail = &record.event().detail;
        let field = |name| detail.get(name).unwrap_or("?").to_owned();
        match detail.get("state") {
            Some("ended") => format!(
                "ended {} {} {}",
                field("may"),
                field("should"),
                field("must")
            ),
            Some(other) => other.to_owned(),
            None => "?".to_owned(),
        }
    })
    .collect()
}

fn fill(journal: &mut Journal<MemoryStore>, kind: EventKind) -> Result<(), JournalError> {
    for n in 0..100_000 {
        if journal.append(event(kind, n), at(0))? == Appended::LeftOut {
            return Ok(());
        }
    }
    panic!("endless");
}

#[test]
fn each_class_leaves_room_for_the_more_important_ones() {
    let mut journal = fresh();
    fill(&mut journal, EventKind::EnrolmentBegun).unwrap();
    let after_may = journal.bytes();
    // The loss record itself comes on top.
    assert!(after_may <= MIN_JOURNAL_BYTES / 2 + 1024);
    assert_eq!(losses(&mut journal), ["begun"]);
    fill(&mut journal, EventKind::FlowDenied).unwrap();
    let after_should = journal.bytes();
    assert!(
        after_should > after_may
            && after_should
                <= MIN_JOURNAL_BYTES - MUST_RESERVE_BYTES - TAKE_AWAY_RESERVE_BYTES + 1024
    );
    let refused = fill(&mut journal, EventKind::BindOpened);
    assert!(matches!(refused, Err(JournalError::Full)));
    let after_must = journal.bytes();
    assert!(after_must > after_should && after_must <= MIN_JOURNAL_BYTES - TAKE_AWAY_RESERVE_BYTES);
    // What takes away still has its part, however often something is refused meanwhile.
    for n in 0..500 {
        assert!(matches!(
            journal.append(event(EventKind::BindOpened, n), at(0)),
            Err(JournalError::Full)
        ));
        assert!(matches!(
            journal.append(event(EventKind::CutEffected, n), at(0)),
            Ok(Appended::Recorded(_))
        ));
    }
    let refused = fill(&mut journal, EventKind::CutEffected);
    assert!(matches!(refused, Err(JournalError::Full)));
    assert!(journal.bytes() <= MIN_JOURNAL_BYTES);
}

#[test]
fn a_loss_ends_on_record_with_its_counts_when_there_is_room_again() {
    let mut journal = fresh();
    fill(&mut journal, EventKind::FlowDenied).unwrap();
    let cut = journal
        .append(event(EventKind::CutEffected, 0), at(0))
        .unwrap();
    for _ in 0..2 {
        journal
            .append(event(EventKind::FlowDenied, 0), at(0))
            .unwrap();
    }
    journal
        .append(event(EventKind::EnrolmentBegun, 0), at(0))
        .unwrap();
    let lost = journal.left_out();
    assert!(lost >= 4, "{lost}");
    let Appended::Recorded(position) = cut else {
        panic!("not recorded")
    };
    journal.acknowledge(position.boot, position.seq).unwrap();
    journal
        .append(event(EventKind::FlowAllowed, 1), at(0))
        .unwrap();
    assert_eq!(journal.left_out(), 0);
    let (mut journal, _) = open(journal.into_store(), 1);
    let kinds = kinds(&mut journal);
    assert_eq!(
        kinds[kinds.len() - 2..],
        [EventKind::JournalLost, EventKind::FlowAllowed]
    );
    let last = losses(&mut journal).pop().unwrap();
    assert_eq!(last, format!("ended 1 {} 0", lost - 1));
}

#[test]
fn a_loss_of_one_class_is_not_ended_and_begun_again_by_events_of_another() {
    let mut journal = fresh();
    fill(&mut journal, EventKind::EnrolmentBegun).unwrap();
    for n in 0..100 {
        journal
            .append(event(EventKind::FlowDenied, n), at(0))
            .unwrap();
        journal
            .append(event(EventKind::EnrolmentBegun, n), at(0))
            .unwrap();
    }
    assert_eq!(losses(&mut journal), ["begun"]);
    assert_eq!(journal.left_out(), 101);
}

#[test]
fn a_loss_that_goes_on_says_how_much_so_far_and_a_crash_forgets_less_than_half() {
    let mut journal = fresh();
    fill(&mut journal, EventKind::FlowDenied).unwrap();
    let lost = 5_000;
    for n in 1..lost {
        let kind = match n % 10 {
            0 => EventKind::AppDenied,
            _ => EventKind::FlowDenied,
        };
        let mut event = event(kind, n);
        event.time = TIME.plus(Duration::from_secs(n as u64));
        assert_eq!(journal.append(event, at(0)).unwrap(), Appended::LeftOut);
    }
    assert_eq!(journal.left_out(), lost as u64);
    let mut store = journal.into_store();
    store.power_cut(0);
    let (mut journal, _) = open(store, 2);
    let told: Vec<SealedRecord> = all(&mut journal)
        .into_iter()
        .filter(|record| record.event().kind == EventKind::JournalLost)
        .collect();
    assert!(told.len() < 12, "{}", told.len());
    let event = told.last().unwrap().event();
    let detail = |name| event.detail.get(name).unwrap();
    assert_eq!(detail("state"), "continues");
    let should: u64 = detail("should").parse().unwrap();
    assert!(should > lost as u64 / 2, "{should}");
    assert_eq!((detail("may"), detail("must")), ("0", "0"));
    let apps = should / 10;
    let shown = format!("flow={} app={apps}", should - apps);
    assert_eq!(detail("families"), shown);
    assert_eq!(detail("first_time"), "2026-11-18T11:06:40Z");
}

#[test]
fn on_a_full_disk_nothing_is_granted_and_what_takes_away_is_recorded() {
    let mut journal = fresh();
    journal
        .append(event(EventKind::AgentStarted, 0), at(0))
        .unwrap();
    let used = journal.store.used();
    journal.store.set_capacity(Some(used + 100));
    assert!(matches!(
        journal.append(event(EventKind::BindOpened, 1), at(0)),
        Err(JournalError::Full)
    ));
    assert_eq!(
        journal
            .append(event(EventKind::FlowDenied, 2), at(0))
            .unwrap(),
        Appended::LeftOut
    );
    // The reserve is given up now, and is for nobody else.
    assert!(matches!(
        journal.append(event(EventKind::BindOpened, 3), at(0)),
        Err(JournalError::Full)
    ));
    for n in 0..400 {
        let cut = journal
            .append(event(EventKind::CutEffected, n), at(0))
            .unwrap();
        assert!(matches!(cut, Appended::Recorded(_)));
    }
    // Opening on the full disk works too, and still grants nothing.
    let (mut journal, _) = open(journal.into_store(), 2);
    assert!(matches!(
        journal.append(event(EventKind::BindOpened, 4), at(0)),
        Err(JournalError::Full)
    ));
    journal.store.set_capacity(None);
    journal
        .append(event(EventKind::BindOpened, 5), at(60_000))
        .unwrap();
    assert!(journal.reserved);
    let found = kinds(&mut journal);
    assert_eq!(
        found
            .iter()
            .filter(|kind| **kind == EventKind::CutEffected)
            .count(),
        400
    );
    assert_eq!(
        found
            .iter()
            .filter(|kind| **kind == EventKind::BindOpened)
            .count(),
        1
    );
    assert!(found.contains(&EventKind::JournalLost));
}

#[test]
fn a_full_disk_while_a_segment_is_begun_costs_nothing_that_was_there() {
    for free in 0..200 {
        let mut journal = fresh();
        while journal.active().unwrap().bytes + 400 < MIN_SEGMENT_BYTES {
            journal
                .append(event(EventKind::FlowDenied, 0), at(0))
                .unwrap();
        }
        let before = all(&mut journal);
        let used = journal.store.used();
        journal.store.set_capacity(Some(used + free));
        let long = event(EventKind::BindOpened, 1).detail("long", "x".repeat(400));
        assert!(matches!(
            journal.append(long, at(0)),
            Err(JournalError::Full)
        ));
        // Nothing was lost, and an acknowledgement of it all keeps the end.
        let next = before.last().unwrap().record().seq + 1;
        journal.acknowledge(boot(1).id, next).unwrap();
        let (mut journal, opened) = open(journal.into_store(), 1);
        assert_eq!((opened.continued, opened.cut), (true, None));
        let after = all(&mut journal);
        // Whatever is left of it is followed by what was written into the reserve.
        let mut chain = Chain::starting_at(&before[0]);
        before[1..]
            .iter()
            .for_each(|record| chain.advance(record).unwrap());
        let new = after.iter().filter(|record| record.record().seq >= next);
        new.for_each(|record| chain.advance(record).unwrap());
        assert_eq!(chain.head(), journal.chain().head());
        assert!(journal.chain().next_seq().unwrap() >= next);
    }
}

#[test]
fn events_that_were_left_out_are_not_forgotten_by_a_crash() {
    let mut journal = fresh();
    fill(&mut journal, EventKind::FlowDenied).unwrap();
    let mut store = journal.into_store();
    store.power_cut(0);
    let (mut journal, _) = open(store, 2);
    assert_eq!(losses(&mut journal), ["begun"]);
}
