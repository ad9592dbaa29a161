//! What the cloud signs with purpose [`Purpose::Control`](edgeward_identity::Purpose): heartbeats and cuts.
//!
//! A heartbeat's audience is the node it is sent to, and its number is its time in milliseconds, so neither an old
//! one nor another node's passes. A cut's audience is everybody; its number rises with every cut. Cuts only take away:
//! one that is seen twice does nothing new.

use std::time::Duration;

use edgeward_identity::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::limits::{HEARTBEAT_EVERY, HEARTBEATS_LOST, LONGEST_HEARTBEAT};

/// Signed time, and how new the deny-list must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The cloud's clock: a floor for the node's own.
    pub time: Timestamp,
    pub deny_number: u64,
    /// How often the node hears this from now on, in seconds; none: every [`crate::limits::HEARTBEAT_EVERY`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u32>,
}

impl Heartbeat {
    /// How long without another one before the node counts as cut off.
    pub fn lost_after(&self) -> Duration {
        let every = self
            .every
            .map_or(HEARTBEAT_EVERY, |secs| Duration::from_secs(secs.into()));
        every.clamp(HEARTBEAT_EVERY, LONGEST_HEARTBEAT) * HEARTBEATS_LOST
    }
}

/// From now on nothing goes to or from this node, until a result newer than `time` arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    pub node: SpiffeId,
    pub reason: CutReason,
    /// Results of the node up to this time count no more.
    pub time: Timestamp,
}

/// Why a node is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutReason {
    /// An operator's word; its keys are on the deny-list too.
    Quarantined,
    /// An operator's word, for good; its keys are on the deny-list too.
    Removed,
    /// Its evidence was refused.
    Failed,
    /// It gave no evidence in time although its session was up.
    Stale,
}

impl CutReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Removed => "removed",
            Self::Failed => "failed",
            Self::Stale => "stale",
        }
    }
}
