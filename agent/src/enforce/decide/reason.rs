//! Reasons as labels: what the filter keeps beside a verdict, and what records make of it.

use std::sync::Arc;

use edgeward_policy::{Decision, Reason};

/// Reasons of this node's own, beside those of the policy engine. The words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nothing {
    /// No policy has come yet.
    NoPolicy,
    /// The bind is not open, or no longer.
    NotBound,
    /// The peer was cut, and has not passed since.
    Cut,
    /// This node itself was cut, and has not passed since.
    SelfCut,
    /// Neither TCP nor UDP: no rule can be about it.
    Protocol,
    /// Not to or from an overlay address of this node, nor to a network that it leads to.
    NotOurs,
    /// From behind a peer: what lies there opens nothing.
    NotTheirs,
    /// A boot statement counts only while the cloud cannot be heard.
    StatementOnline,
    /// The gateway does not listen there, so nobody may get to what else does.
    NoGateway,
    /// Why this node grants nothing at all.
    Held(&'static str),
}

/// The label of a verdict: a rule for an allow, `reason` or `reason:rule` for a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    pub reason: &'a str,
    pub rule: Option<&'a str>,
}

impl Nothing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPolicy => "no-policy",
            Self::NotBound => "not-bound",
            Self::Cut => "cut",
            Self::SelfCut => "self-cut",
            Self::Protocol => "protocol",
            Self::NotOurs => "not-ours",
            Self::NotTheirs => "not-theirs",
            Self::StatementOnline => "boot-statement-online",
            Self::NoGateway => "no-gateway",
            Self::Held(code) => code,
        }
    }
}

impl<'a> Label<'a> {
    /// Of a denial's label.
    pub fn of_denial(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((reason, rule)) => Self {
                reason,
                rule: Some(rule),
            },
            None => Self {
                reason: text,
                rule: None,
            },
        }
    }
}

/// The label that the filter keeps for a decision.
pub(super) fn label(decision: &Decision) -> Arc<str> {
    match (decision.is_allow(), &decision.rule, &decision.nearest) {
        (true, Some(rule), _) => Arc::clone(rule),
        // The engine names the rule of every allow; without one it is no allow.
        (true, None, _) => Reason::Internal.as_str().into(),
        (false, Some(rule), _) | (false, None, Some(rule)) => {
            format!("{}:{rule}", decision.reason).into()
        }
        (false, None, None) => decision.reason.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denials_label_gives_reason_and_rule_back() {
        let label = Label::of_denial("age:scada-reads");
        assert_eq!((label.reason, label.rule), ("age", Some("scada-reads")));
        let label = Label::of_denial("no-rule");
        assert_eq!((label.reason, label.rule), ("no-rule", None));
    }
}
