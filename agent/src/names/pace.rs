//! How many questions are answered in a second: a loop of some program must not take the machine. Pure, told the time.

use edgeward_identity::BootTime;

/// Questions answered at once.
pub(super) const BURST: u32 = 1000;
/// Questions answered in the long run, per second.
pub(super) const PER_SECOND: u32 = 500;

/// A token bucket in thousandths of a question.
#[derive(Debug)]
pub(super) struct Pace {
    milli: u64,
    filled: BootTime,
}

impl Pace {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            milli: u64::from(BURST) * 1000,
            filled: now,
        }
    }

    /// Whether one more may be answered.
    pub(super) fn take(&mut self, now: BootTime) -> bool {
        let passed = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(PER_SECOND));
        if gained > 0 {
            self.milli = self
                .milli
                .saturating_add(gained)
                .min(u64::from(BURST) * 1000);
            self.filled = now;
        }
        let Some(left) = self.milli.checked_sub(1000) else {
            return false;
        };
        self.milli = left;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_gets_its_burst_and_then_its_rate() {
        let at = |millis| BootTime::from_duration(Duration::from_millis(millis));
        let mut pace = Pace::new(at(0));
        let mut count = |at| (0..10_000).filter(|_| pace.take(at)).count();
        assert_eq!(count(at(0)), 1000);
        assert_eq!(count(at(1)), 0);
        assert_eq!(count(at(100)), 50);
        assert_eq!(count(at(1_000_000)), 1000);
    }
}
