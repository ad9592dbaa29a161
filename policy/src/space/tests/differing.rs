//! The diff of two random policies is where two real engines differ, and nowhere else.

use std::sync::Arc;

use edgeward_identity::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::locate::parts;
use super::world::{Dice, Point, SINCE, World, fleet, point};
use crate::decision::{Decision, Reason, Request, Subject, Target};
use crate::profile::ProfileLabel;
use crate::space::diagram::Outcome;
use crate::space::interface::Pair;
use crate::space::region::Offered;
use crate::space::{Change, Question, compare, diff, explain};
use crate::{CompiledPolicy, Engine, FleetIndex};

proptest! {
    #![proptest_config(Config { cases: 60, ..Config::default() })]

    #[test]
    fn a_diff_is_where_two_engines_differ_and_nowhere_else(seed: u64) {
        let mut dice = Dice(seed);
        let world = World::random(&mut dice);
        let candidate = world.changed(&mut dice);
        let ((world, before), (candidate, after)) = (world.compile(), candidate.compile());
        let since = Timestamp::from_secs(SINCE);
        let diff = diff(&before, &after, since).unwrap();
        let joint = Pair::new(&before, &after, since).joint;
        let fleet = fleet();
        let indices = [before.index(&fleet), after.index(&fleet)];
        let labels: Vec<ProfileLabel> = before.labels.iter().chain(&after.labels).cloned().collect();
        let rules: Vec<_> = world.rules.iter().chain(&candidate.rules).cloned().collect();
        for _ in 0..3 {
            let target = &fleet.nodes[dice.below(fleet.nodes.len())].id;
            let engines = [engine(&before, &indices[0], target), engine(&after, &indices[1], target)];
            for _ in 0..150 {
                let point = point(&mut dice, &fleet, &rules, &labels);
                if point.subject == *target {
                    continue;
                }
                let said = [decide(&engines[0], &point), decide(&engines[1], &point)];
                for (engine, said) in engines.iter().zip(&said) {
                    explained(engine, &point, said)?;
                }
                prop_assert!(said.iter().all(|decision| decision.reason != Reason::Internal));
                let offers = engines.each_ref().map(|engine| engine.interface(point.service, point.interface).is_some());
                let offered = match offers {
                    [true, false] => Offered::Before,
                    [false, true] => Offered::After,
                    _ => Offered::Both,
                };
                let covering = parts(&diff.changed, &joint, offered, &point);
                let text = || format!("{point:?}\n{said:?}\n{}\n=====\n{}", world.text(), candidate.text());
                if said[0].is_allow() == said[1].is_allow() || offers == [false, false] {
                    prop_assert!(covering.is_empty() || offers == [false, false], "{covering:?}\n{}", text());
                    continue;
                }
                prop_assert_eq!(covering.len(), 1, "{}", text());
                prop_assert!(fits(&covering[0].outcomes.0, &said[0]), "{:?}\n{}", covering, text());
                prop_assert!(fits(&covering[0].outcomes.1, &said[1]), "{:?}\n{}", covering, text());
            }
        }
    }

    #[test]
    fn what_changes_one_way_changes_the_other_way_back(seed: u64) {
        let mut dice = Dice(seed);
        let world = World::random(&mut dice);
        let candidate = world.changed(&mut dice);
        let ((_, before), (_, after)) = (world.compile(), candidate.compile());
        let since = Timestamp::from_secs(SINCE);
        prop_assert_eq!(compare(&before, &before, since), Change::Same);
        let back = match compare(&before, &after, since) {
            Change::Narrower => Change::Wider,
            Change::Wider => Change::Narrower,
            same_or_mixed => same_or_mixed,
        };
        prop_assert_eq!(compare(&after, &before, since), back);
    }
}

fn engine(
    policy: &CompiledPolicy,
    index: &FleetIndex,
    node: &edgeward_identity::SpiffeId,
) -> Engine {
    let slice = policy
        .slice_of(index, node, Timestamp::from_millis(u64::MAX))
        .unwrap();
    Engine::new(Arc::new(slice)).unwrap()
}

fn decide(engine: &Engine, point: &Point) -> Decision {
    let interface = engine.interface(point.service, point.interface);
    let action = interface
        .and_then(|index| engine.slice().interfaces[index.0 as usize].action(point.action));
    engine.decide(&Request {
        subject: Subject::Id(&point.subject),
        standing: point.standing,
        target: Target::Named {
            service: point.service,
            interface: point.interface,
        },
        action: action.unwrap_or(crate::ActionId::CONNECT),
        link: point.link,
        now: point.now,
    })
}

/// What the diff says of one side is what its engine says; the engine knows less of those whom its slice leaves out.
fn fits(outcome: &Outcome, decision: &Decision) -> bool {
    match outcome {
        Outcome::Allow(rules) => {
            decision.is_allow()
                && decision
                    .rule
                    .as_ref()
                    .is_some_and(|rule| rules.contains(rule))
        }
        Outcome::Deny(rule) => {
            !decision.is_allow()
                && (decision.rule.as_ref() == Some(rule)
                    || decision.reason == Reason::UnknownSubject)
        }
        Outcome::Default => !decision.is_allow() && decision.rule.is_none(),
        Outcome::NoInterface => decision.reason == Reason::UnknownInterface,
    }
}

/// The explanation comes to the engine's verdict, by the engine's rule, and a denial by default misses something in
/// every allow.
fn explained(engine: &Engine, point: &Point, said: &Decision) -> Result<(), TestCaseError> {
    let Some(index) = engine.interface(point.service, point.interface) else {
        return Ok(());
    };
    let interface = &engine.slice().interfaces[index.0 as usize];
    let explained = explain(
        engine,
        &Question {
            subject: &point.subject,
            standing: point.standing,
            interface: index,
            actions: interface.action(point.action).into_iter().collect(),
            link: point.link,
            now: point.now,
        },
    );
    let explained = explained.map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(explained.verdict, said.verdict);
    prop_assert_eq!(&explained.reason, said.reason.as_str());
    prop_assert_eq!(explained.rule.as_deref(), said.rule.as_deref());
    prop_assert_eq!(explained.rules.len(), interface.rows.len());
    let in_force: Vec<_> = explained
        .rules
        .iter()
        .filter(|rule| rule.in_force)
        .collect();
    match &said.rule {
        Some(rule) => {
            prop_assert!(explained.rules[0].in_force && *explained.rules[0].rule == **rule)
        }
        None => prop_assert!(in_force.is_empty(), "{:?}", in_force),
    }
    Ok(())
}

#[test]
fn the_random_pairs_differ_often_enough_to_prove_something() {
    let since = Timestamp::from_secs(SINCE);
    let mut counts = [0; 4];
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let world = World::random(&mut dice);
        let candidate = world.changed(&mut dice);
        let ((_, before), (_, after)) = (world.compile(), candidate.compile());
        counts[compare(&before, &after, since) as usize] += 1;
        let timed = after
            .rules
            .iter()
            .filter(|rule| rule.until.is_some() || rule.window.is_some());
        counts[3] += usize::from(timed.count() > 0);
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
