//! Signing authorities over the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::keys::ledger::{Role, State};
use crate::when::When;

/// All of `GET /api/v1/ca`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CaView {
    /// Sequence of the trust bundle: the set of roots that nodes should hold.
    pub bundle: u64,
    /// Active nodes that stored it, and all active nodes.
    pub held_by: u64,
    pub nodes: u64,
    /// The others, the first hundred.
    pub missing: Vec<String>,
    /// A new root waits until so many percent of active nodes stored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activates_at: Option<u8>,
    /// In the order they were made.
    pub authorities: Vec<AuthorityView>,
}

/// One signing authority.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuthorityView {
    pub kind: Role,
    /// SHA-256 of its SPKI.
    pub key: String,
    pub state: State,
    /// When it came into this state.
    pub since: When,
    pub from: When,
    pub until: When,
    /// Where its private key is, or belongs.
    pub key_at: String,
    pub key_is_here: bool,
    /// Certificates under it that have not ended.
    pub svids: u64,
    /// How many identities have nothing newer than what it signed; for the active one not counted.
    pub relied_on_by: u64,
    /// Their names, the first hundred.
    pub relying: Vec<String>,
}

/// `POST /api/v1/ca/rotate`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    pub kind: Role,
    /// Percent of active nodes that must hold a new root before it signs; 100 unless it was said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activate_at: Option<u8>,
    /// Let it sign at once.
    #[serde(default)]
    pub now: bool,
}

/// `POST /api/v1/ca/authorities/{key}/retire`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetireRequest {
    /// Although somebody relies on it: those are refused from then on.
    pub force: bool,
}
