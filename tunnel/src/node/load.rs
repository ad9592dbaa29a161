//! Handshake load: when to ask for cookies, and how much one source may cost.

use std::net::IpAddr;
use std::time::Duration;

use edgeward_identity::BootTime;
use foldhash::HashMap;

/// Handshake messages per second above which a cookie is asked for.
pub(super) const BUSY_ABOVE_PER_SECOND: u32 = 100;
/// Handshake messages per second that one source may cause while we are busy.
pub(super) const SOURCE_PER_SECOND: u32 = 20;
/// What one source may send at once while we are busy.
pub(super) const SOURCE_BURST: u32 = 5;
/// Sources counted at once; while the table is full, further ones are refused.
pub(super) const MAX_SOURCES: usize = 8192;

const WINDOW: Duration = Duration::from_secs(1);

/// Counts handshake messages of all sources.
#[derive(Default)]
pub(super) struct Load {
    window: BootTime,
    count: u32,
    sources: HashMap<IpAddr, Bucket>,
}

struct Bucket {
    tokens: Duration,
    filled: BootTime,
}

const TOKEN: Duration = Duration::from_nanos(1_000_000_000 / SOURCE_PER_SECOND as u64);
const FULL: Duration = Duration::from_nanos(TOKEN.as_nanos() as u64 * SOURCE_BURST as u64);

impl Load {
    /// Counts one message; whether we are busy.
    pub(super) fn arrive(&mut self, now: BootTime) -> bool {
        if now.since(self.window) >= WINDOW {
            self.window = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count > BUSY_ABOVE_PER_SECOND
    }

    /// Takes one token of a source that has proven its address.
    pub(super) fn spend(&mut self, source: IpAddr, now: BootTime) -> bool {
        let source = network(source);
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.sources
                .retain(|_, bucket| bucket.tokens + now.since(bucket.filled) < FULL);
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        let bucket = self.sources.entry(source).or_insert(Bucket {
            tokens: FULL,
            filled: now,
        });
        bucket.tokens = (bucket.tokens + now.since(bucket.filled)).min(FULL);
        bucket.filled = now;
        match bucket.tokens.checked_sub(TOKEN) {
            Some(left) => {
                bucket.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// IPv6 sources count by /64: one host has all of it.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(1000) + Duration::from_millis(millis))
    }

    #[test]
    fn a_flood_makes_us_busy_and_a_second_of_quiet_calms_us() {
        let mut load = Load::default();
        for _ in 0..BUSY_ABOVE_PER_SECOND {
            assert!(!load.arrive(at(0)));
        }
        assert!(load.arrive(at(999)));
        assert!(!load.arrive(at(1000)));
    }

    #[test]
    fn one_source_cannot_spend_the_budget_of_another() {
        let mut load = Load::default();
        let (a, b) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8:0:1::1".parse().unwrap(),
        );
        let same_network = "2001:db8::2".parse().unwrap();
        for _ in 0..SOURCE_BURST {
            assert!(load.spend(a, at(0)));
        }
        assert!(!load.spend(a, at(0)));
        assert!(!load.spend(same_network, at(0)));
        assert!(load.spend(b, at(0)));
        assert!(load.spend(a, at(50)));
        assert!(!load.spend(a, at(51)));
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let mut load = Load::default();
        for number in 0..u32::try_from(MAX_SOURCES).unwrap() {
            assert!(load.spend(IpAddr::V4(number.into()), at(0)));
        }
        assert!(!load.spend("192.0.2.1".parse().unwrap(), at(0)));
        assert!(load.spend("192.0.2.1".parse().unwrap(), at(60_000)));
        assert_eq!(load.sources.len(), 1);
    }
}
