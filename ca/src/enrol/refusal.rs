//! Why a machine is not enrolled. The peer learns the code; the log and the audit log learn the reason.

use edgeward_evidence::ek::EkRefused;
use edgeward_evidence::make_credential::CannotChallenge;
use edgeward_evidence::verify::{EvidenceRefused, KeyRefused};

use crate::attest::Refusal;
use crate::audit::RecordFault;
use crate::hub::HubFault;
use crate::issue::NodeNotIssued;
use crate::store::StoreError;
use crate::store::nodes::NodeStatus;

/// Seconds after which a pending machine should ask again.
pub(super) const PENDING_RETRY_SECONDS: u32 = 15;
/// Seconds after which a node that waits for an operator should ask again: it may wait for days.
pub(super) const WAITING_RETRY_SECONDS: u32 = 60;
/// Seconds after which a node whose earlier session is still there should try again: a dead one is gone by then.
const ATTACHED_RETRY_SECONDS: u32 = 15;
/// Seconds after which a machine should try again where the fault is ours.
const FAULT_RETRY_SECONDS: u32 = 10;

/// Why there is no enrolment.
#[derive(Debug, thiserror::Error)]
pub enum EnrolRefused {
    /// The machine's, or a stranger's.
    #[error("message out of order")]
    Order,
    #[error("machine was silent too long")]
    Deadline,
    #[error("gave place to a newer attempt")]
    Evicted,
    #[error("claims are incomplete: {0}")]
    Incomplete(&'static str),
    #[error("no such token: {0:?}")]
    TokenUnknown(String),
    #[error("token's secret is wrong")]
    TokenSecret,
    #[error("token has expired")]
    TokenExpired,
    #[error("token is revoked")]
    TokenRevoked,
    #[error("token is used up")]
    TokenUsed,
    #[error("token is for another ek")]
    TokenEk,
    #[error("token does not give this name: {0:?}")]
    Name(String),
    #[error("no name was asked for and the token gives none")]
    NameMissing,
    #[error("name belongs to another machine: {0}")]
    NameTaken(String),
    #[error("machine is enrolled under another name: {0}")]
    OtherName(String),
    #[error("node is {}", .0.as_str())]
    Status(NodeStatus),
    #[error("name belongs to no node that could come back: {0}")]
    RecoverUnknown(String),
    #[error("name belongs to a node with another ek: {0}")]
    RecoverOtherEk(String),
    #[error("without a tpm there is nothing to recover by: a token is needed")]
    RecoverSoftware,
    #[error("a session of the node is open")]
    Attached,
    #[error("tier would fall: from {had} to {has}")]
    TierLower {
        had: edgeward_identity::Tier,
        has: edgeward_identity::Tier,
    },
    #[error("svid key is on the deny-list")]
    KeyDenied,
    #[error("no group that the token's labels lead to accepts tier software")]
    SoftwareTier,
    #[error("ek: {0}")]
    Ek(#[from] EkRefused),
    #[error("key: {0}")]
    Key(#[from] KeyRefused),
    #[error("challenge: {0}")]
    Challenge(#[from] CannotChallenge),
    #[error("evidence: {0}")]
    Evidence(#[from] EvidenceRefused),
    #[error(transparent)]
    Measured(#[from] Refusal),
    /// The operator's.
    #[error("as many nodes as one cloud takes")]
    FleetFull,
    /// Ours.
    #[error(transparent)]
    NotIssued(#[from] NodeNotIssued),
    #[error(transparent)]
    Record(#[from] RecordFault),
    #[error(transparent)]
    Hub(#[from] HubFault),
}

impl EnrolRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Order => "enrol_order",
            Self::Deadline => "enrol_deadline",
            Self::Evicted => "enrol_evicted",
            Self::Incomplete(_) => "enrol_incomplete",
            // One code: whoever does not know the secret learns nothing about tokens.
            Self::TokenUnknown(_) | Self::TokenSecret => "token_refused",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::TokenUsed => "token_used",
            Self::TokenEk => "token_ek_mismatch",
            Self::Name(_) => "node_name_refused",
            Self::NameMissing => "node_name_missing",
            Self::NameTaken(_) => "node_name_taken",
            Self::OtherName(_) => "ek_already_enrolled",
            Self::Status(NodeStatus::Quarantined) => "node_quarantined",
            Self::Status(_) => "node_status",
            Self::RecoverUnknown(_) => "recover_unknown",
            Self::RecoverOtherEk(_) => "recover_other_ek",
            Self::RecoverSoftware => "recover_software",
            Self::Attached => "node_attached",
            Self::TierLower { .. } => "tier_lower",
            Self::KeyDenied => "svid_key_denied",
            Self::SoftwareTier => "tier_software",
            Self::Ek(refused) => refused.code(),
            Self::Key(refused) => refused.code(),
            Self::Challenge(refused) => refused.code(),
            Self::Evidence(refused) => refused.code(),
            Self::Measured(refused) => refused.code(),
            Self::FleetFull => "fleet_full",
            Self::NotIssued(NodeNotIssued::OtherSubject) => "evidence_other_subject",
            Self::NotIssued(NodeNotIssued::Result(refused)) => refused.code(),
            Self::NotIssued(NodeNotIssued::Issue(_)) | Self::Record(_) | Self::Hub(_) => {
                "unavailable"
            }
        }
    }

    /// What the machine is told: as [`EnrolRefused::code`], but a stranger learns nothing about names.
    pub(super) fn told(&self) -> &'static str {
        match self {
            Self::RecoverUnknown(_) | Self::RecoverOtherEk(_) => "recover_refused",
            other => other.code(),
        }
    }

    /// Seconds after which asking again may help; 0: it will not.
    pub fn retry_seconds(&self) -> u32 {
        match self {
            Self::NotIssued(NodeNotIssued::Issue(_))
            | Self::Record(_)
            | Self::Hub(_)
            | Self::Deadline
            | Self::Evicted
            | Self::FleetFull => FAULT_RETRY_SECONDS,
            Self::Attached => ATTACHED_RETRY_SECONDS,
            _ => 0,
        }
    }

    /// Whether somebody should look: a name or a machine is being taken over.
    pub(super) fn alerts(&self) -> bool {
        matches!(
            self,
            Self::NameTaken(_) | Self::OtherName(_) | Self::RecoverOtherEk(_)
        )
    }

    /// Whether it was the token that was refused.
    pub(super) fn is_about_token(&self) -> bool {
        matches!(
            self,
            Self::TokenUnknown(_)
                | Self::TokenSecret
                | Self::TokenExpired
                | Self::TokenRevoked
                | Self::TokenUsed
                | Self::TokenEk
        )
    }
}

impl From<StoreError> for EnrolRefused {
    fn from(error: StoreError) -> Self {
        Self::Record(RecordFault::Store(error))
    }
}
