//! What stands in a file of rules, and whether it could ever hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use edgeward_audit::event::{EventKind, Verdict};
use edgeward_identity::Kind;
use serde::Deserialize;

use super::{
    Field, MAX_BY, MAX_COUNT, MAX_DISTINCT, MAX_NAME_BYTES, MAX_STEPS, MAX_TEXT_BYTES, MAX_VALUES,
    MAX_WITHIN, MIN_WITHIN, Pattern, Rule, Severity, Step, Test,
};
use crate::alerts::act::PROVABLE;

/// An alert is not said again for this long, where its rule says nothing.
const DEFAULT_REPEAT: Duration = Duration::from_secs(3600);
/// What alerts themselves record: a rule over it would feed itself.
const OWN_FAMILY: &str = "alert";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) alert: BTreeMap<String, RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    /// False: a rule of this name that came before is not in force.
    #[serde(default = "yes")]
    pub(super) enabled: bool,
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

// `flatten` and `deny_unknown_fields` exclude each other: a table that is a pattern and more has the pattern's keys, too.
macro_rules! with_pattern {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            #[serde(rename = "type")]
            kinds: Vec<String>,
            #[serde(default)]
            code: Vec<String>,
            verdict: Option<String>,
            recorded_by: Option<String>,
            #[serde(default)]
            detail: BTreeMap<String, Vec<String>>,
            $($(#[$meta])* $field: $type,)*
        }

        impl $name {
            /// Takes the pattern out.
            fn pattern(&mut self) -> Result<Pattern, String> {
                let raw = RawPattern {
                    kinds: std::mem::take(&mut self.kinds),
                    code: std::mem::take(&mut self.code),
                    verdict: self.verdict.take(),
                    recorded_by: self.recorded_by.take(),
                    detail: std::mem::take(&mut self.detail),
                };
                raw.check()
            }
        }
    };
}

with_pattern!(RawThreshold {
    #[serde(default = "one")]
    count: u64,
    #[serde(default)]
    sum: Vec<String>,
    distinct: Option<String>,
});

with_pattern!(RawAbsence {
    after: Option<RawPattern>,
});

with_pattern!(RawStep {
    #[serde(default = "one")]
    count: u64,
});

impl RawRule {
    pub(super) fn check(self, name: &str) -> Result<Rule, String> {
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
        .map(|mut step| {
            let count = counted(step.count, MAX_COUNT)?;
            let of = step.pattern()?;
            Ok(Step { of, count })
        })
        .collect::<Result<Vec<_>, String>>()
        .map(Test::Sequence)
}

impl RawThreshold {
    fn check(mut self) -> Result<Test, String> {
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
        Ok(Test::Threshold {
            of: self.pattern()?,
            count,
            sum: self.sum,
            distinct,
        })
    }
}

impl RawAbsence {
    fn check(mut self) -> Result<Test, String> {
        Ok(Test::Absence {
            of: self.pattern()?,
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

fn check_name(name: &str) -> Result<(), String> {
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
