//! What differs between two policies though no point of the decision space tells: what names mean, and what makes
//! somebody trusted.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::diff::Change;
use super::interface::Pair;
use crate::compile::{Behind, CompiledPolicy, Interface};
use crate::l7::L7;
use crate::slice::Effect;

/// An interface whose name stays while what it means changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// `service/interface`.
    pub to: String,
    /// What about it: `net`, `l4`, `to`, `behind`, or `l7`.
    pub what: &'static str,
    pub before: String,
    pub after: String,
    pub change: Change,
}

/// A change beside verdicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// `profile`, `group`, `device`, `route`, `role`, `approval`, `break-glass` or `workload`.
    pub kind: &'static str,
    pub name: String,
    /// `added`, `removed` or `changed`.
    pub what: &'static str,
    /// What that may do to verdicts by way of somebody's state.
    pub change: Change,
}

/// In which respects an interface that both policies have differs.
pub(super) fn moved(interfaces: [Option<&Interface>; 2], pair: &Pair<'_>) -> Vec<Moved> {
    let [Some(before), Some(after)] = interfaces else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut note = |what, before: String, after: String, change| {
        if before != after {
            let to = format!(
                "{}/{}",
                interfaces[0].map_or("", |i| &i.service),
                interfaces[0].map_or("", |i| &i.name)
            );
            found.push(Moved {
                to,
                what,
                before,
                after,
                change,
            });
        }
    };
    let l4 = |interface: &Interface| format!("{}/{}", interface.proto.as_str(), interface.port);
    let to = |interface: &Interface| {
        interface
            .to
            .map_or("itself".to_owned(), |to| to.to_string())
    };
    note("net", before.net.clone(), after.net.clone(), Change::Mixed);
    note("l4", l4(before), l4(after), Change::Mixed);
    note("to", to(before), to(after), Change::Mixed);
    let [one, other] = &pair.sides;
    note(
        "behind",
        named_behind(one.policy, before),
        named_behind(other.policy, after),
        Change::Mixed,
    );
    let (first, second) = (patterns(before.l7.as_ref()), patterns(after.l7.as_ref()));
    let denies = pair
        .sides
        .iter()
        .zip([before, after])
        .any(|(side, interface)| {
            let rows = side.rows(interface);
            rows.iter().any(|row| row.effect == Effect::Deny)
        });
    // What an action means more, an allow allows more; where something is denied it may be the other way round.
    let same_proto = before.l7.as_ref().map(L7::proto) == after.l7.as_ref().map(L7::proto);
    let change = match (
        denies || !same_proto,
        first.is_subset(&second),
        second.is_subset(&first),
    ) {
        (false, true, _) => Change::Wider,
        (false, false, true) => Change::Narrower,
        _ => Change::Mixed,
    };
    let proto = |interface: &Interface| interface.l7.as_ref().map_or("none", L7::proto);
    let text = |interface: &Interface, all: &BTreeSet<String>, other: &BTreeSet<String>| {
        let own: Vec<&str> = all.difference(other).map(String::as_str).collect();
        format!("{}: {}", proto(interface), own.join(", "))
    };
    if first != second || !same_proto {
        note(
            "l7",
            text(before, &first, &second),
            text(after, &second, &first),
            change,
        );
    }
    found
}

/// `action pattern`, each.
fn patterns(l7: Option<&L7>) -> BTreeSet<String> {
    fn of<P: std::fmt::Display>(actions: &[crate::l7::Patterns<P>]) -> BTreeSet<String> {
        actions
            .iter()
            .flat_map(|action| {
                let name = &action.action;
                action.any_of.iter().map(move |one| format!("{name} {one}"))
            })
            .collect()
    }
    match l7 {
        None => BTreeSet::new(),
        Some(L7::Http(actions)) => of(actions),
        Some(L7::Mqtt(actions)) => of(actions),
        Some(L7::Modbus(actions)) => of(actions),
    }
}

/// What changes beside verdicts.
pub(super) fn beside(before: &CompiledPolicy, after: &CompiledPolicy) -> Vec<Beside> {
    let mut found = Vec::new();
    let mut note = |kind, change, of: &dyn Fn(&CompiledPolicy) -> BTreeMap<String, String>| {
        found.extend(compared(kind, change, &of(before), &of(after)));
    };
    note("profile", Change::Mixed, &profiles);
    note("group", Change::Mixed, &groups);
    note("device", Change::Mixed, &devices);
    // Where an address leads; what may be reached there is in the space.
    note("route", Change::Mixed, &routes);
    // Carrying opens nothing, and the internet is a target like others.
    note("role", Change::Same, &roles);
    note("approval", Change::Mixed, &approvals);
    note("break-glass", Change::Mixed, &glass);
    // Identities of processes open nothing in this space.
    note("workload", Change::Same, &workloads);
    found
}

