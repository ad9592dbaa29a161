//! The axis of who: cells of subjects that no row of one interface can tell apart.
//!
//! Nodes are anything that labels can be: the cells of label space are the sets of groups that one node can be in
//! together. They are found key by key, keeping only what differs, so that keys which matter apart are not multiplied.
//! Operators and devices are those that the policies name.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::Kind;

use super::TooLarge;
use super::joint::{Joint, JointGroup};
use super::region::Offered;
use super::rows::SpaceRow;
use super::side::Side;
use crate::ast::LabelSets;
use crate::compile::{Device, Interface};
use crate::fleet::Labels;
use crate::labels::matches;
use crate::slice::MESH;

/// Most cells of one interface.
pub(super) const MAX_CELLS: usize = 50_000;

/// Subjects that are alike to one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) members: Members,
    /// Labels that make a node one of them; for a device, of the node that it hangs on.
    pub(super) example: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Members {
    /// Nodes in exactly these of the groups that matter.
    Node(BTreeSet<usize>),
    Operator(String),
    Device(DeviceCell),
}

/// One device, on such a node that its groups are these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeviceCell {
    pub(super) name: String,
    /// Before and after; `None`: not known there. Never empty, since its node must vouch for it.
    pub(super) groups: [Option<BTreeSet<usize>>; 2],
    /// Whether its node offers the interface; `None` where it comes through that to another one.
    pub(super) offered: Option<Offered>,
}

/// Where the cells are looked for.
pub(super) struct Place<'p> {
    pub(super) joint: &'p Joint,
    pub(super) sides: [&'p Side<'p>; 2],
    pub(super) interfaces: [Option<&'p Interface>; 2],
    pub(super) rows: Vec<&'p SpaceRow>,
    /// Further groups of nodes to tell apart.
    pub(super) groups: &'p BTreeSet<usize>,
}

impl Cell {
    pub(super) fn kind(&self) -> Kind {
        match self.members {
            Members::Node(_) => Kind::Node,
            Members::Operator(_) => Kind::Operator,
            Members::Device(_) => Kind::Device,
        }
    }

    /// Whether it can ask a node that offers the interface as said: on a network a device asks its own node only.
    pub(super) fn meets(&self, offered: Offered) -> bool {
        match &self.members {
            Members::Device(device) => device.offered.is_none_or(|known| known == offered),
            Members::Node(_) | Members::Operator(_) => true,
        }
    }
}

