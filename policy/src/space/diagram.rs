//! The diagram of one kind of subject at one interface: from axis to axis to the verdicts of both sides, equal parts
//! shared, and cut short where both sides must agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_identity::Kind;

use super::TooLarge;
use super::axes::{Atoms, Axes, Axis, Context, Progress};
use super::rows::SpaceRow;
use super::side::Terms;

/// Most nodes of one diagram.
const MAX_NODES: usize = 200_000;
/// Most paths to a difference in one diagram.
const MAX_PATHS: usize = 20_000;

/// What one side says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// By each of these rules.
    Allow(Vec<Arc<str>>),
    /// By a deny rule.
    Deny(Arc<str>),
    /// No rule allows it.
    Default,
    /// The interface does not exist there.
    NoInterface,
}

/// The verdicts before and after.
pub(super) type Outcomes = (Outcome, Outcome);

/// One way through a diagram to a difference. An axis that is absent does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    pub(super) atoms: BTreeMap<Axis, Atoms>,
    pub(super) outcomes: Outcomes,
}

/// The rows of one side about one subject.
#[derive(Clone, Copy)]
pub(super) struct About<'s> {
    /// `None`: there is no interface.
    pub(super) rows: Option<&'s [&'s SpaceRow]>,
    pub(super) terms: Terms,
}

struct Builder<'b> {
    axes: &'b Axes,
    kind: Kind,
    sides: [About<'b>; 2],
    /// Only these atoms are looked at, where an axis is named.
    only: &'b BTreeMap<Axis, Atoms>,
    nodes: Vec<Node>,
    known: BTreeMap<(usize, Context, [Alive; 2]), usize>,
    leaves: BTreeMap<Outcomes, usize>,
}

enum Node {
    Same,
    Differ(Outcomes),
    Ask(Axis, BTreeMap<usize, Atoms>),
}

/// Rows that still hold, by their place, and how far they have come.
type Alive = Vec<(usize, Progress)>;

const SAME: usize = 0;

