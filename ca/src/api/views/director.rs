//! Orders about applications.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Revoke a release.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// For the audit log and for whoever runs a node.
    pub reason: String,
}

/// Revoke a digest.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeDigest {
    /// SHA-256 of a manifest or of a file in releases, 64 hex digits.
    pub digest: String,
    pub reason: String,
}

/// What runs nowhere any more.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AppRevoked {
    /// SHA-256, hex.
    pub digest: String,
    /// As an operator named it: publisher/name; empty for a digest alone.
    pub app: String,
    pub version: String,
    pub reason: String,
    /// How far the word has come.
    pub nodes: RevokedNodes,
}

/// The nodes that were given such a release, or say that they have one.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RevokedNodes {
    /// They hold the word, and say that nothing of it runs any more.
    pub ended: u64,
    /// They are connected, and have not said so yet.
    pub told: u64,
    /// They are not connected: they act at first contact, or when the word that they have ends.
    pub away: u64,
    /// The first hundred of `told`.
    pub waited_for: Vec<String>,
    /// The first hundred of `away`.
    pub out_of_reach: Vec<String>,
}

/// Order the way back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackRequest {
    /// One node, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// every node of a group of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub reason: String,
}

/// Who goes back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackView {
    pub nodes: Vec<NodeBack>,
}

/// One node that goes back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeBack {
    pub node: String,
    pub from: String,
    pub to: String,
}
