//! Witnessing (C2SP tlog-witness): the logs of others that this cloud cosigns, and those who cosign its own.
//!
//! A log that is signed twice, with two contents, is found only by somebody who saw both. A witness sees every checkpoint
//! once and cosigns nothing that does not continue the one before: a reader who wants cosignatures of witnesses that do
//! not conspire holds a checkpoint that everybody else holds, too. [`Server`] is the one side, [`Asking`] the other.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{Clock, Timestamp};

use crate::audit::AuditLog;
use crate::config::Witness;
use crate::keys::{CloudKeys, KeysFault};
use crate::store::{Store, StoreError};

mod ask;
mod budget;
mod post;
mod remembered;
mod server;
#[cfg(test)]
mod tests;

pub use ask::{AskState, Asking};
pub use server::{Forgetful, NotAdded, Server};

/// How often the same disagreement is written down again.
const REPEAT: Duration = Duration::from_secs(3600);

/// Both sides.
#[derive(Debug, Default)]
pub struct Witnessing {
    /// None: this cloud witnesses nobody's log.
    pub server: Option<Server>,
    pub asking: Asking,
}

/// What both are made of.
#[derive(Clone)]
pub struct Parts {
    pub store: Store,
    pub audit: Arc<AuditLog>,
    pub clock: Arc<dyn Clock>,
    pub keys: Arc<CloudKeys>,
    pub config: Witness,
}

/// Witnessing cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WitnessFault {
    #[error(transparent)]
    Keys(#[from] KeysFault),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Witnessing {
    /// Makes the witness's key at the first start that names a log of others.
    pub async fn open(parts: &Parts) -> Result<Arc<Self>, WitnessFault> {
        let server = match parts.config.logs.is_empty() {
            true => None,
            false => Some(Server::open(parts).await?),
        };
        let asking = Asking::new(parts);
        Ok(Arc::new(Self { server, asking }))
    }
}

/// Whether enough time has passed since `before` to say the same again.
fn is_due(before: Option<Timestamp>, now: Timestamp) -> bool {
    before.is_none_or(|before| now >= before.plus(REPEAT))
}
