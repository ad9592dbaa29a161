//! The local socket: what this node is and does at this moment, and why somebody may or may not reach something.
//!
//! One request and one answer, each a line of JSON, then the connection closes. The socket belongs to root and its
//! group (mode 0660); it tells no key, and changes nothing but for root and
//! the agent's own user, who may break the glass. [`ask`] is the client's side.

mod advice;
mod client;
mod explain;
mod glass;
mod server;
mod show;
mod text;

use edgeward_identity::{AttestationState, SpiffeId, Tier, Timestamp};
use edgeward_policy::space::RuleSaid;
use serde::{Deserialize, Serialize};

use crate::apps::desk::Checked as CheckedRelease;
use crate::apps::report::AppsReport;
use crate::enforce::lan::LanReport;
use crate::enforce::steer::ExitStatus;
use crate::gateway::GatewayStatus;
use crate::names::NamesReport;
use crate::reach::shown::ReachStatus;
use crate::view::{Finding, Refusal};

pub use client::{AskFailed, act, ask, check, import_apps, verify_apps};
pub use glass::{Act, GlassStatus, MAX_ACT_BYTES, parse_act};
pub use server::{Server, Sources, parse};

/// Longest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// Longest answer that the client reads, in bytes.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Most flows shown.
pub const MAX_FLOWS_SHOWN: usize = 1000;

/// Most rules that one answer explains.
pub const MAX_RULES_SHOWN: usize = 200;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    Status,
    /// May `from` reach `to` (`service/interface`) now? One of the two is this node.
    Check(Asked),
}

/// One question about access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub from: SpiffeId,
    /// `service/interface`.
    pub to: String,
    /// Name of an action; without one and without a request: whether a connection may be opened at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// One request of the interface's protocol, as people write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Of an operator: the node that it connects from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<SpiffeId>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    Status(Box<Status>),
    /// One for each node that offers the interface.
    Check {
        checked: Vec<Checked>,
    },
    /// What break-glass has open, after it was told to open or to close.
    Glass {
        open: Vec<GlassStatus>,
    },
    NotOpened {
        code: String,
        reason: String,
    },
    Refused {
        reason: String,
    },
    /// How applications stand, after a folder was looked into.
    Apps {
        report: AppsReport,
    },
    /// What is installed, file by file.
    Verified {
        releases: Vec<CheckedRelease>,
    },
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub node: SpiffeId,
    /// By its own newest result; `None` before the first.
    pub tier: Option<Tier>,
    pub state: Option<AttestationState>,
    pub passed: Option<Timestamp>,
    /// The cloud did not take the newest evidence.
    pub refused: Option<RefusedStatus>,
    /// What is not as the profile says, by the cloud's last word.
    pub findings: Vec<Finding>,
    pub svid_ends: Timestamp,
    pub overlay: Vec<std::net::IpAddr>,
    pub device: String,
    pub listen: String,
    /// A session is up.
    pub connected: bool,
    /// How long it has been up or down; none since the agent started.
    pub session_secs: Option<u64>,
    /// `online`, `settling` or `cut-off`.
    pub link: String,
    pub heartbeat_age_secs: Option<u64>,
    /// `granting`, or why nothing is granted.
    pub standing: String,
    /// The program whose place this one took, with its tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded: Option<UpgradeStatus>,
    /// Why this node has no identity that the cloud takes, and what came of the last attempt to get it back.
    pub recovery: Option<String>,
    pub slice: Option<SliceStatus>,
    pub deny_list: u64,
    pub cut: u64,
    /// Peers in the directory.
    pub directory: usize,
    pub binds: Vec<BindStatus>,
    pub flow_count: usize,
    /// At most [`MAX_FLOWS_SHOWN`].
    pub flows: Vec<FlowStatus>,
    pub rules: Vec<RuleStatus>,
    /// Packets dropped, by reason; datagrams refused, by reason. Only what happened.
    pub dropped: Vec<(String, u64)>,
    /// Workloads that a process asked for since the agent started.
    #[serde(default)]
    pub workloads: Vec<WorkloadStatus>,
    /// What break-glass has open.
    #[serde(default)]
    pub glass: Vec<GlassStatus>,
    /// Interfaces that the agent itself serves.
    #[serde(default)]
    pub gateways: Vec<GatewayStatus>,
    /// LAN interfaces that the kernel guards, and devices.
    #[serde(default)]
    pub lan: LanReport,
    /// The name server for programs of this machine.
    #[serde(default)]
    pub names: NamesReport,
    /// The exit that the operator named, and what leads to the internet now.
    #[serde(default)]
    pub exit: Option<ExitStatus>,
    /// How this node is found, and its ways to others.
    #[serde(default)]
    pub reach: ReachStatus,
    /// Signed applications.
    #[serde(default)]
    pub apps: AppsReport,
    pub now: Timestamp,
}

/// What was taken over from the program before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeStatus {
    /// Its version.
    pub from: String,
    pub age_secs: u64,
    pub tunnels: usize,
    /// Tunnels that stand as they were left: no bind of this program has renewed them.
    pub not_renewed: usize,
}

/// Evidence that the cloud did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStatus {
    #[serde(flatten)]
    pub refusal: Refusal,
    /// What to do about it.
    pub advice: String,
}

/// An identity of processes on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    pub id: SpiffeId,
    /// Of the X.509-SVID that is served; none where there is none to serve.
    pub serial: Option<String>,
    pub ends: Option<Timestamp>,
    /// Code of the reason why the cloud issued nothing when it was last asked.
    pub failed: Option<String>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceStatus {
    pub number: u64,
    pub version: u64,
    pub expires: Timestamp,
    /// Interfaces that this version lets nobody reach.
    pub unserved: Vec<String>,
}

/// A peer that WireGuard is armed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindStatus {
    pub peer: SpiffeId,
    /// Forwarding is open.
    pub open: bool,
    /// `initiator` or `responder`.
    pub role: String,
    pub epoch: u64,
    pub state: Option<AttestationState>,
    pub tier: Option<Tier>,
    pub passed: Option<Timestamp>,
    pub lease_left_secs: u64,
    pub endpoint: Option<String>,
    pub handshake_age_secs: Option<u64>,
    /// Inner bytes.
    pub received_bytes: u64,
    /// Inner bytes.
    pub sent_bytes: u64,
}

/// A flow that was allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    pub peer: Option<SpiffeId>,
    /// `in` or `out`.
    pub direction: String,
    pub protocol: u8,
    pub source: String,
    pub destination: String,
    pub rule: String,
    pub packets: u64,
    pub bytes: u64,
    pub valid_secs: u64,
}

/// What one rule, or one reason, did since the agent started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    pub rule: String,
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
    pub denied: u64,
}

/// The answer to "may this be".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub from: SpiffeId,
    /// The node that offers the interface.
    pub at: SpiffeId,
    pub to: String,
    pub allow: bool,
    pub reason: String,
    pub rule: Option<String>,
    /// For a denial by default: the rule that would have allowed, had `reason` not failed.
    pub nearest: Option<String>,
    /// Of the other node.
    pub state: Option<AttestationState>,
    pub tier: Option<Tier>,
    pub passed: Option<Timestamp>,
    pub valid_until: Option<Timestamp>,
    /// A tunnel with the other node is open.
    pub bound: bool,
    /// The rules of this node's interface, dimension by dimension: what decided, then what came nearest. At most
    /// [`MAX_RULES_SHOWN`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSaid>,
}

#[cfg(test)]
mod tests;
