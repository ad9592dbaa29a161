//! Exact, bounded memory of decisions: every part of the question is compared in full, denials are kept too, and
//! no subject can push out more than its own share.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use edgeward_identity::Timestamp;

use crate::decision::{Decision, Link, Standing};
use crate::l7::ActionSet;
use crate::slice::InterfaceIndex;

/// Number of separately locked parts.
const SHARDS: usize = 64;
/// Most decisions in one part.
const MAX_SHARD_ENTRIES: usize = 1024;
/// Most decisions of one subject.
const MAX_SUBJECT_ENTRIES: usize = 64;

/// The question, but for the time: that is bounded by the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) subject: usize,
    pub(crate) interface: InterfaceIndex,
    pub(crate) asked: Asked,
    pub(crate) standing: Standing,
    pub(crate) link: Link,
}

/// What is asked about an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Any of its actions.
    Entry,
    /// A request that fits these.
    Actions(ActionSet),
}

struct Entry {
    key: Key,
    decided: Timestamp,
    decision: Decision,
}

/// The memory of one snapshot: it dies with it.
pub(crate) struct DecisionCache {
    shards: Vec<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    /// Of each subject, the oldest first.
    by_subject: HashMap<usize, VecDeque<Entry>, foldhash::fast::RandomState>,
    /// Subjects, the one that came first first.
    order: VecDeque<usize>,
    entries: usize,
}

impl DecisionCache {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// A decision that still holds at `now`. One made later than `now` is not used: the clock went back.
    pub(crate) fn get(&self, key: &Key, now: Timestamp) -> Option<Decision> {
        let shard = self.shards.get(key.subject % SHARDS)?.lock().ok()?;
        let entries = shard.by_subject.get(&key.subject)?;
        // The newest first: what a subject asks now it asked a moment ago.
        entries
            .iter()
            .rev()
            .find(|entry| entry.key == *key)
            .filter(|entry| entry.decided <= now && now < entry.decision.valid_until)
            .map(|entry| entry.decision.clone())
    }

    pub(crate) fn put(&self, key: Key, now: Timestamp, decision: &Decision) {
        let Some(Ok(mut shard)) = self.shards.get(key.subject % SHARDS).map(Mutex::lock) else {
            return;
        };
        shard.put(Entry {
            key,
            decided: now,
            decision: decision.clone(),
        });
    }
}

impl Shard {
    fn put(&mut self, entry: Entry) {
        let subject = entry.key.subject;
        if !self.by_subject.contains_key(&subject) {
            self.order.push_back(subject);
        }
        let own = self.by_subject.entry(subject).or_default();
        let before = own.len();
        own.retain(|known| known.key != entry.key);
        if own.len() >= MAX_SUBJECT_ENTRIES {
            own.pop_front();
        }
        own.push_back(entry);
        self.entries = self.entries + own.len() - before;
        // Whole subjects go, the one that came first before others; one that still asks comes back at the end.
        while self.entries > MAX_SHARD_ENTRIES
            && let Some(first) = self.order.pop_front()
        {
            let gone = self.by_subject.remove(&first);
            self.entries -= gone.map_or(0, |gone| gone.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Reason, Verdict};
    use crate::profile::StatedProfiles;
    use crate::seconds::Seconds;
    use crate::slice::ActionId;
    use edgeward_identity::{AttestationState, Tier};

    #[test]
    fn a_question_that_differs_in_one_part_is_not_answered() {
        let cache = DecisionCache::new();
        let key = key(1);
        cache.put(key, at(10), &decision(20));
        let mut other_state = key;
        other_state.standing.state = AttestationState::Stale;
        let mut other_profiles = key;
        other_profiles.standing.profiles = None;
        let mut other_link = key;
        other_link.link = Link::Offline {
            last_heartbeat: at(1),
        };
        let mut other_interface = key;
        other_interface.interface = InterfaceIndex(1);
        let mut other_action = key;
        other_action.asked = Asked::Actions([ActionId(1)].into_iter().collect());
        let mut entry = key;
        entry.asked = Asked::Entry;
        let mut same_shard = key;
        same_shard.subject += SHARDS;
        for other in [
            other_state,
            other_profiles,
            other_link,
            other_interface,
            other_action,
            entry,
            same_shard,
        ] {
            assert_eq!(cache.get(&other, at(11)), None);
        }
        assert_eq!(cache.get(&key, at(11)), Some(decision(20)));
    }

    #[test]
    fn nothing_is_answered_past_its_end_or_before_it_was_decided() {
        let cache = DecisionCache::new();
        cache.put(key(1), at(10), &decision(20));
        assert_eq!(cache.get(&key(1), at(20)), None);
        assert_eq!(cache.get(&key(1), at(9)), None);
    }

    #[test]
    fn one_subject_pushes_out_its_own_entries_only() {
        let cache = DecisionCache::new();
        let quiet = key(1 + SHARDS);
        cache.put(quiet, at(10), &decision(20));
        for pass in 0..10_000 {
            let mut loud = key(1);
            loud.standing.last_pass = Some(at(pass));
            cache.put(loud, at(10), &decision(20));
        }
        assert_eq!(cache.get(&quiet, at(11)), Some(decision(20)));
        assert_eq!(
            cache.shards[1].lock().unwrap().entries,
            MAX_SUBJECT_ENTRIES + 1
        );
    }

    #[test]
    fn a_part_never_grows_past_its_limit() {
        let cache = DecisionCache::new();
        for subject in 0..2 * MAX_SHARD_ENTRIES {
            cache.put(key(subject * SHARDS), at(10), &decision(20));
        }
        assert_eq!(cache.shards[0].lock().unwrap().entries, MAX_SHARD_ENTRIES);
    }

    fn key(subject: usize) -> Key {
        Key {
            subject,
            standing: Standing {
                state: AttestationState::Trusted,
                tier: Some(Tier::Hardware),
                last_pass: Some(at(5)),
                profiles: Some(StatedProfiles::NONE),
                runs: None,
            },
            interface: InterfaceIndex(0),
            asked: Asked::Actions([ActionId::CONNECT].into_iter().collect()),
            link: Link::Online,
        }
    }

    fn decision(valid_until: u64) -> Decision {
        Decision {
            verdict: Verdict::Allow,
            rule: None,
            nearest: None,
            reason: Reason::Allowed,
            valid_until: at(valid_until),
            fresh: Seconds::new(1),
            offline: Seconds::new(1),
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }
}
