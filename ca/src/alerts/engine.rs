//! Which rule holds for which key: one event after the other, in the log's order. Told the time; the same events give the
//! same hits, so that a cloud that starts again reads the last stretch once more and stands where it stood.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use edgeward_audit::event::{Event, EventKind};
use edgeward_identity::{Kind, SpiffeId, Timestamp};

use super::act::{Fact, fact_of};
use super::rule::{Rule, Rules, Step, Test};
use super::window::{Distinct, Sums};
use crate::audit::COUNT;

/// Most keys that all rules together keep apart.
pub const MAX_KEYS: usize = 20_000;
/// Most keys that one rule keeps apart.
pub const MAX_KEYS_OF_RULE: usize = 5_000;
/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// The key of all that there is no room to keep apart.
pub const OTHERS: &str = "(others)";
/// After a start nothing is called absent for this long, or for the rule's own time if that is less: whoever should have
/// spoken must be able to come back first.
pub const GRACE: Duration = Duration::from_secs(120);
/// How often keys are forgotten that count for nothing any more.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// Most values that one hit names.
const MAX_NAMED: usize = 8;

/// An event in its place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub leaf: u64,
    /// When the cloud stored it: the clock of no node decides about alerts.
    pub at: Timestamp,
    /// In whose journal it is.
    pub keeper: &'a SpiffeId,
    pub event: &'a Event,
}

/// A rule holds, or holds no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub rule: String,
    /// What it is about; empty for a rule without `by`.
    pub key: String,
    pub at: Timestamp,
    /// The event that made it so; none: one that did not come.
    pub leaf: Option<u64>,
    /// How many were counted.
    pub count: u64,
    /// For how many hits this one stands.
    pub times: u64,
    /// What came, in a few words.
    pub what: String,
    /// That event is something its subject signed.
    pub fact: Option<Fact>,
    pub over: bool,
}

/// All rules, and what is counted for them.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<(Rule, State)>,
    by_kind: HashMap<EventKind, Vec<usize>>,
    clock: Timestamp,
    forgotten: Timestamp,
}

#[derive(Debug)]
enum State {
    Sums(HashMap<String, Sums>),
    Distinct(HashMap<String, Distinct>),
    /// Until when something must come.
    Due(BTreeMap<String, Due>),
    Progress(HashMap<String, Progress>),
}

#[derive(Clone, Copy, Debug)]
struct Due {
    by: Timestamp,
    missed: bool,
    /// Nothing was seen yet: it counts from the start.
    first: bool,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    first: Sums,
    /// When the first step was done; the later ones follow within the rule's time.
    since: Option<Timestamp>,
    /// Which step is waited for, and how many of it came.
    step: usize,
    count: u64,
}

impl Engine {
    /// Begins at `now` with nothing counted.
    pub fn new(rules: &Rules, now: Timestamp) -> Self {
        let rules: Vec<(Rule, State)> = rules
            .iter()
            .map(|rule| (rule.clone(), State::begin(rule, now)))
            .collect();
        let mut by_kind: HashMap<EventKind, Vec<usize>> = HashMap::new();
        for (index, (rule, _)) in rules.iter().enumerate() {
            for kind in rule.kinds() {
                by_kind.entry(kind).or_default().push(index);
            }
        }
        Self {
            rules,
            by_kind,
            clock: now,
            forgotten: now,
        }
    }

    /// One event. Tells which rules hold because of it.
    pub fn observe(&mut self, seen: Seen<'_>) -> Vec<Hit> {
        self.clock = self.clock.max(seen.at);
        // What is not its keeper's to say is kept as what the keeper said, and means nothing here.
        if !seen.event.kind.keepers().include(seen.keeper.kind()) {
            return Vec::new();
        }
        let Some(indices) = self.by_kind.get(&seen.event.kind) else {
            return Vec::new();
        };
        let mut keys: usize = self.rules.iter().map(|(_, state)| state.len()).sum();
        let mut hits = Vec::new();
        for index in indices {
            let Some((rule, state)) = self.rules.get_mut(*index) else {
                continue;
            };
            let before = state.len();
            let full = keys >= MAX_KEYS || before >= MAX_KEYS_OF_RULE;
            hits.extend(observe(rule, state, seen, self.clock, full));
            keys += state.len().saturating_sub(before);
        }
        hits
    }

    /// Time has passed. Tells what should have come and did not.
    pub fn turn(&mut self, now: Timestamp) -> Vec<Hit> {
        self.clock = self.clock.max(now);
        let clock = self.clock;
        let mut hits = Vec::new();
        for (rule, state) in &mut self.rules {
            if let State::Due(keys) = state {
                for (key, due) in keys
                    .iter_mut()
                    .filter(|(_, due)| !due.missed && due.by <= clock)
                {
                    due.missed = true;
                    hits.push(Hit {
                        rule: rule.name.clone(),
                        key: key.clone(),
                        at: clock,
                        leaf: None,
                        count: 0,
                        times: 1,
                        what: format!("nothing for {}", humantime::format_duration(rule.within)),
                        fact: None,
                        over: false,
                    });
                }
            }
        }
        self.forget();
        hits
    }

