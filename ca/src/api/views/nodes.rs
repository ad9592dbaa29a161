//! Nodes in requests and answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::profiles::FindingView;
use crate::when::When;

/// A node and what the cloud knows about it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    pub name: String,
    pub spiffe_id: String,
    /// An operator's word: pending, active, quarantined, removed.
    pub status: String,
    /// What its evidence says: trusted, stale, failed, none.
    pub state: String,
    /// How its identity is rooted: hardware, listed, virtual, software.
    pub tier: String,
    /// Whether its session is open at the cloud that answers.
    pub connected: bool,
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of its EK public key (of its SVID key for tier software), hex.
    pub root: String,
    pub ipv4: Option<String>,
    pub ipv6: String,
    pub enrolled: When,
    /// Its last evidence that passed.
    pub attested: Option<When>,
    /// Why the last evidence was refused.
    pub reason: Option<String>,
    /// Why it would be refused, were its profile not in mode `monitor`.
    #[serde(default)]
    pub would_fail: Option<String>,
    /// When its certificate ends.
    pub expires: Option<When>,
    /// Since when it has been in this state; absent: it never gave evidence.
    #[serde(default)]
    pub since: Option<When>,
    /// How it controls applications at exec, as it says: launcher, fanotify, kernel; empty: none run there. Absent: it
    /// said nothing to the cloud that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_control: Option<String>,
    /// When it said so last, and what follows: of a node that is away it is as old as that. Absent: it has said nothing to
    /// the cloud that answers, since that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps_said: Option<When>,
    /// Its applications, as it says; `unheard` where it has not said anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<NodeAppView>,
    /// More, where one node is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explained>,
}

/// State of an application of which the cloud that answers has not heard.
pub const UNHEARD: &str = "unheard";

/// An application on a node.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeAppView {
    /// `publisher/name`.
    pub app: String,
    /// What is in place there; absent: nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// waiting, fetching, installed, starting, running, stopped, failed, refused. Or unheard: it was given this version,
    /// and may have it; the cloud has not heard of it since it was started.
    pub state: String,
    /// Why it is refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// While it is fetched, in bytes.
    #[serde(default)]
    pub fetched: u64,
    #[serde(default)]
    pub wanted: u64,
}

/// Why a node stands as it does.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    /// What to do about the reason; absent: nothing needs doing.
    pub advice: Option<String>,
    /// What does not match, also where that has no consequences.
    pub findings: Vec<FindingView>,
    /// Profiles of its groups in the policy in force.
    pub profiles: Vec<ComparedProfile>,
    /// Of its TPM: 0x and 16 hex digits; absent: no evidence is kept.
    pub firmware: Option<String>,
    /// Judged from its boot log; absent: no log said so.
    pub secure_boot: Option<bool>,
    /// How often the TPM was reset (booted) and restarted (resumed), by the last evidence that passed.
    pub boots: Option<u32>,
    pub resumes: Option<u32>,
    /// When the evidence came that says the above.
    pub evidence: Option<When>,
    /// Grants of break-glass that were opened there, and that nobody has acknowledged.
    #[serde(default)]
    pub break_glass: Vec<super::GlassView>,
}

/// A profile that a node's evidence is compared with.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ComparedProfile {
    pub name: String,
    /// `enforce`, or `monitor`: verdicts recorded, nothing enforced.
    pub mode: String,
}

/// Why a node is quarantined or removed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReasonRequest {
    /// For the audit log; at most 400 bytes.
    pub reason: Option<String>,
}
