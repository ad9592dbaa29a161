//! What goes over the wire: requests and answers, the same types for the server and for `edgeward`'s commands.

use std::collections::BTreeMap;

use edgeward_identity::TrustDomain;
use edgeward_policy::Report;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Role;
use crate::when::When;

mod alerts;
mod apps;
mod audit;
mod ca;
mod director;
mod eks;
mod log;
mod nodes;
mod openings;
mod retention;
mod rollout;

pub use alerts::{
    AlertRuleView, AlertRulesView, AlertSinkView, AlertTestRequest, AlertTestView, AlertView,
    SilenceRequest, SilenceView,
};
pub use apps::{
    AppView, EndingView, MissingRequest, MissingView, OnlineKeyView, PublishedView, PublisherView,
    PublishersView, ReleaseDetail, ReleaseName, ReleaseView, RoleTaken, RoleView,
};
pub use audit::{
    BucketView, CountView, CoverageReport, CoverageView, EventPage, EventView, FaultView,
    LossRequest, LossView, StatsView,
};
pub use ca::{AuthorityView, CaView, RetireRequest, RotateRequest};
pub use director::{
    AppRevoked, BackRequest, BackView, NodeBack, RevokeDigest, RevokeRequest, RevokedNodes,
};
pub use eks::{EkImportRequest, EkImportedView, EkRequest, EkRootView, EkView};
pub use log::{SelfCheckAsked, SelfCheckView};
pub use nodes::{ComparedProfile, Explained, NodeAppView, NodeView, ReasonRequest, UNHEARD};
pub use openings::{
    ApprovalRequest, ApprovalTermsView, ApprovalView, GlassIssued, GlassRequest, GlassView,
};
pub use retention::{ArchiveView, EraseRequest, ErasedView, RetentionView, SiteView};
pub use rollout::{DenialsView, PolicyAbort, PolicyRollback, PolicyStage, RolloutView};

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProblemView {
    /// `urn:edgeward:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    pub status: u16,
    /// Stable: scripts may rely on it.
    pub code: String,
    /// For people.
    pub detail: String,
    /// What is wrong in the files of a policy, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// `POST /api/v1/tokens`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRequest {
    /// How long it may be used (`24h`); the cloud's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// How many machines may use it; the cloud's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Labels of the nodes that enrol with it; policies select by them.
    pub labels: BTreeMap<String, String>,
    /// The node's name, or a pattern with one `*`; absent: the machine's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of the only EK public key that may use it, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ek: Option<String>,
    /// Whether nodes wait for an operator's approval; the cloud's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<bool>,
}

/// `POST /api/v1/nodes/{name}/replace-tpm`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplacementRequest {
    /// The lowest tier that the other TPM may have: hardware, listed, virtual, software; the node's present one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// How long it may be used (`24h`); the cloud's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// A token just made. The string is shown once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    pub id: String,
    /// What to hand to the machine. A secret.
    pub token: String,
    pub expires: When,
    pub uses: u32,
}

/// A token without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    pub id: String,
    pub status: TokenStatus,
    pub uses: u32,
    pub used: u32,
    pub labels: BTreeMap<String, String>,
    pub name: Option<String>,
    pub ek: Option<String>,
    pub approval: bool,
    pub created: When,
    pub created_by: String,
    pub expires: When,
    pub revoked: Option<When>,
    pub revoked_by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenStatus {
    Usable,
    Used,
    Expired,
    Revoked,
}

/// `POST /api/v1/operators`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorRequest {
    pub name: String,
    pub role: Role,
    /// Uncompressed P-256 point, hex. The private key stays where it was made.
    pub public_key: String,
    /// ECDSA signature (DER, hex) by that key over `edgeward-operator-key-v1\n<trust domain>\n<name>`: whoever adds a
    /// key holds it.
    pub proof: String,
    /// Lifetime of the certificate (`90d`); at most a year.
    pub ttl: Option<String>,
    /// Replace the key of an operator that exists; the older certificate is refused from then on.
    #[serde(default)]
    pub renew: bool,
}

impl OperatorRequest {
    /// What `proof` is over.
    pub fn message(trust_domain: &TrustDomain, name: &str) -> Vec<u8> {
        format!("edgeward-operator-key-v1\n{trust_domain}\n{name}").into_bytes()
    }
}