    /// Lets go of keys that count for nothing any more, now and then.
    pub fn forget(&mut self) {
        let clock = self.clock;
        if clock.since(self.forgotten) >= FORGET_EVERY {
            self.forgotten = clock;
            for (rule, state) in &mut self.rules {
                state.forget(rule, clock);
            }
        }
    }

    /// What should have come by `stood`, the moment up to which somebody looked: rule, key, and the time from which on an
    /// alert about it says just that.
    pub fn overdue(&self, stood: Timestamp) -> Vec<(String, String, Timestamp)> {
        let mut overdue = Vec::new();
        for (rule, state) in &self.rules {
            if let State::Due(keys) = state {
                let late = keys
                    .iter()
                    .filter(|(_, due)| !due.missed && due.by <= stood);
                overdue.extend(late.map(|(key, due)| {
                    let from = match due.first {
                        true => Timestamp::default(),
                        false => due.by,
                    };
                    (rule.name.clone(), key.clone(), from)
                }));
            }
        }
        overdue
    }

    /// What was read again is behind: from here on it counts. What may be missing only because this cloud was away gets a
    /// little time.
    pub fn resume(&mut self, now: Timestamp) {
        self.clock = self.clock.max(now);
        for (rule, state) in &mut self.rules {
            if let State::Due(keys) = state {
                let earliest = now.plus(GRACE.min(rule.within));
                for due in keys.values_mut().filter(|due| !due.missed) {
                    due.by = due.by.max(earliest);
                }
            }
        }
    }

    /// This key was found missing before the start: what comes of it ends its alert.
    pub fn is_missed(&mut self, rule: &str, key: &str) {
        let clock = self.clock;
        for (known, state) in &mut self.rules {
            if known.name == rule
                && let State::Due(keys) = state
            {
                let due = Due {
                    by: clock,
                    missed: true,
                    first: false,
                };
                keys.insert(key.to_owned(), due);
            }
        }
    }

    /// How many keys are kept apart now.
    pub fn keys(&self) -> usize {
        self.rules.iter().map(|(_, state)| state.len()).sum()
    }
}

