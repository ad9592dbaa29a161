//! The AK's word on bytes of ours: what must be believed even after the owner hierarchy was cleared, when nothing that
//! was sealed opens any more.
//!
//! A restricted key signs only what its TPM hashed itself, and never what begins like a TPM's own structures: so no
//! such signature can be taken for evidence. The AK is a primary of the endorsement hierarchy, whose seed
//! `TPM2_Clear` leaves alone: the same TPM makes the same AK again, and another TPM cannot.

use edgeward_identity::PublicKey;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{MaxBuffer, SignatureScheme};

use super::code::failed;
use super::device::{Device, EMPTY_AUTH};
use super::signer::ecdsa_der;
use super::{TpmError, keys};

/// Longest message: one command's buffer is at least as long (TPM 2.0 part 2, `MAX_DIGEST_BUFFER`).
pub const MAX_VOUCHED_BYTES: usize = 256;

/// ECDSA by the AK over the SHA-256 of `message`, as ASN.1 DER.
pub fn vouch(device: &mut Device, message: &[u8]) -> Result<Vec<u8>, TpmError> {
    if message.len() > MAX_VOUCHED_BYTES {
        return Err(TpmError::Answer("a message too long to vouch for"));
    }
    let ak = keys::ak(device)?;
    let buffer = MaxBuffer::try_from(message).map_err(failed("write a message"))?;
    let signature = device.run("vouch", |context| {
        let (digest, ticket) = context.execute_without_session(|context| {
            context.hash(
                buffer.clone(),
                HashingAlgorithm::Sha256,
                Hierarchy::Endorsement,
            )
        })?;
        context.execute_with_session(EMPTY_AUTH, |context| {
            context.sign(ak, digest.clone(), SignatureScheme::Null, ticket)
        })
    })?;
    ecdsa_der(&signature)
}

/// Whether the AK of `public` vouched for `message`.
pub fn is_vouched(public: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    message.len() <= MAX_VOUCHED_BYTES && public.verify(message, signature).is_ok()
}
