use std::time::Duration;

use edgeward_identity::Kind;

use super::*;

#[test]
fn whoever_is_unknown_is_denied_even_where_anybody_may() {
    let engine = engine(&[rule("open", "allow", "any", "line/plc", "")], "gw-1");
    assert!(ask(&engine, &node("other"), trusted(), Link::Online, NOW).is_allow());
    let foreign: SpiffeId = "spiffe://else.example/node/st-1".parse().unwrap();
    for stranger in [
        node("nobody"),
        node("gw-1"),
        foreign,
        id(Kind::Device, "st-1"),
        id(Kind::Operator, "st-1"),
        id(Kind::Cloud, "st-1"),
        id(Kind::Workload, "st-1"),
    ] {
        let decision = ask(&engine, &stranger, trusted(), Link::Online, NOW);
        assert_eq!(decision.reason, Reason::UnknownSubject, "{stranger}");
        assert!(!decision.is_allow());
    }
    assert_eq!(engine.peer(&id(Kind::Device, "st-1")), None);
}

#[test]
fn an_interface_that_is_not_here_is_denied() {
    let engine = engine(&[rule("open", "allow", "any", "line/plc", "")], "gw-1");
    for target in [
        Target::Named {
            service: "line",
            interface: "nothing",
        },
        Target::Named {
            service: "",
            interface: "",
        },
        Target::Interface(InterfaceIndex(2)),
        Target::Interface(InterfaceIndex(u32::MAX)),
    ] {
        let request = Request {
            subject: Subject::Id(&node("st-1")),
            standing: trusted(),
            target,
            action: ActionId::CONNECT,
            link: Link::Online,
            now: NOW,
        };
        assert_eq!(engine.decide(&request).reason, Reason::UnknownInterface);
    }
    let beyond = Request {
        subject: Subject::Peer(PeerIndex(99)),
        standing: trusted(),
        target: Target::Interface(InterfaceIndex(0)),
        action: ActionId::CONNECT,
        link: Link::Online,
        now: NOW,
    };
    assert_eq!(engine.decide(&beyond).reason, Reason::UnknownSubject);
}

#[test]
fn a_policy_without_rules_denies_everybody() {
    let engine = engine(&[], "gw-1");
    assert_eq!(engine.slice().peers.len(), 0);
    assert_eq!(engine.slice().interfaces.len(), 2);
    assert!(!ask(&engine, &node("st-1"), trusted(), Link::Online, NOW).is_allow());
}

#[test]
fn nothing_is_allowed_once_the_slice_has_ended() {
    let engine = engine(&[rule("open", "allow", "any", "line/plc", "")], "gw-1");
    let late = Standing {
        last_pass: Some(END),
        ..trusted()
    };
    let before = END.minus(Duration::from_millis(1));
    let decision = ask(&engine, &node("st-1"), late, Link::Online, before);
    assert!(decision.is_allow());
    assert_eq!(decision.valid_until, END);
    let decision = ask(&engine, &node("st-1"), late, Link::Online, END);
    assert_eq!(decision.reason, Reason::PolicyExpired);
    let peer = engine.peer(&node("st-1")).unwrap();
    assert!(!engine.meet(peer, late, Link::Online, END).is_allow());
}

#[test]
fn an_allow_without_a_state_needs_trusted() {
    let engine = engine(
        &[rule("r", "allow", "group:stations", "line/plc", "")],
        "gw-1",
    );
    for state in AttestationState::ALL {
        let decision = ask(
            &engine,
            &node("st-1"),
            Standing { state, ..trusted() },
            Link::Online,
            NOW,
        );
        assert_eq!(
            decision.is_allow(),
            state == AttestationState::Trusted,
            "{state}"
        );
        if state != AttestationState::Trusted {
            assert_eq!(
                (decision.reason, decision.nearest.as_deref()),
                (Reason::State, Some("r"))
            );
        }
    }
}

