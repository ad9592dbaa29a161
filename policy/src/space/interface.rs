//! One interface on both sides: its cells and axes, and where its verdicts differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_identity::{Kind, Timestamp};

use super::TooLarge;
use super::axes::{Atoms, Axes, Axis};
use super::cells::{Cell, Members, Place};
use super::diagram::{About, Path, differences};
use super::joint::Joint;
use super::region::Offered;
use super::rows::SpaceRow;
use super::side::{Side, Terms, actions_of};
use super::times::Times;
use crate::compile::Interface;

/// Two policies in the words that they share.
pub(super) struct Pair<'p> {
    pub(super) joint: Joint,
    pub(super) sides: [Side<'p>; 2],
    since: Timestamp,
    times: BTreeMap<TimeKey, Arc<Times>>,
}

/// Windows, and ends of rules.
type TimeKey = (BTreeSet<usize>, BTreeSet<Timestamp>);

/// One interface, ready to be asked.
pub(super) struct Here {
    pub(super) rows: [Option<Vec<SpaceRow>>; 2],
    pub(super) cells: Vec<Cell>,
    /// Groups of nodes that set cells apart.
    pub(super) relevant: BTreeSet<usize>,
    pub(super) axes: Axes,
}

/// What is to be told apart beside what rows tell apart.
#[derive(Default)]
pub(super) struct Wanted {
    /// Groups of nodes.
    pub(super) groups: BTreeSet<usize>,
    pub(super) windows: BTreeSet<usize>,
}

