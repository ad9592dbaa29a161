//! What strangers may ask of the witness: so much from one address, so much for one log. Told the time.

use std::collections::BTreeMap;
use std::net::IpAddr;

use edgeward_identity::BootTime;

use crate::allowance::Allowances;

/// Submissions from one address (IPv6: one /64) at once, and in a second after that.
const SOURCE_BURST: u64 = 60;
const SOURCE_PER_SECOND: u64 = 10;
/// Most addresses that are remembered. When there are more, all begin anew: the sum is bounded by connections.
const MAX_SOURCES: usize = 4096;

#[derive(Debug)]
pub(super) struct Budget {
    sources: BTreeMap<IpAddr, Allowances>,
    logs: BTreeMap<String, Minute>,
}

#[derive(Clone, Copy, Debug)]
struct Minute {
    most: u32,
    began: BootTime,
    taken: u32,
}

impl Budget {
    pub(super) fn new(logs: impl Iterator<Item = (String, u32)>) -> Self {
        let logs = logs.map(|(origin, most)| {
            let began = BootTime::from_duration(std::time::Duration::ZERO);
            let minute = Minute {
                most,
                began,
                taken: 0,
            };
            (origin, minute)
        });
        Self {
            sources: BTreeMap::new(),
            logs: logs.collect(),
        }
    }

    /// Takes one submission of this source.
    pub(super) fn take_source(&mut self, source: IpAddr, now: BootTime) -> bool {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.sources.clear();
        }
        self.sources
            .entry(source)
            .or_insert_with(|| Allowances::new(SOURCE_BURST, SOURCE_PER_SECOND))
            .take("", now)
    }

    /// Takes one cosignature of this log. Only what the log signed and nobody has seen yet comes so far, so that no
    /// stranger can use up what is the log's.
    pub(super) fn take_log(&mut self, origin: &str, now: BootTime) -> bool {
        let Some(minute) = self.logs.get_mut(origin) else {
            return false;
        };
        if now.since(minute.began).as_secs() >= 60 {
            (minute.began, minute.taken) = (now, 0);
        }
        let is_left = minute.taken < minute.most;
        minute.taken += u32::from(is_left);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn one_address_uses_up_only_its_own() {
        let mut budget = Budget::new(std::iter::empty());
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..SOURCE_BURST {
            assert!(budget.take_source(a, at(0)));
        }
        assert!(!budget.take_source(a, at(0)));
        assert!(budget.take_source(b, at(0)));
        assert!(budget.take_source(a, at(1)));
    }

    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let mut budget = Budget::new(std::iter::empty());
        for number in 0..20_000_u32 {
            budget.take_source(IpAddr::from(number.to_be_bytes()), at(0));
            assert!(budget.sources.len() <= MAX_SOURCES);
        }
    }

    #[test]
    fn a_log_gets_so_many_in_a_minute() {
        let mut budget = Budget::new([("a".to_owned(), 2), ("b".to_owned(), 1)].into_iter());
        assert!(!budget.take_log("unknown", at(0)));
        assert!(budget.take_log("a", at(0)) && budget.take_log("a", at(1)));
        assert!(!budget.take_log("a", at(59)));
        assert!(budget.take_log("b", at(59)));
        assert!(budget.take_log("a", at(60)));
    }
}
