//! The key schedule: from one TLS exporter to the pre-shared key of every epoch.
//!
//! H is SHA-256, HKDF is RFC 5869 over it, integers are big-endian, `lp(x)` is `length u16 | x`.
//!
//! ```text
//! context    = H(lp("edgeward-bind-v1") lp(trust domain) lp(ALPN)
//!               lp(leaf hash I) lp(SPKI hash I) lp(leaf hash R) lp(SPKI hash R))
//! root       = TLS-Exporter("EXPORTER-edgeward-wg-root-v1", context, 32)
//! T          = H(lp("edgeward-bind-transcript-v1") context
//!               length u32 offer I  length u32 offer R)
//! s_0        = HKDF-Extract(salt = T, ikm = root || ML-KEM shared secret)
//! confirm    = HKDF-Expand(s_0, "edgeward-bind-confirm-v1", 32)
//! reach      = HKDF-Expand(s_0, "edgeward-bind-reach-v1", 32)
//! PSK_e      = HKDF-Expand(s_e, "edgeward-bind-psk-v1" || e u64 || lower WireGuard key ||
//!               higher WireGuard key || SPKI hash I || SPKI hash R, 32)
//! s_(e+1)    = HKDF-Extract(salt = s_e,
//!               ikm = "edgeward-bind-ratchet-v1" || (e+1) u64 || nonce I || nonce R)
//! ```
//!
//! The context is needed because the TLS exporter alone does not cover the client's certificate (RFC 8446,
//! section 7.5). Exporting twice would give no forward secrecy, since a TLS key update leaves the exporter
//! alone: hence the ratchet. `confirm` goes into both proofs, so that a peer that derived anything else (another
//! connection, an altered offer, a wrong ciphertext) is refused before a key is armed. `reach` seals what the two
//! tell each other about paths ([`crate::reach`]) and opens no data.

use edgeward_identity::{Secret, SpkiHash, TrustDomain};
use ring::{digest, hmac};

/// Label of the exporter (RFC 8446, section 7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-edgeward-wg-root-v1";
/// Bytes exported.
pub const EXPORTER_BYTES: usize = 32;
/// What the bind speaks inside QUIC.
pub const ALPN: &[u8] = b"edgeward-bind/1";
/// Number of the first epoch.
pub const FIRST_EPOCH: u64 = 0;

const VERSION_LABEL: &[u8] = b"edgeward-bind-v1";
const TRANSCRIPT_LABEL: &[u8] = b"edgeward-bind-transcript-v1";
const CONFIRM_LABEL: &[u8] = b"edgeward-bind-confirm-v1";
const REACH_LABEL: &[u8] = b"edgeward-bind-reach-v1";
const PSK_LABEL: &[u8] = b"edgeward-bind-psk-v1";
const RATCHET_LABEL: &[u8] = b"edgeward-bind-ratchet-v1";

/// What names a side in the schedule: SHA-256 of its leaf certificate and of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    pub leaf_hash: [u8; 32],
    pub spki: SpkiHash,
}

/// Both sides, by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parties {
    pub initiator: Party,
    pub responder: Party,
}

/// SHA-256 over the context and both offers. Public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transcript([u8; 32]);

/// The secret of the present epoch.
pub struct Schedule {
    secret: Secret<[u8; 32]>,
    epoch: u64,
    /// `PSK_LABEL` aside, what the key of every epoch names.
    names: [u8; 128],
}

/// The asked epoch does not follow the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch does not follow the present one: {asked} after {present}")]
pub struct NotNext {
    pub asked: u64,
    pub present: u64,
}

/// The context of the exporter.
pub fn exporter_context(trust_domain: &TrustDomain, parties: &Parties) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(512);
    for part in [
        VERSION_LABEL,
        trust_domain.as_str().as_bytes(),
        ALPN,
        &parties.initiator.leaf_hash,
        parties.initiator.spki.as_bytes(),
        &parties.responder.leaf_hash,
        parties.responder.spki.as_bytes(),
    ] {
        put(&mut bytes, part);
    }
    sha256(&bytes)
}

