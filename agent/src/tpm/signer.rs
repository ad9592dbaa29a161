//! The SVID key as a [`Signer`]: TLS handshakes and journal statements are signed in the TPM.

use std::fmt;

use edgeward_identity::{PublicKey, SignError, Signer};
use ring::digest::{SHA256, digest};
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::structures::{Digest, HashcheckTicket, Signature, SignatureScheme};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use super::code::failed;
use super::device::{Device, EMPTY_AUTH};
use super::{Priority, SvidSlot, Tpm, TpmError, keys};

/// Bytes of a P-256 coordinate.
const COORDINATE_BYTES: usize = 32;

/// Signs with the SVID key of one slot. [`Signer::sign`] blocks for as long as the TPM takes.
#[derive(Clone)]
pub struct TpmSigner {
    tpm: Tpm,
    slot: SvidSlot,
    priority: Priority,
    public: PublicKey,
}

impl TpmSigner {
    /// Reads the public key of the slot.
    pub async fn open(tpm: &Tpm, slot: SvidSlot, priority: Priority) -> Result<Self, TpmError> {
        let public = tpm
            .call(priority, move |device| svid_key(device, slot))
            .await?;
        Ok(Self {
            tpm: tpm.clone(),
            slot,
            priority,
            public,
        })
    }

    /// The same key, served at another priority.
    #[must_use]
    pub fn at(&self, priority: Priority) -> Self {
        Self {
            priority,
            ..self.clone()
        }
    }
}

impl Signer for TpmSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let hash = digest(&SHA256, message);
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.as_ref());
        let slot = self.slot;
        self.tpm
            .call_blocking(self.priority, move |device| {
                sign_digest(device, slot, &digest)
            })
            .map_err(|error| SignError::KeyStore(error.to_string()))
    }
}

impl fmt::Debug for TpmSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmSigner")
            .field("public", &self.public)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

/// The public key in a slot.
pub fn svid_key(device: &mut Device, slot: SvidSlot) -> Result<PublicKey, TpmError> {
    point_of(&keys::svid_public(device, slot)?)
}

/// The P-256 key in a `TPMT_PUBLIC`.
pub fn point_of(public: &[u8]) -> Result<PublicKey, TpmError> {
    edgeward_evidence::tpm::Public::parse(public)
        .ok()
        .and_then(|public| public.ecc_point())
        .and_then(|point| PublicKey::from_point(&point).ok())
        .ok_or(TpmError::Answer("a key that is not p-256"))
}

/// ECDSA over a SHA-256, as ASN.1 DER.
fn sign_digest(
    device: &mut Device,
    slot: SvidSlot,
    digest: &[u8; 32],
) -> Result<Vec<u8>, TpmError> {
    let key = keys::svid(device, slot)?;
    let digest = Digest::try_from(digest.as_slice()).map_err(failed("write a digest"))?;
    let signature = device.run("sign", |context| {
        let ticket = outside_digest()?;
        context.execute_with_session(EMPTY_AUTH, |context| {
            context.sign(key, digest.clone(), SignatureScheme::Null, ticket)
        })
    })?;
    ecdsa_der(&signature)
}

/// An ECDSA signature as ASN.1 DER.
pub(super) fn ecdsa_der(signature: &Signature) -> Result<Vec<u8>, TpmError> {
    let Signature::EcDsa(signature) = signature else {
        return Err(TpmError::Answer("a signature that is not ecdsa"));
    };
    der_of(
        signature.signature_r().value(),
        signature.signature_s().value(),
    )
}

/// Says that the digest was not made by the TPM: an unrestricted key signs it, a restricted one refuses.
pub(super) fn outside_digest() -> Result<HashcheckTicket, tss_esapi::Error> {
    HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    })
}

/// `SEQUENCE { INTEGER r, INTEGER s }` (RFC 3279 2.2.3).
fn der_of(r: &[u8], s: &[u8]) -> Result<Vec<u8>, TpmError> {
    let mut body = Vec::with_capacity(2 * (COORDINATE_BYTES + 3));
    for number in [r, s] {
        if number.len() > COORDINATE_BYTES {
            return Err(TpmError::Answer("a signature longer than its curve"));
        }
        let start = number
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(number.len());
        let (_, digits) = number.split_at(start);
        let padded = digits.first().is_none_or(|byte| byte & 0x80 != 0);
        let length = digits.len() + usize::from(padded);
        body.extend([0x02, u8::try_from(length).unwrap_or(u8::MAX)]);
        if padded {
            body.push(0);
        }
        body.extend_from_slice(digits);
    }
    let mut der = vec![0x30, u8::try_from(body.len()).unwrap_or(u8::MAX)];
    der.extend(body);
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_integers_are_minimal_and_positive() {
        let der = der_of(&[0, 0, 1], &[0x80]).unwrap();
        assert_eq!(der, [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        let full = der_of(&[0xff; 32], &[0x7f; 32]).unwrap();
        assert_eq!(full.len(), 2 + 35 + 34);
        assert_eq!(full[1], 69);
        assert!(der_of(&[1; 33], &[1]).is_err());
    }
}
