//! Whether denials rise: the nodes of a stage compared with themselves before, and with the others now.

use std::fmt;
use std::time::Duration;

/// How far back a node's denials before the first stage are counted.
pub const BEFORE: Duration = Duration::from_secs(3600);
/// Denials above what was to be expected that stop nothing yet: somebody's typing error.
const ALWAYS_TOLERATED: u64 = 3;

/// Denials by two groups of nodes, as their journals report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denials {
    pub staged: Side,
    pub others: Side,
    /// How long the stage lasts by now.
    pub over: Duration,
}

/// One group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    pub nodes: u64,
    /// Reports of denials in [`BEFORE`] the first stage began.
    pub before: u64,
    /// Reports of denials since this stage began.
    pub now: u64,
}

/// More was denied than can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rise {
    pub found: u64,
    pub expected: u64,
    pub tolerated: u64,
}

impl Denials {
    /// What the nodes of the stage would show had nothing changed for them: as much as before, and as much more as the
    /// others, for whom nothing did change, show by now.
    pub fn expected(&self) -> u64 {
        let others = self.scaled(self.others.before);
        let more = self.others.now.saturating_sub(others);
        let share = match self.others.nodes {
            0 => 0,
            nodes => more.saturating_mul(self.staged.nodes).div_ceil(nodes),
        };
        self.scaled(self.staged.before).saturating_add(share)
    }

    /// How many there may be: half as many again, and what chance makes of few.
    pub fn tolerated(&self) -> u64 {
        let expected = self.expected();
        let chance = expected.isqrt().saturating_mul(3).max(expected / 2);
        expected
            .saturating_add(chance)
            .saturating_add(ALWAYS_TOLERATED)
    }

    pub fn rise(&self) -> Option<Rise> {
        let rise = Rise {
            found: self.staged.now,
            expected: self.expected(),
            tolerated: self.tolerated(),
        };
        (rise.found > rise.tolerated).then_some(rise)
    }

    fn scaled(&self, before: u64) -> u64 {
        let scaled = u128::from(before) * self.over.as_millis();
        u64::try_from(scaled.div_ceil(BEFORE.as_millis())).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Rise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "denials rise: {} reported by the nodes of the stage, {} expected, at most {} tolerated",
            self.found, self.expected, self.tolerated
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denials(staged: (u64, u64, u64), others: (u64, u64, u64), minutes: u64) -> Denials {
        let side = |(nodes, before, now)| Side { nodes, before, now };
        Denials {
            staged: side(staged),
            others: side(others),
            over: Duration::from_secs(minutes * 60),
        }
    }

    #[test]
    fn denials_out_of_nothing_are_a_rise_and_a_single_one_is_not() {
        assert!(denials((1, 0, 30), (9, 0, 0), 5).rise().is_some());
        assert!(denials((1, 0, 4), (9, 0, 0), 1).rise().is_some());
        assert_eq!(denials((1, 0, 3), (9, 0, 0), 5).rise(), None);
        assert_eq!(Denials::default().rise(), None);
    }

    #[test]
    fn what_was_there_before_is_none_and_much_more_of_it_is_one() {
        // 360 in an hour are 30 in five minutes.
        assert_eq!(denials((2, 360, 33), (8, 0, 0), 5).rise(), None);
        let rise = denials((2, 360, 90), (8, 0, 0), 5).rise().unwrap();
        assert_eq!((rise.found, rise.expected), (90, 30));
    }

    #[test]
    fn what_rises_everywhere_is_not_the_candidates_doing() {
        assert_eq!(denials((10, 0, 50), (90, 0, 450), 5).rise(), None);
        assert!(denials((10, 0, 50), (90, 0, 45), 5).rise().is_some());
    }

    #[test]
    fn others_that_are_noisy_as_ever_excuse_nothing() {
        // 12 000 in an hour are 1 000 in five minutes.
        assert!(denials((10, 0, 50), (90, 12_000, 1000), 5).rise().is_some());
    }

    #[test]
    fn the_last_stage_has_no_others() {
        assert!(denials((100, 0, 50), (0, 0, 0), 5).rise().is_some());
        assert_eq!(denials((100, 600, 50), (0, 0, 0), 5).rise(), None);
    }
}
