//! What is said of events that found no room.
//!
//! A `journal.lost` record says when a loss *begun*, each time that the count has doubled that it *continues*, and when
//! it has *ended*; the last two with what was left out: from when to when, by class, and by family of kinds. So whoever
//! reads a journal that ends within a loss (the power was cut) misses at most the half of its count.

use std::collections::BTreeMap;

use edgeward_identity::{SpiffeId, Timestamp};

use crate::event::{Class, Event, EventKind};

/// A loss ends when so much is free again, in bytes: not for one record, to begin anew with the next.
pub(super) const LOSS_END_MARGIN_BYTES: u64 = 32 * 1024;
/// A loss of fewer events is not said to continue.
const CONTINUES_FROM: u64 = 16;
/// Most families that are named; the others are one number.
const NAMED_FAMILIES: usize = 10;

/// Events left out since the last loss record that ended a loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    may: u64,
    should: u64,
    must: u64,
    /// By family: as many as there are families.
    families: BTreeMap<&'static str, u64>,
    /// When the first and the last of them happened, by the keeper's clock.
    first: Timestamp,
    last: Timestamp,
    /// The count that was said last, or that there was no room to say.
    stated: u64,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Begun,
    Continues,
}

impl Loss {
    /// Counts one event.
    pub(super) fn count(&mut self, kind: EventKind, time: Timestamp) -> Due {
        if self.total() == 0 {
            self.first = time;
        }
        self.last = time;
        let family = self.families.entry(kind.family()).or_default();
        let class = match kind.class() {
            Class::May => &mut self.may,
            Class::Should => &mut self.should,
            Class::Must => &mut self.must,
        };
        for counter in [class, family] {
            *counter = counter.saturating_add(1);
        }
        let total = self.total();
        if total == 1 {
            return Due::Begun;
        }
        if total < CONTINUES_FROM || total / 2 < self.stated {
            return Due::Nothing;
        }
        self.stated = total;
        Due::Continues
    }

    pub(super) fn total(&self) -> u64 {
        self.may
            .saturating_add(self.should)
            .saturating_add(self.must)
    }

    /// The least important class that lost something.
    pub(super) fn lowest(&self) -> Option<Class> {
        [
            (self.may, Class::May),
            (self.should, Class::Should),
            (self.must, Class::Must),
        ]
        .into_iter()
        .find_map(|(count, class)| (count > 0).then_some(class))
    }

    pub(super) fn begun(&self, node: &SpiffeId) -> Event {
        self.event(self.last, node, "begun")
    }

    pub(super) fn continues(&self, node: &SpiffeId) -> Event {
        self.counted(self.event(self.last, node, "continues"))
    }

    pub(super) fn ended(&self, time: Timestamp, node: &SpiffeId) -> Event {
        self.counted(self.event(time, node, "ended"))
    }

    fn event(&self, time: Timestamp, node: &SpiffeId, state: &str) -> Event {
        Event::new(time, node.clone(), EventKind::JournalLost)
            .subject(node.clone())
            .code("journal_full")
            .detail("state", state)
    }

    fn counted(&self, event: Event) -> Event {
        event
            .detail("first_time", shown(self.first))
            .detail("last_time", shown(self.last))
            .detail("may", self.may)
            .detail("should", self.should)
            .detail("must", self.must)
            .detail("families", self.by_family())
    }

    /// `flow=812 app=3 other=1`: most first.
    fn by_family(&self) -> String {
        let mut families: Vec<(&str, u64)> = self
            .families
            .iter()
            .map(|(family, count)| (*family, *count))
            .collect();
        families.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let others: u64 = families
            .iter()
            .skip(NAMED_FAMILIES)
            .fold(0, |sum, (_, count)| sum.saturating_add(*count));
        families.truncate(NAMED_FAMILIES);
        families.extend((others > 0).then_some(("other", others)));
        let texts: Vec<String> = families
            .iter()
            .map(|(family, count)| format!("{family}={count}"))
            .collect();
        texts.join(" ")
    }
}

/// As everywhere where people read: RFC 3339.
fn shown(time: Timestamp) -> String {
    i64::try_from(time.millis())
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(|| time.millis().to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_loss_is_told_in_few_records_that_name_no_more_than_fits() {
        let node: SpiffeId = "spiffe://plant.example/node/gw-3".parse().unwrap();
        let mut loss = Loss::default();
        let mut told = 0;
        for round in 0..2_000 {
            for kind in EventKind::ALL {
                let due = loss.count(*kind, Timestamp::from_secs(1_795_000_000 + round));
                if due == Due::Nothing {
                    continue;
                }
                told += 1;
                let event = loss.continues(&node);
                let families = event.detail.get("families").unwrap();
                assert!(
                    families.len() < 300 && !families.contains('…'),
                    "{families}"
                );
                let counted: u64 = families
                    .split(' ')
                    .map(|family| family.split_once('=').unwrap().1.parse::<u64>().unwrap())
                    .sum();
                assert_eq!(counted, loss.total());
            }
        }
        assert!(told < 20, "{told}");
        assert!(loss.stated > loss.total() / 2);
        let event = loss.ended(Timestamp::from_secs(1_795_009_999), &node);
        assert_eq!(event.detail.get("first_time"), Some("2026-11-18T11:06:40Z"));
        assert_eq!(event.detail.get("last_time"), Some("2026-11-18T11:39:59Z"));
        assert!(event.detail.get("families").unwrap().contains("other="));
    }
}
