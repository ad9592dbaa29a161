//! Who may call what: one table of every REST route and gRPC method. What the table does not name is refused.
//!
//! [`guard`] enforces it in front of all routes; the matrix test reads it and tries every route as every caller.

use edgeward_audit::event::Actor;
use edgeward_identity::PublicKey;
use serde::{Deserialize, Serialize};

pub mod guard;
mod table;

pub use table::{ROUTES, Route, lookup};

/// What an operator or an API key may do. Each includes nothing of the others by itself: the table says.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, operators and API keys included.
    Admin,
    /// Tokens, nodes and policies; reads everything.
    Operator,
    /// Reads everything, the audit log above all; changes nothing.
    Auditor,
}

/// The columns of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    Anonymous,
    Node,
    Device,
    Workload,
    Cloud,
    Operator(Role),
    ApiKey(Role),
}

/// A caller whose standing was looked up, and who may call the route. Only [`guard`] makes one.
#[derive(Clone, Debug)]
pub struct Principal {
    class: Class,
    actor: Actor,
    key: Option<PublicKey>,
}

/// The word is not a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a role (admin, operator, auditor)")]
pub struct UnknownRole;

impl Principal {
    pub fn class(&self) -> Class {
        self.class
    }

    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The key of the caller's certificate; none for an API key.
    pub fn key(&self) -> Option<&PublicKey> {
        self.key.as_ref()
    }
}

impl Class {
    pub const ALL: [Self; 11] = [
        Self::Anonymous,
        Self::Node,
        Self::Device,
        Self::Workload,
        Self::Cloud,
        Self::Operator(Role::Admin),
        Self::Operator(Role::Operator),
        Self::Operator(Role::Auditor),
        Self::ApiKey(Role::Admin),
        Self::ApiKey(Role::Operator),
        Self::ApiKey(Role::Auditor),
    ];
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::Auditor];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownRole)
    }
}