impl State {
    fn begin(rule: &Rule, now: Timestamp) -> Self {
        match &rule.test {
            Test::Threshold {
                distinct: Some(_), ..
            } => Self::Distinct(HashMap::new()),
            Test::Threshold { .. } => Self::Sums(HashMap::new()),
            // Without a key there is nobody to wait for a first word from: it is due from the beginning.
            Test::Absence { after: None, .. } if rule.by.is_empty() => {
                let due = Due {
                    by: now.plus(rule.within),
                    missed: false,
                    first: true,
                };
                Self::Due(BTreeMap::from([(String::new(), due)]))
            }
            Test::Absence { .. } => Self::Due(BTreeMap::new()),
            Test::Sequence(_) => Self::Progress(HashMap::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Sums(keys) => keys.len(),
            Self::Distinct(keys) => keys.len(),
            Self::Due(keys) => keys.len(),
            Self::Progress(keys) => keys.len(),
        }
    }

    fn holds(&self, key: &str) -> bool {
        match self {
            Self::Sums(keys) => keys.contains_key(key),
            Self::Distinct(keys) => keys.contains_key(key),
            Self::Due(keys) => keys.contains_key(key),
            Self::Progress(keys) => keys.contains_key(key),
        }
    }

    fn forget(&mut self, rule: &Rule, now: Timestamp) {
        let within = rule.within;
        match self {
            Self::Sums(keys) => keys.retain(|_, sums| {
                sums.forget(now, within);
                !sums.is_empty()
            }),
            Self::Distinct(keys) => keys.retain(|_, values| {
                values.forget(now, within);
                !values.is_empty()
            }),
            // What was missed is remembered until it comes, a week at most: then nobody waits for it any more.
            Self::Due(keys) => {
                keys.retain(|_, due| !due.missed || now.since(due.by) < super::rule::MAX_WITHIN);
            }
            Self::Progress(keys) => keys.retain(|_, progress| {
                progress.expire(now, within);
                progress.first.forget(now, within);
                progress.since.is_some() || !progress.first.is_empty()
            }),
        }
    }
}

fn observe(
    rule: &Rule,
    state: &mut State,
    seen: Seen<'_>,
    now: Timestamp,
    full: bool,
) -> Option<Hit> {
    let key = short(rule.key_of(&seen));
    let key = match full && !state.holds(&key) {
        true => OTHERS.to_owned(),
        false => key,
    };
    let hit = |key: String, count: u64, over: bool| Hit {
        rule: rule.name.clone(),
        key,
        at: now,
        leaf: Some(seen.leaf),
        count,
        times: 1,
        what: describe(&seen),
        fact: fact_of(&seen),
        over,
    };
    match (&rule.test, state) {
        (
            Test::Threshold {
                of,
                count,
                distinct: Some(field),
                ..
            },
            State::Distinct(keys),
        ) => {
            let value = of.matches(&seen).then(|| field.of(&seen)).flatten()?;
            let values = keys.entry(key.clone()).or_default();
            let found = values.add(short(value), now, rule.within, *count);
            (found >= *count).then(|| {
                let named: Vec<&str> = values.values().take(MAX_NAMED).collect();
                let what = format!("{}: {}", describe(&seen), named.join(", "));
                Hit {
                    what,
                    ..hit(key, found, false)
                }
            })
        }
        (Test::Threshold { of, count, sum, .. }, State::Sums(keys)) => {
            if !of.matches(&seen) {
                return None;
            }
            let sums = keys.entry(key.clone()).or_default();
            let found = sums.add(weight(&seen, sum), now, rule.within);
            (found >= *count).then(|| hit(key, found, false))
        }
        (Test::Absence { of, after }, State::Due(keys)) => {
            let due = Due {
                by: now.plus(rule.within),
                missed: false,
                first: false,
            };
            if of.matches(&seen) {
                let before = match after {
                    Some(_) => keys.remove(&key),
                    None => keys.insert(key.clone(), due),
                };
                return before
                    .is_some_and(|due| due.missed)
                    .then(|| hit(key, 0, true));
            }
            if after.as_ref().is_some_and(|after| after.matches(&seen)) {
                // The first of several is the one that waits longest.
                keys.entry(key).or_insert(due);
            }
            None
        }
        (Test::Sequence(steps), State::Progress(keys)) => {
            if !steps.iter().any(|step| step.of.matches(&seen)) {
                return None;
            }
            let progress = keys.entry(key.clone()).or_default();
            let done = progress.step(steps, &seen, now, rule.within);
            if progress.since.is_none() && progress.first.is_empty() {
                keys.remove(&key);
            }
            done.then(|| hit(key, 1, false))
        }
        // A state is made for its rule's test.
        _ => None,
    }
}

impl Progress {
    fn step(&mut self, steps: &[Step], seen: &Seen<'_>, now: Timestamp, within: Duration) -> bool {
        self.expire(now, within);
        let Some((first, rest)) = steps.split_first() else {
            return false;
        };
        if self.since.is_some()
            && let Some(step) = self.step.checked_sub(1).and_then(|index| rest.get(index))
            && step.of.matches(seen)
        {
            self.count = self.count.saturating_add(weight(seen, &[]));
            if self.count < step.count {
                return false;
            }
            self.count = 0;
            self.step += 1;
            if self.step <= rest.len() {
                return false;
            }
            *self = Self::default();
            return true;
        }
        if first.of.matches(seen) && self.first.add(weight(seen, &[]), now, within) >= first.count {
            // A later beginning leaves more time for what follows, as long as nothing has followed yet.
            if self.since.is_none() || (self.step == 1 && self.count == 0) {
                (self.since, self.step) = (Some(now), 1);
            }
        }
        false
    }

    fn expire(&mut self, now: Timestamp, within: Duration) {
        if self.since.is_some_and(|since| now.since(since) > within) {
            (self.since, self.step, self.count) = (None, 0, 0);
        }
    }
}

/// How often what an event stands for happened: the sum of these details, or how many equal ones the cloud wrote as one.
fn weight(seen: &Seen<'_>, details: &[String]) -> u64 {
    let number = |key: &str| seen.event.detail.get(key)?.parse::<u64>().ok();
    let said: Vec<u64> = details.iter().filter_map(|key| number(key)).collect();
    match said.is_empty() {
        // A node says what it likes of how often.
        true if seen.keeper.kind() == Kind::Cloud => number(COUNT).unwrap_or(1).max(1),
        true => 1,
        false => said.into_iter().fold(0, u64::saturating_add),
    }
}

fn describe(seen: &Seen<'_>) -> String {
    let event = seen.event;
    let mut text = event.kind.name().to_owned();
    if let Some(code) = &event.code {
        text.push_str(&format!(" ({code})"));
    }
    if let Some(subject) = &event.subject {
        text.push_str(&format!(" {subject}"));
    }
    short(format!("{text} by {}", event.actor))
}

/// A text within the limit; one that is cut ends with the beginning of its hash, so that two are never taken for one.
fn short(text: String) -> String {
    if text.len() <= MAX_KEY_BYTES {
        return text;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut mark = hex::encode(digest.as_ref());
    mark.truncate(16);
    let mut end = MAX_KEY_BYTES - mark.len() - 1;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{mark}", text.get(..end).unwrap_or_default())
}
