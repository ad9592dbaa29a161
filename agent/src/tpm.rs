//! The TPM 2.0, from one thread: the only part of Edgeward that links libtss2.
//!
//! [`Tpm`] is a handle to that thread ([`actor`]); a request is a closure over the [`Device`] it owns, queued by
//! [`Priority`]. Rules kept here, each of which cost somebody an outage:
//!
//! * the EK is used by a policy session only: a password use counts as a failed try at every power cut, and three
//!   lock the TPM ([`activate`]);
//! * our keys carry `noDA`, so they sign during a lockout; a lockout is reported, never retried;
//! * every session and transient object is flushed on every path: a TPM without resource manager has three of each;
//! * what an aborted process left behind is flushed at the start, where the TPM is ours alone;
//! * the library prints errors by itself unless `TSS2_LOG=all+NONE` is in the environment.

use std::sync::Arc;

pub mod activate;
pub mod actor;
pub mod code;
pub mod device;
pub mod ek;
pub mod health;
pub mod kept;
pub mod keys;
pub mod nv;
pub mod pcr;
pub mod quote;
pub mod seal;
pub mod signer;
pub mod template;
pub mod vouch;

pub use actor::{Priority, Tpm};
pub use code::Fault;
pub use device::{Device, Place};
pub use ek::{EkChoice, EkKind, Endorsement};
pub use health::Health;
pub use keys::SvidSlot;
pub use quote::{Certified, PcrRequest, Quoted};
pub use seal::SealedBlob;
pub use signer::TpmSigner;

/// What the TPM could not do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TpmError {
    /// No TPM where the configuration says, or no way to talk to it.
    #[error("tpm cannot be reached at {place}: {detail}")]
    Unreachable { place: Arc<str>, detail: String },
    /// Too many failed authorizations by somebody: wait or clear, never retry.
    #[error(
        "tpm is locked out by failed authorizations: wait, or clear with tpm2_dictionarylockout"
    )]
    Lockout,
    #[error("tpm could not {what}: {fault}")]
    Failed {
        what: &'static str,
        #[source]
        fault: Fault,
    },
    /// An operator must free the handle or configure another.
    #[error("tpm handle {handle:#010x} holds a key that is not ours")]
    HandleTaken { handle: u32 },
    #[error("tpm has no key at handle {handle:#010x}")]
    KeyMissing { handle: u32 },
    #[error("no endorsement key of a supported kind (p-256, p-384, rsa-2048)")]
    NoEndorsementKey,
    /// The operator decides: an EK without its maker's word, or none.
    #[error(
        "the tpm's ek certificate is for {0}, which this version does not use: name another in ek of [tpm], and let the cloud take that ek by its digest"
    )]
    EndorsementKeyUnsupported(&'static str),
    #[error("pcrs changed while they were quoted, {0} times in a row")]
    PcrsUnstable(u32),
    #[error("pcr selection is not supported: {0}")]
    PcrSelection(String),
    #[error("tpm gave an answer of the wrong shape: {0}")]
    Answer(&'static str),
    #[error("more tpm requests are waiting than the limit: {}", actor::QUEUE_LIMIT)]
    Busy,
    #[error("tpm did not answer within {} s", actor::REPLY_DEADLINE.as_secs())]
    Timeout,
    #[error("tpm thread has ended")]
    Ended,
}

impl TpmError {
    /// Whether the link to the TPM is what failed, so that opening it anew may help.
    pub fn is_link(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Failed { fault, .. } => fault.is_link(),
            _ => false,
        }
    }

    /// Whether what was sealed is not this TPM's, or not any more.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Failed { fault, .. } if fault.is_integrity())
    }
}
