use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::event::{Actor, EventKind};

const NODE: &str = "spiffe://plant.example/node/gw-3";

fn exported<'a>(node: &'a SpiffeId, event: &'a Event) -> Exported<'a> {
    Exported {
        index: 42,
        node,
        boot: BootId::from_bytes([7; 16]),
        seq: 5,
        hash: Digest::of(&[b"record"]),
        received: Timestamp::from_millis(1_763_800_000_500),
        claimed: false,
        event,
    }
}

fn event(kind: EventKind) -> Event {
    let operator: SpiffeId = "spiffe://plant.example/operator/anna".parse().unwrap();
    Event::new(Timestamp::from_millis(1_763_800_000_123), operator, kind)
        .subject("gw-3")
        .allowed()
        .rule("scada-reads")
        .detail("why", "routine")
}

/// Every form of one event.
fn forms(exported: &Exported<'_>) -> Vec<Vec<u8>> {
    let (json, cef, ocsf) = (
        json::line(exported),
        cef::line(exported),
        ocsf::line(exported),
    );
    let mut forms = vec![otlp::request(
        &[*exported],
        "spiffe://plant.example/cloud/a",
    )];
    for text in [&json, &cef, &ocsf, &exported.sentence()] {
        forms.push(syslog::message(exported, syslog::DEFAULT_FACILITY, text).into_bytes());
    }
    forms.extend([json, cef, ocsf].map(String::into_bytes));
    forms
}

/// Reads a message of RFC 5424 by its grammar: header fields, then elements, then the text.
fn parse_syslog(message: &str) -> (Vec<&str>, BTreeMap<String, BTreeMap<String, String>>, &str) {
    let mut fields = Vec::new();
    let mut rest = message;
    for _ in 0..6 {
        let (field, after) = rest.split_once(' ').expect("six fields");
        assert!(!field.is_empty() && field.bytes().all(|b| b.is_ascii_graphic()));
        fields.push(field);
        rest = after;
    }
    let mut elements = BTreeMap::new();
    if let Some(after) = rest.strip_prefix('-') {
        return (fields, elements, after.strip_prefix(' ').unwrap_or(after));
    }
    while let Some(after) = rest.strip_prefix('[') {
        let end = after.find([' ', ']']).unwrap();
        let (name, mut after) = after.split_at(end);
        let params: &mut BTreeMap<String, String> = elements.entry(name.to_owned()).or_default();
        while let Some(param) = after.strip_prefix(' ') {
            let (key, value) = param.split_once("=\"").unwrap();
            assert!(
                key.len() <= 32
                    && key
                        .bytes()
                        .all(|b| b.is_ascii_graphic() && !b"=]\"".contains(&b))
            );
            let mut text = String::new();
            let mut characters = value.char_indices();
            let end = loop {
                match characters.next().expect("the value ends") {
                    (_, '\\') => text.push(characters.next().unwrap().1),
                    (at, '"') => break at,
                    (_, ']') => panic!("a bracket that is not escaped: {value}"),
                    (_, other) => text.push(other),
                }
            };
            params.insert(key.to_owned(), text);
            after = value.get(end + 1..).unwrap();
        }
        rest = after.strip_prefix(']').expect("the element ends");
    }
    (fields, elements, rest.strip_prefix(' ').unwrap_or(rest))
}

/// Reads a line of CEF: seven header fields, then keys and values.
fn parse_cef(line: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let mut header = vec![String::new()];
    let mut characters = line.chars();
    while header.len() < 8 {
        match characters.next().expect("eight bars") {
            '\\' => header.last_mut().unwrap().push(characters.next().unwrap()),
            '|' => header.push(String::new()),
            other => header.last_mut().unwrap().push(other),
        }
    }
    header.pop();
    // A key begins after a blank and ends at an equals sign that is not escaped.
    let rest: Vec<char> = characters.collect();
    let mut fields = BTreeMap::new();
    let (mut word, mut key, mut value) = (String::new(), String::new(), String::new());
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            '\\' => {
                at += 1;
                word.push(if rest[at] == 'n' { '\n' } else { rest[at] });
            }
            '=' => {
                if !key.is_empty() {
                    fields.insert(key.clone(), value.trim_end().to_owned());
                }
                key = std::mem::take(&mut word);
                value.clear();
            }
            ' ' => {
                value.push_str(&std::mem::take(&mut word));
                value.push(' ');
            }
            other => word.push(other),
        }
        at += 1;
    }
    value.push_str(&word);
    fields.insert(key, value);
    (header, fields)
}

