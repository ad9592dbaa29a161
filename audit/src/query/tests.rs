use edgeward_identity::Secret;

use super::*;
use crate::event::{Event, MAX_RULE_BYTES};
use crate::record::{BootId, Chain, Head, Salt};
use crate::vectors::mutations;

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

fn key() -> CursorKey {
    CursorKey::new(&Secret::new([7; 32]))
}

fn parse(pairs: &[(&str, &str)]) -> Result<Query, QueryError> {
    Query::parse(pairs.iter().copied(), &domain(), &key())
}

#[test]
fn every_bad_parameter_is_refused_with_its_own_code() {
    let long = "a".repeat(MAX_VALUE_BYTES + 1);
    let long_rule = "a".repeat(MAX_RULE_BYTES + 1);
    let cases: [(&[(&str, &str)], &str); 37] = [
        (
            &[("form", "2026-01-01T00:00:00Z")],
            "query_unknown_parameter",
        ),
        (&[("", "x")], "query_unknown_parameter"),
        (&[("node", "a"), ("node", "b")], "query_repeated_parameter"),
        (&[("node", "")], "query_empty_parameter"),
        (&[("actor", &long)], "query_too_long"),
        (&[("from", "yesterday")], "query_time"),
        (&[("from", "2026-01-01T00:00:00")], "query_time"),
        (&[("to", "2026-13-01T00:00:00Z")], "query_time"),
        (&[("to", "1969-12-31T23:59:59Z")], "query_time"),
        (
            &[
                ("from", "2026-01-02T00:00:00Z"),
                ("to", "2026-01-01T00:00:00Z"),
            ],
            "query_time_order",
        ),
        (
            &[
                ("from", "2026-01-01T00:00:00Z"),
                ("to", "2026-01-01T00:00:00Z"),
            ],
            "query_time_order",
        ),
        (&[("node", "a/b")], "query_node"),
        (&[("node", "a b")], "query_node"),
        (
            &[("node", "spiffe://plant.example/operator/ada")],
            "query_node",
        ),
        (&[("actor", "root")], "query_actor"),
        (&[("actor", "anonymous:x")], "query_actor"),
        (&[("type", "node")], "query_type"),
        (&[("type", "*")], "query_type"),
        (&[("type", "nodes.*")], "query_type"),
        (&[("type", "node.eaten")], "query_type"),
        (&[("verdict", "Allow")], "query_verdict"),
        (&[("rule", "a\u{7}")], "query_rule"),
        (&[("rule", &long_rule)], "query_rule"),
        (&[("serial", "0A")], "query_serial"),
        (&[("serial", "%")], "query_serial"),
        (
            &[("serial", "00000000000000000000000000000000000000000")],
            "query_serial",
        ),
        (&[("limit", "0")], "query_limit"),
        (&[("limit", "1001")], "query_limit"),
        (&[("limit", "-1")], "query_limit"),
        (&[("limit", "99999999999999999999")], "query_limit"),
        (&[("max_bytes", "1023")], "query_max_bytes"),
        (&[("max_bytes", "1048577")], "query_max_bytes"),
        (&[("follow", "yes")], "query_follow"),
        (&[("records", "1")], "query_flag"),
        // What counting takes is no parameter of a page.
        (&[("by", "type")], "query_unknown_parameter"),
        (&[("cursor", "AAAA")], "query_cursor"),
        (&[("cursor", "not base64!")], "query_cursor"),
    ];
    for (pairs, code) in cases {
        assert_eq!(parse(pairs).unwrap_err().code(), code, "{pairs:?}");
    }
}

#[test]
fn a_cursor_is_refused_for_another_filter_another_key_or_after_any_change() {
    let query = parse(&[("node", "gw-3"), ("verdict", "deny")]).unwrap();
    let cursor = query.cursor_after(4711, &key());
    let again = |pairs: &[(&'static str, &'static str)], cursor: &str| {
        let pairs: Vec<(&str, &str)> = pairs.iter().copied().chain([("cursor", cursor)]).collect();
        Query::parse(pairs, &domain(), &key())
    };
    let same = [
        ("verdict", "deny"),
        ("node", "spiffe://plant.example/node/gw-3"),
        ("limit", "5"),
    ];
    assert_eq!(again(&same, &cursor).unwrap().after, Some(4711));
    let other = again(&[("node", "gw-4"), ("verdict", "deny")], &cursor);
    assert_eq!(other, Err(QueryError::Cursor(CursorError::OtherFilter)));
    let foreign = query.cursor_after(4711, &CursorKey::new(&Secret::new([8; 32])));
    assert_eq!(
        again(&same, &foreign),
        Err(QueryError::Cursor(CursorError::Malformed))
    );
    mutations(cursor.as_bytes(), |bytes| {
        if let Ok(changed) = str::from_utf8(bytes) {
            assert!(again(&same, changed).is_err(), "{changed}");
        }
    });
}

