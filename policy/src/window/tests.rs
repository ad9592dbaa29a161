use super::*;

#[test]
fn a_window_that_makes_no_sense_cannot_be_evaluated() {
    for (tz, days, from, to) in [
        ("Mars/Olympus", Day::ALL.to_vec(), 0, 60),
        ("", Day::ALL.to_vec(), 0, 60),
        ("UTC", Vec::new(), 0, 60),
        ("UTC", Day::ALL.to_vec(), 60, 60),
        ("UTC", Day::ALL.to_vec(), 1440, 60),
        ("UTC", Day::ALL.to_vec(), 0, 1441),
    ] {
        let schedule = schedule(tz, days, from, to);
        assert_eq!(schedule.is_open(at("2026-11-21T00:30:00Z")), None, "{tz}");
        assert_eq!(schedule.next_edge(at("2026-11-21T00:30:00Z")), None, "{tz}");
    }
}

#[test]
fn a_time_beyond_the_calendar_cannot_be_evaluated() {
    let schedule = schedule("UTC", Day::ALL.to_vec(), 0, 60);
    assert_eq!(schedule.is_open(Timestamp::from_millis(u64::MAX)), None);
}

#[test]
fn it_opens_at_its_first_minute_and_is_closed_at_its_last() {
    // 2026-11-21 is a Saturday; Shanghai is 8 hours ahead.
    let schedule = schedule("Asia/Shanghai", vec![Day::Sat], 120, 300);
    for (time, open) in [
        ("2026-11-20T17:59:59.999Z", false),
        ("2026-11-20T18:00:00Z", true),
        ("2026-11-20T20:59:59.999Z", true),
        ("2026-11-20T21:00:00Z", false),
        ("2026-11-21T18:00:00Z", false),
    ] {
        assert_eq!(schedule.is_open(at(time)), Some(open), "{time}");
    }
    assert_edges(
        &schedule,
        "2026-11-20T12:00:00Z",
        &[
            "2026-11-20T18:00:00Z",
            "2026-11-20T21:00:00Z",
            "2026-11-27T18:00:00Z",
        ],
    );
}

#[test]
fn one_that_crosses_midnight_belongs_to_the_day_it_starts_on() {
    let schedule = schedule("UTC", vec![Day::Fri], 22 * 60, 120);
    for (time, open) in [
        ("2026-11-20T01:00:00Z", false), // Friday, but Thursday's night
        ("2026-11-20T22:00:00Z", true),
        ("2026-11-21T01:59:00Z", true), // Saturday, still Friday's night
        ("2026-11-21T02:00:00Z", false),
        ("2026-11-21T23:00:00Z", false),
    ] {
        assert_eq!(schedule.is_open(at(time)), Some(open), "{time}");
    }
    assert_edges(
        &schedule,
        "2026-11-21T00:00:00Z",
        &["2026-11-21T02:00:00Z", "2026-11-27T22:00:00Z"],
    );
}

#[test]
fn whole_days_run_from_midnight_to_midnight() {
    let weekend = schedule("UTC", vec![Day::Sat, Day::Sun], 0, MINUTES_PER_DAY);
    assert_edges(
        &weekend,
        "2026-11-20T12:00:00Z",
        &["2026-11-21T00:00:00Z", "2026-11-23T00:00:00Z"],
    );
    let always = schedule("UTC", Day::ALL.to_vec(), 0, MINUTES_PER_DAY);
    assert_eq!(always.is_open(at("2026-11-21T23:59:59Z")), Some(true));
    assert_eq!(always.next_edge(at("2026-11-21T23:59:59Z")), None);
}

#[test]
fn the_hour_that_daylight_saving_skips_is_not_there() {
    // Berlin, 2026-03-29: 01:59:59 CET is followed by 03:00:00 CEST.
    let skipped = schedule("Europe/Berlin", vec![Day::Sun], 120, 180);
    for time in [
        "2026-03-29T00:59:59Z",
        "2026-03-29T01:00:00Z",
        "2026-03-29T01:30:00Z",
    ] {
        assert_eq!(skipped.is_open(at(time)), Some(false), "{time}");
    }
    assert_edges(&skipped, "2026-03-28T12:00:00Z", &["2026-04-05T00:00:00Z"]);
    let around = schedule("Europe/Berlin", vec![Day::Sun], 90, 210);
    assert_edges(
        &around,
        "2026-03-28T12:00:00Z",
        &["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"],
    );
    let from_inside = schedule("Europe/Berlin", vec![Day::Sun], 150, 210);
    assert_edges(
        &from_inside,
        "2026-03-28T12:00:00Z",
        &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"],
    );
}

#[test]
fn the_hour_that_daylight_saving_repeats_is_open_both_times() {
    // Berlin, 2026-10-25: 02:59:59 CEST is followed by 02:00:00 CET.
    let inside = schedule("Europe/Berlin", vec![Day::Sun], 120, 150);
    assert_edges(
        &inside,
        "2026-10-24T12:00:00Z",
        &[
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
        ],
    );
    let around = schedule("Europe/Berlin", vec![Day::Sun], 60, 240);
    assert_edges(
        &around,
        "2026-10-24T12:00:00Z",
        &["2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z"],
    );
}

#[test]
fn between_two_edges_nothing_changes() {
    let zones = [
        "Europe/Berlin",
        "America/Sao_Paulo",
        "Asia/Shanghai",
        "Australia/Lord_Howe",
        "Pacific/Apia",
    ];
    for (index, zone) in zones.into_iter().enumerate() {
        let days = vec![Day::ALL[index], Day::ALL[index + 2]];
        let schedule = schedule(zone, days, 100, if index % 2 == 0 { 50 } else { 700 });
        let mut time = at("2026-03-20T00:00:00Z");
        let end = at("2026-04-20T00:00:00Z");
        while time < end {
            let edge = schedule.next_edge(time).unwrap();
            let open = schedule.is_open(time);
            assert_ne!(open, schedule.is_open(edge), "{zone}: {edge}");
            let step = (edge.millis() - time.millis()) / 97 + 1;
            for probe in (time.millis()..edge.millis()).step_by(usize::try_from(step).unwrap()) {
                assert_eq!(
                    schedule.is_open(Timestamp::from_millis(probe)),
                    open,
                    "{zone}: {probe}"
                );
            }
            time = edge;
        }
    }
}

fn schedule(tz: &str, days: Vec<Day>, from: u16, to: u16) -> Schedule {
    Schedule::new(&Window {
        name: "w".into(),
        tz: tz.into(),
        days,
        from,
        to,
    })
}

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_millis(u64::try_from(time.as_millisecond()).unwrap())
}

fn assert_edges(schedule: &Schedule, from: &str, edges: &[&str]) {
    let mut time = at(from);
    for edge in edges {
        let next = schedule.next_edge(time).unwrap();
        assert_eq!(next, at(edge), "expected {edge} after {time}");
        time = next;
    }
}
