//! Why an endorsement key was refused: every reason with its stable code. The fault is the node's, or its TPM vendor's.

use crate::digest::Digest;
use crate::reader::Malformed;

/// The endorsement key is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EkRefused {
    #[error("no ek certificate was sent")]
    NoCertificate,
    #[error("certificate is larger than the limit in bytes: {size} > {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("more certificates than a path may have")]
    ChainTooLong,
    #[error("certificate is not strict der: {0}")]
    BadDer(&'static str),
    #[error("ek certificate is a certification authority or may sign certificates")]
    IsAuthority,
    #[error(
        "ek certificate's key usage is missing, or is not key encipherment (rsa) or key agreement (ecc)"
    )]
    KeyUsage,
    #[error("ek certificate's extended key usage lacks 2.23.133.8.1")]
    ExtendedKeyUsage,
    #[error("certificate has a critical extension that is not understood: {0}")]
    CriticalExtension(String),
    #[error("ek certificate names no tpm manufacturer, model and version")]
    NoTpmIdentity,
    #[error("ek certificate has neither a subject nor a critical subject alternative name")]
    NoSubject,
    #[error("ek certificate has expired, or ends before it begins")]
    Expired,
    #[error("ek certificate is not valid yet")]
    NotYetValid,
    #[error("rsa key of {0} bits is below the limit of 2048")]
    RsaTooSmall(usize),
    #[error("rsa key of {0} bits is above the limit of 8192")]
    RsaTooLarge(usize),
    #[error("rsa key's exponent is not 65537")]
    RsaExponent,
    #[error("rsa key has the fingerprint of the infineon key generation flaw (roca)")]
    Roca,
    #[error("key's curve is not p-256 or p-384")]
    UnknownCurve,
    #[error("no standard template has a key of this kind: {0}")]
    NoTemplate(String),
    #[error("certificate path ends at no pinned root")]
    ChainUntrusted,
    #[error("an issuer's certificate has expired or is not valid yet")]
    ChainExpired,
    #[error("an issuer may not sign certificates: {0}")]
    IssuerMayNotSign(&'static str),
    #[error("a signature in the certificate path does not verify or is of a refused algorithm")]
    ChainSignature,
    #[error("certificate path breaks a constraint: {0}")]
    ChainConstraint(String),
    #[error("ek public area sent is not that of the certified key and the standard template")]
    PublicMismatch,
    #[error("ek public area: {0}")]
    PublicMalformed(Malformed),
    #[error("ek public area is not of a standard template")]
    NotStandard,
    #[error("ek is on no allow-list: {0}")]
    NotListed(Digest),
    #[error("ek is on the deny-list: {0}")]
    Denied(Digest),
}

impl EkRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "ek_certificate_missing",
            Self::TooLarge { .. } => "ek_certificate_too_large",
            Self::ChainTooLong => "ek_chain_too_long",
            Self::BadDer(_) => "ek_bad_der",
            Self::IsAuthority => "ek_is_authority",
            Self::KeyUsage => "ek_key_usage",
            Self::ExtendedKeyUsage => "ek_extended_key_usage",
            Self::CriticalExtension(_) => "ek_critical_extension",
            Self::NoTpmIdentity => "ek_tpm_identity_missing",
            Self::NoSubject => "ek_subject_missing",
            Self::Expired => "ek_expired",
            Self::NotYetValid => "ek_not_yet_valid",
            Self::RsaTooSmall(_) => "ek_rsa_too_small",
            Self::RsaTooLarge(_) => "ek_rsa_too_large",
            Self::RsaExponent => "ek_rsa_exponent",
            Self::Roca => "ek_roca",
            Self::UnknownCurve => "ek_curve_unknown",
            Self::NoTemplate(_) => "ek_key_unsupported",
            Self::ChainUntrusted => "ek_chain_untrusted",
            Self::ChainExpired => "ek_chain_expired",
            Self::IssuerMayNotSign(_) => "ek_issuer_may_not_sign",
            Self::ChainSignature => "ek_chain_signature",
            Self::ChainConstraint(_) => "ek_chain_constraint",
            Self::PublicMismatch => "ek_public_mismatch",
            Self::PublicMalformed(_) => "ek_public_malformed",
            Self::NotStandard => "ek_not_standard",
            Self::NotListed(_) => "ek_not_listed",
            Self::Denied(_) => "ek_denied",
        }
    }
}
