//! Rules as files: what is looked for in the log, and how loud it is. A rule that could never hold is refused when it is
//! loaded: silence must mean that nothing happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use edgeward_audit::event::{Actor, EventKind, Verdict};
use edgeward_identity::Kind;
use serde::{Deserialize, Serialize};

use super::engine::Seen;

mod file;

use file::File;

/// Largest file of rules, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// Most rules in force.
pub const MAX_RULES: usize = 200;
/// Longest name of a rule, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest summary or advice, in bytes.
pub const MAX_TEXT_BYTES: usize = 400;
/// Most fields that a key is made of.
pub const MAX_BY: usize = 3;
/// Most values that one condition lists.
pub const MAX_VALUES: usize = 64;
/// Most steps of a sequence.
pub const MAX_STEPS: usize = 8;
/// Highest threshold of events, or of what they count.
pub const MAX_COUNT: u64 = 1_000_000_000;
/// Highest threshold of different values: each is remembered.
pub const MAX_DISTINCT: u64 = 1000;
/// Shortest and longest time that a rule looks back over, and that an alert is not said again for.
pub const MIN_WITHIN: Duration = Duration::from_secs(1);
pub const MAX_WITHIN: Duration = Duration::from_secs(7 * 86_400);

/// How loud an alert is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Notice,
    Minor,
    Critical,
}

/// The rules in force, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeMap<String, Rule>);

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    pub severity: Severity,
    /// One line: what it means when the rule holds.
    pub summary: String,
    /// What to do then.
    pub advice: String,
    pub test: Test,
    /// What an alert is about: each combination of values is one of its own. None: one for the rule.
    pub by: Vec<Field>,
    pub within: Duration,
    /// For this long the same alert is not said again.
    pub repeat: Duration,
    /// Whether the node that the event proves something about is quarantined.
    pub quarantine: bool,
}

/// When a rule holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// So many within the time.
    Threshold {
        of: Pattern,
        count: u64,
        /// Details that say how often what an event stands for happened; an event without them counts once.
        sum: Vec<String>,
        /// Different values of a field are counted in place of events.
        distinct: Option<Field>,
    },
    /// Nothing for the time: since the last one, or since what it should have followed.
    Absence { of: Pattern, after: Option<Pattern> },
    /// One after the other within the time.
    Sequence(Vec<Step>),
}

/// One step of a sequence: so many of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub of: Pattern,
    pub count: u64,
}

/// Which events count. All that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    kinds: BTreeSet<EventKind>,
    codes: Vec<String>,
    verdict: Option<Verdict>,
    keeper: Option<Kind>,
    detail: BTreeMap<String, Vec<String>>,
}

/// What of an event makes its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Type,
    Actor,
    Subject,
    /// Who recorded the event.
    Keeper,
    Rule,
    Code,
    Detail(String),
}

/// Why a file of rules is not usable. Its writer's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRules {
    #[error("file is larger than the limit in bytes: {MAX_FILE_BYTES}")]
    TooLarge,
    #[error("{message}")]
    Toml { line: usize, message: String },
    #[error("more rules than the limit: {MAX_RULES}")]
    TooMany,
    #[error("alert {rule}: {reason}")]
    Rule {
        line: usize,
        rule: String,
        reason: String,
    },
}

impl BadRules {
    /// Where in the file; 1 where it is the file as a whole.
    pub fn line(&self) -> usize {
        match self {
            Self::TooLarge | Self::TooMany => 1,
            Self::Toml { line, .. } | Self::Rule { line, .. } => *line,
        }
    }
}

impl Severity {
    pub const ALL: [Self; 3] = [Self::Notice, Self::Minor, Self::Critical];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Minor => "minor",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Severity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or(())
    }
}