#[test]
fn an_allow_without_a_tier_never_matches_software_or_an_unknown_tier() {
    let rules = [rule(
        "r",
        "allow",
        "any",
        "line/plc",
        "state = [\"trusted\", \"none\"]",
    )];
    let engine = engine(&rules, "gw-1");
    for (tier, allowed) in [
        (Some(Tier::Hardware), true),
        (Some(Tier::Listed), true),
        (Some(Tier::Virtual), true),
        (Some(Tier::Software), false),
        (None, false),
    ] {
        let standing = Standing { tier, ..trusted() };
        assert_eq!(
            ask(&engine, &node("lab-1"), standing, Link::Online, NOW).is_allow(),
            allowed,
            "{tier:?}"
        );
    }
}

#[test]
fn software_reaches_what_names_it_with_its_state() {
    let rules = [rule(
        "r",
        "allow",
        "group:lab",
        "line/plc",
        "tier = [\"software\"]\nstate = \"none\"",
    )];
    let engine = engine(&rules, "gw-1");
    let standing = Standing {
        state: AttestationState::None,
        tier: Some(Tier::Software),
        last_pass: None,
        profiles: Some(StatedProfiles::NONE),
        runs: None,
    };
    let decision = ask(&engine, &node("lab-1"), standing, Link::Online, NOW);
    assert!(decision.is_allow());
    assert_eq!(decision.valid_until, END);
    // Cut off from the cloud, it lasts no longer than `offline` counted from the last heartbeat.
    let heard = NOW.minus(Duration::from_secs(3600));
    let link = Link::Offline {
        last_heartbeat: heard,
    };
    let decision = ask(&engine, &node("lab-1"), standing, link, NOW);
    assert_eq!(
        decision.valid_until,
        heard.plus(Duration::from_secs(12 * 3600))
    );
    let late = heard.plus(Duration::from_secs(12 * 3600));
    assert_eq!(
        ask(&engine, &node("lab-1"), standing, link, late).reason,
        Reason::Age
    );
}

#[test]
fn a_deny_wins_over_every_allow_and_matches_what_is_unknown() {
    let rules = [
        rule("yes", "allow", "group:stations", "line/plc", ""),
        rule(
            "yes-software",
            "allow",
            "any",
            "line/plc",
            "tier = [\"software\"]\nstate = \"none\"",
        ),
        rule("no", "deny", "group:lab", "line/plc", ""),
        rule(
            "no-virtual",
            "deny",
            "any",
            "line/plc",
            "tier = [\"virtual\"]",
        ),
    ];
    let engine = engine(&rules, "gw-1");
    let software = Standing {
        state: AttestationState::None,
        tier: Some(Tier::Software),
        last_pass: None,
        profiles: Some(StatedProfiles::NONE),
        runs: None,
    };
    let decision = ask(&engine, &node("lab-1"), software, Link::Online, NOW);
    assert_eq!(
        (decision.rule.as_deref(), decision.reason),
        (Some("no"), Reason::Rule)
    );
    let unknown_tier = Standing {
        tier: None,
        ..trusted()
    };
    let decision = ask(&engine, &node("st-1"), unknown_tier, Link::Online, NOW);
    assert_eq!(
        (decision.rule.as_deref(), decision.reason),
        (Some("no-virtual"), Reason::Tier)
    );
    assert!(ask(&engine, &node("st-1"), trusted(), Link::Online, NOW).is_allow());
}

#[test]
fn a_deny_unless_trusted_holds_in_every_other_state() {
    let rules = [
        rule(
            "yes",
            "allow",
            "any",
            "line/plc",
            "state = [\"trusted\", \"stale\", \"failed\"]",
        ),
        rule(
            "no",
            "deny",
            "any",
            "line/plc",
            "unless_state = \"trusted\"",
        ),
    ];
    let engine = engine(&rules, "gw-1");
    for state in [
        AttestationState::Stale,
        AttestationState::Failed,
        AttestationState::None,
    ] {
        let decision = ask(
            &engine,
            &node("st-1"),
            Standing { state, ..trusted() },
            Link::Online,
            NOW,
        );
        assert_eq!(
            (decision.rule.as_deref(), decision.reason),
            (Some("no"), Reason::State)
        );
    }
    assert!(ask(&engine, &node("st-1"), trusted(), Link::Online, NOW).is_allow());
}

