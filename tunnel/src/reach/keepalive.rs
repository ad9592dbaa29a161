//! How often something must be sent so that a NAT's mapping lives: learned from what survived, and what did not.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The first guess: what most NATs survive.
pub const FIRST_INTERVAL: Duration = Duration::from_secs(25);
/// Never more often than this.
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);
/// Never more seldom than this while a mapping is needed.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(170);
/// By how much the interval grows when a mapping survived it.
const STEP: Duration = Duration::from_secs(10);

/// The interval of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keepalive {
    interval: Duration,
    /// A mapping died at this length or less.
    dies_at: Option<Duration>,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            interval: FIRST_INTERVAL,
            dies_at: None,
        }
    }
}

impl Keepalive {
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// A probe after `gap` without anything else was answered, and we looked as before.
    pub(super) fn survived(&mut self, gap: Duration) {
        // A shorter silence than the one kept says nothing new.
        if gap + Duration::from_secs(1) < self.interval {
            return;
        }
        let grown = (self.interval + STEP).min(LONGEST_INTERVAL);
        // Never up to where one died.
        if self.dies_at.is_none_or(|dies| grown + STEP <= dies) {
            self.interval = grown;
        }
    }

    /// After `gap` we looked otherwise, or had to knock again: the mapping was gone.
    pub(super) fn died(&mut self, gap: Duration) {
        // So soon no NAT forgets: it was moved, not forgotten.
        if gap < SHORTEST_INTERVAL {
            return;
        }
        let dies = self.dies_at.map_or(gap, |known| known.min(gap));
        self.dies_at = Some(dies);
        self.interval = self.interval.min(dies.mul_f64(0.66)).max(SHORTEST_INTERVAL);
    }
}

/// Whether the way between `observed` and us has a mapping to keep: it does unless the other end sees one of our own
/// addresses. Without knowing our addresses, or how we look, it may have one.
pub(super) fn is_needed(observed: Option<SocketAddr>, local: &[IpAddr]) -> bool {
    observed.is_none_or(|observed| !local.contains(&observed.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// A NAT that forgets after `lifetime`.
    fn settle(lifetime: Duration) -> Keepalive {
        let mut keepalive = Keepalive::default();
        for _ in 0..100 {
            let gap = keepalive.interval();
            if gap < lifetime {
                keepalive.survived(gap);
            } else {
                keepalive.died(gap);
            }
        }
        keepalive
    }

    #[test]
    fn the_interval_stays_below_what_kills_the_mapping() {
        for lifetime in [15, 20, 30, 60, 120, 180, 300] {
            let settled = settle(secs(lifetime)).interval();
            assert!(settled < secs(lifetime), "{lifetime}: {settled:?}");
            assert!(
                settled >= secs(lifetime / 2).min(secs(85)),
                "{lifetime}: {settled:?}"
            );
        }
        assert_eq!(settle(secs(100_000)).interval(), LONGEST_INTERVAL);
        assert_eq!(settle(secs(1)).interval(), SHORTEST_INTERVAL);
    }

    #[test]
    fn short_silences_teach_nothing() {
        let mut keepalive = Keepalive::default();
        keepalive.survived(secs(5));
        keepalive.died(secs(5));
        assert_eq!(keepalive, Keepalive::default());
    }

    #[test]
    fn who_looks_like_one_of_our_own_addresses_needs_none() {
        let ours: IpAddr = "192.0.2.1".parse().unwrap();
        let seen = |text: &str| Some(text.parse().unwrap());
        assert!(!is_needed(seen("192.0.2.1:51820"), &[ours]));
        assert!(is_needed(seen("198.51.100.1:51820"), &[ours]));
        assert!(is_needed(seen("192.0.2.1:51820"), &[]));
        assert!(is_needed(None, &[ours]));
    }
}
