//! Peers that are reached another way than before: what the audit log and the status learn of it. Pure, told the time.
//!
//! A path that comes and goes is one line with a count, not one for each time; more peers than fit into a report are one
//! line together. So a network that flaps, or that ends under a thousand tunnels at once, fills no journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};

/// Least time between two reports.
pub const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Most peers that one report names; the rest is counted.
pub const MAX_NAMED: usize = 16;
/// Most peers that are kept count of between two reports.
const MAX_PEERS: usize = 4096;
/// Most changes that the status shows.
const MAX_SHOWN: usize = 16;
/// What a peer that nothing leads to is reached by.
const NONE: &str = "none";

/// One peer, since the last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    pub peer: SpiffeId,
    /// `direct`, `relay`, `cloud` or `none`: before the first change, and after the last.
    pub from: &'static str,
    pub to: &'static str,
    pub times: u32,
    pub last: BootTime,
}

/// What there is to record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub named: Vec<Switched>,
    /// Peers that changed, too, and are not named.
    pub others: usize,
}

/// Changes since the last report, and the last ones of all.
#[derive(Debug, Default)]
pub struct Switches {
    since: BTreeMap<SpiffeId, Switched>,
    uncounted: usize,
    /// Nothing leads to them, though something did.
    lost: BTreeSet<SpiffeId>,
    reported: Option<BootTime>,
    recent: VecDeque<Switched>,
}

impl Switches {
    /// A bound peer is reached another way. What the first way was is said by the bind.
    pub fn note(&mut self, peer: &SpiffeId, from: &'static str, to: &'static str, now: BootTime) {
        let was_lost = self.lost.remove(peer);
        if from == to || (from == NONE && !was_lost) {
            return;
        }
        if to == NONE && self.lost.len() < MAX_PEERS {
            self.lost.insert(peer.clone());
        }
        let full = self.since.len() >= MAX_PEERS;
        match self.since.get_mut(peer) {
            Some(switched) => {
                switched.to = to;
                switched.times = switched.times.saturating_add(1);
                switched.last = now;
            }
            None if full => self.uncounted = self.uncounted.saturating_add(1),
            None => {
                let switched = Switched {
                    peer: peer.clone(),
                    from,
                    to,
                    times: 1,
                    last: now,
                };
                self.since.insert(peer.clone(), switched);
            }
        }
    }

    /// Its tunnel is gone, with all its ways.
    pub fn forget(&mut self, peer: &SpiffeId) {
        self.lost.remove(peer);
    }

    /// What there is to report, if it is time. Those that changed most often are named.
    pub fn take(&mut self, now: BootTime) -> Option<Report> {
        let rests = self.reported.is_some_and(|at| now.since(at) < REPORT_EVERY);
        if rests || (self.since.is_empty() && self.uncounted == 0) {
            return None;
        }
        self.reported = Some(now);
        let mut named: Vec<Switched> = std::mem::take(&mut self.since).into_values().collect();
        named.sort_by_key(|switched| std::cmp::Reverse(switched.times));
        let others = named.len().saturating_sub(MAX_NAMED) + std::mem::take(&mut self.uncounted);
        named.truncate(MAX_NAMED);
        for switched in &named {
            self.recent.push_front(switched.clone());
        }
        self.recent.truncate(MAX_SHOWN);
        Some(Report { named, others })
    }

    /// The last ones that were reported, newest first.
    pub fn recent(&self) -> impl Iterator<Item = &Switched> {
        self.recent.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> SpiffeId {
        format!("spiffe://plant.example/node/{name}")
            .parse()
            .unwrap()
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(1000 + seconds))
    }

    #[test]
    fn the_first_way_to_a_peer_and_another_of_the_same_kind_are_no_change() {
        let mut switches = Switches::default();
        switches.note(&node("a"), "none", "direct", at(0));
        switches.note(&node("a"), "direct", "direct", at(1));
        assert_eq!(switches.take(at(2)), None);
        switches.note(&node("a"), "direct", "none", at(3));
        switches.note(&node("a"), "none", "cloud", at(4));
        let report = switches.take(at(5)).unwrap();
        let [a] = report.named.as_slice() else {
            panic!("{report:?}");
        };
        assert_eq!((a.from, a.to, a.times), ("direct", "cloud", 2));
        // A new tunnel begins anew.
        switches.note(&node("a"), "cloud", "none", at(6));
        assert!(switches.take(at(16)).is_some());
        switches.forget(&node("a"));
        switches.note(&node("a"), "none", "direct", at(17));
        assert_eq!(switches.take(at(40)), None);
    }

    #[test]
    fn a_path_that_flaps_is_one_line_and_reports_keep_their_distance() {
        let mut switches = Switches::default();
        let mut told = 0;
        for second in 0..100 {
            let (from, to) = match second % 2 {
                0 => ("direct", "relay"),
                _ => ("relay", "direct"),
            };
            switches.note(&node("a"), from, to, at(second));
            if let Some(report) = switches.take(at(second)) {
                assert_eq!((report.named.len(), report.others), (1, 0));
                told += 1;
            }
        }
        assert_eq!(told, 10);
        assert_eq!(switches.recent().count(), 10);
    }

    #[test]
    fn a_network_that_ends_names_a_few_and_counts_all() {
        let mut switches = Switches::default();
        for number in 0..MAX_PEERS + 7 {
            switches.note(&node(&format!("n{number}")), "direct", "cloud", at(0));
        }
        switches.note(&node("n9"), "cloud", "direct", at(1));
        let report = switches.take(at(2)).unwrap();
        assert_eq!(report.named.len(), MAX_NAMED);
        assert_eq!(report.others, MAX_PEERS + 7 - MAX_NAMED);
        assert_eq!(report.named.first().unwrap().peer, node("n9"));
        assert_eq!(switches.recent().count(), MAX_SHOWN);
    }
}