#[test]
fn hostile_text_neither_ends_a_line_nor_makes_a_field() {
    let node: SpiffeId = NODE.parse().unwrap();
    let hostile = "x\"]|y=1 act=allow \\ cs1=z|10|\n<13>1 - - - - - -";
    let event = Event::new(
        Timestamp::from_secs(1),
        Actor::api_key("k] \"a\"=|"),
        EventKind::ApiRefused,
    )
    .subject(hostile)
    .denied(hostile)
    .rule(hostile)
    .detail("a=b]\"@ c", hostile);
    let exported = exported(&node, &event);
    for form in forms(&exported).iter().skip(1) {
        assert!(!form.contains(&b'\n') && !form.contains(&b'\r'));
    }
    let kept = event.subject.as_ref().unwrap().to_string();
    let text = exported.sentence();
    let message = syslog::message(&exported, 13, &text);
    let (fields, elements, said) = parse_syslog(&message);
    assert_eq!(fields.len(), 6);
    assert_eq!(elements.len(), 2);
    assert_eq!(elements["edgeward@32473"]["subject"], kept);
    assert_eq!(elements["edgeward@32473"]["verdict"], "deny");
    assert_eq!(elements["detail@32473"]["a_b____c"], kept);
    assert_eq!(said, text);

    let (header, fields) = parse_cef(&cef::line(&exported));
    assert_eq!(header[4], "api.refused");
    assert_eq!(header[6], "6");
    assert_eq!(fields["act"], "deny");
    assert_eq!(fields["duser"], kept);
    assert_eq!(fields["suser"], "apikey:k] \"a\"=|");
    assert_eq!(fields["cs1"], kept);
    assert_eq!(fields["cs1Label"], "rule");

    let object: Value = serde_json::from_str(&json::line(&exported)).unwrap();
    assert_eq!(object["subject"], kept);
    let object: Value = serde_json::from_str(&ocsf::line(&exported)).unwrap();
    assert_eq!(object["entity"]["name"], Value::Null);
    assert_eq!(object["status"], "Failure");
}

#[test]
fn a_time_that_no_calendar_holds_breaks_no_form() {
    let node: SpiffeId = NODE.parse().unwrap();
    let event = Event::new(
        Timestamp::from_millis(u64::MAX),
        Actor::Cloud,
        EventKind::CloudStarted,
    );
    let exported = exported(&node, &event);
    let message = syslog::message(&exported, 13, "x");
    assert_eq!(parse_syslog(&message).0[1], "-");
    let object: Value = serde_json::from_str(&json::line(&exported)).unwrap();
    assert_eq!(object.get("time"), None);
    assert_eq!(object["time_ms"], u64::MAX);
    assert!(!otlp::request(&[exported], "a").is_empty());
}

#[test]
fn the_largest_event_fits_every_form() {
    let quotes = "\"".repeat(5000);
    let long: SpiffeId = format!("spiffe://plant.example/workload/{}", "a".repeat(2016))
        .parse()
        .unwrap();
    let mut event = Event::new(
        Timestamp::from_millis(u64::MAX),
        long.clone(),
        EventKind::EnrolmentAcknowledged,
    )
    .subject(long.clone())
    .rule(&quotes)
    .denied(&quotes);
    for n in 10..40 {
        event = event.detail(&format!("{n}{quotes}"), &quotes);
    }
    for form in forms(&exported(&long, &event)) {
        assert!(form.len() <= MAX_FORMATTED_BYTES, "{}", form.len());
    }
}

#[test]
fn a_message_of_syslog_has_the_parts_of_its_standard() {
    let node: SpiffeId = NODE.parse().unwrap();
    let event = event(EventKind::NodeQuarantined);
    let exported = exported(&node, &event);
    let message = syslog::message(&exported, 13, "hello");
    let (fields, elements, text) = parse_syslog(&message);
    assert_eq!(
        fields,
        [
            "<108>1",
            "2025-11-22T08:26:40.123Z",
            "gw-3.plant.example",
            "edgeward",
            "07070707070707070707070707070707",
            "node.quarantined"
        ]
    );
    assert_eq!(elements["edgeward@32473"]["index"], "42");
    assert_eq!(elements["detail@32473"]["why"], "routine");
    assert_eq!(text, "hello");
    assert_eq!(syslog::frame("abc"), b"3 abc");
    // Octets, not characters.
    assert_eq!(syslog::frame("é"), "2 é".as_bytes());
}

