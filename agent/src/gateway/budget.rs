//! How many handshakes strangers may cause: each costs this node a signature, and its TPM makes few in a second.
//! Pure, told the time.

use std::collections::HashMap;
use std::net::IpAddr;

use edgeward_identity::BootTime;

/// Handshakes that all sources together may cause at once.
pub(super) const GLOBAL_BURST: u32 = 32;
/// Handshakes that all sources together may cause in the long run, per minute.
pub(super) const GLOBAL_PER_MINUTE: u32 = 240;
/// Handshakes that one source may cause at once.
pub(super) const SOURCE_BURST: u32 = 8;
/// Handshakes that one source may cause in the long run, per minute.
pub(super) const SOURCE_PER_MINUTE: u32 = 60;
/// Most sources remembered; while there are more, further ones are turned away.
pub(super) const MAX_SOURCES: usize = 4096;

/// Budgets of signatures, per source and in all.
#[derive(Debug)]
pub(super) struct Budget {
    global: Bucket,
    sources: HashMap<IpAddr, Bucket>,
}

/// A token bucket in thousandths of a token.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    burst: u32,
    per_minute: u32,
    milli: u64,
    filled: BootTime,
}

impl Budget {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            global: Bucket::full(GLOBAL_BURST, GLOBAL_PER_MINUTE, now),
            sources: HashMap::new(),
        }
    }

    /// Takes one handshake from the budgets. `false`: there is none left.
    pub(super) fn spend(&mut self, source: IpAddr, now: BootTime) -> bool {
        if !self.sources.contains_key(&source) && self.sources.len() >= MAX_SOURCES {
            self.sources.retain(|_, bucket| !bucket.is_full(now));
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        let source = self
            .sources
            .entry(source)
            .or_insert_with(|| Bucket::full(SOURCE_BURST, SOURCE_PER_MINUTE, now));
        // A source without a budget of its own takes nothing from what is left for others.
        if !source.has_one(now) || !self.global.has_one(now) {
            return false;
        }
        source.take_one();
        self.global.take_one();
        true
    }
}

impl Bucket {
    fn full(burst: u32, per_minute: u32, now: BootTime) -> Self {
        Self {
            burst,
            per_minute,
            milli: u64::from(burst) * 1000,
            filled: now,
        }
    }

    fn fill(&mut self, now: BootTime) {
        let passed = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(self.per_minute)) / 60;
        if gained > 0 {
            let most = u64::from(self.burst) * 1000;
            self.milli = self.milli.saturating_add(gained).min(most);
            self.filled = now;
        }
    }

    fn has_one(&mut self, now: BootTime) -> bool {
        self.fill(now);
        self.milli >= 1000
    }

    fn is_full(&mut self, now: BootTime) -> bool {
        self.fill(now);
        self.milli >= u64::from(self.burst) * 1000
    }

    fn take_one(&mut self) {
        self.milli = self.milli.saturating_sub(1000);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(1000 + seconds))
    }

    fn source(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn one_source_spends_its_own_budget_and_it_refills() {
        let mut budget = Budget::new(at(0));
        for _ in 0..SOURCE_BURST {
            assert!(budget.spend(source(1), at(0)));
        }
        assert!(!budget.spend(source(1), at(0)));
        assert!(budget.spend(source(2), at(0)));
        assert!(budget.spend(source(1), at(1)));
        assert!(!budget.spend(source(1), at(1)));
    }

    #[test]
    fn all_sources_together_stay_within_the_global_budget() {
        let mut budget = Budget::new(at(0));
        let granted = (0..1000)
            .filter(|n| budget.spend(source(*n), at(0)))
            .count();
        assert_eq!(granted, usize::try_from(GLOBAL_BURST).unwrap());
        let granted = (0..1000)
            .filter(|n| budget.spend(source(*n), at(60)))
            .count();
        assert_eq!(granted, usize::try_from(GLOBAL_BURST).unwrap());
    }

    #[test]
    fn sources_are_bounded_and_forgotten_when_their_budget_is_full_again() {
        let mut budget = Budget::new(at(0));
        for number in 0..10_000 {
            budget.spend(source(number), at(0));
        }
        assert!(budget.sources.len() <= MAX_SOURCES);
        assert!(budget.spend(source(20_000), at(3600)));
    }
}
