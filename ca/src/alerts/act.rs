//! Whom the cloud may cut off by itself: only a node that itself signed what speaks against it, and only a few of the
//! fleet within an hour. Pure.
//!
//! Anybody can send a token that is refused, and a node can say anything of another one in its journal. If such a word could
//! quarantine, it would be the cheapest way to darken a victim. What counts is what the node's own keys signed, as the
//! cloud itself found and recorded it.

use std::time::Duration;

use edgeward_audit::event::{EventKind, Subject};
use edgeward_identity::{Kind, SpiffeId, Timestamp};

use super::engine::Seen;

/// The detail of an event that says what the subject signed.
pub const PROOF: &str = "proof";
/// Events that can prove something about their subject, and the proof that each must name.
pub const PROVABLE: [(EventKind, Proof); 3] = [
    (EventKind::AttestationFailed, Proof::Quote),
    (EventKind::NodeCloned, Proof::Clone),
    (EventKind::JournalForked, Proof::Equivocation),
];
/// The time over which automatic quarantines are counted.
pub const CAP_WINDOW: Duration = Duration::from_secs(3600);
/// Most automatic quarantines within [`CAP_WINDOW`], however large the fleet is.
pub const MAX_CAP: u32 = 10;
/// Of so many active nodes one may be quarantined within [`CAP_WINDOW`]; one in any case.
const NODES_PER_ACT: usize = 50;
/// An older fact quarantines nobody: an operator had time to look, and the node to pass again.
pub const MAX_FACT_AGE: Duration = Duration::from_secs(900);

/// What a node signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A quote for the cloud's fresh nonce, of values that its profile refuses or of a TPM that was set back.
    Quote,
    /// Two holders came with one identity's key.
    Clone,
    /// Two different records, or heads, for one place of its journal.
    Equivocation,
}

/// A node, and what it signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub node: SpiffeId,
    pub proof: Proof,
    /// When the cloud wrote it down.
    pub at: Timestamp,
}

/// What became of a quarantine that a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written down, not performed yet.
    Intended,
    Quarantined,
    /// The node was not active any more.
    NotActive,
    /// So many were quarantined within the hour that a person must look first.
    Capped,
    /// Nobody could do it within [`MAX_FACT_AGE`].
    TooOld,
    /// The cloud's configuration says that nobody is quarantined automatically.
    Off,
    /// It could not be written: it stays intended, and is tried again while it is news.
    Failed,
}

impl Proof {
    pub const ALL: [Self; 3] = [Self::Quote, Self::Clone, Self::Equivocation];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quote => "quote",
            Self::Clone => "clone",
            Self::Equivocation => "equivocation",
        }
    }
}

impl Outcome {
    pub const ALL: [Self; 7] = [
        Self::Intended,
        Self::Quarantined,
        Self::NotActive,
        Self::Capped,
        Self::TooOld,
        Self::Off,
        Self::Failed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Quarantined => "quarantined",
            Self::NotActive => "not_active",
            Self::Capped => "capped",
            Self::TooOld => "too_old",
            Self::Off => "off",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for Outcome {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .ok_or(())
    }
}

/// What an event proves about a node. Only the cloud's own record counts: a node's journal holds what the node wrote.
pub fn fact_of(seen: &Seen<'_>) -> Option<Fact> {
    if seen.keeper.kind() != Kind::Cloud {
        return None;
    }
    let (_, proof) = PROVABLE
        .into_iter()
        .find(|(kind, _)| *kind == seen.event.kind)?;
    if seen.event.detail.get(PROOF) != Some(proof.as_str()) {
        return None;
    }
    match &seen.event.subject {
        Some(Subject::Identity(id)) if id.kind() == Kind::Node => Some(Fact {
            node: id.clone(),
            proof,
            at: seen.at,
        }),
        _ => None,
    }
}

/// How many nodes may be quarantined within [`CAP_WINDOW`]. `fixed`: as configured.
pub fn cap(active: usize, fixed: Option<u32>) -> u32 {
    let share = u32::try_from(active / NODES_PER_ACT).unwrap_or(u32::MAX);
    fixed.unwrap_or_else(|| share.clamp(1, MAX_CAP))
}

/// Whether one more may be. `lately`: how many were within [`CAP_WINDOW`].
pub fn decide(lately: u32, active: usize, fixed: Option<u32>, on: bool) -> Outcome {
    if !on {
        return Outcome::Off;
    }
    match lately < cap(active, fixed) {
        true => Outcome::Intended,
        false => Outcome::Capped,
    }
}

/// Whether what was intended at `at` may still be done.
pub fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) <= MAX_FACT_AGE
}
