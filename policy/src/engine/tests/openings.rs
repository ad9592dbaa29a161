//! Approvals and broken glass: what they lift, for how long, and what they never lift.

use std::time::Duration;

use edgeward_identity::Kind;

use super::*;
use crate::slice::SliceApproval;

const HOUR: Duration = Duration::from_secs(3600);
const STATIONS: &str = "group:stations";
const GLASS: &str = "[break-glass.line]\ngrants = [\"a\"]\nby = [\"operator-group:vendor\"]\nquorum = 1\nttl = \"1h\"\n";
const APPROVAL: &str = "approval = { by = [\"operator-group:vendor\"], quorum = 1, ttl = \"2h\" }";

/// Past the night's window.
fn morning() -> Timestamp {
    NOW.plus(HOUR * 6)
}

fn slice_of(rules: &[String], name: &str) -> Slice {
    policy(rules).slice(&node(name), &fleet(), END).unwrap()
}

fn opened(slice: &Slice, rule: &str, until: Timestamp) -> Engine {
    let opened = [Opened {
        rule: rule.into(),
        until,
    }];
    Engine::with_opened(Arc::new(slice.clone()), &opened).unwrap()
}

fn approved(slice: &Slice, rule: &str, subject: SpiffeId, until: Timestamp) -> Engine {
    let approval = SliceApproval {
        rule: rule.into(),
        subject,
        until,
    };
    let slice = Slice {
        approvals: vec![approval],
        ..slice.clone()
    };
    Engine::new(Arc::new(Slice::parse(&slice.to_json()).unwrap())).unwrap()
}

fn station() -> SpiffeId {
    node("st-1")
}

fn cut_off() -> Link {
    Link::Offline {
        last_heartbeat: NOW.minus(HOUR),
    }
}

#[test]
fn a_rule_that_asks_for_an_approval_denies_without_one_for_this_very_subject() {
    let rules = [rule("a", "allow", STATIONS, "line/plc", APPROVAL)];
    let slice = slice_of(&rules, "gw-1");
    let refused = |engine: &Engine| {
        let decision = ask(engine, &station(), trusted(), Link::Online, NOW);
        assert!(!decision.is_allow());
        assert_eq!(decision.reason, Reason::Approval);
        assert_eq!(decision.nearest.as_deref(), Some("a"));
    };
    refused(&Engine::new(Arc::new(slice.clone())).unwrap());
    let until = NOW.plus(HOUR);
    refused(&approved(&slice, "a", node("gw-2"), until));
    refused(&approved(&slice, "a", id(Kind::Operator, "st-1"), until));
    refused(&approved(&slice, "b", station(), until));
    refused(&approved(&slice, "a", station(), NOW));
}

#[test]
fn an_approved_rule_allows_until_the_approval_ends_and_not_a_moment_longer() {
    let rules = [rule("a", "allow", STATIONS, "line/plc", APPROVAL)];
    let until = NOW.plus(Duration::from_secs(120));
    let engine = approved(&slice_of(&rules, "gw-1"), "a", station(), until);
    let decision = ask(&engine, &station(), trusted(), Link::Online, NOW);
    assert!(decision.is_allow());
    assert_eq!(decision.valid_until, until);
    let later = ask(&engine, &station(), trusted(), Link::Online, until);
    assert_eq!(later.reason, Reason::Approval);
}

#[test]
fn an_approval_lifts_no_other_condition() {
    let limited = format!("when = {{ window = \"night\" }}\n{APPROVAL}");
    let rules = [rule("a", "allow", STATIONS, "line/plc", &limited)];
    let until = NOW.plus(HOUR * 24);
    let engine = approved(&slice_of(&rules, "gw-1"), "a", station(), until);
    let mut standing = trusted();
    standing.last_pass = Some(morning());
    let decision = ask(&engine, &station(), standing, Link::Online, morning());
    assert_eq!(decision.reason, Reason::Window);
    let old = ask(&engine, &station(), trusted(), Link::Online, NOW.plus(HOUR));
    assert_eq!(old.reason, Reason::Age);
}

