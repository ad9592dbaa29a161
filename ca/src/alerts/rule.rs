//! Rules as files: what is looked for in the log, and how loud it is. A rule that could never hold is refused when it is
//! loaded: silence must mean that nothing happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use edgeward_audit::event::{Actor, EventKind, Verdict};
use edgeward_identity::Kind;
use serde::{Deserialize, Serialize};

use super::act::PROVABLE;
use super::engine::Seen;

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
const DEFAULT_REPEAT: Duration = Duration::from_secs(3600);
/// What alerts themselves record: a rule over it would feed itself.
const OWN_FAMILY: &str = "alert";

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
    #[error("line {line}: {message}")]
    Toml { line: usize, message: String },
    #[error("more rules than the limit: {MAX_RULES}")]
    TooMany,
    #[error("alert {rule}: {reason}")]
    Rule { rule: String, reason: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    alert: BTreeMap<String, RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    /// False: a rule of this name that came before is not in force.
    #[serde(default = "yes")]
    enabled: bool,
    severity: Option<Severity>,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    advice: String,
    threshold: Option<RawThreshold>,
    absence: Option<RawAbsence>,
    sequence: Option<Vec<RawStep>>,
    #[serde(default)]
    by: Vec<String>,
    within: Option<String>,
    repeat: Option<String>,
    #[serde(default)]
    quarantine: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPattern {
    #[serde(rename = "type")]
    kinds: Vec<String>,
    #[serde(default)]
    code: Vec<String>,
    verdict: Option<String>,
    recorded_by: Option<String>,
    #[serde(default)]
    detail: BTreeMap<String, Vec<String>>,
}

// `flatten` and `deny_unknown_fields` exclude each other: the fields are written out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThreshold {
    #[serde(rename = "type")]
    kinds: Vec<String>,
    #[serde(default)]
    code: Vec<String>,
    verdict: Option<String>,
    recorded_by: Option<String>,
    #[serde(default)]
    detail: BTreeMap<String, Vec<String>>,
    #[serde(default = "one")]
    count: u64,
    #[serde(default)]
    sum: Vec<String>,
    distinct: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAbsence {
    #[serde(rename = "type")]
    kinds: Vec<String>,
    #[serde(default)]
    code: Vec<String>,
    verdict: Option<String>,
    recorded_by: Option<String>,
    #[serde(default)]
    detail: BTreeMap<String, Vec<String>>,
    after: Option<RawPattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    #[serde(rename = "type")]
    kinds: Vec<String>,
    #[serde(default)]
    code: Vec<String>,
    verdict: Option<String>,
    recorded_by: Option<String>,
    #[serde(default)]
    detail: BTreeMap<String, Vec<String>>,
    #[serde(default = "one")]
    count: u64,
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

impl RawRule {
    fn check(self, name: &str) -> Result<Rule, String> {
        check_name(name)?;
        let severity = self.severity.ok_or("severity is missing")?;
        if self.summary.is_empty() {
            return Err("summary is missing".to_owned());
        }
        if self.summary.len().max(self.advice.len()) > MAX_TEXT_BYTES {
            return Err(format!("a text is longer than {MAX_TEXT_BYTES} bytes"));
        }
        if self.by.len() > MAX_BY {
            return Err(format!("by names more than {MAX_BY} fields"));
        }
        let by = self
            .by
            .iter()
            .map(|field| Field::parse(field))
            .collect::<Result<Vec<_>, _>>()?;
        let test = match (self.threshold, self.absence, self.sequence) {
            (Some(raw), None, None) => raw.check()?,
            (None, Some(raw), None) => raw.check()?,
            (None, None, Some(raw)) => sequence(raw)?,
            _ => return Err("exactly one of threshold, absence, sequence is needed".to_owned()),
        };
        let within = time("within", self.within.as_deref(), None)?;
        let repeat = time("repeat", self.repeat.as_deref(), Some(DEFAULT_REPEAT))?;
        let rule = Rule {
            name: name.to_owned(),
            severity,
            summary: self.summary,
            advice: self.advice,
            test,
            by,
            within,
            repeat,
            quarantine: self.quarantine,
        };
        check_quarantine(&rule)?;
        Ok(rule)
    }
}

/// Anybody can make a node look bad. Only what the node itself signed may cut it off.
fn check_quarantine(rule: &Rule) -> Result<(), String> {
    if !rule.quarantine {
        return Ok(());
    }
    if !matches!(rule.test, Test::Threshold { .. }) {
        return Err("only a threshold can quarantine: its event is the proof".to_owned());
    }
    if let Some(kind) = rule
        .kinds()
        .into_iter()
        .find(|kind| PROVABLE.iter().all(|(provable, _)| provable != kind))
    {
        return Err(format!(
            "cannot quarantine on {kind}: the node it is about did not sign it (only attestation.failed, \
             node.cloned and journal.forked)"
        ));
    }
    Ok(())
}

fn sequence(raw: Vec<RawStep>) -> Result<Test, String> {
    if !(2..=MAX_STEPS).contains(&raw.len()) {
        return Err(format!("a sequence has 2 to {MAX_STEPS} steps"));
    }
    raw.into_iter()
        .map(|step| {
            let count = counted(step.count, MAX_COUNT)?;
            let of = RawPattern {
                kinds: step.kinds,
                code: step.code,
                verdict: step.verdict,
                recorded_by: step.recorded_by,
                detail: step.detail,
            };
            Ok(Step {
                of: of.check()?,
                count,
            })
        })
        .collect::<Result<Vec<_>, String>>()
        .map(Test::Sequence)
}

impl RawThreshold {
    fn check(self) -> Result<Test, String> {
        let distinct = self.distinct.as_deref().map(Field::parse).transpose()?;
        if distinct.is_some() && !self.sum.is_empty() {
            return Err("distinct and sum exclude each other".to_owned());
        }
        if self.sum.len() > MAX_VALUES || self.sum.iter().any(String::is_empty) {
            return Err("sum names no details, or too many".to_owned());
        }
        let most = if distinct.is_some() {
            MAX_DISTINCT
        } else {
            MAX_COUNT
        };
        let count = counted(self.count, most)?;
        let of = RawPattern {
            kinds: self.kinds,
            code: self.code,
            verdict: self.verdict,
            recorded_by: self.recorded_by,
            detail: self.detail,
        };
        Ok(Test::Threshold {
            of: of.check()?,
            count,
            sum: self.sum,
            distinct,
        })
    }
}

impl RawAbsence {
    fn check(self) -> Result<Test, String> {
        let of = RawPattern {
            kinds: self.kinds,
            code: self.code,
            verdict: self.verdict,
            recorded_by: self.recorded_by,
            detail: self.detail,
        };
        Ok(Test::Absence {
            of: of.check()?,
            after: self.after.map(RawPattern::check).transpose()?,
        })
    }
}

impl RawPattern {
    fn check(self) -> Result<Pattern, String> {
        let mut kinds = BTreeSet::new();
        for text in &self.kinds {
            let named = kinds_named(text);
            if named.is_empty() {
                return Err(format!("no such type of event: {text:?}"));
            }
            kinds.extend(named);
        }
        if kinds.is_empty() {
            return Err("type is empty".to_owned());
        }
        if kinds.iter().any(|kind| kind.family() == OWN_FAMILY) {
            return Err("alerts about alerts would feed themselves".to_owned());
        }
        let lists = self.detail.values().chain([&self.code]);
        if lists.clone().any(|list| list.len() > MAX_VALUES) || self.detail.len() > MAX_VALUES {
            return Err(format!("a condition lists more than {MAX_VALUES} values"));
        }
        if self.detail.values().any(Vec::is_empty) {
            return Err("a detail without values never holds".to_owned());
        }
        if lists.flatten().any(|value| value.len() > MAX_TEXT_BYTES) {
            return Err(format!("a value is longer than {MAX_TEXT_BYTES} bytes"));
        }
        let verdict = self
            .verdict
            .map(|text| text.parse::<Verdict>())
            .transpose()
            .map_err(|error| error.to_string())?;
        let keeper = match self.recorded_by.as_deref() {
            None => None,
            Some("cloud") => Some(Kind::Cloud),
            Some("node") => Some(Kind::Node),
            Some(other) => return Err(format!("recorded_by is cloud or node, not {other:?}")),
        };
        Ok(Pattern {
            kinds,
            codes: self.code,
            verdict,
            keeper,
            detail: self.detail,
        })
    }
}

/// `node.quarantined`, or `node.*`.
fn kinds_named(text: &str) -> Vec<EventKind> {
    let family = text.strip_suffix(".*");
    EventKind::ALL
        .iter()
        .copied()
        .filter(|kind| match family {
            Some(family) => kind.family() == family,
            None => kind.name() == text,
        })
        .collect()
}

pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(format!(
            "a name has 1 to {MAX_NAME_BYTES} lower-case letters, digits and -"
        )),
    }
}

fn counted(count: u64, most: u64) -> Result<u64, String> {
    match (1..=most).contains(&count) {
        true => Ok(count),
        false => Err(format!("count is not between 1 and {most}")),
    }
}

fn time(key: &str, text: Option<&str>, default: Option<Duration>) -> Result<Duration, String> {
    let Some(text) = text else {
        return default.ok_or_else(|| format!("{key} is missing"));
    };
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{key}: {error}: {text:?}"))?;
    match (MIN_WITHIN..=MAX_WITHIN).contains(&duration) {
        true => Ok(duration),
        false => Err(format!("{key} is not between 1s and 7 days")),
    }
}

fn yes() -> bool {
    true
}

fn one() -> u64 {
    1
}
