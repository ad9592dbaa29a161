//! [`Signer`]s and [`PublicKey`]s as rcgen wants them, so that any key store may sign certificates.

use edgeward_identity::{PublicKey, Signer};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

/// A private key that rcgen signs certificates with.
pub(crate) struct Issuing<'a>(pub(crate) &'a dyn Signer);

/// The public key a certificate is made for.
pub(crate) struct Holder<'a>(pub(crate) &'a PublicKey);

impl PublicKeyData for Issuing<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Issuing<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0
            .sign(message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl PublicKeyData for Holder<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
