//! Every axis but who: what can be told apart along it, and which rows hold at an atom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_apps::{AppName, Version};
use edgeward_identity::{AttestationState, Kind, Tier};

use super::rows::SpaceRow;
use super::side::Terms;
use super::times::Times;
use crate::profile::ProfileLabel;
use crate::seconds::Seconds;
use crate::slice::{States, Tiers};

/// A set of atoms of one axis.
pub(super) type Atoms = BTreeSet<usize>;

/// One axis, in the order in which a diagram asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Axis {
    Action,
    State,
    /// The last atom: unknown.
    Tier,
    /// Whether it is known which profiles a result names: 0 no, 1 yes.
    Stated,
    /// 0 not named; then each version that a row asks for; the last one: another version.
    Profile(usize),
    /// 0 unknown, 1 does not run; then by its version: below the first that a row asks for, and from each of those on.
    Running(usize),
    /// 0 hearing from the cloud; then cut off, by how long ago it was heard.
    Link,
    /// 0 no pass known; then by its age.
    Pass,
    Time,
    /// 0 no, 1 yes.
    Approval(usize),
}

/// What can be told apart at one interface.
#[derive(Debug)]
pub(super) struct Axes {
    pub(super) order: Vec<Axis>,
    pub(super) actions: Vec<String>,
    /// Name, and the versions asked for.
    pub(super) profiles: Vec<(String, Vec<ProfileLabel>)>,
    /// Apps that rows ask for, and the least versions asked for, ascending.
    pub(super) running: Vec<(AppName, Vec<Version>)>,
    /// Ages in seconds at which a link's or a pass's worth changes, ascending.
    pub(super) links: Vec<u64>,
    pub(super) passes: Vec<u64>,
    pub(super) times: Arc<Times>,
    /// Rules that ask for one, each as it is written.
    pub(super) approvals: Vec<(Arc<str>, [u8; 32])>,
}

/// What was already said and bears on what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Context {
    /// The state rests on a pass, so that it ages.
    pub(super) rests: bool,
    pub(super) online: bool,
    pub(super) stated: bool,
}

/// How far a row has come. Profiles are the one condition that several atoms together answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    Holds,
    /// No profile that it asks for was named yet.
    Wanting,
    /// One was, but as it was at another time; or nothing is known.
    Unknown,
    Named,
}

pub(super) const TIERS: [Option<Tier>; 5] = [
    Some(Tier::Hardware),
    Some(Tier::Listed),
    Some(Tier::Virtual),
    Some(Tier::Software),
    None,
];

impl Axes {
    /// `terms` are those of all subjects that the rows may meet, on either side.
    pub(super) fn new(
        actions: Vec<String>,
        rows: &[&SpaceRow],
        terms: &BTreeSet<Terms>,
        times: Arc<Times>,
    ) -> Self {
        let mut profiles: BTreeMap<&str, BTreeSet<&ProfileLabel>> = BTreeMap::new();
        for label in rows
            .iter()
            .filter_map(|row| row.profiles.as_ref())
            .flatten()
        {
            profiles.entry(label.name()).or_default().insert(label);
        }
        let mut running: BTreeMap<&AppName, BTreeSet<&Version>> = BTreeMap::new();
        for wants in rows.iter().flat_map(|row| &row.runs) {
            running.entry(&wants.app).or_default().extend(&wants.least);
        }
        let running: Vec<(AppName, Vec<Version>)> = running
            .into_iter()
            .map(|(app, least)| (app.clone(), least.into_iter().cloned().collect()))
            .collect();
        let mut links = BTreeSet::new();
        let mut passes = BTreeSet::new();
        for row in rows.iter().filter(|row| row.is_allow()) {
            for terms in terms {
                let (fresh, offline) = ages(row, *terms);
                links.insert(offline.get());
                passes.extend([fresh.get(), offline.get()]);
            }
        }
        let approvals: BTreeSet<(Arc<str>, [u8; 32])> = rows
            .iter()
            .filter_map(|row| Some((Arc::clone(&row.rule), row.approval?)))
            .collect();
        let profiles: Vec<(String, Vec<ProfileLabel>)> = profiles
            .into_iter()
            .map(|(name, labels)| (name.to_owned(), labels.into_iter().cloned().collect()))
            .collect();
        let positive = |ages: BTreeSet<u64>| ages.into_iter().filter(|age| *age > 0).collect();
        let mut order = vec![Axis::Action, Axis::State, Axis::Tier];
        if !profiles.is_empty() {
            order.push(Axis::Stated);
            order.extend((0..profiles.len()).map(Axis::Profile));
        }
        order.extend((0..running.len()).map(Axis::Running));
        order.extend([Axis::Link, Axis::Pass, Axis::Time]);
        order.extend((0..approvals.len()).map(Axis::Approval));
        Self {
            order,
            actions,
            profiles,
            running,
            links: positive(links),
            passes: positive(passes),
            times,
            approvals: approvals.into_iter().collect(),
        }
    }

    pub(super) fn len(&self, axis: Axis) -> usize {
        match axis {
            Axis::Action => self.actions.len(),
            Axis::State => AttestationState::ALL.len(),
            Axis::Tier => TIERS.len(),
            Axis::Stated | Axis::Approval(_) => 2,
            Axis::Profile(index) => self.profiles.get(index).map_or(0, |p| p.1.len() + 2),
            Axis::Running(index) => self.running.get(index).map_or(0, |app| app.1.len() + 3),
            Axis::Link => self.links.len() + 2,
            Axis::Pass => self.passes.len() + 2,
            Axis::Time => self.times.atoms.len(),
        }
    }