#[test]
fn a_node_without_an_approval_does_not_open_its_own_filter() {
    let rules = [rule("a", "allow", STATIONS, "line/plc", APPROVAL)];
    let slice = slice_of(&rules, "st-1");
    let decide = |engine: &Engine| {
        let peer = engine.peer(&node("gw-1")).unwrap();
        engine.decide_egress(peer, (Proto::Tcp, 502), trusted(), Link::Online, NOW)
    };
    let closed = decide(&Engine::new(Arc::new(slice.clone())).unwrap());
    assert_eq!(closed.reason, Reason::Approval);
    // Somebody else's approval is none of ours.
    let other = decide(&approved(&slice, "a", node("gw-1"), NOW.plus(HOUR)));
    assert_eq!(other.reason, Reason::Approval);
    let open = decide(&approved(&slice, "a", station(), NOW.plus(HOUR)));
    assert!(open.is_allow());
}

#[test]
fn broken_glass_lifts_window_end_approval_and_age_until_it_closes() {
    let rest = format!(
        "when = {{ window = \"night\", until = 2026-11-20T20:00:00Z }}\nfresh = \"1m\"\noffline = \"0s\"\n{APPROVAL}"
    );
    let rules = [
        rule("a", "allow", STATIONS, "line/plc", &rest),
        GLASS.to_owned(),
    ];
    let slice = slice_of(&rules, "gw-1");
    let plain = Engine::new(Arc::new(slice.clone())).unwrap();
    let mut old = trusted();
    old.last_pass = Some(NOW.minus(HOUR * 30));
    let until = morning().plus(HOUR);
    for link in [Link::Online, cut_off()] {
        assert!(!ask(&plain, &station(), old, link, morning()).is_allow());
        let engine = opened(&slice, "a", until);
        let decision = ask(&engine, &station(), old, link, morning());
        assert!(decision.is_allow(), "{link:?}: {:?}", decision.reason);
        assert_eq!(decision.rule.as_deref(), Some("a"));
        assert_eq!(decision.valid_until, until);
        let after = ask(&engine, &station(), old, link, until);
        assert!(!after.is_allow());
    }
}

#[test]
fn the_lease_that_follows_from_broken_glass_ends_with_it() {
    let rules = [
        rule("a", "allow", STATIONS, "line/plc", "offline = \"0s\""),
        GLASS.to_owned(),
    ];
    let engine = opened(&slice_of(&rules, "gw-1"), "a", NOW.plus(HOUR));
    let peer = engine.peer(&station()).unwrap();
    let heard = NOW.minus(HOUR);
    let mut standing = trusted();
    for ago in [Duration::from_secs(60), HOUR * 3] {
        standing.last_pass = Some(NOW.minus(ago));
        let decision = engine.meet(peer, standing, cut_off(), NOW);
        let since = NOW.minus(ago).min(heard);
        assert_eq!(since.plus(decision.offline.as_duration()), NOW.plus(HOUR));
        let decision = engine.meet(peer, standing, Link::Online, NOW);
        assert!(NOW.minus(ago).plus(decision.fresh.as_duration()) >= NOW.plus(HOUR));
    }
}

