//! What becomes of an alert: opened once, said once, said again after a while, silenced, acknowledged, ended. Pure.

use std::time::Duration;

use edgeward_identity::Timestamp;
use serde::{Deserialize, Serialize};

use super::engine::Hit;
use super::rule::{MAX_NAME_BYTES, Rule, Severity};

/// Most alerts of one rule that are open at a time; what comes on top is one alert about all others.
pub const MAX_OPEN_OF_RULE: u32 = 500;
/// Longest silence.
pub const MAX_SILENCE: Duration = Duration::from_secs(30 * 86_400);
/// Longest reason or note of an operator, in bytes.
pub const MAX_REASON_BYTES: usize = 400;

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Open,
    /// Somebody has seen it: it is not said again.
    Acknowledged,
    /// The rule does not hold any more.
    Ended,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub number: u64,
    pub rule: String,
    pub key: String,
    pub severity: Severity,
    pub summary: String,
    pub advice: String,
    pub state: State,
    pub opened: Timestamp,
    /// Of the last hit.
    pub last: Timestamp,
    pub hits: u64,
    /// What was counted at the last hit.
    pub count: u64,
    /// The event of the first hit, and of the last one.
    pub first_leaf: Option<u64>,
    pub last_leaf: Option<u64>,
    /// What came last, in a few words.
    pub what: String,
    /// When it was last said; never while it is silenced.
    pub said: Option<Timestamp>,
    /// So long after its last hit it is over.
    pub quiet: Duration,
    /// Ends only by what was missed, not by time.
    pub holds: bool,
    pub acknowledged: Option<(String, Timestamp)>,
    pub ended: Option<Timestamp>,
    /// What became of a quarantine.
    pub act: Option<String>,
}

/// What is not said for a while: alerts are opened and kept, only nobody is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub number: u64,
    /// Of this rule only.
    pub rule: Option<String>,
    /// Whose key holds this text only.
    pub key: Option<String>,
    /// Up to this severity.
    pub most: Severity,
    pub from: Timestamp,
    pub until: Timestamp,
    pub by: String,
    pub reason: String,
    /// When it was taken back.
    pub lifted: Option<Timestamp>,
}

/// What is said of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Opened,
    /// Still, or again.
    Repeated,
    Ended,
}

/// Why a silence is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSilence {
    #[error("a silence of everything needs a rule, a key, or a severity below critical")]
    Everything,
    #[error("a silence lasts longer than nothing and at most 30 days")]
    Time,
    #[error("a rule, key or reason is empty or too long")]
    Text,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Open, Self::Acknowledged, Self::Ended];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Ended => "ended",
        }
    }
}

impl std::str::FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

impl Word {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Repeated => "repeated",
            Self::Ended => "ended",
        }
    }
}

impl Silence {
    pub fn check(&self) -> Result<(), BadSilence> {
        if self.rule.is_none() && self.key.is_none() && self.most == Severity::Critical {
            return Err(BadSilence::Everything);
        }
        if self.until <= self.from || self.until.since(self.from) > MAX_SILENCE {
            return Err(BadSilence::Time);
        }
        let fits = |text: &str, most| !text.is_empty() && text.len() <= most;
        let rule = self
            .rule
            .as_deref()
            .is_none_or(|rule| fits(rule, MAX_NAME_BYTES));
        let key = self
            .key
            .as_deref()
            .is_none_or(|key| fits(key, super::engine::MAX_KEY_BYTES));
        match rule && key && fits(&self.reason, MAX_REASON_BYTES) {
            true => Ok(()),
            false => Err(BadSilence::Text),
        }
    }

    pub fn covers(&self, alert: &Alert, now: Timestamp) -> bool {
        self.lifted.is_none()
            && self.from <= now
            && now < self.until
            && alert.severity <= self.most
            && self.rule.as_ref().is_none_or(|rule| *rule == alert.rule)
            && self.key.as_ref().is_none_or(|key| alert.key.contains(key))
    }
}

impl Alert {
    /// The first hit about a key.
    pub fn open(number: u64, rule: &Rule, hit: &Hit, silences: &[Silence]) -> (Self, Option<Word>) {
        let mut alert = Self {
            number,
            rule: rule.name.clone(),
            key: hit.key.clone(),
            severity: rule.severity,
            summary: rule.summary.clone(),
            advice: rule.advice.clone(),
            state: State::Open,
            opened: hit.at,
            last: hit.at,
            hits: hit.times,
            count: hit.count,
            first_leaf: hit.leaf,
            last_leaf: hit.leaf,
            what: hit.what.clone(),
            said: None,
            quiet: rule.quiet(),
            holds: hit.leaf.is_none(),
            acknowledged: None,
            ended: None,
            act: None,
        };
        let word = alert.say(Word::Opened, hit.at, silences);
        (alert, word)
    }

    /// One more hit about the same key.
    pub fn hit(&mut self, rule: &Rule, hit: &Hit, silences: &[Silence]) -> Option<Word> {
        self.last = self.last.max(hit.at);
        self.hits = self.hits.saturating_add(hit.times);
        self.count = hit.count;
        self.last_leaf = hit.leaf.or(self.last_leaf);
        self.what.clone_from(&hit.what);
        self.quiet = rule.quiet();
        let worse = rule.severity > self.severity;
        self.severity = rule.severity;
        let word = match self.said {
            // It was silenced until now.
            None => Word::Opened,
            Some(said) if worse || hit.at.since(said) >= rule.repeat => Word::Repeated,
            Some(_) => return None,
        };
        // Worse than what somebody has seen is something new.
        if worse {
            self.acknowledged = None;
            self.state = State::Open;
        }
        match self.state {
            State::Open => self.say(word, hit.at, silences),
            State::Acknowledged | State::Ended => None,
        }
    }

    /// Somebody has seen it.
    pub fn acknowledge(&mut self, by: &str, now: Timestamp) {
        self.acknowledged = Some((by.to_owned(), now));
        if self.state == State::Open {
            self.state = State::Acknowledged;
        }
    }

    /// Whether it is over by now: long enough without a hit. What holds until something comes is over when it came, or when
    /// somebody has seen it and nothing more came.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let quiet = now.since(self.last) > self.quiet;
        quiet && (!self.holds || self.state == State::Acknowledged)
    }

    /// It is over. Said only where it was said that it began.
    pub fn end(&mut self, now: Timestamp) -> Option<Word> {
        self.state = State::Ended;
        self.ended = Some(now);
        self.said.map(|_| Word::Ended)
    }

    fn say(&mut self, word: Word, now: Timestamp, silences: &[Silence]) -> Option<Word> {
        if silences.iter().any(|silence| silence.covers(self, now)) {
            return None;
        }
        self.said = Some(now);
        Some(word)
    }
}
