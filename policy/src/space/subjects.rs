//! Who a part of the space is about, in as few names as say exactly that.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::Kind;
use serde::Serialize;

use super::cells::{Cell, Members};
use super::interface::Pair;
use super::region::Changed;

/// Subjects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subjects {
    /// `node`, `operator` or `device`.
    pub kind: &'static str,
    /// Any of these: `group:scada`, `group:a and not group:b`, `operator/li`, `device/plc-17`, `any node`.
    pub names: Vec<String>,
}

pub(super) fn subjects(pair: &Pair<'_>, changed: &Changed, who: &BTreeSet<usize>) -> Subjects {
    let first = who.first().and_then(|index| changed.cells.get(*index));
    let kind = first.map_or(Kind::Node, Cell::kind);
    let names = match kind {
        Kind::Operator => operators(pair, changed, who),
        Kind::Device => devices(changed, who),
        Kind::Node | Kind::Workload | Kind::Cloud => nodes(pair, changed, who),
    };
    Subjects {
        kind: kind.as_str(),
        names,
    }
}

fn devices(changed: &Changed, who: &BTreeSet<usize>) -> Vec<String> {
    let cells = who.iter().filter_map(|index| changed.cells.get(*index));
    let names: BTreeSet<String> = cells
        .filter_map(|cell| match &cell.members {
            Members::Device(device) => Some(format!("device/{}", device.name)),
            Members::Node(_) | Members::Operator(_) => None,
        })
        .collect();
    names.into_iter().collect()
}

fn operators(pair: &Pair<'_>, changed: &Changed, who: &BTreeSet<usize>) -> Vec<String> {
    let cells = who.iter().filter_map(|index| changed.cells.get(*index));
    let mut left: BTreeSet<&str> = cells
        .filter_map(|cell| match &cell.members {
            Members::Operator(name) => Some(name.as_str()),
            Members::Node(_) | Members::Device(_) => None,
        })
        .collect();
    let whole = left.clone();
    let mut words = Vec::new();
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for group in pair
        .sides
        .iter()
        .flat_map(|side| &side.policy.operator_groups)
    {
        let members = groups.entry(&group.name).or_default();
        members.extend(group.members.iter().map(String::as_str));
    }
    for (name, members) in groups {
        if members.len() > 1 && members.is_subset(&whole) && !members.is_disjoint(&left) {
            left.retain(|operator| !members.contains(operator));
            words.push(format!("operator-group:{name}"));
        }
    }
    words.extend(left.into_iter().map(|name| format!("operator/{name}")));
    words
}

fn nodes(pair: &Pair<'_>, changed: &Changed, who: &BTreeSet<usize>) -> Vec<String> {
    let cells = changed.cells.iter().enumerate();
    let all: BTreeMap<usize, &BTreeSet<usize>> = cells
        .filter_map(|(index, cell)| match &cell.members {
            Members::Node(groups) => Some((index, groups)),
            Members::Operator(_) | Members::Device(_) => None,
        })
        .collect();
    if all.values().any(|groups| groups.is_empty()) && all.keys().all(|index| who.contains(index)) {
        return vec!["any node".to_owned()];
    }
    let name = |group: &usize| {
        let group = pair.joint.groups.get(*group);
        group.map_or_else(String::new, |group| format!("group:{}", group.name))
    };
    let mut left = who.clone();
    let mut words = Vec::new();
    for group in &changed.named {
        let members: BTreeSet<usize> = all
            .iter()
            .filter(|(_, groups)| groups.contains(group))
            .map(|(index, _)| *index)
            .collect();
        if !members.is_empty() && members.is_subset(who) && !members.is_disjoint(&left) {
            left.retain(|index| !members.contains(index));
            words.push(name(group));
        }
    }
    for groups in left.iter().filter_map(|index| all.get(index)) {
        // Groups that set it apart from the cells which are not meant.
        let apart: BTreeSet<usize> = all
            .iter()
            .filter(|(index, others)| !who.contains(index) && others.is_superset(groups))
            .flat_map(|(_, others)| others.difference(groups).copied())
            .collect();
        let mut parts: Vec<String> = groups.iter().map(name).collect();
        if parts.is_empty() {
            parts.push("nodes".to_owned());
        }
        let without: Vec<String> = apart
            .iter()
            .map(|group| format!("not {}", name(group)))
            .collect();
        parts.extend(without);
        words.push(parts.join(" and "));
    }
    words
}
