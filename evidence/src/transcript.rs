//! The qualifying data that binds everything a TPM signs to one conversation.
//!
//! `SHA-256(label, purpose, trust domain, token or node id, nonce, EK digest, AK name, SVID public area, boot key,
//! activated secret, TLS exporter)`, every field prefixed with its length as a big-endian u32. Which fields there are
//! depends on the [`Moment`] alone, and so does the purpose: no field can be left out of a moment that has it.

use std::fmt;

use edgeward_identity::{PublicKey, SpiffeId, TrustDomain};
use ring::rand::SecureRandom;

use crate::digest::Digest;
use crate::make_credential::{ActivationSecret, CannotChallenge, draw};
use crate::tpm::Name;

/// Label of the TLS exporter (RFC 8446 7.5) over the connection that carries the evidence; empty context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-edgeward-evidence-v1";
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes taken from the TLS exporter.
pub const EXPORTER_BYTES: usize = 32;

const LABEL: &[u8] = b"edgeward-qualifying-data-v1";

/// A challenge's nonce: used once. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce([u8; NONCE_BYTES]);

/// What the TLS exporter gave for the connection: equal on both ends of one session, different on any other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exporter([u8; EXPORTER_BYTES]);

/// Everything a signature is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Transcript<'a> {
    pub trust_domain: &'a TrustDomain,
    /// The key made at this boot.
    pub boot_key: &'a PublicKey,
    pub moment: Moment<'a>,
}

/// What is being proven, with exactly what is known then.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// A TPM enrols with a token.
    EnrolTpm {
        token_id: &'a str,
        nonce: &'a Nonce,
        exporter: &'a Exporter,
        ek_digest: &'a Digest,
        ak_name: &'a Name,
        /// `TPMT_PUBLIC` of the SVID key.
        svid_public: &'a [u8],
        secret: &'a ActivationSecret,
    },
    /// A node whose certificate is gone comes back: the EK that it enrolled with speaks for it, not a token.
    RecoverTpm {
        node: &'a SpiffeId,
        nonce: &'a Nonce,
        exporter: &'a Exporter,
        ek_digest: &'a Digest,
        ak_name: &'a Name,
        /// `TPMT_PUBLIC` of the new SVID key.
        svid_public: &'a [u8],
        secret: &'a ActivationSecret,
    },
    /// A machine without a TPM enrols with a token.
    EnrolSoftware {
        token_id: &'a str,
        nonce: &'a Nonce,
        exporter: &'a Exporter,
        svid_key: &'a PublicKey,
    },
    /// A node with a TPM answers a challenge.
    AttestTpm {
        node: &'a SpiffeId,
        nonce: &'a Nonce,
        exporter: &'a Exporter,
        ek_digest: &'a Digest,
        ak_name: &'a Name,
        /// `TPMT_PUBLIC` of the SVID key.
        svid_public: &'a [u8],
    },
    /// A node without a TPM answers a challenge.
    AttestSoftware {
        node: &'a SpiffeId,
        nonce: &'a Nonce,
        exporter: &'a Exporter,
        svid_key: &'a PublicKey,
    },
    /// A node that booted without the cloud names its new boot key to peers. They know the AK and the leaf, not
    /// the EK; there is no conversation yet, so neither nonce nor exporter: the boot key's own signature over the
    /// bind is what is fresh.
    Boot {
        node: &'a SpiffeId,
        ak_name: &'a Name,
        svid_key: &'a PublicKey,
    },
}

impl Nonce {
    pub fn draw(random: &dyn SecureRandom) -> Result<Self, CannotChallenge> {
        draw(random).map(Self)
    }

    pub const fn from_bytes(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }
}

impl Exporter {
    pub const fn from_bytes(bytes: [u8; EXPORTER_BYTES]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; EXPORTER_BYTES] {
        &self.0
    }
}

impl Transcript<'_> {
    /// The qualifying data (`extraData`) of Certify and Quote; in tier `software`, what the SVID key signs.
    pub fn qualifying_data(&self) -> Digest {
        let domain = self.trust_domain.as_str().as_bytes();
        let boot_key = self.boot_key.point().as_slice();
        match self.moment {
            Moment::EnrolTpm {
                token_id,
                nonce,
                exporter,
                ek_digest,
                ak_name,
                svid_public,
                secret,
            } => hash(&[
                b"enrol",
                domain,
                token_id.as_bytes(),
                nonce.as_bytes(),
                ek_digest.as_bytes(),
                ak_name.as_bytes(),
                svid_public,
                boot_key,
                secret.expose(),
                exporter.as_bytes(),
            ]),
            Moment::RecoverTpm {
                node,
                nonce,
                exporter,
                ek_digest,
                ak_name,
                svid_public,
                secret,
            } => hash(&[
                b"recover",
                domain,
                node.to_string().as_bytes(),
                nonce.as_bytes(),
                ek_digest.as_bytes(),
                ak_name.as_bytes(),
                svid_public,
                boot_key,
                secret.expose(),
                exporter.as_bytes(),
            ]),
            Moment::EnrolSoftware {
                token_id,
                nonce,
                exporter,
                svid_key,
            } => hash(&[
                b"enrol-software",
                domain,
                token_id.as_bytes(),
                nonce.as_bytes(),
                svid_key.point(),
                boot_key,
                exporter.as_bytes(),
            ]),
            Moment::AttestTpm {
                node,
                nonce,
                exporter,
                ek_digest,
                ak_name,
                svid_public,
            } => hash(&[
                b"attest",
                domain,
                node.to_string().as_bytes(),
                nonce.as_bytes(),
                ek_digest.as_bytes(),
                ak_name.as_bytes(),
                svid_public,
                boot_key,
                exporter.as_bytes(),
            ]),
            Moment::AttestSoftware {
                node,
                nonce,
                exporter,
                svid_key,
            } => hash(&[
                b"attest-software",
                domain,
                node.to_string().as_bytes(),
                nonce.as_bytes(),
                svid_key.point(),
                boot_key,
                exporter.as_bytes(),
            ]),
            Moment::Boot {
                node,
                ak_name,
                svid_key,
            } => hash(&[
                b"boot",
                domain,
                node.to_string().as_bytes(),
                ak_name.as_bytes(),
                svid_key.point(),
                boot_key,
            ]),
        }
    }
}

fn hash(fields: &[&[u8]]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for field in std::iter::once(&LABEL).chain(fields) {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        context.update(&length.to_be_bytes());
        context.update(field);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Digest::from_bytes(digest)
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Not shown: it identifies a TLS session.
impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}

#[cfg(test)]
mod tests;