#[test]
fn every_kind_of_event_has_its_place_in_every_form() {
    let node: SpiffeId = NODE.parse().unwrap();
    let mut classes = std::collections::BTreeSet::new();
    for kind in EventKind::ALL {
        let event = event(*kind);
        let exported = exported(&node, &event);
        let message = syslog::message(&exported, 13, "x");
        assert_eq!(parse_syslog(&message).0[5], kind.name(), "cut");
        let object: Value = serde_json::from_str(&ocsf::line(&exported)).unwrap();
        let class = object["class_uid"].as_u64().unwrap();
        assert_eq!(
            object["type_uid"],
            class * 100 + object["activity_id"].as_u64().unwrap()
        );
        assert_eq!(object["category_uid"], class / 1000);
        classes.insert(class);
        let (header, fields) = parse_cef(&cef::line(&exported));
        assert_eq!(header[..3], ["CEF:0", "Edgeward", "Edgeward"]);
        assert_eq!(header[5], kind.meaning());
        assert_eq!(fields["externalId"], "42");
        assert_eq!(fields["cs4"], "{\"why\":\"routine\"}");
    }
    assert_eq!(classes.len(), 8, "a class of the table that nothing is in");
}

#[test]
fn what_takes_away_is_louder_than_what_grants_and_a_broken_glass_is_loudest() {
    let of = |kind| Severity::of(&Event::new(Timestamp::from_secs(1), Actor::Cloud, kind));
    assert_eq!(of(EventKind::GlassOpened), Severity::Critical);
    assert_eq!(of(EventKind::AttestationFailed), Severity::Error);
    assert_eq!(of(EventKind::TokenRevoked), Severity::Notice);
    assert_eq!(of(EventKind::TokenCreated), Severity::Info);
    let denied = Event::new(
        Timestamp::from_secs(1),
        Actor::Cloud,
        EventKind::TokenCreated,
    )
    .denied("x");
    assert_eq!(Severity::of(&denied), Severity::Warning);
    for (lower, higher) in Severity::ALL.iter().zip(Severity::ALL.iter().skip(1)) {
        assert!(lower.syslog() > higher.syslog() && lower.cef() < higher.cef());
        assert!(lower.ocsf().0 < higher.ocsf().0 && lower.otlp() < higher.otlp());
    }
}

#[test]
fn an_answer_of_otlp_says_what_was_rejected_and_hostile_ones_are_refused() {
    assert_eq!(otlp::answer(b"").unwrap().rejected, 0);
    let rejected = otlp::answer(b"\x0a\x07\x08\x03\x12\x03b\x1bd").unwrap();
    assert_eq!(rejected.rejected, 3);
    assert_eq!(rejected.reason, "b\u{fffd}d");
    // A number below zero, a message that ends early, one that is too long.
    assert!(otlp::answer(b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_err());
    assert!(otlp::answer(b"\x0a\x07\x08\x03").is_err());
    assert!(otlp::answer(&vec![0; otlp::MAX_ANSWER_BYTES + 1]).is_err());
}

#[test]
fn what_a_node_had_no_business_recording_is_marked_and_never_loud() {
    let node: SpiffeId = NODE.parse().unwrap();
    let event = event(EventKind::NodeCloned);
    let mut exported = exported(&node, &event);
    assert_eq!(exported.severity(), Severity::Critical);
    exported.claimed = true;
    assert_eq!(exported.severity(), Severity::Notice);
    let message = syslog::message(&exported, 13, "x");
    assert_eq!(
        parse_syslog(&message).1["edgeward@32473"]["claimed"],
        "true"
    );
    let object: Value = serde_json::from_str(&json::line(&exported)).unwrap();
    assert_eq!(object["claimed"], true);
    let object: Value = serde_json::from_str(&ocsf::line(&exported)).unwrap();
    assert_eq!(object["unmapped"]["claimed"], true);
    assert_eq!(parse_cef(&cef::line(&exported)).1["cs5"], "true");
}

proptest! {
    #[test]
    fn whatever_an_event_says_comes_out_of_cef_and_syslog_as_it_went_in(text in "[ -~é€\\\\=|\"\\]]{1,80}") {
        prop_assume!(!text.starts_with("spiffe:") && text.trim() == text);
        let node: SpiffeId = NODE.parse().unwrap();
        let event = Event::new(Timestamp::from_secs(1), Actor::Cloud, EventKind::ApiRefused)
            .subject(text.as_str())
            .denied("x");
        let exported = exported(&node, &event);
        let kept = event.subject.as_ref().unwrap().to_string();
        let message = syslog::message(&exported, 13, "t");
        prop_assert_eq!(&parse_syslog(&message).1["edgeward@32473"]["subject"], &kept);
        let (_, fields) = parse_cef(&cef::line(&exported));
        prop_assert_eq!(&fields["duser"], &kept);
        prop_assert_eq!(&fields["act"], "deny");
    }
}
