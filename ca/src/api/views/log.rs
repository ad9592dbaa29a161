//! The audit log against itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::when::When;

/// A self-check was asked for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SelfCheckAsked {
    /// Done as soon as `answers` of the last check is not below this.
    pub request: u64,
}

/// What the last self-check of the audit log came to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SelfCheckView {
    /// The newest request that it answers.
    pub answers: u64,
    pub begun: When,
    pub took_ms: u64,
    /// Index of the first event that was looked at.
    pub from: u64,
    /// Number of events under the newest checkpoint.
    pub size: u64,
    /// Kept checkpoints whose root was derived anew.
    pub checkpoints: u64,
    /// What is wrong; absent: nothing.
    pub fault: Option<String>,
}
