//! The condition `profile`: what a subject's result names decides, and what cannot be told is never to its advantage.

use super::*;
use crate::profile::ProfileLabel;
use crate::slice::{Profiles, SliceError};

const OPERATOR: &str = "operator-group:vendor";

fn label(policy: &CompiledPolicy, name: &str) -> ProfileLabel {
    let known = policy.labels.iter().find(|label| label.name() == name);
    known.unwrap().clone()
}

fn naming(text: Option<&str>) -> Standing {
    Standing {
        profiles: text.and_then(|text| match text {
            "" => Some(StatedProfiles::NONE),
            text => StatedProfiles::parse(text),
        }),
        ..trusted()
    }
}

/// What a result may say of the profile `gateway`: text, what an allow makes of it, and what a deny does.
fn cases() -> [(Option<String>, bool, bool); 6] {
    let now = label(&policy(&[]), "gateway").to_string();
    [
        (None, false, true),
        (Some(String::new()), false, false),
        (Some("gateway@0123456789abcdef".to_owned()), false, true),
        (Some("other@0123456789abcdef".to_owned()), false, false),
        (Some(now.clone()), true, true),
        (Some(format!("other@0123456789abcdef+{now}")), true, true),
    ]
}

#[test]
fn an_allow_needs_a_result_that_names_the_profile_as_it_is_now() {
    let rules = [
        rule(
            "r",
            "allow",
            "group:stations",
            "line/plc",
            "profile = [\"gateway\"]",
        ),
        rule(
            "op",
            "allow",
            OPERATOR,
            "line/plc",
            "profile = [\"gateway\"]",
        ),
    ];
    let engine = engine(&rules, "gw-1");
    let li = id(edgeward_identity::Kind::Operator, "li");
    for (text, allowed, _) in cases() {
        let standing = naming(text.as_deref());
        for (subject, rule) in [(node("st-1"), "r"), (li.clone(), "op")] {
            let decision = ask(&engine, &subject, standing, Link::Online, NOW);
            assert_eq!(decision.is_allow(), allowed, "{text:?}");
            if !allowed {
                let why = (decision.reason, decision.nearest.as_deref());
                assert_eq!(why, (Reason::Profile, Some(rule)), "{text:?}");
            }
        }
    }
}

#[test]
fn a_deny_matches_what_it_names_and_what_cannot_be_told() {
    let rules = [
        rule("yes", "allow", "group:stations", "line/plc", ""),
        rule("no", "deny", "any", "line/plc", "profile = [\"gateway\"]"),
    ];
    let engine = engine(&rules, "gw-1");
    for (text, _, denied) in cases() {
        let decision = ask(
            &engine,
            &node("st-1"),
            naming(text.as_deref()),
            Link::Online,
            NOW,
        );
        assert_eq!(decision.is_allow(), !denied, "{text:?}");
        if denied {
            let why = (decision.reason, decision.rule.as_deref());
            assert_eq!(why, (Reason::Profile, Some("no")), "{text:?}");
        }
    }
}

#[test]
fn naming_a_profile_makes_up_for_no_other_condition() {
    let rules = [rule(
        "r",
        "allow",
        "group:stations",
        "line/plc",
        "profile = [\"gateway\"]",
    )];
    let engine = engine(&rules, "gw-1");
    let now = label(&policy(&[]), "gateway").to_string();
    let sound = naming(Some(&now));
    assert!(ask(&engine, &node("st-1"), sound, Link::Online, NOW).is_allow());
    for (standing, reason) in [
        (
            Standing {
                state: AttestationState::Stale,
                ..sound
            },
            Reason::State,
        ),
        (
            Standing {
                tier: Some(Tier::Software),
                ..sound
            },
            Reason::Tier,
        ),
        (
            Standing {
                last_pass: None,
                ..sound
            },
            Reason::Age,
        ),
    ] {
        let decision = ask(&engine, &node("st-1"), standing, Link::Online, NOW);
        assert_eq!((decision.is_allow(), decision.reason), (false, reason));
    }
}

#[test]
fn a_changed_profile_is_another_one() {
    let rules = [rule(
        "r",
        "allow",
        "group:stations",
        "line/plc",
        "profile = [\"gateway\"]",
    )];
    let text = format!("{HEAD}\n{}", rules.join("\n"));
    let changed = text.replacen("offline = \"24h\"", "offline = \"23h\"", 1);
    assert_ne!(text, changed);
    let labels = [&text, &changed].map(|text| {
        let policy =
            CompiledPolicy::compile(&[SourceFile::new("p.toml", text.as_str())], 1).unwrap();
        label(&policy, "gateway")
    });
    assert_ne!(labels[0], labels[1]);
    assert_eq!(labels[0].name(), labels[1].name());
}

#[test]
fn a_deny_for_one_profile_does_not_close_the_way_out_for_others() {
    let rules = [
        rule("yes", "allow", "group:stations", "line/plc", ""),
        rule(
            "no",
            "deny",
            "group:stations",
            "line/plc",
            "profile = [\"gateway\"]",
        ),
    ];
    let station = policy(&rules).slice(&node("st-1"), &fleet(), END).unwrap();
    assert_eq!(station.egress.len(), 2);
    let rules = [rule(
        "yes",
        "allow",
        "any",
        "line/plc",
        "profile = [\"gateway\"]",
    )];
    let policy = policy(&rules);
    let station = policy.slice(&node("st-1"), &fleet(), END).unwrap();
    assert_eq!(station.egress.len(), 2);
    // Nothing that this one may ever measure by is named.
    let other = policy.slice(&node("other"), &fleet(), END).unwrap();
    assert_eq!(other.egress, []);
}

#[test]
fn a_slice_whose_profile_condition_is_empty_or_no_label_is_refused() {
    let rules = [rule(
        "r",
        "allow",
        "group:stations",
        "line/plc",
        "profile = [\"gateway\"]",
    )];
    let policy = policy(&rules);
    let mut slice = policy.slice(&node("gw-1"), &fleet(), END).unwrap();
    assert_eq!(
        slice.profiles_asked_for(),
        std::collections::BTreeSet::from([&label(&policy, "gateway")])
    );
    let text = String::from_utf8(slice.to_json()).unwrap();
    let full = label(&policy, "gateway").to_string();
    for (part, changed) in [
        (full.as_str(), "gateway"),
        (full.as_str(), "gateway@"),
        ("\"profiles\":{\"these\":", "\"profiles\":{\"those\":"),
    ] {
        let changed = text.replacen(part, changed, 1);
        assert_ne!(changed, text);
        assert!(
            matches!(Slice::parse(changed.as_bytes()), Err(SliceError::Form(_))),
            "{part}"
        );
    }
    let row = slice
        .interfaces
        .iter_mut()
        .flat_map(|interface| &mut interface.rows)
        .next();
    row.unwrap().profiles = Profiles::These(Vec::new());
    assert!(matches!(
        slice.validate(),
        Err(SliceError::Empty { what: "profile" })
    ));
}
