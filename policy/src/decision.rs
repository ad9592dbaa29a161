//! What is asked of the engine, and what it answers.

use std::fmt;
use std::sync::Arc;

use edgeward_identity::{AttestationState, SpiffeId, Tier, Timestamp};
use serde::{Deserialize, Serialize};

use crate::profile::StatedProfiles;
use crate::runs::MetWants;
use crate::seconds::Seconds;
use crate::slice::{ActionId, InterfaceIndex, PeerIndex};

/// May this subject do this to this interface of ours, now?
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub subject: Subject<'a>,
    pub standing: Standing,
    pub target: Target<'a>,
    pub action: ActionId,
    /// Whether we, who verify, hear from the cloud.
    pub link: Link,
    pub now: Timestamp,
}

/// Who asks: by index where the caller holds one, else by the ID of its verified certificate.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    Peer(PeerIndex),
    Id(&'a SpiffeId),
}

/// What is to be reached: by index where the caller holds one, else by its names.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Interface(InterfaceIndex),
    Named {
        service: &'a str,
        interface: &'a str,
    },
}

/// What is known of a subject's evidence. For operators: that of the node they connect from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    pub state: AttestationState,
    /// `None` where it is unknown: fails every allow.
    pub tier: Option<Tier>,
    /// Time of the last attestation result that passed. `None` fails every allow that asks for an age.
    pub last_pass: Option<Timestamp>,
    /// The profiles that its attestation result names. `None` where that is unknown: a rule that asks for one then
    /// fails as an allow and matches as a deny.
    pub profiles: Option<StatedProfiles>,
    /// Which of what the slice wants run is proven to. `None` where that is unknown: as with profiles.
    pub runs: Option<MetWants>,
}

impl Standing {
    /// What a device counts for that a node of this standing vouches for: as old as the node's own pass, and of its tier.
    #[must_use]
    pub fn vouched_for(self) -> Self {
        Self {
            state: match self.state {
                AttestationState::Trusted => AttestationState::Vouched,
                _ => AttestationState::Stale,
            },
            // A device measures nothing itself.
            profiles: Some(StatedProfiles::NONE),
            runs: Some(MetWants::NONE),
            ..self
        }
    }
}

/// Whether the verifier itself hears from the cloud (a heartbeat within 30 s).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// `fresh` holds.
    Online,
    /// `offline` holds, counted from the earlier of the last pass and this last heartbeat.
    Offline { last_heartbeat: Timestamp },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Deny,
}

/// The answer. It holds until `valid_until` at the latest, or until standing, link or slice change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// The rule that decided; `None` where no rule did.
    pub rule: Option<Arc<str>>,
    /// For a denial by default: the rule that would have allowed, had `reason` not failed.
    pub nearest: Option<Arc<str>>,
    pub reason: Reason,
    pub valid_until: Timestamp,
    /// The `fresh` that bounds the lease while online. Zero for a denial.
    pub fresh: Seconds,
    /// The `offline` that bounds the lease while cut off. Zero for a denial.
    pub offline: Seconds,
}

/// Why. The words are stable: audit, tests in policy files and operators rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// An allow matched and no deny did.
    Allowed,
    /// A deny matched.
    Rule,
    /// The attestation state does not suffice.
    State,
    /// The tier does not suffice.
    Tier,
    /// The result does not name a profile that the rule asks for, as it is now.
    Profile,
    /// The last pass is too old.
    Age,
    /// Outside the rule's window.
    Window,
    /// The rule has ended.
    Until,
    /// The rule asks for an approval, and there is none.
    Approval,
    /// The evidence does not say that the subject runs what the rule asks for.
    Runs,
    /// The request fits no action of the interface.
    NoAction,
    /// No rule allows this subject here.
    NoRule,
    /// The subject is not one that this node may meet.
    UnknownSubject,
    /// This node has no such interface.
    UnknownInterface,
    /// The slice has ended.
    PolicyExpired,
    /// Two ways of deciding disagree, or the engine failed: our fault.
    Internal,
}

impl Decision {
    pub fn is_allow(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

impl Reason {
    pub const ALL: [Self; 16] = [
        Self::Allowed,
        Self::Rule,
        Self::State,
        Self::Tier,
        Self::Profile,
        Self::Age,
        Self::Window,
        Self::Until,
        Self::Approval,
        Self::Runs,
        Self::NoAction,
        Self::NoRule,
        Self::UnknownSubject,
        Self::UnknownInterface,
        Self::PolicyExpired,
        Self::Internal,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Rule => "rule",
            Self::State => "state",
            Self::Tier => "tier",
            Self::Profile => "profile",
            Self::Age => "age",
            Self::Window => "window",
            Self::Until => "until",
            Self::Approval => "approval",
            Self::Runs => "runs",
            Self::NoAction => "no-action",
            Self::NoRule => "no-rule",
            Self::UnknownSubject => "unknown-subject",
            Self::UnknownInterface => "unknown-interface",
            Self::PolicyExpired => "policy-expired",
            Self::Internal => "internal",
        }
    }
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
