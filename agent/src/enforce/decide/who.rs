//! Somebody at an interface that the agent itself serves, and what is decided about him.

use std::fmt;
use std::sync::Arc;

use edgeward_identity::{AttestationState, BootTime, SpiffeId, SpkiHash};
use edgeward_policy::{Decision, L7Request, Link, Reason, Standing as Evidence, Subject};

use super::picture::Picture;
use super::reason::Nothing;
use super::rules::Spot;

/// A proven identity, and how it was proven.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// By the tunnel that owns the source address, or by a certificate with this key. Its standing is that of its bind.
    Node {
        id: SpiffeId,
        /// `None` where the tunnel said it.
        spki: Option<SpkiHash>,
    },
    /// By a certificate. The standing is that of the node whose tunnel the connection comes through.
    Operator {
        id: SpiffeId,
        through: Option<SpiffeId>,
    },
    /// By its addresses on a network of this node, or by its certificate. Vouched for by this node.
    Device(SpiffeId),
}

/// What a decision about [`Who`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub allow: bool,
    /// The rule that decided, or for a denial by default the one that was nearest.
    pub rule: Option<Arc<str>>,
    /// A stable word.
    pub reason: &'static str,
    /// The answer is void at and after this time, or when the picture changes.
    pub until: BootTime,
}

impl Who {
    pub fn id(&self) -> &SpiffeId {
        match self {
            Self::Node { id, .. } | Self::Operator { id, .. } | Self::Device(id) => id,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

impl Picture {
    /// Whether a connection may be (without a request), or whether one request may be done.
    pub fn rule_on(
        &self,
        who: &Who,
        spot: &Spot,
        request: Option<&L7Request<'_>>,
        now: BootTime,
    ) -> Ruling {
        self.ruling(self.judge_who(who, spot, request, now), now)
    }

    pub(super) fn ruling(&self, decided: Result<Decision, Nothing>, now: BootTime) -> Ruling {
        match decided {
            Ok(decision) => Ruling {
                allow: decision.is_allow() && decision.rule.is_some(),
                reason: decision.reason.as_str(),
                until: self.parts.anchor.boot_at(decision.valid_until),
                rule: decision.rule.or(decision.nearest),
            },
            Err(nothing) => Ruling {
                allow: false,
                rule: None,
                reason: nothing.as_str(),
                until: now,
            },
        }
    }

    fn judge_who(
        &self,
        who: &Who,
        spot: &Spot,
        request: Option<&L7Request<'_>>,
        now: BootTime,
    ) -> Result<Decision, Nothing> {
        let rules = self.may_grant()?;
        let (standing, link) = self.evidence_of(who)?;
        let engine = rules.engine();
        let wall = self.parts.anchor.wall_at(now);
        let Some((interface, _)) = rules.forwarded(spot) else {
            return Ok(super::picture::refusal(rules, Reason::UnknownInterface));
        };
        let subject = Subject::Id(who.id());
        Ok(match request {
            None => engine.admit(subject, standing, interface, link, wall),
            Some(request) => engine.decide_l7(subject, standing, interface, request, link, wall),
        })
    }

    /// What counts as evidence about somebody.
    pub fn evidence_of(&self, who: &Who) -> Result<(Evidence, Link), Nothing> {
        match who {
            Who::Node { id, spki } => self.evidence_of_bound(id, spki.as_ref()),
            Who::Operator {
                through: Some(node),
                ..
            } => self.evidence_of_bound(node, None),
            Who::Operator { through: None, .. } => Ok((NOTHING_PROVEN, self.link_towards(None))),
            Who::Device(id) => self.device_standing(id),
        }
    }
}

/// An operator who does not come from a node.
const NOTHING_PROVEN: Evidence = Evidence {
    state: AttestationState::None,
    tier: None,
    last_pass: None,
    profiles: None,
    runs: None,
};
