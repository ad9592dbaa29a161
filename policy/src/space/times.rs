//! The axis of time: which windows can be open together, between which ends of rules.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::Timestamp;

use super::TooLarge;
use crate::window::{Schedule, Window};

/// How far each stretch between two ends of rules is followed, in weeks: a year with both its turns of the clock, and
/// a week on either side. What windows do after that, they did before.
const HORIZON_WEEKS: u64 = 54;
const WEEK_MILLIS: u64 = 7 * 24 * 3600 * 1000;
/// Most edges of windows that are followed for one interface.
const MAX_EDGES: usize = 500_000;

/// Everything about time that some rows can tell apart.
#[derive(Debug)]
pub(super) struct Times {
    /// Numbers of the windows among those of both policies, and what they say.
    pub(super) windows: Vec<(usize, Window)>,
    schedules: Vec<Schedule>,
    /// Ends of rules, ascending; stretch `n` ends before `ends[n]`.
    pub(super) ends: Vec<Timestamp>,
    pub(super) atoms: Vec<TimeAtom>,
}

/// One combination, and the first time at which it holds.
#[derive(Debug)]
pub(super) struct TimeAtom {
    /// How many ends of rules have passed.
    pub(super) stretch: usize,
    /// Of each window, whether it is open.
    pub(super) open: Vec<bool>,
    pub(super) example: Timestamp,
}

impl Times {
    /// Of the windows of both policies, those `used`. Time begins at `since`.
    pub(super) fn new(
        windows: &[Window],
        used: &BTreeSet<usize>,
        mut ends: Vec<Timestamp>,
        since: Timestamp,
    ) -> Result<Self, TooLarge> {
        ends.retain(|end| *end > since);
        ends.sort_unstable();
        ends.dedup();
        let windows: Vec<(usize, Window)> = used
            .iter()
            .filter_map(|index| Some((*index, windows.get(*index)?.clone())))
            .collect();
        let mut times = Self {
            schedules: windows.iter().map(|(_, w)| Schedule::new(w)).collect(),
            windows,
            ends,
            atoms: Vec::new(),
        };
        let mut edges = 0;
        let starts: Vec<Timestamp> = [since].into_iter().chain(times.ends.clone()).collect();
        for (stretch, start) in starts.into_iter().enumerate() {
            let horizon = start.millis().saturating_add(HORIZON_WEEKS * WEEK_MILLIS);
            let end = times.ends.get(stretch).map_or(horizon, |end| end.millis());
            let end = Timestamp::from_millis(end.min(horizon));
            times.follow(stretch, start, end, &mut edges)?;
        }
        Ok(times)
    }

    fn follow(
        &mut self,
        stretch: usize,
        start: Timestamp,
        end: Timestamp,
        edges: &mut usize,
    ) -> Result<(), TooLarge> {
        let mut found: BTreeMap<Vec<bool>, Timestamp> = BTreeMap::new();
        let mut now = start;
        let mut open: Vec<bool> = self.open_at(now);
        let mut next: Vec<Option<Timestamp>> =
            self.schedules.iter().map(|s| s.next_edge(now)).collect();
        loop {
            found.entry(open.clone()).or_insert(now);
            let Some(edge) = next
                .iter()
                .flatten()
                .min()
                .copied()
                .filter(|edge| *edge < end)
            else {
                break;
            };
            now = edge;
            *edges += 1;
            if *edges > MAX_EDGES {
                return Err(TooLarge::Windows);
            }
            for ((next, schedule), open) in next.iter_mut().zip(&self.schedules).zip(&mut open) {
                if *next == Some(now) {
                    *open = schedule.is_open(now).unwrap_or(false);
                    *next = schedule.next_edge(now);
                }
            }
        }
        self.atoms
            .extend(found.into_iter().map(|(open, example)| TimeAtom {
                stretch,
                open,
                example,
            }));
        Ok(())
    }

    fn open_at(&self, at: Timestamp) -> Vec<bool> {
        let schedules = self.schedules.iter();
        schedules
            .map(|schedule| schedule.is_open(at).unwrap_or(false))
            .collect()
    }

    /// The atom of a time; `None` for a combination that does not come within the horizon.
    #[cfg(test)]
    pub(super) fn atom(&self, at: Timestamp) -> Option<usize> {
        let stretch = self.ends.iter().filter(|end| **end <= at).count();
        let open = self.open_at(at);
        self.atoms
            .iter()
            .position(|atom| atom.stretch == stretch && atom.open == open)
    }

    /// Whether a row with this window and this end is in force at an atom.
    pub(super) fn holds(
        &self,
        atom: usize,
        window: Option<usize>,
        until: Option<Timestamp>,
    ) -> bool {
        let Some(atom) = self.atoms.get(atom) else {
            return false;
        };
        let open = window.is_none_or(|window| {
            let place = self.windows.iter().position(|(index, _)| *index == window);
            place.and_then(|place| atom.open.get(place)) == Some(&true)
        });
        // The example stands for its whole stretch, at whose ends alone rules end.
        open && until.is_none_or(|until| atom.example < until)
    }
}