/// Every way to a difference between two sides.
pub(super) fn differences(
    axes: &Axes,
    kind: Kind,
    sides: [About<'_>; 2],
    only: &BTreeMap<Axis, Atoms>,
) -> Result<Vec<Path>, TooLarge> {
    let mut builder = Builder {
        axes,
        kind,
        sides,
        only,
        nodes: vec![Node::Same],
        known: BTreeMap::new(),
        leaves: BTreeMap::new(),
    };
    let alive = sides.map(|side| {
        let rows = side.rows.unwrap_or_default().iter().enumerate();
        rows.map(|(index, _)| (index, Progress::Holds)).collect()
    });
    let context = Context {
        rests: false,
        online: true,
        stated: true,
    };
    let root = builder.node(0, context, alive)?;
    let mut paths = Vec::new();
    builder.walk(root, &mut BTreeMap::new(), &mut paths)?;
    Ok(paths)
}

impl Builder<'_> {
    fn node(
        &mut self,
        depth: usize,
        context: Context,
        alive: [Alive; 2],
    ) -> Result<usize, TooLarge> {
        if self.must_agree(&alive) {
            return Ok(SAME);
        }
        let Some(axis) = self.axes.order.get(depth).copied() else {
            return self.leaf(&alive);
        };
        let key = (depth, context, alive);
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let (_, _, alive) = &key;
        let mut nexts: BTreeMap<(Context, [Alive; 2]), Atoms> = BTreeMap::new();
        let only = self.only.get(&axis);
        let atoms = (0..self.axes.len(axis)).filter(|a| only.is_none_or(|only| only.contains(a)));
        for atom in atoms {
            let then = self.axes.context(axis, atom, context);
            let [before, after] = alive;
            let next = [
                self.step(0, axis, atom, before, then),
                self.step(1, axis, atom, after, then),
            ];
            nexts.entry((then, next)).or_default().insert(atom);
        }
        let mut edges: BTreeMap<usize, Atoms> = BTreeMap::new();
        for ((then, next), atoms) in nexts {
            let child = self.node(depth + 1, then, next)?;
            edges.entry(child).or_default().extend(atoms);
        }
        let whole = self.axes.len(axis);
        let single = edges.first_key_value();
        let index = match single.filter(|(_, atoms)| atoms.len() == whole) {
            Some((child, _)) => *child,
            None if edges.keys().all(|child| *child == SAME) => SAME,
            None => self.push(Node::Ask(axis, edges))?,
        };
        self.known.insert(key, index);
        Ok(index)
    }

    fn step(&self, side: usize, axis: Axis, atom: usize, alive: &Alive, context: Context) -> Alive {
        let Some(about) = self.sides.get(side) else {
            return Alive::new();
        };
        let rows = about.rows.unwrap_or_default();
        let facts = (self.kind, about.terms, context);
        let stepped = alive.iter().filter_map(|(index, progress)| {
            let row = rows.get(*index)?;
            let progress = self.axes.step(axis, atom, row, *progress, facts)?;
            Some((*index, progress))
        });
        stepped.collect()
    }

    /// Nothing is allowed any more, or the same rows are left on both sides.
    fn must_agree(&self, alive: &[Alive; 2]) -> bool {
        let [one, other] = &self.sides;
        let [before, after] = alive;
        let allows = |about: &About<'_>, alive: &Alive| {
            let mut rows = alive.iter().filter_map(|(index, _)| row(about, *index));
            rows.any(SpaceRow::is_allow)
        };
        if !allows(one, before) && !allows(other, after) {
            return true;
        }
        one.terms == other.terms
            && before.len() == after.len()
            && before.iter().zip(after).all(|((a, came), (b, gone))| {
                came == gone && row(one, *a).is_some() && row(one, *a) == row(other, *b)
            })
    }

    fn leaf(&mut self, alive: &[Alive; 2]) -> Result<usize, TooLarge> {
        let [one, other] = &self.sides;
        let [before, after] = alive;
        let outcomes = (outcome(one, before), outcome(other, after));
        if outcomes.0.is_allow() == outcomes.1.is_allow() {
            return Ok(SAME);
        }
        if let Some(known) = self.leaves.get(&outcomes) {
            return Ok(*known);
        }
        let index = self.push(Node::Differ(outcomes.clone()))?;
        self.leaves.insert(outcomes, index);
        Ok(index)
    }

    fn push(&mut self, node: Node) -> Result<usize, TooLarge> {
        if self.nodes.len() >= MAX_NODES {
            return Err(TooLarge::Differences);
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn walk(
        &self,
        node: usize,
        so_far: &mut BTreeMap<Axis, Atoms>,
        paths: &mut Vec<Path>,
    ) -> Result<(), TooLarge> {
        match self.nodes.get(node) {
            None | Some(Node::Same) => {}
            Some(Node::Differ(_)) if paths.len() >= MAX_PATHS => return Err(TooLarge::Differences),
            Some(Node::Differ(outcomes)) => paths.push(Path {
                atoms: so_far.clone(),
                outcomes: outcomes.clone(),
            }),
            Some(Node::Ask(axis, edges)) => {
                for (child, atoms) in edges {
                    so_far.insert(*axis, atoms.clone());
                    self.walk(*child, so_far, paths)?;
                }
                so_far.remove(axis);
            }
        }
        Ok(())
    }
}

fn row<'s>(about: &About<'s>, index: usize) -> Option<&'s SpaceRow> {
    about.rows.unwrap_or_default().get(index).copied()
}

fn outcome(about: &About<'_>, alive: &Alive) -> Outcome {
    let Some(rows) = about.rows else {
        return Outcome::NoInterface;
    };
    let in_force: Vec<&SpaceRow> = alive
        .iter()
        .filter_map(|(index, progress)| Some((*rows.get(*index)?, *progress)))
        .filter(|(row, progress)| Axes::is_in_force(row, *progress))
        .map(|(row, _)| row)
        .collect();
    if let Some(deny) = in_force.iter().find(|row| !row.is_allow()) {
        return Outcome::Deny(Arc::clone(&deny.rule));
    }
    match in_force.is_empty() {
        true => Outcome::Default,
        false => Outcome::Allow(in_force.iter().map(|row| Arc::clone(&row.rule)).collect()),
    }
}

impl Outcome {
    pub(super) fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}
