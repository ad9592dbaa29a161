//! When an export goes on, waits or puts an event aside: pure, told the time.

use std::time::Duration;

/// First and longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What fails for so long is an event of its own.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(30);
/// A receiver that refuses so many events in a row, and takes none between, refuses everything: then it is the receiver that
/// is wrong, and nothing is put aside.
pub(super) const MAX_SUSPECTS: usize = 10;

/// How long to wait, doubled at each failure.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    failures: u32,
}

impl Pauses {
    /// After a failure. `wish`: what the receiver asked for; `dice`: anything, spreads those who failed together.
    pub(crate) fn next(&mut self, wish: Option<Duration>, dice: u64) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let base = doubled.min(LONGEST_PAUSE).max(wish.unwrap_or_default());
        let spread = u64::try_from(base.as_millis() / 4)
            .unwrap_or(u64::MAX)
            .max(1);
        base + Duration::from_millis(dice % spread)
    }

    pub(crate) fn went_well(&mut self) {
        self.failures = 0;
    }
}

/// An event that was refused, and may be put aside when it turns out that others are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) index: u64,
    pub(super) why: String,
    /// Nothing is recorded about it.
    pub(super) quiet: bool,
}

/// Refused events since the receiver last took one.
#[derive(Debug, Default)]
pub(super) struct Suspects(Vec<Suspect>);

impl Suspects {
    /// One more. False: it is the receiver that is wrong; all are forgotten, and to be given again.
    pub(super) fn add(&mut self, suspect: Suspect) -> bool {
        if self.0.len() + 1 >= MAX_SUSPECTS {
            self.0.clear();
            return false;
        }
        self.0.push(suspect);
        true
    }

    /// Another event was taken: these are to be put aside.
    pub(super) fn convict(&mut self) -> Vec<Suspect> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_minute_and_begin_anew_when_it_went_well() {
        let mut pauses = Pauses::default();
        let taken: Vec<u64> = (0..9)
            .map(|_| u64::try_from(pauses.next(None, 0).as_millis()).unwrap())
            .collect();
        assert_eq!(
            taken,
            [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
        );
        assert_eq!(
            pauses.next(Some(Duration::from_secs(90)), 0),
            Duration::from_secs(90)
        );
        pauses.went_well();
        assert!(pauses.next(None, u64::MAX) < Duration::from_millis(625));
        for _ in 0..100 {
            pauses.next(None, 3);
        }
    }

    #[test]
    fn a_receiver_that_refuses_everything_loses_nothing() {
        let suspect = |index| Suspect {
            index,
            why: "bad".to_owned(),
            quiet: false,
        };
        let mut suspects = Suspects::default();
        for index in 0..9 {
            assert!(suspects.add(suspect(index)));
        }
        assert!(!suspects.add(suspect(9)));
        assert!(suspects.convict().is_empty());
        assert!(suspects.add(suspect(20)));
        assert_eq!(suspects.convict(), [suspect(20)]);
        assert!(suspects.is_empty());
    }
}