#[test]
fn a_pass_counts_for_fresh_while_online_and_for_offline_while_cut_off() {
    let engine = engine(
        &[rule(
            "r",
            "allow",
            "group:stations",
            "line/plc",
            "fresh = \"5m\"\noffline = \"2h\"",
        )],
        "gw-1",
    );
    let st = node("st-1");
    let passed = NOW.minus(Duration::from_secs(299));
    let standing = Standing {
        last_pass: Some(passed),
        ..trusted()
    };
    let decision = ask(&engine, &st, standing, Link::Online, NOW);
    assert!(decision.is_allow());
    assert_eq!(decision.valid_until, passed.plus(Duration::from_secs(300)));
    assert_eq!((decision.fresh.get(), decision.offline.get()), (300, 7200));
    let decision = ask(
        &engine,
        &st,
        standing,
        Link::Online,
        NOW.plus(Duration::from_secs(1)),
    );
    assert_eq!(decision.reason, Reason::Age);
    // The earlier of the pass and the verifier's own last heartbeat counts.
    for (heard, from) in [(60, 299), (4000, 4000)] {
        let link = Link::Offline {
            last_heartbeat: NOW.minus(Duration::from_secs(heard)),
        };
        let decision = ask(&engine, &st, standing, link, NOW);
        let since = NOW.minus(Duration::from_secs(from));
        assert_eq!(
            decision.valid_until,
            since.plus(Duration::from_secs(7200)),
            "{heard}"
        );
    }
    let unknown = Standing {
        last_pass: None,
        ..trusted()
    };
    assert_eq!(
        ask(&engine, &st, unknown, Link::Online, NOW).reason,
        Reason::Age
    );
}

#[test]
fn a_pass_or_heartbeat_from_the_future_lengthens_nothing() {
    let engine = engine(
        &[rule("r", "allow", "group:stations", "line/plc", "")],
        "gw-1",
    );
    let future = NOW.plus(Duration::from_secs(86_400));
    let standing = Standing {
        last_pass: Some(future),
        ..trusted()
    };
    let decision = ask(&engine, &node("st-1"), standing, Link::Online, NOW);
    assert_eq!(decision.valid_until, NOW.plus(Duration::from_secs(600)));
    let link = Link::Offline {
        last_heartbeat: future,
    };
    let decision = ask(&engine, &node("st-1"), standing, link, NOW);
    assert_eq!(
        decision.valid_until,
        NOW.plus(Duration::from_secs(24 * 3600))
    );
}

#[test]
fn a_rule_may_be_stricter_than_the_subject_s_profile_and_never_laxer() {
    // Profile gateway says offline = 24h and no fresh.
    for (said, expected) in [
        ("", 24 * 3600),
        ("offline = \"1h\"", 3600),
        ("offline = \"48h\"", 24 * 3600),
    ] {
        let engine = engine(
            &[rule("r", "allow", "group:stations", "line/plc", said)],
            "gw-1",
        );
        let decision = ask(&engine, &node("st-1"), trusted(), Link::Online, NOW);
        assert_eq!(decision.offline.get(), expected, "{said}");
    }
    let engine = engine(
        &[rule("r", "allow", "any", "line/plc", "offline = \"48h\"")],
        "gw-1",
    );
    let decision = ask(&engine, &node("other"), trusted(), Link::Online, NOW);
    assert_eq!(decision.offline.get(), 48 * 3600);
}

#[test]
fn rights_end_at_the_window_s_edge_and_at_until() {
    let inside = "when = { window = \"night\", until = 2026-11-20T18:05:00Z }";
    let engine = engine(
        &[rule("r", "allow", "group:stations", "line/plc", inside)],
        "gw-1",
    );
    let st = node("st-1");
    let recent = |now: Timestamp| Standing {
        last_pass: Some(now),
        ..trusted()
    };
    let early = NOW.minus(Duration::from_millis(1));
    let decision = ask(&engine, &st, recent(early), Link::Online, early);
    assert_eq!(
        (decision.reason, decision.valid_until),
        (Reason::Window, NOW)
    );
    let decision = ask(&engine, &st, recent(NOW), Link::Online, NOW);
    let until = NOW.plus(Duration::from_secs(300));
    assert!(decision.is_allow());
    assert_eq!(decision.valid_until, until);
    assert_eq!(
        ask(&engine, &st, recent(until), Link::Online, until).reason,
        Reason::Until
    );
}

