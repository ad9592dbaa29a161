//! Edgeward evidence: what a TPM 2.0 signs, parsed and judged, and what the cloud says about it afterwards.
//!
//! The verifier's side only, in pure Rust: no I/O, no TSS, no clock of its own. The way of a node's evidence:
//!
//! 1. [`ek`] roots the TPM: its endorsement key (EK) certificate leads to a vendor root, or its digest is listed.
//! 2. [`mod@make_credential`] makes the challenge that only the TPM with that EK and that attestation key (AK) can answer.
//! 3. [`transcript`] makes the qualifying data which binds every signature to this conversation.
//! 4. [`verify`] judges Certify and Quote; it is the only maker of [`VerifiedEvidence`].
//! 5. [`mod@boot_log`] and [`ima`] judge the logs that explain quoted values; [`mod@appraise`] compares it all with a
//!    [`Profile`]; [`result`] is what the cloud signs and every peer checks.
//! 6. [`boot_statement`] carries a result over one reboot without the cloud.
//!
//! Structures are those of TPM 2.0 Library part 2 ([`tpm`]), key derivation that of part 1 ([`kdf`]).

pub mod app_log;
pub mod appraise;
pub mod boot_log;
pub mod boot_statement;
pub mod digest;
pub mod ek;
pub mod ima;
pub mod kdf;
pub mod make_credential;
pub mod reader;
pub mod result;
pub mod tpm;
pub mod transcript;
pub mod verify;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod vectors;

pub use appraise::{Appraisal, Profile};
pub use boot_log::{BootLog, JudgedBoot};
pub use boot_statement::BootStatement;
pub use digest::Digest;
pub use ek::VerifiedEk;
pub use ek::roots::EkRoots;
pub use ima::{ImaPolicy, ImaState, ImaVerdict};
pub use make_credential::{Credential, make_credential};
pub use result::{AttestationResult, CheckedResult, check_result};
pub use transcript::{Exporter, Nonce, Transcript};
pub use verify::VerifiedEvidence;
