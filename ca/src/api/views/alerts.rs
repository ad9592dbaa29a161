//! Alerts, their rules, silences and sinks in requests and answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::alerts::book::{Alert, Silence, State};
use crate::alerts::{Rule, Severity};
use crate::when::When;

/// An alert.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlertView {
    pub number: u64,
    pub rule: String,
    pub severity: Severity,
    pub state: State,
    /// What it is about: the values of the rule's `by`.
    pub about: String,
    pub summary: String,
    /// What to do.
    pub advice: String,
    /// The last of what made it, in a few words.
    pub what: String,
    pub opened: When,
    pub last: When,
    /// How often the rule held.
    pub hits: u64,
    /// What was counted at the last hit.
    pub count: u64,
    /// Index in the log of the event of the first hit, and of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_event: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<u64>,
    /// Nobody was told: a silence covers it.
    pub silenced: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<When>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<When>,
    /// What became of a quarantine: `quarantined gw-3`, `capped gw-3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
}

/// A rule in force.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlertRuleView {
    pub name: String,
    pub severity: Severity,
    /// `threshold`, `absence` or `sequence`.
    pub test: String,
    pub summary: String,
    pub types: Vec<String>,
    pub within_seconds: u64,
    pub repeat_seconds: u64,
    pub quarantine: bool,
}

/// How a sink stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlertSinkView {
    pub name: String,
    pub to: String,
    pub least: Severity,
    /// Words that wait, and words that were given up.
    pub waiting: u64,
    pub dead: u64,
    /// Why the oldest that waits could not be said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Rules in force, and who is told.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlertRulesView {
    pub rules: Vec<AlertRuleView>,
    pub sinks: Vec<AlertSinkView>,
    /// Whether rules may quarantine, and how many nodes within an hour if that is set.
    pub quarantine: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_per_hour: Option<u32>,
}

/// A silence.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SilenceView {
    pub number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    pub most: Severity,
    pub from: When,
    pub until: When,
    pub by: String,
    pub reason: String,
}

/// `POST /api/v1/audit/alerts/silences`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SilenceRequest {
    /// Only alerts of this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Only alerts that are about something with this text in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Up to this severity; critical if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<Severity>,
    pub until: When,
    pub reason: String,
}

/// `POST /api/v1/audit/alerts/test`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertTestRequest {
    /// This sink only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
}

/// What a sink did with a test.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlertTestView {
    pub sink: String,
    pub taken: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl AlertView {
    pub fn of(alert: &Alert) -> Self {
        Self {
            number: alert.number,
            rule: alert.rule.clone(),
            severity: alert.severity,
            state: alert.state,
            about: alert.key.clone(),
            summary: alert.summary.clone(),
            advice: alert.advice.clone(),
            what: alert.what.clone(),
            opened: alert.opened.into(),
            last: alert.last.into(),
            hits: alert.hits,
            count: alert.count,
            first_event: alert.first_leaf,
            last_event: alert.last_leaf,
            silenced: alert.said.is_none(),
            acknowledged_by: alert.acknowledged.as_ref().map(|(by, _)| by.clone()),
            acknowledged: alert.acknowledged.as_ref().map(|(_, at)| (*at).into()),
            ended: alert.ended.map(Into::into),
            quarantine: alert.act.clone(),
        }
    }
}

impl AlertRuleView {
    pub fn of(rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            severity: rule.severity,
            test: rule.test.name().to_owned(),
            summary: rule.summary.clone(),
            types: (rule.kinds().iter())
                .map(|kind| kind.name().to_owned())
                .collect(),
            within_seconds: rule.within.as_secs(),
            repeat_seconds: rule.repeat.as_secs(),
            quarantine: rule.quarantine,
        }
    }
}

impl SilenceView {
    pub fn of(silence: &Silence) -> Self {
        Self {
            number: silence.number,
            rule: silence.rule.clone(),
            about: silence.key.clone(),
            most: silence.most,
            from: silence.from.into(),
            until: silence.until.into(),
            by: silence.by.clone(),
            reason: silence.reason.clone(),
        }
    }
}
