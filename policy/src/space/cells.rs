//! The axis of who: cells of subjects that no row of one interface can tell apart.
//!
//! Nodes are anything that labels can be: the cells of label space are the sets of groups that one node can be in
//! together. They are found key by key, keeping only what differs, so that keys which matter apart are not multiplied.
//! Operators and devices are those that the policies name.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::Kind;

use super::TooLarge;
use super::joint::Joint;
use super::rows::SpaceRow;
use super::side::Side;
use crate::fleet::Labels;
use crate::labels::matches;

/// Most cells of one interface.
pub(super) const MAX_CELLS: usize = 50_000;

/// Subjects that are alike to one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) members: Members,
    /// Labels that make a node one of them; those of a device.
    pub(super) example: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Members {
    /// Nodes in exactly these of the groups that matter.
    Node(BTreeSet<usize>),
    Operator(String),
    /// By name, with its groups.
    Device(String, BTreeSet<usize>),
}

impl Cell {
    pub(super) fn kind(&self) -> Kind {
        match self.members {
            Members::Node(_) => Kind::Node,
            Members::Operator(_) => Kind::Operator,
            Members::Device(..) => Kind::Device,
        }
    }
}

/// Every cell that some row is about, nodes first.
pub(super) fn find(
    joint: &Joint,
    sides: &[&Side<'_>],
    rows: &[&SpaceRow],
) -> Result<Vec<Cell>, TooLarge> {
    let mut cells = nodes(joint, sides, rows)?;
    let any = rows.iter().any(|row| row.any);
    let mut operators: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| row.operators.iter().map(String::as_str))
        .collect();
    if any {
        operators.extend(sides.iter().flat_map(|side| &side.operators));
    }
    cells.extend(operators.into_iter().map(|name| Cell {
        members: Members::Operator(name.to_owned()),
        example: Labels::new(),
    }));
    let named: BTreeSet<usize> = rows
        .iter()
        .flat_map(|row| row.groups.iter().copied())
        .collect();
    let mut devices = BTreeSet::new();
    for device in sides.iter().flat_map(|side| &side.policy.devices) {
        let groups = device_groups(joint, &device.labels);
        if !any && groups.is_disjoint(&named) {
            continue;
        }
        let members = Members::Device(device.name.clone(), groups);
        if devices.insert(members.clone()) {
            cells.push(Cell {
                members,
                example: device.labels.clone(),
            });
        }
    }
    match cells.len() > MAX_CELLS {
        true => Err(TooLarge::Subjects),
        false => Ok(cells),
    }
}

/// Groups of devices with these labels.
pub(super) fn device_groups(joint: &Joint, labels: &Labels) -> BTreeSet<usize> {
    let groups = joint.groups.iter().enumerate();
    groups
        .filter(|(_, group)| group.devices && matches(&group.matches, labels))
        .map(|(index, _)| index)
        .collect()
}

/// The groups that matter to some rows: those named, and those whose profiles bound how long evidence counts.
pub(super) fn that_matter(
    joint: &Joint,
    sides: &[&Side<'_>],
    rows: &[&SpaceRow],
) -> BTreeSet<usize> {
    let named = rows.iter().flat_map(|row| &row.groups);
    let termed = sides.iter().flat_map(|side| side.terms.keys());
    named
        .chain(termed)
        .copied()
        .filter(|index| joint.groups.get(*index).is_some_and(|group| !group.devices))
        .collect()
}

fn nodes(joint: &Joint, sides: &[&Side<'_>], rows: &[&SpaceRow]) -> Result<Vec<Cell>, TooLarge> {
    let relevant = that_matter(joint, sides, rows);
    let named: BTreeSet<usize> = rows
        .iter()
        .flat_map(|row| row.groups.iter().copied())
        .filter(|group| relevant.contains(group))
        .collect();
    let any = rows.iter().any(|row| row.any);
    if named.is_empty() && !any {
        return Ok(Vec::new());
    }
    let keys: BTreeSet<&str> = relevant
        .iter()
        .filter_map(|index| joint.groups.get(*index))
        .flat_map(|group| group.matches.keys().map(String::as_str))
        .collect();
    let mut cells: BTreeMap<BTreeSet<usize>, Labels> = BTreeMap::from([(relevant, Labels::new())]);
    for key in keys {
        let mut next = BTreeMap::new();
        for (alive, labels) in cells {
            for (value, kept) in split(joint, &alive, key) {
                if !any && kept.is_disjoint(&named) {
                    continue;
                }
                next.entry(kept).or_insert_with(|| {
                    let mut labels = labels.clone();
                    labels.extend(value.map(|value| (key.to_owned(), value.to_owned())));
                    labels
                });
                if next.len() > MAX_CELLS {
                    return Err(TooLarge::Subjects);
                }
            }
        }
        cells = next;
    }
    Ok(cells
        .into_iter()
        .map(|(groups, example)| Cell {
            members: Members::Node(groups),
            example,
        })
        .collect())
}

/// What each value of a key, or none of those named, leaves of some groups; each outcome once.
fn split<'j>(
    joint: &'j Joint,
    alive: &BTreeSet<usize>,
    key: &str,
) -> Vec<(Option<&'j str>, BTreeSet<usize>)> {
    let mut free = BTreeSet::new();
    let mut by_value: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for index in alive {
        let matches = joint.groups.get(*index).map(|group| &group.matches);
        match matches.and_then(|matches| matches.get(key)) {
            None => {
                free.insert(*index);
            }
            Some(values) => {
                for value in values {
                    by_value.entry(value).or_default().insert(*index);
                }
            }
        }
    }
    let mut outcomes: BTreeMap<BTreeSet<usize>, Option<&str>> = BTreeMap::new();
    for (value, with) in by_value {
        let kept = with.union(&free).copied().collect();
        outcomes.entry(kept).or_insert(Some(value));
    }
    outcomes.entry(free).or_insert(None);
    outcomes
        .into_iter()
        .map(|(kept, value)| (value, kept))
        .collect()
}
