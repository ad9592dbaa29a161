//! Differences put together: subjects and paths that differ in one respect only become one region.

use std::collections::{BTreeMap, BTreeSet};

use super::TooLarge;
use super::axes::{Atoms, Axes, Axis};
use super::cells::Cell;
use super::diagram::{Outcomes, Path};

/// Most regions of one interface.
const MAX_REGIONS: usize = 20_000;

/// Nodes that offer an interface, by which policy says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Offered {
    Before,
    After,
    Both,
}

/// Part of the space of one interface in which the verdict changes in one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) offered: Offered,
    /// Places in the interface's cells, all of one kind.
    pub(super) who: BTreeSet<usize>,
    pub(super) atoms: BTreeMap<Axis, Atoms>,
    pub(super) outcomes: Outcomes,
}

/// All that changes at one interface.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) service: String,
    pub(super) name: String,
    /// Groups that its rows name.
    pub(super) named: BTreeSet<usize>,
    /// Groups of nodes that set its cells apart.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "tests find the cell of a node by it")
    )]
    pub(super) relevant: BTreeSet<usize>,
    pub(super) axes: Axes,
    pub(super) cells: Vec<Cell>,
    pub(super) parts: Vec<Part>,
}

/// Paths of single cells to parts.
pub(super) fn merge(
    axes: &Axes,
    cells: &[Cell],
    found: BTreeMap<(Offered, Path), BTreeSet<usize>>,
) -> Result<Vec<Part>, TooLarge> {
    if found.len() > MAX_REGIONS {
        return Err(TooLarge::Differences);
    }
    let mut parts: BTreeSet<Part> = BTreeSet::new();
    for ((offered, path), who) in found {
        // Kinds never merge: what their states mean differs.
        let mut kinds: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for index in who {
            let kind = cells.get(index).map_or("", |cell| cell.kind().as_str());
            kinds.entry(kind).or_default().insert(index);
        }
        parts.extend(kinds.into_values().map(|who| Part {
            offered,
            who,
            atoms: path.atoms.clone(),
            outcomes: path.outcomes.clone(),
        }));
    }
    loop {
        let before = parts.len();
        for axis in &axes.order {
            parts = along(parts, *axis, axes.len(*axis));
        }
        parts = among_subjects(parts, cells);
        if parts.len() == before {
            return Ok(parts.into_iter().collect());
        }
    }
}

/// Partes that differ along one axis only become one.
fn along(parts: BTreeSet<Part>, axis: Axis, whole: usize) -> BTreeSet<Part> {
    let mut by_rest: BTreeMap<Part, Option<Atoms>> = BTreeMap::new();
    for mut one in parts {
        let atoms = one.atoms.remove(&axis);
        by_rest
            .entry(one)
            .and_modify(|all| match (&mut *all, &atoms) {
                (Some(all), Some(atoms)) => all.extend(atoms),
                _ => *all = None,
            })
            .or_insert(atoms);
    }
    by_rest
        .into_iter()
        .map(|(mut one, atoms)| {
            if let Some(atoms) = atoms.filter(|atoms| atoms.len() < whole) {
                one.atoms.insert(axis, atoms);
            }
            one
        })
        .collect()
}

fn among_subjects(parts: BTreeSet<Part>, cells: &[Cell]) -> BTreeSet<Part> {
    let kind = |one: &Part| {
        let first = one.who.first().and_then(|index| cells.get(*index));
        first.map_or("", |cell| cell.kind().as_str())
    };
    let mut by_rest: BTreeMap<(&str, Part), BTreeSet<usize>> = BTreeMap::new();
    for mut one in parts {
        let kind = kind(&one);
        let who = std::mem::take(&mut one.who);
        by_rest.entry((kind, one)).or_default().extend(who);
    }
    by_rest
        .into_iter()
        .map(|((_, one), who)| Part { who, ..one })
        .collect()
}
