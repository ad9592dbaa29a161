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
