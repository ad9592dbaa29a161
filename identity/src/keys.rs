//! Keys: P-256 public keys and the [`Signer`] trait, which may only be asked to sign.
//!
//! Every asymmetric identity key of the system is ECDSA over P-256 with SHA-256 (FIPS 186-5), because
//! that is what TPMs, PKCS#11 tokens and files can all hold. Signatures are ASN.1 DER (RFC 3279 2.2.3).

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// DER of `SubjectPublicKeyInfo { ecPublicKey, prime256v1 }` up to the point (RFC 5480).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Bytes of an uncompressed P-256 point.
pub const POINT_BYTES: usize = 65;

/// A P-256 public key as an uncompressed SEC 1 point. Whether the point lies on the curve is checked by
/// every operation that uses it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; POINT_BYTES]);

/// SHA-256 of a DER `SubjectPublicKeyInfo`: the name of a key in pins, deny-lists and results.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpkiHash([u8; 32]);

/// A private key that may only be asked to sign: a file, a PKCS#11 token, a TPM.
pub trait Signer: Send + Sync + fmt::Debug {
    fn public_key(&self) -> &PublicKey;
    /// Signs SHA-256 of `message`; returns an ASN.1 DER ECDSA signature.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// A private key in this process's memory.
pub struct SoftwareKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    pkcs8: Secret<Vec<u8>>,
}

/// The key could not sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the random source failed")]
    Random,
    #[error("the key store failed: {0}")]
    KeyStore(String),
}

/// These bytes are not a key this system uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not an uncompressed p-256 point")]
    Point,
    #[error("not a p-256 subject public key info")]
    Spki,
    #[error("not a pkcs#8 p-256 private key")]
    Pkcs8,
    #[error("the random source failed")]
    Random,
    #[error("not a sha-256 in hex")]
    Hash,
}

/// The signature does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify")]
pub struct BadSignature;

impl PublicKey {
    pub fn from_point(point: &[u8]) -> Result<Self, KeyError> {
        let point: [u8; POINT_BYTES] = point.try_into().map_err(|_| KeyError::Point)?;
        if point.first() == Some(&4) {
            Ok(Self(point))
        } else {
            Err(KeyError::Point)
        }
    }

    pub fn from_spki_der(spki: &[u8]) -> Result<Self, KeyError> {
        let point = spki.strip_prefix(&P256_SPKI_PREFIX).ok_or(KeyError::Spki)?;
        Self::from_point(point).map_err(|_| KeyError::Spki)
    }

    /// The point: `04 || x || y`.
    pub fn point(&self) -> &[u8; POINT_BYTES] {
        &self.0
    }

    /// The affine coordinates, 32 bytes each, big-endian.
    pub fn coordinates(&self) -> (&[u8], &[u8]) {
        let (_, coordinates) = self.0.split_at(1);
        coordinates.split_at(32)
    }

    pub fn spki_der(&self) -> Vec<u8> {
        [P256_SPKI_PREFIX.as_slice(), self.0.as_slice()].concat()
    }

    pub fn spki_hash(&self) -> SpkiHash {
        SpkiHash::of_spki(&self.spki_der())
    }

    /// Checks an ASN.1 DER ECDSA P-256 SHA-256 signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.0.as_slice())
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }
}

impl SpkiHash {
    pub fn of_spki(spki_der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki_der);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl SoftwareKey {
    pub fn generate() -> Result<Self, KeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(Secret::new(document.as_ref().to_vec()))
    }

    pub fn from_pkcs8(pkcs8: Secret<Vec<u8>>) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            pkcs8.expose(),
            &SystemRandom::new(),
        )
        .map_err(|_| KeyError::Pkcs8)?;
        let public =
            PublicKey::from_point(pair.public_key().as_ref()).map_err(|_| KeyError::Pkcs8)?;
        Ok(Self {
            pair,
            public,
            pkcs8,
        })
    }

    /// The private key in PKCS#8 DER, to be kept in a file of mode 0600 or sealed.
    pub fn pkcs8(&self) -> &Secret<Vec<u8>> {
        &self.pkcs8
    }
}

impl Signer for SoftwareKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| SignError::Random)
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.spki_hash())
    }
}

impl fmt::Display for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for SpkiHash {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| KeyError::Hash)?;
        Ok(Self(hash))
    }
}

impl TryFrom<String> for SpkiHash {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SpkiHash> for String {
    fn from(hash: SpkiHash) -> Self {
        hash.to_string()
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut point = [0; POINT_BYTES];
        hex::decode_to_slice(&text, &mut point).map_err(serde::de::Error::custom)?;
        Self::from_point(&point).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_only_over_its_message_and_key() {
        let key = SoftwareKey::generate().unwrap();
        let other = SoftwareKey::generate().unwrap();
        let signature = key.sign(b"message").unwrap();
        assert!(key.public_key().verify(b"message", &signature).is_ok());
        assert!(key.public_key().verify(b"massage", &signature).is_err());
        assert!(other.public_key().verify(b"message", &signature).is_err());
    }

    #[test]
    fn a_public_key_round_trips_through_its_spki() {
        let key = SoftwareKey::generate().unwrap();
        let spki = key.public_key().spki_der();
        assert_eq!(PublicKey::from_spki_der(&spki), Ok(*key.public_key()));
        assert_eq!(PublicKey::from_spki_der(&spki[1..]), Err(KeyError::Spki));
        assert_eq!(
            PublicKey::from_spki_der(&[spki, vec![0]].concat()),
            Err(KeyError::Spki)
        );
    }

    #[test]
    fn debug_of_a_private_key_shows_its_public_half_only() {
        let key = SoftwareKey::generate().unwrap();
        let text = format!("{key:?}");
        assert!(text.contains("PublicKey"));
        assert!(!text.contains(&hex::encode(&key.pkcs8().expose()[36..68])));
    }
}