impl Transcript {
    /// `offer_*` are the bodies of the two offers, exactly as they were on the stream.
    pub fn of(context: &[u8; 32], offer_initiator: &[u8], offer_responder: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128 + offer_initiator.len() + offer_responder.len());
        put(&mut bytes, TRANSCRIPT_LABEL);
        bytes.extend_from_slice(context);
        for offer in [offer_initiator, offer_responder] {
            let length = u32::try_from(offer.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(offer);
        }
        Self(sha256(&bytes))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Schedule {
    /// Starts at [`FIRST_EPOCH`]. Both secrets are consumed and zeroized.
    pub fn start(
        root: Secret<[u8; EXPORTER_BYTES]>,
        kem_secret: Secret<[u8; 32]>,
        transcript: &Transcript,
        parties: &Parties,
        wireguard_keys: [[u8; 32]; 2],
    ) -> Self {
        let mut material = [0; 64];
        fill(&mut material, &[root.expose(), kem_secret.expose()]);
        let material = Secret::new(material);
        let [mut lower, mut higher] = wireguard_keys;
        if lower > higher {
            std::mem::swap(&mut lower, &mut higher);
        }
        let mut names = [0; 128];
        fill(
            &mut names,
            &[
                &lower,
                &higher,
                parties.initiator.spki.as_bytes(),
                parties.responder.spki.as_bytes(),
            ],
        );
        Self {
            secret: extract(transcript.as_bytes(), material.expose()),
            epoch: FIRST_EPOCH,
            names,
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What both proofs contain. Only meaningful before the first turn.
    pub fn confirm(&self) -> Secret<[u8; 32]> {
        expand(&self.secret, CONFIRM_LABEL)
    }

    /// What path probes of this bind are sealed under. Only meaningful before the first turn.
    pub fn reach(&self) -> Secret<[u8; 32]> {
        expand(&self.secret, REACH_LABEL)
    }

    /// The WireGuard pre-shared key of the present epoch.
    pub fn psk(&self) -> Secret<[u8; 32]> {
        let info = [
            PSK_LABEL,
            self.epoch.to_be_bytes().as_slice(),
            self.names.as_slice(),
        ]
        .concat();
        expand(&self.secret, &info)
    }

    /// Goes on to `epoch`, which must be the next one; the secret of the present one is gone.
    pub fn turn(
        &mut self,
        epoch: u64,
        nonce_initiator: &[u8; 32],
        nonce_responder: &[u8; 32],
    ) -> Result<(), NotNext> {
        if self.epoch.checked_add(1) != Some(epoch) {
            return Err(NotNext {
                asked: epoch,
                present: self.epoch,
            });
        }
        let material = [
            RATCHET_LABEL,
            epoch.to_be_bytes().as_slice(),
            nonce_initiator,
            nonce_responder,
        ]
        .concat();
        self.secret = extract(self.secret.expose(), &material);
        self.epoch = epoch;
        Ok(())
    }
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// HMAC-SHA-256 under a secret key.
pub(crate) fn mac(key: &Secret<[u8; 32]>, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    for part in parts {
        context.update(part);
    }
    array(context.sign().as_ref())
}

/// HKDF-Extract (RFC 5869, section 2.2).
pub(super) fn extract(salt: &[u8], material: &[u8]) -> Secret<[u8; 32]> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
    Secret::new(array(hmac::sign(&key, material).as_ref()))
}

/// HKDF-Expand (RFC 5869, section 2.3) to 32 bytes, which is its first block.
pub(crate) fn expand(secret: &Secret<[u8; 32]>, info: &[u8]) -> Secret<[u8; 32]> {
    Secret::new(mac(secret, &[info, &[1]]))
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
}

fn fill<const N: usize>(out: &mut [u8; N], parts: &[&[u8; 32]]) {
    for (chunk, part) in out.chunks_exact_mut(32).zip(parts) {
        chunk.copy_from_slice(part.as_slice());
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    array(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn array(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests;