#[test]
fn filters_that_differ_have_cursors_that_differ() {
    let filters: [&[(&str, &str)]; 10] = [
        &[],
        &[("from", "2026-01-01T00:00:00Z")],
        &[("to", "2026-01-01T00:00:00Z")],
        &[("actor", "anonymous")],
        &[("actor", "cloud")],
        &[("type", "node.*")],
        &[("type", "node.quarantined")],
        &[("rule", "2:ab")],
        &[("rule", "ab")],
        &[("serial", "ab")],
    ];
    let cursors: std::collections::BTreeSet<String> = filters
        .iter()
        .map(|pairs| parse(pairs).unwrap().cursor_after(1, &key()))
        .collect();
    assert_eq!(cursors.len(), filters.len());
}

#[test]
fn an_empty_query_asks_for_everything_within_the_default_limit() {
    let query = parse(&[]).unwrap();
    assert_eq!(
        query,
        Query {
            filter: Filter::default(),
            limit: DEFAULT_LIMIT,
            max_bytes: MAX_PAGE_BYTES,
            records: false,
            after: None,
            follow: false
        }
    );
}

#[test]
fn each_parameter_keeps_what_it_names_and_drops_the_rest() {
    let node: SpiffeId = "spiffe://plant.example/node/gw-3".parse().unwrap();
    let cloud: SpiffeId = "spiffe://plant.example/cloud/main".parse().unwrap();
    let ada: SpiffeId = "spiffe://plant.example/operator/ada".parse().unwrap();
    let time = Timestamp::from_secs(1_767_225_600); // 2026-01-01T00:00:00Z
    let record = |keeper: &SpiffeId, event: Event| {
        let head = Head {
            seq: 4,
            hash: Digest::ZERO,
        };
        let chain = Chain::resume(keeper.clone(), BootId::from_bytes([1; 16]), head);
        chain
            .seal(event, Salt::from_bytes([7; 16]))
            .unwrap()
            .record()
            .clone()
    };
    let quarantined = record(
        &cloud,
        Event::new(time, ada, EventKind::NodeQuarantined)
            .subject(node.clone())
            .allowed(),
    );
    let denied = record(
        &node,
        Event::new(time, node.clone(), EventKind::FlowDenied)
            .rule("r1")
            .denied("no_rule"),
    );
    let stranger: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let refused = record(
        &cloud,
        Event::new(time, stranger, EventKind::TokenRefused).denied("token_unknown"),
    );
    let all = [&quarantined, &denied, &refused];
    type Pairs = &'static [(&'static str, &'static str)];
    let cases: [(Pairs, [bool; 3]); 14] = [
        (&[], [true, true, true]),
        (&[("node", "gw-3")], [true, true, false]),
        (
            &[("node", "spiffe://plant.example/cloud/main")],
            [true, false, true],
        ),
        (
            &[("actor", "spiffe://plant.example/operator/ada")],
            [true, false, false],
        ),
        (&[("actor", "anonymous")], [false, false, true]),
        (&[("actor", "anonymous:192.0.2.2")], [false, false, false]),
        (&[("type", "node.*")], [true, false, false]),
        (&[("type", "flow.denied")], [false, true, false]),
        (&[("verdict", "deny")], [false, true, true]),
        (&[("rule", "r1")], [false, true, false]),
        (&[("from", "2026-01-01T00:00:00Z")], [true, true, true]),
        (
            &[("from", "2026-01-01T01:00:00.001+01:00")],
            [false, false, false],
        ),
        (&[("to", "2026-01-01T00:00:00Z")], [false, false, false]),
        (
            &[("verdict", "deny"), ("node", "gw-3")],
            [false, true, false],
        ),
    ];
    for (pairs, expected) in cases {
        let filter = parse(pairs).unwrap().filter;
        assert_eq!(
            all.map(|record| filter.matches(record)),
            expected,
            "{pairs:?}"
        );
    }
}

