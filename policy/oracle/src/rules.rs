//! One rule as one Cedar policy.

use std::fmt::Write;

use edgeward_identity::AttestationState;
use edgeward_policy::slice::{States, Term, Tiers};
use edgeward_policy::testing::{Whole, WholeRule};
use edgeward_policy::{Effect, Seconds};

use crate::world::VERSIONS;

pub(crate) fn write_rule(policy: &Whole<'_>, rule: &WholeRule<'_>, text: &mut String) {
    let effect = match rule.effect {
        Effect::Allow => "permit",
        Effect::Deny => "forbid",
    };
    let quoted = |kind: &str, names: Vec<String>| {
        let names: Vec<String> = names.iter().map(|name| format!("{kind}{name:?}")).collect();
        names.join(", ")
    };
    let actions = quoted("Action::", rule.actions.to_vec());
    let mut sources: Vec<String> = Vec::new();
    if rule.any {
        sources.push("principal in Everybody::\"all\"".to_owned());
    }
    for group in rule.groups {
        sources.push(format!("principal in Group::\"{group}\""));
    }
    for group in rule.operator_groups {
        sources.push(format!("principal in OperatorGroup::\"{group}\""));
    }
    let mut conditions = vec![
        format!("({})", sources.join(" || ")),
        "principal != resource.node".to_owned(),
        "(!(principal is Device) || principal.node == resource.node)".to_owned(),
        "resource.node in resource.interface.on".to_owned(),
    ];
    if !rule.everywhere {
        let targets = rule
            .targets
            .iter()
            .map(|target| &policy.interfaces[*target]);
        let names = targets.map(|one| format!("{}/{}", one.service, one.name));
        let names = quoted("Interface::", names.collect());
        conditions.push(format!("[{names}].contains(resource.interface)"));
    }
    let deny = rule.effect == Effect::Deny;
    conditions.push(tier_condition(rule.tiers, deny));
    conditions.push(state_condition(rule.states));
    if let Some(profiles) = rule.profiles {
        let names = profiles
            .iter()
            .map(|index| policy.profiles[*index].name.clone());
        let names = quoted("", names.collect());
        conditions.push(match deny {
            true => format!("(!(context has named) || context.named.containsAny([{names}]) || context.doubtful.containsAny([{names}]))"),
            false => format!("(context has named && context.named.containsAny([{names}]))"),
        });
    }
    if !rule.runs.is_empty() {
        conditions.push(runs_condition(rule.runs, deny));
    }
    let id = &rule.id;
    let mut lifted = vec!["true".to_owned()];
    if let Some(window) = rule.window {
        lifted.push(format!(
            "context.open.contains({:?})",
            policy.windows[window].name
        ));
    }
    if let Some(until) = rule.until {
        lifted.push(format!("context.now < {}", until.millis()));
    }
    if rule.approval {
        lifted.push(format!(
            "context.approved has {id} && context.now < context.approved.{id}"
        ));
    }
    if deny {
        conditions.append(&mut lifted);
    } else {
        lifted.push(age_condition(rule));
        conditions.push(format!(
            "((context.opened has {id} && context.now < context.opened.{id}) || ({}))",
            lifted.join(" && ")
        ));
    }
    writeln!(
        text,
        "@id({id:?}) {effect}(principal, action in [{actions}], resource) when {{ {} }};",
        conditions.join(" && ")
    )
    .unwrap();
}

/// What cannot be told fails an allow and matches a deny.
fn tier_condition(tiers: &Tiers, deny: bool) -> String {
    let named = match tiers {
        Tiers::Every => return "true".to_owned(),
        Tiers::Rooted => "context.tier != \"software\"".to_owned(),
        Tiers::These(these) => {
            let these: Vec<_> = these
                .iter()
                .map(|tier| format!("{:?}", tier.as_str()))
                .collect();
            format!("[{}].contains(context.tier)", these.join(", "))
        }
    };
    match deny {
        true => format!("(!(context has tier) || {named})"),
        false => format!("(context has tier && {named})"),
    }
}

/// All of them; what is unknown fails an allow and matches a deny. Versions are compared by their places in
/// [`VERSIONS`].
fn runs_condition(runs: &[String], deny: bool) -> String {
    let wants = runs.iter().map(|want| {
        let (app, least) = want.split_once(">=").unwrap_or((want, VERSIONS[0]));
        let least = VERSIONS.iter().position(|version| *version == least);
        let least = least.unwrap_or_else(|| panic!("no version that is run: {want}"));
        format!("context.running has {app:?} && context.running[{app:?}] >= {least}")
    });
    let all = wants.collect::<Vec<_>>().join(" && ");
    match deny {
        true => format!("(!(context has running) || ({all}))"),
        false => format!("(context has running && {all})"),
    }
}

fn state_condition(states: &States) -> String {
    let list = |states: &[AttestationState]| {
        let states: Vec<_> = states
            .iter()
            .map(|state| format!("{:?}", state.as_str()))
            .collect();
        format!("[{}].contains(context.state)", states.join(", "))
    };
    match states {
        States::Every => "true".to_owned(),
        States::Proven => {
            "(if principal is Device then context.state == \"vouched\" else context.state == \"trusted\")".to_owned()
        }
        States::These(these) => list(these),
        States::Unless(excepted) => format!("!{}", list(excepted)),
    }
}

/// Evidence is younger than the rule wants it: `fresh` while the cloud is heard, else `offline`.
fn age_condition(rule: &WholeRule<'_>) -> String {
    let rests = match rule.fresh.own.is_some() || rule.offline.own.is_some() {
        true => "true",
        false => "[\"trusted\", \"vouched\"].contains(context.state)",
    };
    let (fresh, offline) = (term("fresh", rule.fresh), term("offline", rule.offline));
    let before_now = |time: &str| format!("(if {time} < context.now then {time} else context.now)");
    let (pass, heard) = (before_now("context.pass"), before_now("context.heard"));
    format!(
        "(if context has heard then \
           (if {rests} then context has pass && context.now < (if {pass} < {heard} then {pass} else {heard}) + {offline} \
            else context.now < {heard} + {offline}) \
         else (!{rests} || (context has pass && context.now < {pass} + {fresh})))"
    )
}

/// In milliseconds: the stricter of rule and profiles, the default where neither speaks, never more than the most.
fn term(key: &str, term: Term) -> String {
    let millis = |seconds: Seconds| seconds.get() * 1000;
    let most = term.most.map_or(u64::MAX >> 1, millis);
    let own = match term.own {
        Some(own) => {
            let own = millis(own);
            format!(
                "(if principal has {key} && principal.{key} < {own} then principal.{key} else {own})"
            )
        }
        None => format!(
            "(if principal has {key} then principal.{key} else {})",
            millis(term.default)
        ),
    };
    format!("(if {own} < {most} then {own} else {most})")
}
