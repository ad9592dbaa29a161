use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::vectors::mutations;

fn node() -> SpiffeId {
    "spiffe://plant.example/node/gw-3".parse().unwrap()
}

fn event() -> Event {
    Event::new(
        Timestamp::from_millis(1_795_000_000_123),
        node(),
        EventKind::FlowDenied,
    )
    .subject("press-4/modbus")
    .rule("plant/press:read")
    .denied("no_rule")
    .detail("count", 17)
    .detail("seconds", 10)
}

#[test]
fn what_is_not_an_event_is_refused() {
    let good = serde_json::to_string(&event()).unwrap();
    assert!(Event::parse(good.as_bytes()).is_ok());
    let bad = [
        good.replace("\"verdict\"", "\"extra\":1,\"verdict\""),
        good.replace("flow.denied", "flow.unknown"),
        good.replace("\"deny\"", "\"Deny\""),
        good.replace("spiffe://plant.example/node/gw-3", "root"),
        good.replace(
            "spiffe://plant.example/node/gw-3",
            "spiffe://plant.example/host/gw-3",
        ),
        good.replace("press-4/modbus", "spiffe://plant.example"),
        good.replace("press-4/modbus", ""),
        good.replace("press-4/modbus", "\\u001b[2J"),
        good.replace("press-4/modbus", "\\u202egpj.exe"),
        good.replace("no_rule", &"a".repeat(MAX_CODE_BYTES + 1)),
        good.replace("plant/press:read", &"a".repeat(MAX_RULE_BYTES + 1)),
        good.replace(
            "\"17\"",
            &format!("\"{}\"", "a".repeat(MAX_DETAIL_VALUE_BYTES + 1)),
        ),
        good.replace("\"17\"", "17"),
        good.replace("1795000000123", "-1"),
        format!("{good} x"),
        String::new(),
    ];
    for text in bad {
        assert!(
            matches!(Event::parse(text.as_bytes()), Err(EventError::Json(_))),
            "{text}"
        );
    }
    let many: Vec<String> = (0..=MAX_DETAIL_ENTRIES)
        .map(|n| format!("\"k{n}\":\"v\""))
        .collect();
    let text = good.replace("\"count\":\"17\"", &many.join(","));
    assert!(matches!(
        Event::parse(text.as_bytes()),
        Err(EventError::Json(_))
    ));
    let long = format!("{}{good}", " ".repeat(MAX_EVENT_BYTES));
    assert!(matches!(
        Event::parse(long.as_bytes()),
        Err(EventError::TooLong)
    ));
}

#[test]
fn actors_that_are_not_spelled_in_the_one_way_are_refused() {
    let refused = [
        "",
        "Cloud",
        "cloud:",
        "apikey",
        "apikey:",
        "apikey:a\nb",
        "anonymous:",
        "anonymous:localhost",
        "anonymous:192.0.2.01",
        "anonymous:2001:DB8::1",
        "anonymous:2001:db8:0:0:0:0:0:1",
        "spiffe:",
        "spiffe://plant.example/root/x",
        "SPIFFE://plant.example/node/a",
    ];
    for text in refused {
        assert!(text.parse::<Actor>().is_err(), "{text:?}");
    }
    let accepted = [
        "cloud",
        "anonymous",
        "anonymous:192.0.2.1",
        "anonymous:2001:db8::1",
        "apikey:ci: deploy",
        "spiffe://plant.example/operator/ada",
    ];
    for text in accepted {
        assert_eq!(text.parse::<Actor>().unwrap().to_string(), text);
    }
    let mapped: std::net::IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(Actor::from(mapped).to_string(), "anonymous:192.0.2.1");
}

#[test]
fn a_name_never_passes_for_an_identity() {
    let subject = Subject::name("spiffe://plant.example/node/gw-3");
    assert_eq!(subject.identity(), None);
    assert_eq!(subject.to_string().parse::<Subject>().unwrap(), subject);
}

#[test]
fn nothing_that_a_stranger_can_cause_orders_a_flush() {
    use EventKind as K;
    let strangers = [
        K::TokenRefused,
        K::EnrolmentBegun,
        K::EnrolmentRefused,
        K::SessionRefused,
        K::BindRefused,
        K::FlowAllowed,
        K::FlowDenied,
        K::ApiRefused,
        K::PolicyRefused,
        K::JournalRefused,
        K::AppRefused,
        K::AppEnded,
        K::AppDenied,
        K::AppWouldDeny,
        K::AppGuardRestarted,
    ];
    for kind in strangers {
        assert!(kind.class() < Class::Must, "{kind}");
    }
}