impl Rules {
    /// Takes in one file. A rule replaces the one of the same name that came before, or takes it out (`enabled = false`).
    pub fn read(&mut self, text: &str) -> Result<(), BadRules> {
        if text.len() > MAX_FILE_BYTES {
            return Err(BadRules::TooLarge);
        }
        let file: File = toml::from_str(text).map_err(|error| BadRules::Toml {
            line: error.span().map_or(1, |span| {
                let before = text.get(..span.start).unwrap_or_default();
                before.matches('\n').count() + 1
            }),
            message: error.message().to_owned(),
        })?;
        for (name, raw) in file.alert {
            if !raw.enabled {
                self.0.remove(&name);
                continue;
            }
            let rule = raw.check(&name).map_err(|reason| BadRules::Rule {
                line: line_of(text, &name),
                rule: name.chars().take(MAX_NAME_BYTES).collect(),
                reason,
            })?;
            self.0.insert(name, rule);
        }
        match self.0.len() > MAX_RULES {
            true => Err(BadRules::TooMany),
            false => Ok(()),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.values()
    }

    pub fn get(&self, name: &str) -> Option<&Rule> {
        self.0.get(name)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every kind of event that some rule looks at.
    pub fn kinds(&self) -> BTreeSet<EventKind> {
        self.iter().flat_map(Rule::kinds).collect()
    }

    /// The longest time that a rule looks back over.
    pub fn longest(&self) -> Duration {
        self.iter()
            .map(|rule| rule.within)
            .max()
            .unwrap_or_default()
    }
}

impl Rule {
    pub fn kinds(&self) -> BTreeSet<EventKind> {
        let patterns: Vec<&Pattern> = match &self.test {
            Test::Threshold { of, .. } => vec![of],
            Test::Absence { of, after } => std::iter::once(of).chain(after).collect(),
            Test::Sequence(steps) => steps.iter().map(|step| &step.of).collect(),
        };
        patterns
            .into_iter()
            .flat_map(|pattern| pattern.kinds.iter().copied())
            .collect()
    }

    /// How long after its last hit an alert of this rule is over.
    pub fn quiet(&self) -> Duration {
        self.within.max(self.repeat)
    }

    /// What an alert about this event would be about.
    pub fn key_of(&self, seen: &Seen<'_>) -> String {
        self.by
            .iter()
            .map(|field| field.of(seen).unwrap_or_else(|| "-".to_owned()))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl Test {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Threshold { .. } => "threshold",
            Self::Absence { .. } => "absence",
            Self::Sequence(_) => "sequence",
        }
    }
}

impl Pattern {
    pub fn matches(&self, seen: &Seen<'_>) -> bool {
        let event = seen.event;
        self.kinds.contains(&event.kind)
            && self.verdict.is_none_or(|verdict| event.verdict == verdict)
            && self.keeper.is_none_or(|kind| seen.keeper.kind() == kind)
            && (self.codes.is_empty()
                || event
                    .code
                    .as_ref()
                    .is_some_and(|code| self.codes.iter().any(|known| known == code.as_str())))
            && self.detail.iter().all(|(key, values)| {
                event
                    .detail
                    .get(key)
                    .is_some_and(|value| values.iter().any(|known| known == value))
            })
    }
}

impl Field {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "type" => Self::Type,
            "actor" => Self::Actor,
            "subject" => Self::Subject,
            "recorded_by" => Self::Keeper,
            "rule" => Self::Rule,
            "code" => Self::Code,
            other => match other.strip_prefix("detail.") {
                Some(key) if !key.is_empty() && key.len() <= MAX_NAME_BYTES => {
                    Self::Detail(key.to_owned())
                }
                _ => {
                    return Err(format!(
                        "not a field (type, actor, subject, recorded_by, rule, code, detail.<name>): {other:?}"
                    ));
                }
            },
        })
    }

    pub(super) fn of(&self, seen: &Seen<'_>) -> Option<String> {
        let event = seen.event;
        match self {
            Self::Type => Some(event.kind.name().to_owned()),
            Self::Actor => Some(source(&event.actor)),
            Self::Subject => event.subject.as_ref().map(ToString::to_string),
            Self::Keeper => Some(seen.keeper.to_string()),
            Self::Rule => event.rule.as_ref().map(ToString::to_string),
            Self::Code => event.code.as_ref().map(ToString::to_string),
            Self::Detail(key) => event.detail.get(key).map(str::to_owned),
        }
    }
}

/// Who did it. A stranger has a whole /64 of IPv6 to itself, so that counts as one.
fn source(actor: &Actor) -> String {
    match actor {
        Actor::Anonymous(Some(std::net::IpAddr::V6(address)))
            if address.to_ipv4_mapped().is_none() =>
        {
            let [a, b, c, d, ..] = address.segments();
            let prefix = std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
            format!("anonymous:{prefix}/64")
        }
        other => other.to_string(),
    }
}

/// Where a rule's table begins; 1 where it is written in another way.
fn line_of(text: &str, name: &str) -> usize {
    let is_head = |line: &str| {
        let head = line.trim().strip_prefix("[alert.");
        let head = head.and_then(|rest| rest.split(']').next());
        head.is_some_and(|head| head.trim().trim_matches(['"', '\'']) == name)
    };
    text.lines().position(is_head).map_or(1, |line| line + 1)
}
