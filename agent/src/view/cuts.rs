//! Cuts as floors: for each node that was cut, the time up to which its results count no more.
//!
//! A floor outlives the moment of the cut, so a reader that sleeps through it, or an agent that restarts, still
//! refuses an old result. Floors are merged by the later time and dropped once no result could be that old.

use std::collections::BTreeMap;

use edgeward_identity::{SpiffeId, Timestamp};
use edgeward_wire::control::{Cut, CutReason};
use serde::{Deserialize, Serialize};

/// Most floors kept. Over it the oldest leave first; by then their results have expired.
pub const MAX_CUT_FLOORS: usize = 10_000;

/// What was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutFloors {
    /// Number of the newest cut.
    number: u64,
    floors: BTreeMap<SpiffeId, CutFloor>,
}

/// Results of the node up to `time` count no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutFloor {
    pub time: Timestamp,
    pub reason: CutReason,
    /// Number of the cut that set it: what to confirm to the cloud.
    pub number: u64,
}

impl CutFloors {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The floor of a node, if it was ever cut.
    pub fn get(&self, node: &SpiffeId) -> Option<&CutFloor> {
        self.floors.get(node)
    }

    /// Whether a result of this node, made at `time`, still counts.
    pub fn admits(&self, node: &SpiffeId, time: Timestamp) -> bool {
        self.floors.get(node).is_none_or(|floor| time > floor.time)
    }

    /// Cuts set after number `seen`, in no particular order.
    pub fn since(&self, seen: u64) -> impl Iterator<Item = (&SpiffeId, &CutFloor)> {
        self.floors
            .iter()
            .filter(move |(_, floor)| floor.number > seen)
    }

    /// Whether there are no floors.
    pub fn is_empty(&self) -> bool {
        self.floors.is_empty()
    }

    /// Adds a verified cut. A floor never falls.
    pub fn add(&mut self, number: u64, cut: &Cut) {
        self.number = self.number.max(number);
        let floor = CutFloor {
            time: cut.time,
            reason: cut.reason,
            number,
        };
        match self.floors.get_mut(&cut.node) {
            Some(known) if known.time > floor.time => {
                known.number = known.number.max(number);
            }
            Some(known) => *known = floor,
            None => {
                if self.floors.len() >= MAX_CUT_FLOORS {
                    self.drop_oldest();
                }
                self.floors.insert(cut.node.clone(), floor);
            }
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self
            .floors
            .iter()
            .min_by_key(|(_, floor)| floor.time)
            .map(|(node, _)| node.clone());
        if let Some(oldest) = oldest {
            self.floors.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(node: &str, seconds: u64) -> Cut {
        Cut {
            node: format!("spiffe://plant.example/node/{node}")
                .parse()
                .unwrap(),
            reason: CutReason::Stale,
            time: Timestamp::from_secs(seconds),
        }
    }

    #[test]
    fn a_result_from_before_the_cut_counts_no_more() {
        let mut floors = CutFloors::default();
        let cut = cut("b", 100);
        floors.add(7, &cut);
        assert!(!floors.admits(&cut.node, Timestamp::from_secs(99)));
        assert!(!floors.admits(&cut.node, Timestamp::from_secs(100)));
        assert!(floors.admits(&cut.node, Timestamp::from_secs(101)));
    }

    #[test]
    fn a_floor_never_falls_and_every_cut_is_seen() {
        let mut floors = CutFloors::default();
        floors.add(7, &cut("b", 100));
        floors.add(8, &cut("b", 50));
        assert_eq!(floors.number(), 8);
        let (_, floor) = floors.since(7).next().unwrap();
        assert_eq!(floor.time, Timestamp::from_secs(100));
        assert_eq!(floors.since(8).count(), 0);
    }

    #[test]
    fn floors_are_bounded() {
        let mut floors = CutFloors::default();
        for index in 0..=MAX_CUT_FLOORS {
            let seconds = u64::try_from(index).unwrap();
            floors.add(seconds, &cut(&format!("n{index}"), seconds));
        }
        assert_eq!(floors.since(0).count(), MAX_CUT_FLOORS);
        assert!(floors.get(&cut("n0", 0).node).is_none());
    }
}
