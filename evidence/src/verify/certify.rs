//! Certify: the AK says that the SVID key is in the same TPM, with the attributes its name covers.

use crate::digest::Digest;
use crate::tpm::{Attest, AttestBody, ClockInfo, Signature};

use super::keys::{AttestationKey, SvidKey};
use super::quote::is_endorsement_primary;
use super::{EvidenceRefused, SignedAttest};

pub(crate) fn verify(
    certify: &SignedAttest,
    ak: &AttestationKey,
    qualifying_data: &Digest,
    svid: &SvidKey,
) -> Result<ClockInfo, EvidenceRefused> {
    let attest = Attest::parse(&certify.attest).map_err(EvidenceRefused::CertifyMalformed)?;
    let AttestBody::Certify { name, .. } = &attest.body else {
        return Err(EvidenceRefused::CertifyType);
    };
    let signature = Signature::parse(&certify.signature)
        .map_err(|malformed| EvidenceRefused::CertifySignature(malformed.into()))?;
    signature
        .verify(ak.public(), &certify.attest)
        .map_err(EvidenceRefused::CertifySignature)?;
    if !is_endorsement_primary(ak, &attest) {
        return Err(EvidenceRefused::CertifySigner);
    }
    if !qualifying_data.matches(&attest.extra_data) {
        return Err(EvidenceRefused::CertifyNonce);
    }
    if svid.name().as_bytes() != name.as_slice() {
        return Err(EvidenceRefused::CertifyName);
    }
    Ok(attest.clock)
}

/// Certification and quote belong together only if no boot lies between them.
pub(crate) fn same_boot(certified: ClockInfo, quoted: ClockInfo) -> Result<(), EvidenceRefused> {
    if certified.reset_count != quoted.reset_count
        || certified.restart_count != quoted.restart_count
    {
        return Err(EvidenceRefused::CertifyOtherBoot);
    }
    Ok(())
}
