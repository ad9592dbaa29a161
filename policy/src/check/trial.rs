//! The tests in policy files, put to the real engine: a node of the target's group, and a subject in the named groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use edgeward_identity::{Kind, SpiffeId, Tier, Timestamp, TrustDomain};

use super::resolve::known_actions;
use crate::ast::{TargetName, TestDef};
use crate::compile::{CompiledPolicy, FleetIndex, IndexedNode, Interface};
use crate::decision::{Decision, Link, Request, Standing, Subject, Target};
use crate::diagnostic::{Code, Diagnostics, suggest};
use crate::engine::Engine;
use crate::labels::{is_within, meet};
use crate::profile::{Mode, Profile, StatedProfiles};
use crate::slice::ActionId;

/// The time of a test that names none: before every `until`; windows then cannot be evaluated.
const NO_TIME: Timestamp = Timestamp::from_millis(0);

/// Runs every test and says how many failed.
pub(super) fn run<'t>(
    policy: &CompiledPolicy,
    tests: impl Iterator<Item = &'t TestDef>,
    found: &mut Diagnostics<'_>,
) -> usize {
    let mut failed = 0;
    for test in tests {
        let before = found.count();
        let passed = match decide(policy, test, found) {
            Some(decision) => judge(test, &decision, found),
            None => false,
        };
        // However it comes, a test that did not pass never leaves the policy without an error.
        if !passed && found.count() == before {
            let message = format!("test `{}` could not be run", test.name);
            found.error(test.at, Code::TestInvalid, message);
        }
        failed += usize::from(!passed);
    }
    failed
}

