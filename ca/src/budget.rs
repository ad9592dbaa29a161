//! How much one node may send through the cloud. Told the time.

use std::time::Duration;

use edgeward_identity::BootTime;

/// How many seconds' worth may go at once.
const BURST_SECONDS: u64 = 10;

/// What a node has left.
#[derive(Debug)]
pub(crate) struct Budget {
    per_second: u64,
    /// Thousandths of a byte.
    left: u64,
    at: BootTime,
}

impl Budget {
    pub(crate) fn new(per_second: u64, now: BootTime) -> Self {
        Self {
            per_second,
            left: most(per_second),
            at: now,
        }
    }

    /// Takes these bytes, if so many are left.
    pub(crate) fn take(&mut self, bytes: usize, now: BootTime) -> bool {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(self.per_second);
        self.left = self.left.saturating_add(earned).min(most(self.per_second));
        self.at = now;
        let wanted = u64::try_from(bytes)
            .unwrap_or(u64::MAX)
            .saturating_mul(1000);
        match self.left.checked_sub(wanted) {
            Some(rest) => {
                self.left = rest;
                true
            }
            None => false,
        }
    }

    /// How long until so many are left, as of the last taking.
    pub(crate) fn wait(&self, bytes: usize) -> Duration {
        let wanted = u64::try_from(bytes)
            .unwrap_or(u64::MAX)
            .saturating_mul(1000);
        let lacking = wanted.saturating_sub(self.left);
        Duration::from_millis(lacking.div_ceil(self.per_second.max(1)))
    }
}

fn most(per_second: u64) -> u64 {
    per_second.saturating_mul(BURST_SECONDS * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_duration(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_used_up_comes_back_at_its_rate_and_never_more_than_the_burst() {
        let mut budget = Budget::new(1_000, at(0));
        assert!(!budget.take(10_001, at(0)));
        assert!(budget.take(10_000, at(0)));
        assert!(!budget.take(1, at(0)));
        assert!(!budget.take(101, at(100)));
        assert!(budget.take(100, at(100)));
        assert!(!budget.take(10_001, at(1_000_000)));
        assert!(budget.take(10_000, at(1_000_000)));
        assert_eq!(budget.wait(500), Duration::from_millis(500));
    }
}