fn compared(
    kind: &'static str,
    change: Change,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<Beside> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let what = match (before.get(name), after.get(name)) {
                (Some(one), Some(other)) if one == other => return None,
                (Some(_), Some(_)) => "changed",
                (Some(_), None) => "removed",
                (None, _) => "added",
            };
            Some(Beside {
                kind,
                name: name.clone(),
                what,
                change,
            })
        })
        .collect()
}

fn profiles(policy: &CompiledPolicy) -> BTreeMap<String, String> {
    let named = policy.profiles.iter().zip(&policy.labels);
    named
        .map(|(profile, label)| (profile.name.clone(), label.to_string()))
        .collect()
}

/// Which profile a group asks for decides who is trusted.
fn groups(policy: &CompiledPolicy) -> BTreeMap<String, String> {
    let asking = policy.groups.iter().filter_map(|group| {
        let profile = policy.profiles.get(group.profile?)?;
        Some((
            group.name.clone(),
            format!("{} {:?}", profile.name, group.matches),
        ))
    });
    asking.collect()
}

fn devices(policy: &CompiledPolicy) -> BTreeMap<String, String> {
    let devices = policy.devices.iter();
    devices
        .map(|device| {
            let how = format!("{} {} {:?}", device.node, device.net, device.recognised);
            (device.name.clone(), how)
        })
        .collect()
}

/// What an interface leads to in place of its node, by name.
fn named_behind(policy: &CompiledPolicy, interface: &Interface) -> String {
    let name = match interface.behind {
        None => return "itself".to_owned(),
        Some(Behind::Internet) => return "the internet".to_owned(),
        Some(Behind::Route(index)) => policy.routes.get(index).map(|route| &route.name),
        Some(Behind::Device(index)) => policy.devices.get(index).map(|device| &device.name),
    };
    name.cloned().unwrap_or_default()
}

fn routes(policy: &CompiledPolicy) -> BTreeMap<String, String> {
    let routes = policy.routes.iter();
    routes
        .map(|route| {
            let on = policy.groups.get(route.on).map(|group| &group.matches);
            let how = format!("{on:?} {} {} {:?}", route.net, route.prefix, route.seen);
            (route.name.clone(), how)
        })
        .collect()
}

fn roles(policy: &CompiledPolicy) -> BTreeMap<String, String> {
    let named = |groups: &BTreeSet<usize>| {
        let groups = groups.iter();
        let groups = groups.filter_map(|index| policy.groups.get(*index));
        let named: BTreeMap<&str, _> = groups
            .map(|group| (group.name.as_str(), &group.matches))
            .collect();
        (!named.is_empty()).then(|| format!("{named:?}"))
    };
    let roles = [("relay", &policy.relays), ("exit", &policy.exits)];
    let roles = roles.into_iter();
    roles
        .filter_map(|(name, groups)| Some((name.to_owned(), named(groups)?)))
        .collect()
}

fn workloads(policy: &CompiledPolicy) -> BTreeMap<String, String> {
    let workloads = policy.workloads.iter();
    workloads
        .map(|workload| {
            let on = policy.groups.get(workload.on).map(|group| &group.matches);
            let how = format!("{on:?} {:?} {}", workload.selectors, workload.ttl);
            (workload.name.clone(), how)
        })
        .collect()
}

fn approvals(policy: &CompiledPolicy) -> BTreeMap<String, String> {
    let rules = policy.rules.iter();
    let asking = rules.filter_map(|rule| {
        let approval = rule.approval.as_ref()?;
        let by = policy.members_of(&approval.by);
        let how = format!("{by:?} {} {}", approval.quorum, approval.ttl);
        Some((rule.id.to_string(), how))
    });
    asking.collect()
}

fn glass(policy: &CompiledPolicy) -> BTreeMap<String, String> {
    let glass = policy.break_glass.iter();
    let glass = glass.map(|glass| {
        let rules = glass
            .rules
            .iter()
            .filter_map(|rule| policy.rules.get(*rule));
        let rules: BTreeSet<&str> = rules.map(|rule| &*rule.id).collect();
        let by = policy.members_of(&glass.by);
        let how = format!("{rules:?} {by:?} {} {}", glass.quorum, glass.ttl);
        (glass.name.clone(), how)
    });
    glass.collect()
}