#[test]
fn an_allow_ends_where_a_deny_begins() {
    let rules = [
        rule(
            "yes",
            "allow",
            "group:stations",
            "line/plc",
            "fresh = \"24h\"",
        ),
        rule(
            "no",
            "deny",
            "any",
            "line/plc",
            "when = { window = \"night\" }",
        ),
    ];
    let engine = engine(&rules, "gw-1");
    let before = NOW.minus(Duration::from_secs(3600));
    let standing = Standing {
        last_pass: Some(before),
        ..trusted()
    };
    let decision = ask(&engine, &node("st-1"), standing, Link::Online, before);
    assert!(decision.is_allow());
    assert_eq!(decision.valid_until, NOW);
    let decision = ask(&engine, &node("st-1"), standing, Link::Online, NOW);
    assert_eq!(
        (decision.rule.as_deref(), decision.reason),
        (Some("no"), Reason::Window)
    );
}

#[test]
fn an_operator_is_judged_by_its_groups_and_the_state_of_its_node() {
    let rules = [
        rule("vendor", "allow", "operator-group:vendor", "line/plc", ""),
        rule("stations", "allow", "group:stations", "line/admin", ""),
    ];
    let engine = engine(&rules, "gw-1");
    let li = id(Kind::Operator, "li");
    assert!(ask(&engine, &li, trusted(), Link::Online, NOW).is_allow());
    let nodeless = Standing {
        state: AttestationState::None,
        tier: None,
        last_pass: None,
        profiles: Some(StatedProfiles::NONE),
        runs: None,
    };
    assert!(!ask(&engine, &li, nodeless, Link::Online, NOW).is_allow());
    assert_eq!(
        ask(
            &engine,
            &id(Kind::Operator, "wu"),
            trusted(),
            Link::Online,
            NOW
        )
        .reason,
        Reason::UnknownSubject
    );
    assert_eq!(engine.peer(&li), None);
    assert_eq!(
        ask(&engine, &node("st-1"), trusted(), Link::Online, NOW).reason,
        Reason::NoRule
    );
}

#[test]
fn a_tunnel_may_exist_where_one_side_may_reach_the_other_and_both_proved_themselves() {
    let rules = [rule(
        "r",
        "allow",
        "group:stations",
        "line/plc",
        "fresh = \"5m\"",
    )];
    let gateway = engine(&rules, "gw-1");
    let station = engine(&rules, "st-1");
    let inward = gateway.peer(&node("st-1")).unwrap();
    let outward = station.peer(&node("gw-1")).unwrap();
    for state in AttestationState::ALL {
        let standing = Standing { state, ..trusted() };
        let proven = state == AttestationState::Trusted;
        assert_eq!(
            gateway.meet(inward, standing, Link::Online, NOW).is_allow(),
            proven,
            "{state}"
        );
        assert_eq!(
            station
                .meet(outward, standing, Link::Online, NOW)
                .is_allow(),
            proven,
            "{state}"
        );
        let egress = station.decide_egress(outward, (Proto::Tcp, 502), standing, Link::Online, NOW);
        assert_eq!(egress.is_allow(), proven, "{state}");
    }
    let meeting = station.meet(outward, trusted(), Link::Online, NOW);
    assert_eq!(
        (meeting.rule.as_deref(), meeting.fresh.get()),
        (Some("r"), 300)
    );
    assert_eq!(meeting.valid_until, NOW.plus(Duration::from_secs(240)));
    for (proto, port) in [(Proto::Udp, 502), (Proto::Tcp, 443)] {
        let other = station.decide_egress(outward, (proto, port), trusted(), Link::Online, NOW);
        assert_eq!(other.reason, Reason::NoRule);
    }
    assert_eq!(gateway.peer(&node("gw-2")), None);
    let unrooted = Standing {
        state: AttestationState::None,
        tier: Some(Tier::Software),
        last_pass: None,
        profiles: Some(StatedProfiles::NONE),
        runs: None,
    };
    assert!(
        !station
            .meet(outward, unrooted, Link::Online, NOW)
            .is_allow()
    );
}

