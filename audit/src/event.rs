//! Events: what happened, to whom, by whom, and what was decided.
//!
//! An event says nothing about where it is kept; [`crate::record`] chains it. Making one never fails, because an event
//! must always be recordable: texts that are too long are cut and marked, characters that could deceive a terminal are
//! replaced. Reading one is strict: unknown fields, texts over their limits and unknown kinds are refused.
//! No secret belongs in an event: tokens are named by their id, keys by their hash.

use edgeward_identity::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

mod kind;
mod party;
mod text;

#[cfg(test)]
mod tests;

pub use kind::{Class, Effect, EventKind, Keepers, UnknownKind};
pub use party::{Actor, MAX_API_KEY_NAME_BYTES, MAX_SUBJECT_NAME_BYTES, PartyError, Subject};
pub use text::{
    Detail, DetailError, MAX_DETAIL_ENTRIES, MAX_DETAIL_KEY_BYTES, MAX_DETAIL_VALUE_BYTES, Text,
    TextError,
};

/// Longest event in JSON, in bytes. The largest event that can be made fits (a test says so).
pub const MAX_EVENT_BYTES: usize = 15 * 1024;
/// Longest rule id, in bytes.
pub const MAX_RULE_BYTES: usize = 256;
/// Longest reason code, in bytes.
pub const MAX_CODE_BYTES: usize = 64;

/// The id of a policy rule.
pub type RuleId = Text<MAX_RULE_BYTES>;
/// A stable reason code, such as `token-expired`.
pub type ReasonCode = Text<MAX_CODE_BYTES>;

/// One act or one denial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When it happened, by the recorder's clock.
    pub time: Timestamp,
    /// Who did it, or tried to.
    pub actor: Actor,
    /// Whom or what it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub verdict: Verdict,
    /// The policy rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// Why, as a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ReasonCode>,
    #[serde(default, skip_serializing_if = "Detail::is_empty")]
    pub detail: Detail,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Deny,
    /// Nothing was asked: the event only tells.
    None,
}

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("event is longer than the limit in bytes: {MAX_EVENT_BYTES}")]
    TooLong,
    #[error("event is not the json this version writes")]
    Json(#[source] serde_json::Error),
}

/// Not a verdict: `allow`, `deny` or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a verdict (allow, deny, none)")]
pub struct UnknownVerdict;

impl Event {
    /// An event that tells; add a verdict where something was decided.
    pub fn new(time: Timestamp, actor: impl Into<Actor>, kind: EventKind) -> Self {
        Self {
            time,
            actor: actor.into(),
            subject: None,
            kind,
            verdict: Verdict::None,
            rule: None,
            code: None,
            detail: Detail::default(),
        }
    }

    #[must_use]
    pub fn subject(mut self, subject: impl Into<Subject>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Allowed.
    #[must_use]
    pub fn allowed(mut self) -> Self {
        self.verdict = Verdict::Allow;
        self
    }

    /// Denied, with the stable code the peer was told too.
    #[must_use]
    pub fn denied(mut self, code: &str) -> Self {
        self.verdict = Verdict::Deny;
        self.code(code)
    }

    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        self.code = Some(Text::lossy(code));
        self
    }

    #[must_use]
    pub fn rule(mut self, rule: &str) -> Self {
        self.rule = Some(Text::lossy(rule));
        self
    }

    /// Adds a detail. Over [`MAX_DETAIL_ENTRIES`] the detail says that something was left out.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.detail.put(key, &value.to_string());
        self
    }

    /// Reads one event from JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, EventError> {
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(EventError::TooLong);
        }
        serde_json::from_slice(bytes).map_err(EventError::Json)
    }

    pub fn class(&self) -> Class {
        self.kind.class()
    }

    /// Whether the event was made by `id` or concerns it.
    pub fn concerns(&self, id: &SpiffeId) -> bool {
        self.actor.identity() == Some(id)
            || self.subject.as_ref().and_then(Subject::identity) == Some(id)
    }
}

impl Verdict {
    pub const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::None];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::None => "none",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Verdict {
    type Err = UnknownVerdict;

    fn from_str(text: &str) -> Result<Self, UnknownVerdict> {
        Self::ALL
            .into_iter()
            .find(|verdict| verdict.as_str() == text)
            .ok_or(UnknownVerdict)
    }
}