#[test]
fn every_kind_has_its_stable_name_and_class() {
    let expected = "token.created must, token.revoked must, token.used must, token.refused should, \
        enrolment.begun may, enrolment.refused should, enrolment.issued must, enrolment.acknowledged must, \
        ekroot.trusted must, ekroot.removed must, ek.listed must, ek.unlisted must, node.approved must, \
        node.quarantined must, node.recovered must, node.waits must, node.cloned must, node.replaced must, \
        node.released must, node.removed must, svid.issued must, svid.renewed must, svid.denied must, svid.expiring should, \
        authority.prepared must, authority.published must, authority.activated must, authority.tainted must, \
        authority.retired must, authority.expiring should, roots.changed must, denylist.raised must, session.opened should, \
        session.closed should, session.refused should, session.displaced must, relay.closed should, attestation.passed should, \
        attestation.failed must, attestation.stale must, policy.applied must, policy.staged must, \
        policy.paused must, policy.resumed must, policy.returned must, policy.refused should, \
        policy.delivered should, policy.activated must, approval.given must, approval.revoked must, \
        approval.refused should, break-glass.issued must, break-glass.revoked must, break-glass.opened must, \
        break-glass.closed must, break-glass.refused should, break-glass.acknowledged must, bind.opened must, bind.refused should, \
        bind.closed should, path.changed should, flow.allowed should, flow.denied should, gateway.up should, gateway.down should, \
        cut.ordered must, cut.effected must, \
        operator.added must, operator.revoked must, apikey.created must, apikey.revoked must, api.refused should, \
        audit.read must, audit.halted must, audit.damaged must, audit.resumed must, audit.contradicted must, audit.behind must, audit.erased must, audit.pruned must, \
        archive.stalled should, archive.resumed should, alert.raised should, alert.ended should, alert.acknowledged must, alert.silenced must, \
        alert.unsilenced must, alert.tested must, export.stalled should, export.resumed should, export.refused should, export.retried must, \
        witness.refused should, witness.disputed must, witness.silent should, witness.resumed should, journal.opened must, journal.recovered must, journal.lost must, journal.gap must, \
        journal.forked must, journal.refused should, journal.acknowledged must, journal.silent must, journal.sealed must, event.unknown may, cloud.initialised must, cloud.started must, \
        cloud.stopped must, agent.started must, agent.stopped must, agent.held must, agent.upgraded must, agent.recovered must, \
        workload.issued must, workload.served should, workload.refused should, boot.stated must, \
        publisher.changed must, app.published must, app.assigned should, app.returned must, app.revoked must, \
        app.installing must, app.installed must, app.refused should, app.removed must, app.started must, \
        app.ended should, app.denied should, app.would_deny should, app.level_changed must, \
        app.guard_restarted should, app.guard_shut must";
    let class = |kind: EventKind| {
        serde_json::to_value(kind.class())
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    let found: Vec<String> = EventKind::ALL
        .iter()
        .map(|kind| format!("{kind} {}", class(*kind)))
        .collect();
    assert_eq!(found.join(", "), expected);
    for kind in EventKind::ALL {
        assert_eq!(kind.name().parse(), Ok(*kind));
        assert!(!kind.meaning().is_empty());
    }
    let names: BTreeSet<&str> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), EventKind::ALL.len());
}

#[test]
fn what_grants_is_on_disk_first_unless_it_recurs_by_itself() {
    // A session and a pass grant nothing that a bind, a renewal or a policy does not record itself.
    let softer = [EventKind::SessionOpened, EventKind::AttestationPassed];
    for kind in EventKind::ALL
        .iter()
        .filter(|kind| kind.effect() == Effect::Grants)
    {
        assert_eq!(
            kind.class() == Class::Must,
            !softer.contains(kind),
            "{kind}"
        );
    }
}

#[test]
fn the_largest_event_fits_its_limit() {
    let quotes = "\"".repeat(5000);
    let long: SpiffeId = format!("spiffe://plant.example/workload/{}", "a".repeat(2016))
        .parse()
        .unwrap();
    let mut event = Event::new(
        Timestamp::from_millis(u64::MAX),
        long.clone(),
        EventKind::EnrolmentAcknowledged,
    )
    .subject(long)
    .rule(&quotes)
    .denied(&quotes);
    for n in 10..40 {
        event = event.detail(&format!("{n}{quotes}"), &quotes);
    }
    assert_eq!(event.detail.len(), MAX_DETAIL_ENTRIES);
    assert_eq!(event.detail.get("left_out"), Some("true"));
    let bytes = serde_json::to_vec(&event).unwrap();
    assert!(bytes.len() <= MAX_EVENT_BYTES, "{}", bytes.len());
    assert_eq!(Event::parse(&bytes).unwrap(), event);
}

#[test]
fn an_event_that_was_changed_anywhere_parses_or_is_refused_but_never_panics() {
    mutations(&serde_json::to_vec(&event()).unwrap(), |bytes| {
        if let Ok(event) = Event::parse(bytes) {
            let again = serde_json::to_vec(&event).unwrap();
            assert_eq!(Event::parse(&again).unwrap(), event);
        }
    });
}

proptest! {
    #[test]
    fn any_text_can_be_recorded(text in any::<String>()) {
        let made = Text::<20>::lossy(&text);
        prop_assert_eq!(Text::<20>::new(made.as_str()), Ok(made));
    }

    #[test]
    fn a_text_within_the_rules_is_kept_as_it_is(text in "[a-zé€]{1,6}") {
        let made = Text::<20>::lossy(&text);
        prop_assert_eq!(made.as_str(), &text);
    }
}
