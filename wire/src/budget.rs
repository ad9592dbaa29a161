//! How many bytes one caller may have, or send. Told the time.

use std::time::Duration;

use edgeward_identity::BootTime;

/// How many seconds' worth may go at once.
const BURST_SECONDS: u64 = 10;

/// What a caller has left.
#[derive(Debug)]
pub struct Budget {
    per_second: u64,
    /// Thousandths of a byte.
    left: u64,
    at: BootTime,
}

impl Budget {
    pub fn new(per_second: u64, now: BootTime) -> Self {
        Self {
            per_second,
            left: most(per_second),
            at: now,
        }
    }

    /// Takes these bytes, if so many are left.
    pub fn take(&mut self, bytes: usize, now: BootTime) -> bool {
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

    /// Whether nothing of it is used at this time.
    pub fn is_whole(&mut self, now: BootTime) -> bool {
        self.take(0, now);
        self.left == most(self.per_second)
    }

    /// How long until so many are left, as of the last taking.
    pub fn wait(&self, bytes: usize) -> Duration {
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
        assert!(!budget.is_whole(at(9_999)));
        assert!(budget.is_whole(at(10_000)));
        assert!(budget.take(10_000, at(10_000)));
        assert!(!budget.take(101, at(10_100)));
        assert!(budget.take(100, at(10_100)));
        assert!(!budget.take(10_001, at(1_000_000)));
        assert!(budget.take(10_000, at(1_000_000)));
        assert_eq!(budget.wait(500), Duration::from_millis(500));
    }
}
