//! Whose TPMs count: roots of makers, and lists of single EKs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::eks::EkList;
use crate::when::When;

/// A certificate of a TPM maker that EK certificates are checked against.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EkRootView {
    /// The certificate's subject.
    pub name: String,
    /// What an EK under it proves: hardware, listed or virtual.
    pub tier: String,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    pub expires: When,
    /// Whether the built-in list knows it.
    #[serde(default)]
    pub pinned: bool,
    /// The file it lies in, or the operator who imported it.
    #[serde(default)]
    pub source: String,
    /// Whether what it issued may have the members of a set out of order.
    #[serde(default)]
    pub sets_in_any_order: bool,
    /// Whether what it issued counts after its end.
    #[serde(default)]
    pub after_its_end: bool,
    /// Why it counts for nothing: a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// `POST /api/v1/ek-roots`: certificates, and what to think of those that the built-in list does not know.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EkImportRequest {
    /// DER, base64; at most 16.
    pub certificates: Vec<String>,
    /// The tier of EKs under certificates that the built-in list does not know; without it these are refused. It never
    /// raises the tier of one that is listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// Count what they issued after its end: their maker is gone.
    pub after_its_end: bool,
    /// Forgive a set out of order in them and in what they issued.
    pub sets_in_any_order: bool,
}

/// What became of one certificate.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EkImportedView {
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    pub name: String,
    /// Absent if it was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    pub pinned: bool,
    /// Why it was not taken: a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `POST /api/v1/eks`: puts an EK, or an EK certificate, on a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EkRequest {
    /// SHA-256 of the EK's public area; on the list `encoding`, of the certificate. Hex.
    pub digest: String,
    pub list: EkList,
    /// For people: which machine, and why.
    #[serde(default)]
    pub note: String,
}

/// An EK, or an EK certificate, on a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EkView {
    pub digest: String,
    pub list: EkList,
    pub note: String,
    pub added: When,
    pub added_by: String,
    /// Nodes that enrolled with it.
    pub nodes: Vec<String>,
}
