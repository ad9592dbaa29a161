//! What a node's identity is rooted in: a TPM, or, in tier `software`, a file.
//!
//! The rest of the agent does not know which. Whoever may hold which root is the cloud's to decide: the tier is in
//! every attestation result.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use edgeward_evidence::BootStatement;
use edgeward_evidence::tpm::{ClockInfo, PcrSelection};
use edgeward_evidence::transcript::{Exporter, Nonce};
use edgeward_identity::{PublicKey, Secret, SignError, Signer, SpiffeId, TrustDomain};
use edgeward_wire::v1;

use crate::tpm::{Priority, SvidSlot, TpmError};

#[cfg(test)]
pub(crate) mod fake;
mod software;
mod tpm;

pub use self::software::SoftwareRoot;
pub use self::tpm::TpmRoot;

/// Holds the SVID key and whatever proves it; seals the state.
#[async_trait]
pub trait Root: Send + Sync + fmt::Debug {
    /// One word for status and logs: `tpm` or `software`.
    fn name(&self) -> &'static str;

    /// The TPM's clock with its reset and restart counts; none without a TPM.
    async fn tpm_clock(&self) -> Result<Option<ClockInfo>, RootError>;

    /// Makes the SVID key to enrol with in `slot` and says what the root claims.
    async fn begin_enrolment(&self, slot: SvidSlot) -> Result<v1::enrol_begin::Root, RootError>;

    /// Answers the enrolment's challenge.
    async fn prove_enrolment(
        &self,
        slot: SvidSlot,
        claim: EnrolClaim<'_>,
        talk: &Conversation,
        challenge: &v1::EnrolChallenge,
    ) -> Result<v1::EnrolProof, RootError>;

    /// Answers an attestation challenge.
    async fn attest(
        &self,
        slot: SvidSlot,
        node: &SpiffeId,
        talk: &Conversation,
        challenge: &v1::AttestChallenge,
    ) -> Result<v1::attest_evidence::Root, RootError>;

    /// The SVID key in `slot`. Signing blocks for as long as the key store takes.
    async fn signer(
        &self,
        slot: SvidSlot,
        priority: Priority,
    ) -> Result<Arc<dyn Signer>, RootError>;

    /// Ties the boot key to the AK without the cloud; none without a TPM.
    async fn boot_statement(
        &self,
        slot: SvidSlot,
        node: &SpiffeId,
        boot_key: &PublicKey,
        selection: &PcrSelection,
    ) -> Result<Option<BootStatement>, RootError>;

    /// Turns the key of the state files into bytes that may lie beside them.
    async fn seal(&self, key: &Secret<Vec<u8>>) -> Result<Vec<u8>, RootError>;

    /// The reverse of [`Root::seal`], on the same root only.
    async fn unseal(&self, sealed: &[u8]) -> Result<Secret<Vec<u8>>, RootError>;

    /// A signature by what survives the loss of everything that was sealed; none where nothing does.
    async fn vouch(&self, message: &[u8]) -> Result<Option<Vec<u8>>, RootError>;

    /// Whether this root, and no other, made that signature.
    fn has_vouched(&self, message: &[u8], signature: &[u8]) -> bool;

    /// Extends a PCR in which applications are measured; false where there is no TPM.
    async fn extend(&self, pcr: u8, digest: [u8; 32]) -> Result<bool, RootError>;

    /// What that PCR holds; none where there is no TPM.
    async fn pcr(&self, pcr: u8) -> Result<Option<[u8; 32]>, RootError>;

    /// The epoch that the newest state carries; none where nothing can keep one.
    async fn epoch(&self) -> Result<Option<u64>, RootError>;

    /// Raises the epoch by one; none where nothing can keep one.
    async fn raise_epoch(&self) -> Result<Option<u64>, RootError>;
}

/// How often the TPM was reset (boots) and restarted (resumes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub reset: u32,
    pub restart: u32,
}

impl From<ClockInfo> for Counts {
    fn from(clock: ClockInfo) -> Self {
        Self {
            reset: clock.reset_count,
            restart: clock.restart_count,
        }
    }
}

/// By what a machine wants a certificate.
#[derive(Clone, Copy, Debug)]
pub enum EnrolClaim<'a> {
    /// The id of the token that it holds.
    Token(&'a str),
    /// The node that it was, and is.
    Recover(&'a SpiffeId),
}

/// What every signature is bound to, beside the keys.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub trust_domain: TrustDomain,
    /// Of the TLS connection that carries the evidence.
    pub exporter: Exporter,
    pub nonce: Nonce,
    pub boot_key: PublicKey,
}

/// The root could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The cloud's fault.
    #[error("challenge is malformed: {0}")]
    Challenge(&'static str),
    #[error("key file {path}: {source}")]
    KeyFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("key file {path} holds no p-256 key")]
    KeyFileContent { path: String },
    #[error("key could not sign: {0}")]
    Sign(#[from] SignError),
    #[error("the random source failed")]
    Random,
    #[error("reading the measurement logs ended early")]
    Logs,
    #[error("what was sealed is malformed or of another root")]
    Sealed,
    #[error("without a tpm there is nothing to recover by: a token is needed")]
    NothingToRecoverBy,
}

impl RootError {
    /// Whether what was sealed belongs to another root, or to this one before it was cleared.
    pub fn is_foreign(&self) -> bool {
        match self {
            Self::Sealed => true,
            Self::Tpm(error) => error.is_foreign(),
            _ => false,
        }
    }
}

/// The nonce of a challenge.
pub fn nonce_of(bytes: &[u8]) -> Result<Nonce, RootError> {
    <[u8; edgeward_evidence::transcript::NONCE_BYTES]>::try_from(bytes)
        .map(Nonce::from_bytes)
        .map_err(|_| RootError::Challenge("nonce is not 32 bytes"))
}
