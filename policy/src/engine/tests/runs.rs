//! The condition `runs`: what evidence says that a subject runs decides, and what it does not say is never to its
//! advantage.

use std::collections::BTreeMap;

use super::*;
use crate::runs::{MAX_RUNS, MetWants};

const WANTS: &str = "runs = [\"acme/collector>=2.3\", \"acme/base\"]";

fn says(engine: &Engine, pairs: &[(&str, &str)]) -> Standing {
    let runs: BTreeMap<String, String> = pairs
        .iter()
        .map(|(app, version)| ((*app).to_owned(), (*version).to_owned()))
        .collect();
    Standing {
        runs: Some(engine.wants().met_by(&runs)),
        ..trusted()
    }
}

#[test]
fn an_allow_needs_evidence_of_all_that_it_wants_run() {
    let rules = [rule("r", "allow", "group:stations", "line/plc", WANTS)];
    let engine = engine(&rules, "gw-1");
    let ask = |standing| ask(&engine, &node("st-1"), standing, Link::Online, NOW);
    assert_eq!(ask(trusted()).reason, Reason::Runs, "nothing is known");
    for pairs in [
        &[][..],
        &[("acme/collector", "2.3")],
        &[("acme/base", "1")],
        &[("acme/collector", "2.2.9"), ("acme/base", "1")],
        &[("other/collector", "2.3"), ("acme/base", "1")],
    ] {
        let decision = ask(says(&engine, pairs));
        assert_eq!(decision.reason, Reason::Runs, "{pairs:?}");
        assert_eq!(decision.nearest.as_deref(), Some("r"));
    }
    let all = says(&engine, &[("acme/collector", "2.10"), ("acme/base", "1")]);
    assert!(ask(all).is_allow());
    // The same subject a moment later: nothing of the answer before is kept.
    let less = says(&engine, &[("acme/collector", "2.10")]);
    assert_eq!(ask(less).reason, Reason::Runs);
}

#[test]
fn a_deny_holds_where_what_runs_is_unknown_or_wanted_and_not_elsewhere() {
    let rules = [
        rule("r", "allow", "group:stations", "line/plc", ""),
        rule(
            "d",
            "deny",
            "group:stations",
            "line/plc",
            "runs = [\"evil/miner\"]",
        ),
    ];
    let engine = engine(&rules, "gw-1");
    let allowed = |standing| ask(&engine, &node("st-1"), standing, Link::Online, NOW).is_allow();
    assert!(!allowed(trusted()));
    assert!(!allowed(says(&engine, &[("evil/miner", "1")])));
    assert!(allowed(says(&engine, &[("acme/base", "1")])));
    assert!(allowed(Standing {
        runs: Some(MetWants::NONE),
        ..trusted()
    }));
}

#[test]
fn what_was_told_under_other_rules_counts_for_nothing() {
    let before = engine(
        &[rule(
            "r",
            "allow",
            "group:stations",
            "line/plc",
            "runs = [\"acme/base\"]",
        )],
        "gw-1",
    );
    let after = engine(
        &[rule(
            "r",
            "allow",
            "group:stations",
            "line/plc",
            "runs = [\"acme/base>=2\"]",
        )],
        "gw-1",
    );
    let standing = says(&before, &[("acme/base", "1")]);
    let allowed = |engine: &Engine| ask(engine, &node("st-1"), standing, Link::Online, NOW);
    assert!(allowed(&before).is_allow());
    assert_eq!(allowed(&after).reason, Reason::Runs);
}

#[test]
fn a_device_runs_nothing_that_its_node_is_proven_to_run() {
    let engine = engine(
        &[rule("r", "allow", "group:stations", "line/plc", WANTS)],
        "gw-1",
    );
    let all = says(&engine, &[("acme/collector", "2.3"), ("acme/base", "1")]);
    assert_eq!(all.vouched_for().runs, Some(MetWants::NONE));
}

#[test]
fn a_slice_with_a_want_that_is_none_or_more_than_fit_makes_no_engine() {
    let rules = [rule("r", "allow", "group:stations", "line/plc", WANTS)];
    let sound = policy(&rules).slice(&node("gw-1"), &fleet(), END).unwrap();
    let refuse = |wants: Vec<String>| {
        let mut slice = sound.clone();
        let rows = slice.interfaces.iter_mut().flat_map(|one| &mut one.rows);
        for row in rows {
            row.runs.clone_from(&wants);
        }
        Engine::new(Arc::new(slice)).is_err()
    };
    assert!(!refuse(vec!["acme/base".to_owned()]));
    assert!(refuse(vec!["acme".to_owned()]));
    assert!(refuse(vec!["acme/base>=x".to_owned()]));
    assert!(refuse(
        (0..=MAX_RUNS).map(|n| format!("acme/x{n}")).collect()
    ));
}
