//! Quotes: signed by the AK, about this conversation, over the PCRs that were asked for; and the TPM's clock.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::tpm::pcr::PcrRefused;
use crate::tpm::{Attest, AttestBody, ClockInfo, PcrSelection, Signature};

use super::keys::AttestationKey;
use super::{EvidenceRefused, QuoteEvidence};

/// `TPM_RH_ENDORSEMENT` (part 2, 7.4).
pub(crate) const ENDORSEMENT_HIERARCHY: u32 = 0x4000_000b;

/// What a verified quote says.
#[derive(Clone, Debug)]
pub(crate) struct Quoted {
    pub(crate) pcr_digest: Digest,
    pub(crate) pcr_values: BTreeMap<u8, Vec<u8>>,
    pub(crate) clock: ClockInfo,
    pub(crate) firmware: u64,
}

/// Why the TPM's clock says that this is a replay, a rollback or a clone. The fault is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockRefused {
    #[error("reset count is below the last accepted: {now} < {last}")]
    ResetCountBelow { now: u32, last: u32 },
    #[error("restart count is below the last accepted without a reset: {now} < {last}")]
    RestartCountBelow { now: u32, last: u32 },
    #[error("clock is not above the last accepted within one boot: {now} ms <= {last} ms")]
    NotAdvanced { now: u64, last: u64 },
    #[error("clock became unsafe within one boot")]
    Unsafe,
}

impl ClockRefused {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::ResetCountBelow { .. } => "clock_reset_count_below",
            Self::RestartCountBelow { .. } => "clock_restart_count_below",
            Self::NotAdvanced { .. } => "clock_not_advanced",
            Self::Unsafe => "clock_unsafe",
        }
    }
}

pub(crate) fn verify(
    evidence: &QuoteEvidence,
    ak: &AttestationKey,
    qualifying_data: &Digest,
    selection: &PcrSelection,
) -> Result<Quoted, EvidenceRefused> {
    verify_knowing(evidence, ak, qualifying_data, selection, None)
}

/// As [`verify`]; no values need come along where the TPM signed those that are known.
pub(crate) fn verify_knowing(
    evidence: &QuoteEvidence,
    ak: &AttestationKey,
    qualifying_data: &Digest,
    selection: &PcrSelection,
    known: Option<&BTreeMap<u8, Vec<u8>>>,
) -> Result<Quoted, EvidenceRefused> {
    let quote = &evidence.quote;
    let attest = Attest::parse(&quote.attest).map_err(EvidenceRefused::QuoteMalformed)?;
    let AttestBody::Quote {
        selections,
        pcr_digest,
    } = &attest.body
    else {
        return Err(EvidenceRefused::QuoteType);
    };
    let signature = Signature::parse(&quote.signature)
        .map_err(|malformed| EvidenceRefused::QuoteSignature(malformed.into()))?;
    signature
        .verify(ak.public(), &quote.attest)
        .map_err(EvidenceRefused::QuoteSignature)?;
    if !is_endorsement_primary(ak, &attest) {
        return Err(EvidenceRefused::QuoteSigner);
    }
    if !qualifying_data.matches(&attest.extra_data) {
        return Err(EvidenceRefused::QuoteNonce);
    }
    selection.check(selections)?;
    let (computed, pcr_values) = match known.filter(|_| evidence.pcr_values.is_empty()) {
        None => selection.digest_of(&evidence.pcr_values)?,
        Some(known) => selection.digest_of_known(known)?,
    };
    if !computed.matches(pcr_digest) {
        return Err(PcrRefused::DigestMismatch.into());
    }
    Ok(Quoted {
        pcr_digest: computed,
        pcr_values,
        clock: attest.clock,
        firmware: attest.firmware,
    })
}

/// Whether the signer's qualified name is that of the AK right below the endorsement hierarchy. Elsewhere the
/// counters and the firmware version would be obfuscated (part 1, 36.7).
pub(crate) fn is_endorsement_primary(ak: &AttestationKey, attest: &Attest) -> bool {
    let qualified = ak.public().qualified_name_below(ENDORSEMENT_HIERARCHY);
    qualified.as_bytes() == attest.qualified_signer
}

/// Compares with the last accepted evidence; tells whether the machine booted since.
///
/// A power cut may set the clock back, with `safe` clear until the TPM catches up: accepted after a higher count,
/// and for as long as that boot goes on, since within a boot the clock only rises.
pub(crate) fn check_clock(now: ClockInfo, last: ClockInfo) -> Result<bool, ClockRefused> {
    if now.reset_count < last.reset_count {
        return Err(ClockRefused::ResetCountBelow {
            now: now.reset_count,
            last: last.reset_count,
        });
    }
    if now.reset_count > last.reset_count {
        return Ok(true);
    }
    if now.restart_count < last.restart_count {
        return Err(ClockRefused::RestartCountBelow {
            now: now.restart_count,
            last: last.restart_count,
        });
    }
    // A start after an orderly shutdown may count as a restart (part 1, 11.5), so what was booted is open again; so it
    // is, needlessly, after sleep.
    if now.restart_count > last.restart_count {
        return Ok(true);
    }
    if now.clock_ms <= last.clock_ms {
        return Err(ClockRefused::NotAdvanced {
            now: now.clock_ms,
            last: last.clock_ms,
        });
    }
    if last.safe && !now.safe {
        return Err(ClockRefused::Unsafe);
    }
    Ok(false)
}