impl Place<'_> {
    /// Every cell that some row is about, nodes first.
    pub(super) fn cells(&self) -> Result<Vec<Cell>, TooLarge> {
        let mut cells = self.nodes()?;
        cells.extend(self.operators());
        self.devices(&mut cells)?;
        match cells.len() > MAX_CELLS {
            true => Err(TooLarge::Subjects),
            false => Ok(cells),
        }
    }

    /// The groups of nodes that matter: those named, and those whose profiles bound how long evidence counts.
    pub(super) fn that_matter(&self) -> BTreeSet<usize> {
        let named = self.rows.iter().flat_map(|row| &row.groups);
        let termed = self.sides.iter().flat_map(|side| side.terms.keys());
        named
            .chain(termed)
            .chain(self.groups)
            .copied()
            .filter(|index| self.group(*index).is_some_and(|group| group.via.is_none()))
            .collect()
    }

    fn group(&self, index: usize) -> Option<&JointGroup> {
        self.joint.groups.get(index)
    }

    fn any(&self) -> bool {
        self.rows.iter().any(|row| row.any)
    }

    fn nodes(&self) -> Result<Vec<Cell>, TooLarge> {
        let relevant: Vec<usize> = self.that_matter().into_iter().collect();
        let named: BTreeSet<usize> = self
            .rows
            .iter()
            .flat_map(|row| &row.groups)
            .copied()
            .collect();
        let places: BTreeSet<usize> = (0..relevant.len())
            .filter(|place| {
                relevant
                    .get(*place)
                    .is_some_and(|group| named.contains(group))
            })
            .collect();
        let any = self.any();
        if places.is_empty() && !any {
            return Ok(Vec::new());
        }
        let sets: Vec<&LabelSets> = relevant
            .iter()
            .filter_map(|index| self.group(*index))
            .map(|group| &group.matches)
            .collect();
        let found = partition(&sets, |kept| any || !kept.is_disjoint(&places))?;
        let cells = found.into_iter().map(|(kept, example)| Cell {
            members: Members::Node(
                kept.iter()
                    .filter_map(|place| relevant.get(*place).copied())
                    .collect(),
            ),
            example,
        });
        Ok(cells.collect())
    }

    fn operators(&self) -> Vec<Cell> {
        let named = self.rows.iter().flat_map(|row| &row.operators);
        let mut operators: BTreeSet<&str> = named.map(String::as_str).collect();
        if self.any() {
            operators.extend(self.sides.iter().flat_map(|side| &side.operators));
        }
        let cells = operators.into_iter().map(|name| Cell {
            members: Members::Operator(name.to_owned()),
            example: Labels::new(),
        });
        cells.collect()
    }

    /// Devices of the interface's network, or in the tunnel all that are led there, each on every kind of node that it
    /// may hang on.
    fn devices(&self, cells: &mut Vec<Cell>) -> Result<(), TooLarge> {
        let names: BTreeSet<&str> = self
            .sides
            .iter()
            .flat_map(|side| side.devices.keys().copied())
            .collect();
        for name in names {
            let known = [0, 1].map(|number| self.device(number, name));
            if known.iter().all(Option::is_none) {
                continue;
            }
            let (sets, questions) = self.asked_of_its_node(&known);
            for (kept, example) in partition(&sets, |_| true)? {
                let Some(device) = questions.answer(name, &kept) else {
                    continue;
                };
                let members = Members::Device(device);
                if !cells.iter().any(|cell| cell.members == members) {
                    cells.push(Cell { members, example });
                }
            }
            if cells.len() > MAX_CELLS {
                return Err(TooLarge::Subjects);
            }
        }
        Ok(())
    }

    /// A device of one side, where it can come to the interface, with the groups that its labels fit.
    fn device(&self, number: usize, name: &str) -> Option<(&Device, BTreeSet<usize>)> {
        let side = self.sides.get(number)?;
        let interface = self.interfaces.get(number).copied().flatten()?;
        let device = *side.devices.get(name)?;
        let comes = match interface.net.as_str() {
            MESH => interface.is_open_to_guests() && device.is_told_by_packets(),
            net => device.net == net,
        };
        if !comes {
            return None;
        }
        let mut groups = side.device_groups(self.joint);
        groups.retain(|index| {
            let group = self.group(*index);
            group.is_some_and(|group| matches(&group.matches, &device.labels))
        });
        Some((device, groups))
    }

    fn asked_of_its_node<'s>(
        &'s self,
        known: &'s [Option<(&'s Device, BTreeSet<usize>)>; 2],
    ) -> (Vec<&'s LabelSets>, NodeQuestions) {
        let mut sets = Vec::new();
        let mut questions = NodeQuestions::default();
        for (number, known) in known.iter().enumerate() {
            let side = self.sides.get(number);
            let interface = self.interfaces.get(number).copied().flatten();
            let on = interface.and_then(|interface| side?.groups.get(interface.on));
            let mut ask = |set: &'s LabelSets| {
                sets.push(set);
                sets.len() - 1
            };
            let on = on.and_then(|group| self.group(*group));
            let in_tunnel = interface.is_some_and(Interface::is_open_to_guests);
            let vouched = known.as_ref().map(|(device, groups)| {
                let leading = side.into_iter().flat_map(|side| side.leading_to(device));
                let leading = leading.filter_map(|group| Some(ask(&self.group(group)?.matches)));
                let leads = in_tunnel.then(|| leading.collect());
                let vias = groups.iter().filter_map(|index| {
                    let via = self.group(self.group(*index)?.via?)?;
                    Some((*index, ask(&via.matches)))
                });
                let vias: Vec<(usize, usize)> = vias.collect();
                Vouching {
                    scope: ask(&device.scope),
                    vias,
                    leads,
                }
            });
            let on = on.filter(|_| !in_tunnel).map(|on| ask(&on.matches));
            questions.sides.push(NodeQuestion {
                on,
                vouched,
                in_tunnel,
            });
        }
        (sets, questions)
    }
}

