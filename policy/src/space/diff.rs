//! Two policies side by side: exactly where a verdict changes.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::Timestamp;
use serde::Serialize;

use super::TooLarge;
use super::beside::{Beside, Moved, beside, moved};
use super::interface::{Here, Pair, Wanted};
use super::region::{Changed, Offered, merge};
use super::wording::{Direction, Region, words};
use crate::compile::{CompiledPolicy, Interface};
use crate::labels::{is_within, may_meet};

/// What a candidate is to the policy in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Every verdict is the same, and what makes somebody trusted as well.
    Same,
    /// Some verdicts become denials, none becomes an allow.
    Narrower,
    /// Some verdicts become allows, none becomes a denial.
    Wider,
    /// Both; or it cannot be told.
    Mixed,
}

/// Everything in which two policies differ.
#[derive(Debug, Serialize)]
pub struct Diff {
    pub change: Change,
    /// Where the verdict changes: disjoint, and nowhere else.
    pub regions: Vec<Region>,
    /// Interfaces whose names stay while what they mean changes.
    pub moved: Vec<Moved>,
    /// What changes beside verdicts: above all what makes somebody trusted.
    pub beside: Vec<Beside>,
    #[serde(skip)]
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "tests ask it about single points")
    )]
    pub(super) changed: Vec<Changed>,
}

/// What changes from one policy to another, from `since` on.
pub fn diff(
    before: &CompiledPolicy,
    after: &CompiledPolicy,
    since: Timestamp,
) -> Result<Diff, TooLarge> {
    let mut pair = Pair::new(before, after, since);
    let first = pair.sides[0].interfaces();
    let second = pair.sides[1].interfaces();
    let names: BTreeSet<(&str, &str)> = first.keys().chain(second.keys()).copied().collect();
    let mut changed = Vec::new();
    let mut all_moved = Vec::new();
    for name in names {
        let interfaces = [first.get(&name).copied(), second.get(&name).copied()];
        all_moved.extend(moved(interfaces, &pair));
        let offered = offered(&pair, interfaces);
        let here = match offered.as_slice() {
            [Offered::Both] => pair.interface(interfaces)?,
            _ => {
                let [one, other] = &pair.sides;
                let rows = [
                    interfaces[0].map(|interface| one.rows(interface)),
                    interfaces[1].map(|interface| other.rows(interface)),
                ];
                Some(pair.here(interfaces, rows, &Wanted::default())?)
            }
        };
        let Some(here) = here else { continue };
        changed.extend(at_interface(&pair, name, here, &offered)?);
    }
    let regions: Vec<Region> = changed
        .iter()
        .flat_map(|changed| words(&pair, changed))
        .collect();
    let beside = beside(before, after);
    Ok(Diff {
        change: classify(&regions, &all_moved, &beside),
        regions,
        moved: all_moved,
        beside,
        changed,
    })
}

/// What a candidate is to the policy in force. What is too large to be told is [`Change::Mixed`].
pub fn compare(before: &CompiledPolicy, after: &CompiledPolicy, since: Timestamp) -> Change {
    diff(before, after, since).map_or(Change::Mixed, |diff| diff.change)
}

fn at_interface(
    pair: &Pair<'_>,
    (service, name): (&str, &str),
    here: Here,
    offered: &[Offered],
) -> Result<Option<Changed>, TooLarge> {
    let mut found = BTreeMap::new();
    for offered in offered {
        let paths = pair.differences(&here, *offered, &BTreeMap::new(), &|_| true)?;
        found.extend(paths.into_iter().map(|(path, who)| ((*offered, path), who)));
    }
    if found.is_empty() {
        return Ok(None);
    }
    let parts = merge(&here.axes, &here.cells, found)?;
    Ok(Some(Changed {
        service: service.to_owned(),
        name: name.to_owned(),
        named: here
            .rows
            .iter()
            .flatten()
            .flatten()
            .flat_map(|row| row.groups.iter().copied())
            .collect(),
        relevant: here.relevant,
        axes: here.axes,
        cells: here.cells,
        parts,
    }))
}

/// Which nodes may offer it: by both policies, or by one of them only.
fn offered(pair: &Pair<'_>, interfaces: [Option<&Interface>; 2]) -> Vec<Offered> {
    let on = |side: usize| {
        let interface = interfaces.get(side).copied().flatten()?;
        let groups = &pair.sides.get(side)?.groups;
        let group = groups.get(interface.on)?;
        Some(&pair.joint.groups.get(*group)?.matches)
    };
    match (on(0), on(1)) {
        (Some(before), Some(after)) if before == after => vec![Offered::Both],
        (Some(before), Some(after)) => {
            let mut offered = Vec::new();
            offered.extend((!is_within(before, after)).then_some(Offered::Before));
            offered.extend((!is_within(after, before)).then_some(Offered::After));
            offered.extend(may_meet(before, after).then_some(Offered::Both));
            offered
        }
        (Some(_), None) => vec![Offered::Before],
        (None, Some(_)) => vec![Offered::After],
        (None, None) => Vec::new(),
    }
}

fn classify(regions: &[Region], moved: &[Moved], beside: &[Beside]) -> Change {
    let changes = regions
        .iter()
        .map(|region| match region.direction {
            Direction::AllowToDeny => Change::Narrower,
            Direction::DenyToAllow => Change::Wider,
        })
        .chain(moved.iter().map(|moved| moved.change))
        .chain(beside.iter().map(|beside| beside.change));
    changes.fold(Change::Same, Change::and)
}

impl Change {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Same, change) | (change, Self::Same) => change,
            (one, other) if one == other => one,
            _ => Self::Mixed,
        }
    }

    /// Whether it may take something away.
    pub fn may_narrow(self) -> bool {
        matches!(self, Self::Narrower | Self::Mixed)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Narrower => "narrower",
            Self::Wider => "wider",
            Self::Mixed => "mixed",
        }
    }
}
