//! Boot statements: how a node that booted without the cloud tells its peers its new boot key.
//!
//! An AK quote whose qualifying data names the new boot key. It is believed only beside a result that names the same
//! AK, and only with the very PCR digest of that result: a node that booted anything else needs the cloud.
//!
//! Layout: `"EWBS" | version 1 | boot key [65] | attest u16+bytes | signature u16+bytes`.

use edgeward_identity::PublicKey;
use edgeward_identity::keys::POINT_BYTES;

use crate::reader::{Malformed, Reader, put_sized};
use crate::result::CheckedResult;
use crate::tpm::attest::MAX_ATTEST_BYTES;
use crate::tpm::pcr::PcrRefused;
use crate::tpm::signature::{MAX_SIGNATURE_BYTES, SignatureRefused};
use crate::tpm::{Attest, AttestBody, Signature};
use crate::transcript::{Moment, Transcript};
use crate::verify::SignedAttest;
use crate::verify::quote::is_endorsement_primary;

/// Largest boot statement accepted, in bytes.
pub const MAX_BOOT_STATEMENT_BYTES: usize = 2 * 1024;

const MAGIC: &[u8; 4] = b"EWBS";
const VERSION: u8 = 1;

/// A boot statement as sent. Says nothing until it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootStatement {
    pub boot_key: PublicKey,
    pub quote: SignedAttest,
}

/// A boot statement that holds beside a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBoot {
    boot_key: PublicKey,
    reset_count: u32,
}

/// Why a boot statement is not believed. The fault is the sender's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootRefused {
    #[error("boot statement: {0}")]
    Malformed(#[from] Malformed),
    #[error("boot statement is of an unknown version")]
    Version,
    #[error("boot statement names no p-256 key")]
    BootKey,
    #[error("result is of a node without a tpm")]
    NoTpm,
    #[error("boot statement's structure is not a quote")]
    Type,
    #[error("boot statement: {0}")]
    Signature(SignatureRefused),
    #[error("boot statement's signer is not the result's ak")]
    Signer,
    #[error("boot statement is bound to another node, leaf, ak or boot key")]
    Binding,
    #[error("boot statement quotes other pcrs than the result")]
    Selection(PcrRefused),
    #[error("node booted something else than what was attested")]
    PcrDigest,
    #[error("no boot since the result: reset count {now} <= {result}")]
    NotRebooted { now: u32, result: u32 },
}

impl BootStatement {
    pub fn parse(bytes: &[u8]) -> Result<Self, BootRefused> {
        let mut reader = Reader::new(bytes, "boot statement", MAX_BOOT_STATEMENT_BYTES)?;
        if reader.take(MAGIC.len())? != MAGIC || reader.u8()? != VERSION {
            return Err(BootRefused::Version);
        }
        let boot_key =
            PublicKey::from_point(reader.take(POINT_BYTES)?).map_err(|_| BootRefused::BootKey)?;
        let attest = reader
            .sized("attested structure", MAX_ATTEST_BYTES)?
            .to_vec();
        let signature = reader.sized("signature", MAX_SIGNATURE_BYTES)?.to_vec();
        reader.end()?;
        Ok(Self {
            boot_key,
            quote: SignedAttest { attest, signature },
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        out.extend_from_slice(self.boot_key.point());
        put_sized(&mut out, &self.quote.attest);
        put_sized(&mut out, &self.quote.signature);
        out
    }

    /// Checks against the node's newest result and the key of the leaf that signed the handshake.
    pub fn check(
        &self,
        result: &CheckedResult,
        svid_key: &PublicKey,
    ) -> Result<CheckedBoot, BootRefused> {
        let tpm = result.tpm().ok_or(BootRefused::NoTpm)?;
        let node = result.result().spiffe_id();
        if svid_key.spki_hash() != *result.result().svid_spki() {
            return Err(BootRefused::Binding);
        }
        let attest = Attest::parse(&self.quote.attest)?;
        let AttestBody::Quote {
            selections,
            pcr_digest,
        } = &attest.body
        else {
            return Err(BootRefused::Type);
        };
        Signature::parse(&self.quote.signature)
            .map_err(SignatureRefused::from)
            .and_then(|signature| signature.verify(tpm.ak().public(), &self.quote.attest))
            .map_err(BootRefused::Signature)?;
        if !is_endorsement_primary(tpm.ak(), &attest) {
            return Err(BootRefused::Signer);
        }
        let transcript = Transcript {
            trust_domain: node.trust_domain(),
            boot_key: &self.boot_key,
            moment: Moment::Boot {
                node,
                ak_name: tpm.ak().name(),
                svid_key,
            },
        };
        if !transcript.qualifying_data().matches(&attest.extra_data) {
            return Err(BootRefused::Binding);
        }
        tpm.pcr_selection()
            .check(selections)
            .map_err(BootRefused::Selection)?;
        if !tpm.pcr_digest().matches(pcr_digest) {
            return Err(BootRefused::PcrDigest);
        }
        // Within the boot that was attested, the result's own boot key is the only one.
        if attest.clock.reset_count <= tpm.reset_count() {
            return Err(BootRefused::NotRebooted {
                now: attest.clock.reset_count,
                result: tpm.reset_count(),
            });
        }
        Ok(CheckedBoot {
            boot_key: self.boot_key,
            reset_count: attest.clock.reset_count,
        })
    }
}

impl CheckedBoot {
    /// What the node signs binds with until its next result.
    pub fn boot_key(&self) -> &PublicKey {
        &self.boot_key
    }

    /// To be remembered: a statement with a lower one is of an earlier boot.
    pub fn reset_count(&self) -> u32 {
        self.reset_count
    }
}

impl BootRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "boot_malformed",
            Self::Version => "boot_version",
            Self::BootKey => "boot_key_malformed",
            Self::NoTpm => "boot_no_tpm",
            Self::Type => "boot_type",
            Self::Signature(_) => "boot_signature",
            Self::Signer => "boot_signer_mismatch",
            Self::Binding => "boot_binding_mismatch",
            Self::Selection(_) => "boot_pcr_selection_mismatch",
            Self::PcrDigest => "boot_pcr_digest_mismatch",
            Self::NotRebooted { .. } => "boot_not_rebooted",
        }
    }
}

#[cfg(test)]
mod tests;