#[test]
fn broken_glass_lifts_neither_who_nor_what_nor_state_nor_tier_nor_profile_nor_a_deny() {
    let rest = "tier = [\"hardware\"]\nprofile = [\"gateway\"]";
    let rules = [
        rule("a", "allow", STATIONS, "line/plc", rest),
        GLASS.to_owned(),
    ];
    let slice = slice_of(&rules, "gw-1");
    let label = slice
        .profiles_asked_for()
        .into_iter()
        .next()
        .unwrap()
        .clone();
    let engine = opened(&slice, "a", END);
    let mut good = trusted();
    good.profiles = Some(StatedProfiles::from(&label));
    assert!(ask(&engine, &station(), good, Link::Online, NOW).is_allow());
    let reason = |standing: Standing| ask(&engine, &station(), standing, Link::Online, NOW).reason;
    for state in [
        AttestationState::Stale,
        AttestationState::Failed,
        AttestationState::None,
    ] {
        assert_eq!(reason(Standing { state, ..good }), Reason::State);
    }
    assert_eq!(
        reason(Standing {
            tier: Some(Tier::Virtual),
            ..good
        }),
        Reason::Tier
    );
    assert_eq!(reason(Standing { tier: None, ..good }), Reason::Tier);
    assert_eq!(
        reason(Standing {
            profiles: Some(StatedProfiles::NONE),
            ..good
        }),
        Reason::Profile
    );
    let somebody = ask(&engine, &node("gw-2"), good, Link::Online, NOW);
    assert!(!somebody.is_allow());
    let other_interface = engine.decide(&Request {
        subject: Subject::Id(&station()),
        standing: good,
        target: Target::Named {
            service: "line",
            interface: "admin",
        },
        action: ActionId::CONNECT,
        link: Link::Online,
        now: NOW,
    });
    assert!(!other_interface.is_allow());
    let denied = [
        rule(
            "a",
            "allow",
            STATIONS,
            "line/plc",
            "when = { window = \"night\" }",
        ),
        rule(
            "never",
            "deny",
            STATIONS,
            "line/plc",
            "when = { until = 2026-11-21T12:00:00Z }",
        ),
        GLASS.to_owned(),
    ];
    let engine = opened(&slice_of(&denied, "gw-1"), "a", END);
    let decision = ask(&engine, &station(), good, Link::Online, NOW);
    assert_eq!(decision.rule.as_deref(), Some("never"));
    assert!(!decision.is_allow());
}

#[test]
fn glass_broken_on_one_side_opens_nothing_on_the_other() {
    let rest = "when = { window = \"night\" }\noffline = \"0s\"";
    let rules = [
        rule("a", "allow", STATIONS, "line/plc", rest),
        GLASS.to_owned(),
    ];
    let slice = slice_of(&rules, "st-1");
    let decide = |engine: &Engine| {
        let peer = engine.peer(&node("gw-1")).unwrap();
        let flow = engine.decide_egress(peer, (Proto::Tcp, 502), trusted(), cut_off(), morning());
        (flow, engine.meet(peer, trusted(), cut_off(), morning()))
    };
    let (flow, meet) = decide(&Engine::new(Arc::new(slice.clone())).unwrap());
    assert!(!flow.is_allow() && !meet.is_allow());
    let until = morning().plus(HOUR);
    let (flow, meet) = decide(&opened(&slice, "a", until));
    assert!(flow.is_allow() && meet.is_allow());
    assert_eq!(flow.valid_until, until);
    // What is opened waives time and age, not that the peer proved itself.
    let engine = opened(&slice, "a", until);
    let peer = engine.peer(&node("gw-1")).unwrap();
    let mut stale = trusted();
    stale.state = AttestationState::Stale;
    let flow = engine.decide_egress(peer, (Proto::Tcp, 502), stale, cut_off(), morning());
    assert_eq!(flow.reason, Reason::State);
}

#[test]
fn a_slice_names_break_glass_only_where_its_rules_bear() {
    let rules = [
        rule("a", "allow", STATIONS, "line/plc", "offline = \"0s\""),
        rule("b", "allow", STATIONS, "line/admin", ""),
        GLASS.to_owned(),
    ];
    for (name, count) in [("gw-1", 1), ("st-1", 1), ("lab-1", 0), ("other", 0)] {
        let slice = slice_of(&rules, name);
        assert_eq!(slice.break_glass.len(), count, "{name}");
        for glass in &slice.break_glass {
            assert_eq!(glass.rules, ["a".into()]);
            assert_eq!(glass.by, [id(Kind::Operator, "li")]);
            assert_eq!((glass.quorum, glass.ttl), (1, Seconds::from_hours(1)));
        }
        // Certificates outlive the outage that the envelope is for.
        if count > 0 {
            assert_eq!(slice.lifetimes.largest_offline, slice.lifetimes.max_offline);
        }
    }
}