#[test]
fn a_family_lists_its_kinds() {
    let kinds: Vec<&str> = KindFilter::Family("cut")
        .kinds()
        .map(EventKind::name)
        .collect();
    assert_eq!(kinds, ["cut.ordered", "cut.effected"]);
}

#[test]
fn a_serial_number_finds_the_event_that_issued_it_and_no_other() {
    let cloud: SpiffeId = "spiffe://plant.example/cloud/main".parse().unwrap();
    let record = |event: Event| {
        let head = Head {
            seq: 4,
            hash: Digest::ZERO,
        };
        let chain = Chain::resume(cloud.clone(), BootId::from_bytes([1; 16]), head);
        chain
            .seal(event, Salt::from_bytes([7; 16]))
            .unwrap()
            .record()
            .clone()
    };
    let event = |kind, key: &str| {
        record(Event::new(Timestamp::from_secs(1), Actor::Cloud, kind).detail(key, "4f01"))
    };
    let wanted = parse(&[("serial", "4f01")]).unwrap().filter;
    for kind in ISSUING_KINDS {
        assert!(wanted.matches(&event(*kind, SERIAL)));
    }
    assert!(!wanted.matches(&event(EventKind::SvidIssued, "key")));
    assert!(!wanted.matches(&event(EventKind::FlowAllowed, SERIAL)));
    let other = parse(&[("serial", "4f0")]).unwrap().filter;
    assert!(!other.matches(&event(EventKind::SvidIssued, SERIAL)));
}

fn stats(pairs: &[(&str, &str)]) -> Result<StatsQuery, QueryError> {
    StatsQuery::parse(pairs.iter().copied(), &domain())
}

#[test]
fn every_bad_question_for_counts_is_refused_with_its_own_code() {
    let day = [
        ("from", "2026-01-01T00:00:00Z"),
        ("to", "2026-01-02T00:00:00Z"),
    ];
    let cases: [(&[(&str, &str)], &str); 15] = [
        (&[("limit", "3")], "query_unknown_parameter"),
        (&[("cursor", "AAAA")], "query_unknown_parameter"),
        (&[("by", "detail")], "query_field"),
        (&[("by", "")], "query_empty_parameter"),
        (&[("top", "0")], "query_top"),
        (&[("top", "51")], "query_top"),
        (&[day[0], day[1], ("bucket", "0s")], "query_bucket"),
        (&[day[0], day[1], ("bucket", "1w")], "query_bucket"),
        (&[day[0], day[1], ("bucket", "-1h")], "query_bucket"),
        (&[day[0], day[1], ("bucket", "h")], "query_bucket"),
        (
            &[day[0], day[1], ("bucket", "99999999999999999999d")],
            "query_bucket",
        ),
        (&[day[0], ("bucket", "1h")], "query_buckets"),
        (&[day[1], ("bucket", "1h")], "query_buckets"),
        (&[day[0], day[1], ("bucket", "86s")], "query_buckets"),
        (
            &[
                ("from", "2026-01-02T00:00:00Z"),
                ("to", "2026-01-01T00:00:00Z"),
            ],
            "query_time_order",
        ),
    ];
    for (pairs, code) in cases {
        assert_eq!(stats(pairs).unwrap_err().code(), code, "{pairs:?}");
    }
}

#[test]
fn a_question_for_counts_is_read() {
    let asked = stats(&[
        ("from", "2026-01-01T00:00:00Z"),
        ("to", "2026-01-02T00:00:00Z"),
        ("bucket", "5m"),
        ("by", "verdict"),
        ("node", "gw-3"),
    ])
    .unwrap();
    assert_eq!(asked.bucket, Some(std::time::Duration::from_secs(300)));
    assert_eq!((asked.by, asked.top), (Some(Field::Verdict), DEFAULT_TOP));
    assert!(asked.filter.node.is_some());
    for field in Field::ALL {
        assert_eq!(stats(&[("by", field.as_str())]).unwrap().by, Some(field));
    }
    assert_eq!(stats(&[]).unwrap().bucket, None);
}
