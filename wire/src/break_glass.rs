//! Break-glass: rights that were granted beforehand, sealed in an envelope, for the day the cloud is gone.
//!
//! The cloud signs a [`Grant`] for one node and seals it ([`seal`](seal()), opened with a [`Code`] that is printed once).
//! Operators sign approvals of it offline ([`approve`]); the node opens it once, when enough of them did. Pure: time and
//! randomness are handed in. What is promised: docs/break-glass.md.

mod approval;
mod code;
mod grant;
mod seal;
#[cfg(test)]
mod tests;

pub use approval::{
    MAX_APPROVAL_BYTES, MAX_APPROVAL_LIFETIME, NotAnApproval, approve, approved_by,
};
pub use code::{CODE_BYTES, Code, MAX_CODE_TEXT_BYTES, Mistyped};
pub use grant::{
    Approver, GRANT_SCHEMA, Grant, GrantBody, MAX_APPROVERS, MAX_RULES, MAX_TTL_SECONDS, NotAGrant,
};
pub use seal::{Contents, MAX_SEALED_BYTES, NONCE_BYTES, NotUnsealed, SALT_BYTES, seal, unseal};