fn decide(
    policy: &CompiledPolicy,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<Decision> {
    let target = target_of(policy, test, found)?;
    let action = known_words(policy, target, test, found)?;
    let domain = TrustDomain::new("test.invalid").ok()?;
    let node = SpiffeId::new(&domain, Kind::Node, "target").ok()?;
    let asker = SpiffeId::new(&domain, Kind::Node, "subject").ok()?;
    let groups = groups_of(policy, test, found)?;
    let profiles = profiles_of(policy, test, &groups, found)?;
    let subject = match operator_of(policy, test, found)? {
        Some(name) => SpiffeId::new(&domain, Kind::Operator, &name).ok()?,
        None => asker.clone(),
    };
    let tier = test.tier.unwrap_or_else(|| tier_of(policy, &groups));
    let fleet = FleetIndex::of_indexed(
        policy,
        vec![
            IndexedNode::new(node.clone(), tier, BTreeSet::from([target.on])),
            IndexedNode::new(asker, tier, groups),
        ],
    );
    let end = Timestamp::from_millis(u64::MAX);
    let mut slice = policy.slice_with_everybody(&fleet, &node, end)?;
    if test.when.is_none() {
        for window in &mut slice.windows {
            window.tz = String::new();
        }
    }
    let now = test.when.unwrap_or(NO_TIME);
    let last_pass = now.minus(test.age.as_duration());
    // Without a time of its own a test still has an age: it then plays far enough from the epoch.
    let now = last_pass.plus(test.age.as_duration());
    let engine = Engine::new(Arc::new(slice)).ok()?;
    Some(engine.decide(&Request {
        subject: Subject::Id(&subject),
        standing: Standing {
            state: test.state,
            tier: Some(tier),
            last_pass: Some(last_pass),
            profiles,
        },
        target: Target::Named {
            service: &target.service,
            interface: &target.name,
        },
        action,
        link: Link::Online,
        now,
    }))
}

fn target_of<'p>(
    policy: &'p CompiledPolicy,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<&'p Interface> {
    let TargetName::Interface { service, interface } = &test.to.value else {
        return None;
    };
    let mut known = policy.interfaces.iter();
    let target = known.find(|known| known.service == *service && known.name == *interface);
    if target.is_none() {
        let names: Vec<String> = policy
            .interfaces
            .iter()
            .map(|known| format!("{}/{}", known.service, known.name))
            .collect();
        let name = format!("{service}/{interface}");
        found.error_with_help(
            test.to.at,
            Code::UnknownName,
            format!("interface `{name}` is not defined"),
            suggest(&name, names.iter().map(String::as_str)),
        );
    }
    target
}

/// The action and the rule that a test names are there.
fn known_words(
    policy: &CompiledPolicy,
    target: &Interface,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<ActionId> {
    let mut names = target.actions().into_iter();
    let position = names.position(|name| name == test.action.value);
    let Some(action) = position.and_then(|index| u8::try_from(index).ok()) else {
        found.error_with_help(
            test.action.at,
            Code::UnknownAction,
            format!("unknown action `{}`", test.action.value),
            known_actions(target),
        );
        return None;
    };
    if let Some(by) = &test.by
        && !policy.rules.iter().any(|rule| *rule.id == *by.value)
    {
        found.error_with_help(
            by.at,
            Code::UnknownName,
            format!("rule `{}` is not defined", by.value),
            suggest(&by.value, policy.rules.iter().map(|rule| &*rule.id)),
        );
        return None;
    }
    Some(ActionId(action))
}

fn judge(test: &TestDef, decision: &Decision, found: &mut Diagnostics<'_>) -> bool {
    let by_fits = test
        .by
        .as_ref()
        .is_none_or(|by| decision.rule.as_deref() == Some(by.value.as_str()));
    let because_fits = test
        .because
        .is_none_or(|because| because == decision.reason);
    if decision.verdict == test.expect && by_fits && because_fits {
        return true;
    }
    let mut got = format!("got {}, because {}", decision.verdict, decision.reason);
    if let Some(rule) = &decision.rule {
        got.push_str(&format!(", by rule `{rule}`"));
    }
    if let Some(nearest) = &decision.nearest {
        got.push_str(&format!("; nearest is rule `{nearest}`"));
    }
    if test.when.is_none() && decision.reason == crate::decision::Reason::Window {
        got.push_str("; a test of a window names its time: at = 2027-01-31T00:00:00Z");
    }
    let mut wanted = format!("expected {}", test.expect);
    if let Some(by) = &test.by {
        wanted.push_str(&format!(" by rule `{}`", by.value));
    }
    if let Some(because) = test.because {
        wanted.push_str(&format!(" because {because}"));
    }
    found.error_with_help(
        test.at,
        Code::TestFailed,
        format!("test `{}` failed: {wanted}", test.name),
        got,
    );
    false
}

/// The named groups and all that every member of them is in as well.
fn groups_of(
    policy: &CompiledPolicy,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<BTreeSet<usize>> {
    let mut all = crate::ast::LabelSets::new();
    let mut groups = BTreeSet::new();
    for name in &test.groups {
        let index = policy
            .groups
            .iter()
            .position(|group| group.name == name.value);
        let Some((index, group)) = index.and_then(|index| Some((index, policy.groups.get(index)?)))
        else {
            found.error_with_help(
                name.at,
                Code::UnknownName,
                format!("group `{}` is not defined", name.value),
                suggest(
                    &name.value,
                    policy.groups.iter().map(|group| group.name.as_str()),
                ),
            );
            return None;
        };
        let Some(both) = meet(&all, &group.matches) else {
            found.error(
                name.at,
                Code::TestInvalid,
                format!("test `{}`: no node can be in all of its groups", test.name),
            );
            return None;
        };
        all = both;
        groups.insert(index);
    }
    if !test.groups.is_empty() {
        let implied = policy.groups.iter().enumerate();
        groups.extend(
            implied
                .filter(|(_, group)| is_within(&all, &group.matches))
                .map(|(index, _)| index),
        );
    }
    Some(groups)
}

/// `Some(None)`: the test is about a node.
fn operator_of(
    policy: &CompiledPolicy,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<Option<String>> {
    let mut common: Option<BTreeSet<String>> = None;
    for name in &test.operator_groups {
        let group = policy
            .operator_groups
            .iter()
            .find(|group| group.name == name.value);
        let Some(group) = group else {
            found.error_with_help(
                name.at,
                Code::UnknownName,
                format!("operator group `{}` is not defined", name.value),
                suggest(
                    &name.value,
                    policy
                        .operator_groups
                        .iter()
                        .map(|group| group.name.as_str()),
                ),
            );
            return None;
        };
        common = Some(match common {
            None => group.members.clone(),
            Some(common) => common.intersection(&group.members).cloned().collect(),
        });
    }
    match common {
        None => Some(None),
        Some(common) => match common.into_iter().next() {
            Some(name) => Some(Some(name)),
            None => {
                found.error(
                    test.at,
                    Code::TestInvalid,
                    format!("test `{}`: no operator is in all of its groups", test.name),
                );
                None
            }
        },
    }
}

/// The profiles that a result of the subject names: those stated, else those of its groups.
fn profiles_of(
    policy: &CompiledPolicy,
    test: &TestDef,
    groups: &BTreeSet<usize>,
    found: &mut Diagnostics<'_>,
) -> Option<Option<StatedProfiles>> {
    let mut indices = BTreeSet::new();
    match &test.profiles {
        None => {
            let profiles = groups.iter();
            indices.extend(profiles.filter_map(|group| policy.groups.get(*group)?.profile));
            // Where one enforces, those in mode `monitor` are not compared.
            let enforces = |index: &usize| {
                let profile = policy.profiles.get(*index);
                profile.is_some_and(|profile| profile.mode == Mode::Enforce)
            };
            if indices.iter().any(enforces) {
                indices.retain(enforces);
            }
            indices.retain(|index| policy.profiles.get(*index).is_some_and(Profile::compares));
        }
        Some(names) => {
            for name in names {
                let known = policy.profiles.iter();
                let Some(index) = known.clone().position(|known| known.name == name.value) else {
                    found.error_with_help(
                        name.at,
                        Code::UnknownName,
                        format!("profile `{}` is not defined", name.value),
                        suggest(&name.value, known.map(|known| known.name.as_str())),
                    );
                    return None;
                };
                indices.insert(index);
            }
        }
    }
    let labels = indices.iter().filter_map(|index| policy.labels.get(*index));
    // More than a result may name is unknown, as it is in service.
    let text = StatedProfiles::text(labels);
    Some(match text.as_deref() {
        None => None,
        Some("") => Some(StatedProfiles::NONE),
        Some(text) => StatedProfiles::parse(text),
    })
}

/// The best tier that every profile of the groups accepts.
fn tier_of(policy: &CompiledPolicy, groups: &BTreeSet<usize>) -> Tier {
    let profiles: Vec<_> = groups
        .iter()
        .filter_map(|group| policy.groups.get(*group)?.profile)
        .filter_map(|index| policy.profiles.get(index))
        .collect();
    Tier::ALL
        .into_iter()
        .find(|tier| profiles.iter().all(|profile| profile.tiers.contains(tier)))
        .unwrap_or(Tier::Hardware)
}