    /// What an atom adds to the context.
    pub(super) fn context(&self, axis: Axis, atom: usize, context: Context) -> Context {
        match axis {
            Axis::State => Context {
                rests: state(atom).is_some_and(|state| {
                    matches!(state, AttestationState::Trusted | AttestationState::Vouched)
                }),
                ..context
            },
            Axis::Link => Context {
                online: atom == 0,
                ..context
            },
            Axis::Stated => Context {
                stated: atom == 1,
                ..context
            },
            _ => context,
        }
    }

    /// How far a row comes with this atom; `None`: it does not hold.
    pub(super) fn step(
        &self,
        axis: Axis,
        atom: usize,
        row: &SpaceRow,
        progress: Progress,
        (kind, terms, context): (Kind, Terms, Context),
    ) -> Option<Progress> {
        let holds = match axis {
            Axis::Action => self
                .actions
                .get(atom)
                .is_some_and(|a| row.actions.contains(a)),
            Axis::State => state(atom).is_some_and(|state| state_fits(&row.states, state, kind)),
            Axis::Tier => {
                let tier = TIERS.get(atom).copied().flatten();
                tier_fits(&row.tiers, tier).unwrap_or(!row.is_allow())
            }
            Axis::Stated => {
                return Some(match (&row.profiles, atom) {
                    (None, _) => progress,
                    (Some(_), 0) => Progress::Unknown,
                    (Some(_), _) => Progress::Wanting,
                });
            }
            Axis::Profile(_) if !context.stated => return Some(progress),
            Axis::Profile(index) => return Some(self.name(index, atom, row, progress)),
            Axis::Running(index) => self.runs(index, atom, row),
            Axis::Link => {
                let offline = ages(row, terms).1.get();
                !row.is_allow() || atom == 0 || least(&self.links, atom) < offline
            }
            Axis::Pass => self.pass_fits(atom, row, terms, context),
            Axis::Time => self.times.holds(atom, row.window, row.until),
            Axis::Approval(index) => {
                let asked = self.approvals.get(index).is_some_and(|(rule, digest)| {
                    *rule == row.rule && row.approval == Some(*digest)
                });
                !asked || atom == 1
            }
        };
        holds.then_some(progress)
    }

    fn name(&self, index: usize, atom: usize, row: &SpaceRow, progress: Progress) -> Progress {
        let (Some(asked), Some((name, versions))) = (&row.profiles, self.profiles.get(index))
        else {
            return progress;
        };
        if matches!(progress, Progress::Holds | Progress::Named) || atom == 0 {
            return progress;
        }
        if versions
            .get(atom - 1)
            .is_some_and(|version| asked.contains(version))
        {
            Progress::Named
        } else if asked.iter().any(|label| label.name() == name) {
            Progress::Unknown
        } else {
            progress
        }
    }

    fn runs(&self, index: usize, atom: usize, row: &SpaceRow) -> bool {
        let Some((app, versions)) = self.running.get(index) else {
            return true;
        };
        let met = |least: &Option<Version>| match (atom, least) {
            (0, _) => !row.is_allow(),
            (1, _) => false,
            (_, None) => true,
            (_, Some(least)) => versions
                .iter()
                .position(|version| version == least)
                .is_some_and(|place| atom - 2 > place),
        };
        let own = row.runs.iter().filter(|wants| wants.app == *app);
        own.map(|wants| &wants.least).all(met)
    }

    fn pass_fits(&self, atom: usize, row: &SpaceRow, terms: Terms, context: Context) -> bool {
        let names_age = row.fresh.own.is_some() || row.offline.own.is_some();
        if !row.is_allow() || !(context.rests || names_age) {
            return true;
        }
        let (fresh, offline) = ages(row, terms);
        let limit = if context.online { fresh } else { offline };
        atom != 0 && least(&self.passes, atom) < limit.get()
    }

    /// Whether a row that came through every axis is in force.
    pub(super) fn is_in_force(row: &SpaceRow, progress: Progress) -> bool {
        match progress {
            Progress::Holds | Progress::Named => true,
            Progress::Wanting => false,
            Progress::Unknown => !row.is_allow(),
        }
    }
}

pub(super) fn state(atom: usize) -> Option<AttestationState> {
    AttestationState::ALL.get(atom).copied()
}

/// The least age of a class; class 0 is not an age.
pub(super) fn least(ages: &[u64], class: usize) -> u64 {
    match class {
        0 | 1 => 0,
        class => ages.get(class - 2).copied().unwrap_or(u64::MAX),
    }
}

/// The class of an age in milliseconds.
#[cfg(test)]
pub(super) fn class_of(ages: &[u64], millis: u64) -> usize {
    1 + ages
        .iter()
        .filter(|age| age.saturating_mul(1000) <= millis)
        .count()
}

pub(super) fn ages(row: &SpaceRow, terms: Terms) -> (Seconds, Seconds) {
    (
        row.fresh.for_profile(terms.0),
        row.offline.for_profile(terms.1),
    )
}

pub(super) fn state_fits(states: &States, state: AttestationState, kind: Kind) -> bool {
    match states {
        States::Every => true,
        States::Proven if kind == Kind::Device => state == AttestationState::Vouched,
        States::Proven => state == AttestationState::Trusted,
        States::These(these) => these.contains(&state),
        States::Unless(excepted) => !excepted.contains(&state),
    }
}

/// `None`: cannot be told.
pub(super) fn tier_fits(tiers: &Tiers, tier: Option<Tier>) -> Option<bool> {
    match tiers {
        Tiers::Every => Some(true),
        Tiers::Rooted => Some(tier? != Tier::Software),
        Tiers::These(these) => Some(these.contains(&tier?)),
    }
}