/// An operator's certificate, with what a context needs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OperatorIssued {
    pub name: String,
    pub spiffe_id: String,
    pub role: Role,
    pub expires: When,
    /// PEM, leaf first.
    pub certificates: String,
    /// SPIFFE trust bundle.
    #[schema(value_type = Object)]
    pub bundle: serde_json::Value,
    pub trust_domain: String,
    /// Where the cloud is reached.
    pub addresses: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OperatorView {
    pub name: String,
    pub spiffe_id: String,
    pub role: Role,
    pub status: CredentialStatus,
    /// SHA-256 of its key's SPKI, hex.
    pub key: String,
    pub added: When,
    pub added_by: String,
    pub expires: When,
    pub revoked: Option<When>,
    pub revoked_by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CredentialStatus {
    Active,
    Expired,
    Revoked,
}

/// `POST /api/v1/apikeys`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyRequest {
    pub name: String,
    pub role: Role,
    /// How long it holds (`90d`); at most a year.
    pub ttl: Option<String>,
}

/// An API key just made. The string is shown once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApiKeyCreated {
    pub name: String,
    pub role: Role,
    /// For `Authorization: Bearer`. A secret.
    pub key: String,
    pub expires: When,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApiKeyView {
    pub name: String,
    pub role: Role,
    pub status: CredentialStatus,
    pub created: When,
    pub created_by: String,
    pub expires: When,
    pub revoked: Option<When>,
    pub revoked_by: Option<String>,
}

/// One policy file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Relative to the policy's directory.
    pub path: String,
    pub text: String,
}

/// `POST /api/v1/policies/check`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyCheck {
    pub files: Vec<PolicyFile>,
}

/// `POST /api/v1/policies`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyApply {
    pub files: Vec<PolicyFile>,
    /// The number this policy gets: one more than the current one, or somebody was faster.
    pub number: u64,
    /// ECDSA signature (DER, hex) by the key of the caller's certificate over
    /// `edgeward-policy-apply-v1\n<trust domain>\n<number>\n<sha-256 of the sources>`.
    pub signature: String,
    /// Into force by stages. Absent: everywhere at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<PolicyStage>,
}

impl PolicyApply {
    /// What `signature` is over: names trust domain and number, so that it applies nothing anywhere else, nor the same
    /// sources again later.
    pub fn message(trust_domain: &TrustDomain, number: u64, hash: &str) -> Vec<u8> {
        format!("edgeward-policy-apply-v1\n{trust_domain}\n{number}\n{hash}").into_bytes()
    }
}

/// What checking a policy found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyReport {
    pub ok: bool,
    /// SHA-256 of the sources, hex.
    pub hash: String,
    /// `file:line:column: error[code]: message`.
    pub errors: Vec<String>,
    /// What lets in more than named and proven parties.
    pub openings: Vec<String>,
    /// Interfaces that nobody reaches, and requests that are two actions at once.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How much of what there is, by name.
    pub summary: BTreeMap<String, u64>,
}

impl PolicyReport {
    /// Most errors and openings in one report.
    pub const MAX_LINES: usize = 200;

    pub fn of(report: &Report) -> Self {
        let summary = serde_json::to_value(report.summary).unwrap_or_default();
        Self {
            ok: report.is_ok(),
            hash: report.hash.clone(),
            errors: lines(&report.diagnostics),
            openings: lines(&report.openings),
            notes: lines(&report.notes),
            summary: serde_json::from_value(summary).unwrap_or_default(),
        }
    }
}

fn lines<T: ToString>(items: &[T]) -> Vec<String> {
    items
        .iter()
        .take(PolicyReport::MAX_LINES)
        .map(ToString::to_string)
        .collect()
}

/// A policy that was applied.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    pub number: u64,
    pub hash: String,
    pub applied: When,
    pub applied_by: String,
    /// The operator's key (P-256 point, hex) and signature (DER, hex) over this policy.
    pub key: String,
    pub signature: String,
    pub summary: BTreeMap<String, u64>,
    /// The earlier policy whose sources these are: it was gone back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_to: Option<u64>,
    /// How far it came, where it came by stages: as in `10%`, `50% paused`, `done`, `returned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Only where one policy is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<PolicyFile>>,
}

/// The cloud at a glance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    pub trust_domain: String,
    pub cloud: String,
    pub version: String,
    pub time: When,
    /// SHA-256 of the root's SPKI, hex: what tokens pin.
    pub root_pin: String,
    /// When the issuing certificate ends.
    pub issuing_expires: When,
    /// Nodes by status.
    pub nodes: BTreeMap<String, u64>,
    /// Nodes by attestation state, active ones only.
    pub states: BTreeMap<String, u64>,
    /// Open sessions at this cloud.
    pub sessions: u64,
    /// Number of the policy in force; 0: none.
    pub policy: u64,
    /// Number of the deny-list.
    pub deny_list: u64,
    /// Records in the audit log.
    pub audit_records: u64,
    /// Grants of break-glass that were opened, and that nobody has acknowledged.
    #[serde(default)]
    pub break_glass: Vec<GlassView>,
}
