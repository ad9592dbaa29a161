//! Certificate paths (RFC 5280, 6): built and verified by webpki, with the checks that it leaves to its caller.

use std::time::Duration;

use edgeward_identity::Timestamp;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, VerifiedPath, ring};

use crate::ek::certificate::{check_issuer, may_sign_certificates};
use crate::ek::refusal::EkRefused;

/// SHA-1 is not among them.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ring::ECDSA_P256_SHA256,
    ring::ECDSA_P256_SHA384,
    ring::ECDSA_P384_SHA256,
    ring::ECDSA_P384_SHA384,
    ring::RSA_PKCS1_2048_8192_SHA256,
    ring::RSA_PKCS1_2048_8192_SHA384,
    ring::RSA_PKCS1_2048_8192_SHA512,
    ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// A trust anchor with what webpki does not keep of it.
#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    pub(crate) trust: TrustAnchor<'static>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// A verified path: where it ends, and over which intermediates it goes.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// Index of the anchor.
    pub(crate) anchor: usize,
    pub(crate) intermediates: Vec<CertificateDer<'static>>,
}

/// Verifies `leaf` up to one of `anchors`, over at most `max_chain` certificates, leaf and anchor included.
pub(crate) fn verify(
    leaf: &[u8],
    candidates: &[CertificateDer<'_>],
    anchors: &[Anchor],
    usage: impl ExtendedKeyUsageValidator,
    now: Timestamp,
    max_chain: usize,
) -> Result<Path, EkRefused> {
    let der = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&der).map_err(|error| refused(&error))?;
    let trust: Vec<TrustAnchor<'_>> = anchors.iter().map(|anchor| anchor.trust.clone()).collect();
    let extra = |path: &VerifiedPath<'_>| check_path(path, anchors, now, max_chain);
    let path = leaf
        .verify_for_usage(
            ALGORITHMS,
            &trust,
            candidates,
            now.into(),
            usage,
            None,
            Some(&extra),
        )
        .map_err(|error| refused(&error))?;
    let anchor = anchors
        .iter()
        .position(|anchor| anchor.trust == *path.anchor())
        .ok_or(EkRefused::ChainUntrusted)?;
    let intermediates = path
        .intermediate_certificates()
        .map(|certificate| certificate.der().into_owned())
        .collect();
    Ok(Path {
        anchor,
        intermediates,
    })
}

/// What webpki does not check: the anchor's validity, key usage of issuers, our own limit of length.
fn check_path(
    path: &VerifiedPath<'_>,
    anchors: &[Anchor],
    now: Timestamp,
    max_chain: usize,
) -> Result<(), webpki::Error> {
    let anchor = anchors
        .iter()
        .find(|anchor| anchor.trust == *path.anchor())
        .ok_or(webpki::Error::UnknownIssuer)?;
    if now < anchor.not_before || now > anchor.not_after {
        return Err(webpki::Error::CertExpired {
            time: now.into(),
            not_after: rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_millis(
                anchor.not_after.millis(),
            )),
        });
    }
    if path.intermediate_certificates().count() + 2 > max_chain {
        return Err(webpki::Error::MaximumPathDepthExceeded);
    }
    for issuer in path.intermediate_certificates() {
        let der = issuer.der();
        let may_sign = check_issuer(&der).is_ok_and(|issuer| may_sign_certificates(&issuer));
        if !may_sign {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
    }
    Ok(())
}

fn refused(error: &webpki::Error) -> EkRefused {
    use webpki::Error as E;
    match error {
        E::UnknownIssuer => EkRefused::ChainUntrusted,
        E::CertExpired { .. } | E::CertNotValidYet { .. } | E::InvalidCertValidity => {
            EkRefused::ChainExpired
        }
        E::EndEntityUsedAsCa => EkRefused::IssuerMayNotSign("an intermediate certificate".into()),
        E::CaUsedAsEndEntity => EkRefused::IsAuthority,
        E::MaximumPathDepthExceeded => EkRefused::ChainTooLong,
        E::InvalidSignatureForPublicKey
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | E::SignatureAlgorithmMismatch => EkRefused::ChainSignature,
        E::BadDer | E::BadDerTime | E::TrailingData(_) | E::MalformedExtensions => {
            EkRefused::BadDer("refused by the path verification")
        }
        E::UnsupportedCriticalExtension => EkRefused::CriticalExtension("in the path".into()),
        other => EkRefused::ChainConstraint(format!("{other:?}").chars().take(200).collect()),
    }
}
