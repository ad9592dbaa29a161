//! X.509-SVIDs: the rules of the SPIFFE X509-SVID standard for leaves, and a leaf with its key.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::clock::Timestamp;
use crate::keys::{PublicKey, Signer};
use crate::spiffe_id::{SpiffeId, SpiffeIdError};

/// Largest certificate accepted, in bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Most certificates in a chain, leaf included.
pub const MAX_CHAIN: usize = 4;

/// What a leaf says, once its shape has been checked. Says nothing about who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidLeaf {
    pub id: SpiffeId,
    pub key: PublicKey,
    /// Lower-case hex.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// A certificate chain (leaf first) with the key of its leaf.
#[derive(Clone, Debug)]
pub struct Svid {
    chain: Vec<CertificateDer<'static>>,
    leaf: SvidLeaf,
    signer: Arc<dyn Signer>,
}

/// Why a certificate is not an X.509-SVID of this system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    #[error("certificate is malformed")]
    Malformed,
    #[error("certificate is larger than the limit in bytes: {MAX_CERTIFICATE_BYTES}")]
    TooLarge,
    #[error("chain is empty or longer than the limit: {MAX_CHAIN}")]
    ChainLength,
    #[error("leaf has {0} uri names instead of one")]
    NotOneUri(usize),
    #[error("leaf's spiffe id: {0}")]
    Id(#[from] SpiffeIdError),
    #[error("leaf is a certification authority")]
    LeafIsAuthority,
    #[error("leaf has no critical key usage")]
    KeyUsageMissing,
    #[error("leaf lacks digital signature")]
    NoDigitalSignature,
    #[error("leaf may sign certificates or revocation lists")]
    LeafMaySign,
    #[error("leaf's extended key usage lacks server or client authentication")]
    ExtendedKeyUsage,
    #[error("intermediate may not sign certificates")]
    IntermediateMayNotSign,
    #[error("leaf's key is not p-256")]
    KeyType,
    #[error("key does not belong to the leaf")]
    KeyMismatch,
}

impl SvidLeaf {
    pub fn parse(der: &[u8]) -> Result<Self, SvidError> {
        let certificate = parse_certificate(der)?;
        let uri = check_leaf(&certificate)?;
        let id = uri.parse::<SpiffeId>()?;
        let key = PublicKey::from_spki_der(certificate.public_key().raw)
            .map_err(|_| SvidError::KeyType)?;
        let validity = certificate.validity();
        Ok(Self {
            id,
            key,
            serial: certificate.raw_serial_as_string().replace(':', ""),
            not_before: timestamp(validity.not_before.timestamp()),
            not_after: timestamp(validity.not_after.timestamp()),
        })
    }

    /// When half of the lifetime is over: time to renew.
    pub fn half_life(&self) -> Timestamp {
        self.not_before
            .plus(self.not_after.since(self.not_before) / 2)
    }
}

impl Svid {
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        signer: Arc<dyn Signer>,
    ) -> Result<Self, SvidError> {
        let (leaf, intermediates) = chain.split_first().ok_or(SvidError::ChainLength)?;
        if chain.len() > MAX_CHAIN {
            return Err(SvidError::ChainLength);
        }
        let leaf = SvidLeaf::parse(leaf)?;
        for intermediate in intermediates {
            check_intermediate(intermediate)?;
        }
        if leaf.key != *signer.public_key() {
            return Err(SvidError::KeyMismatch);
        }
        Ok(Self {
            chain,
            leaf,
            signer,
        })
    }

    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    pub fn leaf(&self) -> &SvidLeaf {
        &self.leaf
    }

    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }
}

/// Checks the shape that the X509-SVID standard (section 4) demands of a leaf; returns its one URI name.
pub fn leaf_uri(der: &[u8]) -> Result<String, SvidError> {
    check_leaf(&parse_certificate(der)?)
}

/// Checks what the X509-SVID standard demands of a signing certificate.
pub fn check_intermediate(der: &[u8]) -> Result<(), SvidError> {
    let certificate = parse_certificate(der)?;
    let authority = certificate
        .basic_constraints()
        .map_err(|_| SvidError::Malformed)?
        .is_some_and(|constraints| constraints.value.ca);
    let may_sign = certificate
        .key_usage()
        .map_err(|_| SvidError::Malformed)?
        .is_some_and(|usage| usage.value.key_cert_sign());
    if authority && may_sign {
        Ok(())
    } else {
        Err(SvidError::IntermediateMayNotSign)
    }
}

fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, SvidError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(SvidError::TooLarge);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(SvidError::Malformed),
    }
}

fn check_leaf(certificate: &X509Certificate<'_>) -> Result<String, SvidError> {
    let uri = one_uri(certificate)?;
    if certificate
        .basic_constraints()
        .map_err(|_| SvidError::Malformed)?
        .is_some_and(|constraints| constraints.value.ca)
    {
        return Err(SvidError::LeafIsAuthority);
    }
    let usage = certificate
        .key_usage()
        .map_err(|_| SvidError::Malformed)?
        .filter(|usage| usage.critical)
        .ok_or(SvidError::KeyUsageMissing)?;
    if !usage.value.digital_signature() {
        return Err(SvidError::NoDigitalSignature);
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(SvidError::LeafMaySign);
    }
    if let Some(extended) = certificate
        .extended_key_usage()
        .map_err(|_| SvidError::Malformed)?
        && !(extended.value.server_auth && extended.value.client_auth)
    {
        return Err(SvidError::ExtendedKeyUsage);
    }
    Ok(uri)
}

fn one_uri(certificate: &X509Certificate<'_>) -> Result<String, SvidError> {
    let mut uris = Vec::new();
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                }));
            }
            ParsedExtension::ParseError { .. } => return Err(SvidError::Malformed),
            _ => {}
        }
    }
    match <[String; 1]>::try_from(uris) {
        Ok([uri]) => Ok(uri),
        Err(uris) => Err(SvidError::NotOneUri(uris.len())),
    }
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