/// What must be known of the node that a device hangs on, for each side; by places in a list of label sets.
#[derive(Default)]
struct NodeQuestions {
    sides: Vec<NodeQuestion>,
}

struct NodeQuestion {
    /// What offers the interface, where the device asks its own node.
    on: Option<usize>,
    /// The device comes through its node to others.
    in_tunnel: bool,
    /// Where the device is known there.
    vouched: Option<Vouching>,
}

struct Vouching {
    /// What the file that names the device may speak of.
    scope: usize,
    /// Groups of devices, each with what vouches for it.
    vias: Vec<(usize, usize)>,
    /// In the tunnel: what leads to it.
    leads: Option<Vec<usize>>,
}

impl NodeQuestions {
    /// `None`: on such a node it is not known, or the interface is not there.
    fn answer(&self, name: &str, kept: &BTreeSet<usize>) -> Option<DeviceCell> {
        let mut offers = [false; 2];
        let mut groups = [None, None];
        let in_tunnel = self.sides.iter().any(|side| side.in_tunnel);
        for (side, (offers, groups)) in self.sides.iter().zip(offers.iter_mut().zip(&mut groups)) {
            *offers = side.on.is_some_and(|on| kept.contains(&on));
            let Some(vouching) = &side.vouched else {
                continue;
            };
            let vouched = vouching.vias.iter().filter(|(_, via)| kept.contains(via));
            let vouched: BTreeSet<usize> = vouched.map(|(group, _)| *group).collect();
            let leads = vouching.leads.as_ref();
            let led = leads.is_none_or(|leads| leads.iter().any(|on| kept.contains(on)));
            let known = kept.contains(&vouching.scope) && !vouched.is_empty() && led;
            let comes = side.in_tunnel || !in_tunnel || *offers;
            *groups = Some(vouched).filter(|_| known && comes);
        }
        let offered = match offers {
            _ if in_tunnel => None,
            [true, true] => Some(Offered::Both),
            [true, false] => Some(Offered::Before),
            [false, true] => Some(Offered::After),
            [false, false] => return None,
        };
        groups.iter().any(Option::is_some).then(|| DeviceCell {
            name: name.to_owned(),
            groups,
            offered,
        })
    }
}

/// The cells into which some conjunctions of labels part all nodes: which of them match, with an example of each.
/// Cells that are not `wanted` are dropped as soon as they show; what is dropped never becomes wanted again.
fn partition(
    sets: &[&LabelSets],
    wanted: impl Fn(&BTreeSet<usize>) -> bool,
) -> Result<BTreeMap<BTreeSet<usize>, Labels>, TooLarge> {
    let keys: BTreeSet<&str> = sets
        .iter()
        .flat_map(|set| set.keys().map(String::as_str))
        .collect();
    let all: BTreeSet<usize> = (0..sets.len()).collect();
    let mut cells: BTreeMap<BTreeSet<usize>, Labels> = BTreeMap::from([(all, Labels::new())]);
    for key in keys {
        let mut next = BTreeMap::new();
        for (alive, labels) in cells {
            for (value, kept) in split(sets, &alive, key) {
                if !wanted(&kept) {
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
    Ok(cells)
}

/// What each value of a key, or none of those named, leaves of some sets; each outcome once.
fn split<'s>(
    sets: &[&'s LabelSets],
    alive: &BTreeSet<usize>,
    key: &str,
) -> Vec<(Option<&'s str>, BTreeSet<usize>)> {
    let mut free = BTreeSet::new();
    let mut by_value: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for index in alive {
        match sets.get(*index).and_then(|set| set.get(key)) {
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
