//! Approvals and break-glass in requests and answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::when::When;

/// What it takes to approve a rule.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApprovalTermsView {
    pub rule: String,
    /// SHA-256 over the rule as it is written, hex: what approvers sign for.
    pub digest: String,
    /// Names of the operators who may.
    pub by: Vec<String>,
    /// How many of them it takes.
    pub quorum: u16,
    /// Longest time that an approval holds.
    pub ttl_seconds: u64,
}

/// `POST /api/v1/approvals`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRequest {
    pub rule: String,
    /// Of the rule's text, as [`ApprovalTermsView`] has it.
    pub digest: String,
    /// SPIFFE ID of the node, operator or device for whom the rule shall count.
    pub subject: String,
    /// Milliseconds since 1970.
    pub until: u64,
    /// ECDSA signature (DER, hex) by the key of the caller's certificate over
    /// `edgeward-approval-v1\n<trust domain>\n<rule>\n<digest>\n<subject>\n<until>`.
    pub signature: String,
}

/// One operator's signature.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    pub number: u64,
    pub rule: String,
    pub subject: String,
    pub approver: String,
    pub given: When,
    /// When it ends: as signed, or earlier where the rule says so.
    pub until: When,
    /// `counts`, `revoked`, or `void`: the rule has another text now, the approver may not any more, or has another key.
    pub status: String,
    /// Distinct operators whose approval of the same counts now, and how many it takes.
    pub have: u16,
    pub quorum: Option<u16>,
    /// Whether the rule counts for the subject now.
    pub in_force: bool,
    pub revoked_by: Option<String>,
}

/// `POST /api/v1/break-glass`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GlassRequest {
    /// `[break-glass.<name>]` of the policy in force.
    pub name: String,
    /// Name of the node.
    pub node: String,
    /// How long it may be opened (`90d`, the default); at most a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<String>,
}

/// A grant that was signed just now. Whoever asked seals it; the cloud keeps neither it nor the code.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GlassIssued {
    #[serde(flatten)]
    pub grant: GlassView,
    /// Signed object, base64.
    pub object: String,
    /// The key set under which it verifies, base64.
    pub key_set: String,
}

/// A grant and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GlassView {
    pub number: u64,
    pub name: String,
    pub node: String,
    pub rules: Vec<String>,
    /// Names of the operators who may open it.
    pub approvers: Vec<String>,
    pub quorum: u64,
    pub ttl_seconds: u64,
    pub ends: When,
    pub issued: When,
    pub issued_by: String,
    /// `sealed`, `revoked`, `ended`, `opened` (and nobody acknowledged it), `acknowledged`.
    pub status: String,
    pub opened: Option<When>,
    pub opened_by: Option<String>,
    pub closed: Option<When>,
    pub acknowledged_by: Option<String>,
}