/// What makes subjects alike.
type Signature = (Vec<usize>, Vec<usize>, &'static str, Terms, Terms);

impl<'p> Pair<'p> {
    pub(super) fn new(
        before: &'p crate::CompiledPolicy,
        after: &'p crate::CompiledPolicy,
        since: Timestamp,
    ) -> Self {
        let mut joint = Joint::default();
        let sides = [
            Side::new(0, before, &mut joint),
            Side::new(1, after, &mut joint),
        ];
        Self {
            joint,
            sides,
            since,
            times: BTreeMap::new(),
        }
    }

    /// `None`: both sides have the same rows there, about the same subjects.
    pub(super) fn interface(
        &mut self,
        interfaces: [Option<&Interface>; 2],
    ) -> Result<Option<Here>, TooLarge> {
        let [one, other] = &self.sides;
        let rows = [
            interfaces[0].map(|interface| one.rows(interface)),
            interfaces[1].map(|interface| other.rows(interface)),
        ];
        if rows[0] == rows[1] && self.have_the_same_subjects(rows[0].as_deref().unwrap_or_default())
        {
            return Ok(None);
        }
        self.here(interfaces, rows, &Wanted::default()).map(Some)
    }

    /// The interface whatever the other side says.
    pub(super) fn here(
        &mut self,
        interfaces: [Option<&Interface>; 2],
        rows: [Option<Vec<SpaceRow>>; 2],
        wanted: &Wanted,
    ) -> Result<Here, TooLarge> {
        let [one, other] = &self.sides;
        let place = Place {
            joint: &self.joint,
            sides: [one, other],
            interfaces,
            rows: rows.iter().flatten().flatten().collect(),
            groups: &wanted.groups,
        };
        let cells = place.cells()?;
        let relevant = place.that_matter();
        let all = place.rows;
        let mut terms: BTreeSet<Terms> = BTreeSet::from([(None, None)]);
        for cell in &cells {
            terms.extend(self.sides.iter().map(|side| terms_of(side, cell)));
        }
        let mut used: BTreeSet<usize> = all.iter().filter_map(|row| row.window).collect();
        used.extend(&wanted.windows);
        let ends: BTreeSet<Timestamp> = all.iter().filter_map(|row| row.until).collect();
        let key = (used, ends);
        let times = match self.times.get(&key) {
            Some(known) => Arc::clone(known),
            None => {
                let made = Arc::new(self.times_of(&key)?);
                self.times.insert(key, Arc::clone(&made));
                made
            }
        };
        let axes = Axes::new(actions_of(interfaces), &all, &terms, times);
        Ok(Here {
            rows,
            cells,
            relevant,
            axes,
        })
    }

    fn times_of(&self, (used, ends): &TimeKey) -> Result<Times, TooLarge> {
        let ends = ends.iter().copied().collect();
        Times::new(&self.joint.windows, used, ends, self.since)
    }

    fn have_the_same_subjects(&self, rows: &[SpaceRow]) -> bool {
        let [one, other] = &self.sides;
        let any = rows.iter().any(|row| row.any);
        let devices = |side: &Side<'_>| {
            let devices = side.devices.values();
            let devices: BTreeMap<_, _> = devices
                .map(|device| {
                    let how = (
                        device.labels.clone(),
                        device.scope.clone(),
                        device.net.clone(),
                        (device.is_told_by_packets(), side.leading_to(device)),
                    );
                    (device.name.clone(), how)
                })
                .collect();
            (devices, side.device_groups(&self.joint))
        };
        one.terms == other.terms
            && devices(one) == devices(other)
            && (!any || one.operators == other.operators)
    }

    /// Where the verdicts about those meant differ on nodes that offer it as said, each way with the cells that it is about.
    pub(super) fn differences(
        &self,
        here: &Here,
        offered: Offered,
        only: &BTreeMap<Axis, Atoms>,
        meant: &dyn Fn(&Cell) -> bool,
    ) -> Result<BTreeMap<Path, BTreeSet<usize>>, TooLarge> {
        let mut alike: BTreeMap<Signature, BTreeSet<usize>> = BTreeMap::new();
        let cells = here.cells.iter().enumerate();
        for (index, cell) in cells.filter(|(_, cell)| cell.meets(offered) && meant(cell)) {
            let [one, other] = &self.sides;
            let before = about(&here.rows[0], one, cell, offered != Offered::After);
            let after = about(&here.rows[1], other, cell, offered != Offered::Before);
            let signature = (
                before,
                after,
                cell.kind().as_str(),
                terms_of(one, cell),
                terms_of(other, cell),
            );
            alike.entry(signature).or_default().insert(index);
        }
        let mut found: BTreeMap<Path, BTreeSet<usize>> = BTreeMap::new();
        for ((before, after, _, first, second), who) in alike {
            let cell = who.first().and_then(|index| here.cells.get(*index));
            let kind = cell.map_or(Kind::Node, Cell::kind);
            let before = chosen(&here.rows[0], &before, offered != Offered::After);
            let after = chosen(&here.rows[1], &after, offered != Offered::Before);
            let sides = [
                About {
                    rows: before.as_deref(),
                    terms: first,
                },
                About {
                    rows: after.as_deref(),
                    terms: second,
                },
            ];
            for path in differences(&here.axes, kind, sides, only)? {
                found.entry(path).or_default().extend(&who);
            }
        }
        Ok(found)
    }
}

fn about(rows: &Option<Vec<SpaceRow>>, side: &Side<'_>, cell: &Cell, there: bool) -> Vec<usize> {
    let rows = rows.as_deref().filter(|_| there).unwrap_or_default();
    let numbered = rows.iter().enumerate();
    numbered
        .filter(|(_, row)| row.is_about(cell, side))
        .map(|(index, _)| index)
        .collect()
}

fn chosen<'r>(
    rows: &'r Option<Vec<SpaceRow>>,
    indices: &[usize],
    there: bool,
) -> Option<Vec<&'r SpaceRow>> {
    let rows = rows.as_deref().filter(|_| there)?;
    let chosen = indices.iter().filter_map(|index| rows.get(*index));
    Some(chosen.collect())
}

pub(super) fn terms_of(side: &Side<'_>, cell: &Cell) -> Terms {
    match &cell.members {
        Members::Node(groups) => side.terms_of(groups),
        Members::Operator(_) | Members::Device(_) => (None, None),
    }
}