#[test]
fn an_unsound_slice_makes_no_engine() {
    let rules = [rule(
        "r",
        "allow",
        "group:stations",
        "line/plc",
        "when = { window = \"night\" }",
    )];
    let sound = policy(&rules).slice(&node("gw-1"), &fleet(), END).unwrap();
    let refuse = |change: &dyn Fn(&mut Slice)| {
        let mut slice = sound.clone();
        change(&mut slice);
        assert!(Engine::new(Arc::new(slice)).is_err());
    };
    refuse(&|slice| slice.schema = "edgeward-slice/4".into());
    refuse(&|slice| slice.node = id(Kind::Operator, "li"));
    refuse(&|slice| slice.windows.clear());
    refuse(&|slice| slice.groups.clear());
    refuse(&|slice| slice.interfaces[1].rows[0].from = crate::slice::Sources::Groups(Vec::new()));
    refuse(&|slice| slice.interfaces[1].rows[0].actions.clear());
    refuse(&|slice| slice.interfaces[1].rows[0].states = crate::slice::States::These(Vec::new()));
    refuse(&|slice| slice.interfaces[1].rows[0].tiers = crate::slice::Tiers::These(Vec::new()));
    refuse(&|slice| slice.peers[0].id = id(Kind::Device, "x"));
    refuse(&|slice| slice.peers[0].id = "spiffe://else.example/node/st-1".parse().unwrap());
    refuse(&|slice| slice.peers.push(slice.peers[0].clone()));
    refuse(&|slice| slice.interfaces.push(slice.interfaces[0].clone()));
    refuse(&|slice| slice.interfaces[0].port = 502);
    refuse(&|slice| {
        let row = slice.interfaces[1].rows[0].clone();
        slice.interfaces[0].rows = vec![row; crate::slice::MAX_SLICE_ROWS + 1];
    });
    assert!(Engine::new(Arc::new(sound)).is_ok());
}

#[test]
fn where_casbin_and_the_rows_disagree_the_answer_is_a_denial() {
    let mut engine = engine(&[rule("r", "allow", "any", "line/plc", "")], "gw-1");
    let interface = engine.interface("line", "plc").unwrap();
    engine.buckets[interface.0 as usize].close_for_everybody();
    let decision = ask(&engine, &node("st-1"), trusted(), Link::Online, NOW);
    assert_eq!(decision.reason, Reason::Internal);
    assert!(!decision.is_allow());
}

#[test]
fn no_term_exceeds_the_largest_of_the_directory_whatever_a_profile_says() {
    // Profile gateway says offline = 24h in a directory of its own.
    let head = "schema = \"edgeward-policy/1\"\nowner = \"x\"\nscope = \"any\"\n";
    let rules = [
        rule("r", "allow", "group:stations", "line/plc", ""),
        rule("any", "allow", "any", "line/admin", ""),
    ]
    .concat();
    let files = [
        SourceFile::new("all/p.toml", HEAD),
        SourceFile::new(
            "strict/r.toml",
            format!("{head}[defaults]\nmax_offline = \"6h\"\n{rules}"),
        ),
    ];
    let policy = CompiledPolicy::compile(&files, 1).unwrap();
    let slice = policy.slice(&node("gw-1"), &fleet(), END).unwrap();
    assert_eq!(slice.lifetimes.max_offline, Seconds::from_hours(6));
    let engine = Engine::new(Arc::new(slice)).unwrap();
    let decision = ask(&engine, &node("st-1"), trusted(), Link::Online, NOW);
    assert_eq!(decision.offline, Seconds::from_hours(6));
    let admin = Request {
        subject: Subject::Id(&node("other")),
        standing: trusted(),
        target: Target::Named {
            service: "line",
            interface: "admin",
        },
        action: ActionId::CONNECT,
        link: Link::Online,
        now: NOW,
    };
    assert_eq!(engine.decide(&admin).offline, Seconds::from_hours(6));
}
