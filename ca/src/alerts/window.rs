//! Counting over a sliding time in little room: sums by slots, or the newest time of each different value.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use edgeward_identity::Timestamp;

/// A time is counted in so many slots: what is said to lie within it lies within it and one slot more.
const SLOTS: u64 = 60;

/// A sum over a sliding time.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums(VecDeque<(u64, u64)>);

/// The different values of a sliding time, `most` of them at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Distinct(BTreeMap<String, Timestamp>);

impl Sums {
    /// Adds `by` at `at`, and tells the sum of the time that ends there.
    pub(super) fn add(&mut self, by: u64, at: Timestamp, within: Duration) -> u64 {
        let slot = slot_of(at, within);
        self.forget(at, within);
        match self.0.back_mut() {
            Some((last, sum)) if *last >= slot => *sum = sum.saturating_add(by),
            _ => self.0.push_back((slot, by)),
        }
        self.sum()
    }

    pub(super) fn forget(&mut self, now: Timestamp, within: Duration) {
        let oldest = slot_of(now, within).saturating_sub(SLOTS);
        while self.0.front().is_some_and(|(slot, _)| *slot < oldest) {
            self.0.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sum(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum: u64, (_, part)| sum.saturating_add(*part))
    }
}

impl Distinct {
    /// Notes a value, and tells how many different ones there were. Above `most`, the threshold,
    /// none is added.
    pub(super) fn add(&mut self, value: String, at: Timestamp, within: Duration, most: u64) -> u64 {
        self.forget(at, within);
        if self.0.contains_key(&value) || self.len() < most {
            self.0.insert(value, at);
        }
        self.len()
    }

    pub(super) fn forget(&mut self, now: Timestamp, within: Duration) {
        self.0.retain(|_, at| now.since(*at) <= within);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn len(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }
}

fn slot_of(at: Timestamp, within: Duration) -> u64 {
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    at.millis() / (within / SLOTS).max(1)
}
