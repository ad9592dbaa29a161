//! The shape of an EK certificate (TCG EK Credential Profile for TPM Family 2.0, section 3.2), checked before any path.

use edgeward_identity::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::time::ASN1Time;

use crate::ek::der::Strictness;
use crate::ek::refusal::EkRefused;
use crate::ek::template::CertifiedKey;
use crate::ek::{MAX_CERTIFICATE_BYTES, der, weak};
use crate::tpm::public::Curve;

/// `tcg-kp-EKCertificate`.
pub(crate) const EKU_EK_CERTIFICATE: &str = "2.23.133.8.1";
const TPM_MANUFACTURER: &str = "2.23.133.2.1";
const TPM_MODEL: &str = "2.23.133.2.2";
const TPM_VERSION: &str = "2.23.133.2.3";
const SUBJECT_ALTERNATIVE_NAME: &str = "2.5.29.17";
/// Critical extensions that these checks and the path verification understand: key usage, subject alternative name,
/// basic constraints, certificate policies (any will do), extended key usage; on issuers name constraints (refused later).
const LEAF_CRITICAL: [&str; 5] = [
    "2.5.29.15",
    SUBJECT_ALTERNATIVE_NAME,
    "2.5.29.19",
    "2.5.29.32",
    "2.5.29.37",
];
const ISSUER_CRITICAL: [&str; 5] = [
    "2.5.29.15",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.32",
    "2.5.29.37",
];
const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
const RSA_OAEP: &str = "1.2.840.113549.1.1.7";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
/// Bounds of RSA keys in bits, checked before any signature is.
const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
/// Longest text kept of a TPM's names, in characters.
const MAX_TEXT_CHARS: usize = 64;

/// What the certificate's maker says the TPM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmIdentity {
    /// Such as `id:49465800` (vendor ids of the TCG registry).
    pub manufacturer: String,
    pub model: String,
    pub version: String,
}

/// An EK certificate of the right shape.
#[derive(Clone, Debug)]
pub(crate) struct EkLeaf {
    pub(crate) key: CertifiedKey,
    pub(crate) tpm: TpmIdentity,
    pub(crate) serial: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

pub(crate) fn check_leaf(bytes: &[u8], strictness: Strictness) -> Result<EkLeaf, EkRefused> {
    let certificate = parse_end_entity(bytes, strictness)?;
    let key = certified_key(&certificate)?;
    check_key_usage(&certificate, &key)?;
    check_extended_key_usage(&certificate)?;
    let tpm = tpm_identity(&certificate)?;
    let (not_before, not_after) = validity(&certificate);
    Ok(EkLeaf {
        key,
        tpm,
        serial: hex::encode(certificate.raw_serial()),
        not_before,
        not_after,
    })
}

pub(crate) fn check_validity(leaf: &EkLeaf, now: Timestamp) -> Result<(), EkRefused> {
    if now < leaf.not_before {
        return Err(EkRefused::NotYetValid);
    }
    if now > leaf.not_after || leaf.not_after < leaf.not_before {
        return Err(EkRefused::Expired);
    }
    Ok(())
}

/// An issuer's certificate, checked as far as it can be by itself.
pub(crate) fn check_issuer(
    bytes: &[u8],
    strictness: Strictness,
) -> Result<X509Certificate<'_>, EkRefused> {
    let certificate = parse(bytes, strictness)?;
    check_critical(&certificate, &ISSUER_CRITICAL)?;
    Ok(certificate)
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let validity = certificate.validity();
    (
        timestamp(validity.not_before),
        timestamp(validity.not_after),
    )
}

/// What holds for the last certificate of any path.
pub(crate) fn parse_end_entity(
    bytes: &[u8],
    strictness: Strictness,
) -> Result<X509Certificate<'_>, EkRefused> {
    let certificate = parse(bytes, strictness)?;
    check_critical(&certificate, &LEAF_CRITICAL)?;
    // Name constraints, too, are for authorities only.
    let constrains = !matches!(certificate.name_constraints(), Ok(None));
    if certificate.is_ca() || constrains {
        return Err(EkRefused::IsAuthority);
    }
    Ok(certificate)
}

/// DER, X.509, one instance of each extension, and a key within the bounds that keep verification cheap.
fn parse(bytes: &[u8], strictness: Strictness) -> Result<X509Certificate<'_>, EkRefused> {
    if bytes.len() > MAX_CERTIFICATE_BYTES {
        return Err(EkRefused::TooLarge {
            size: bytes.len(),
            limit: MAX_CERTIFICATE_BYTES,
        });
    }
    der::check(bytes, strictness).map_err(EkRefused::BadDer)?;
    let (_, certificate) = X509Certificate::from_der(bytes)
        .map_err(|_| EkRefused::BadDer("not an x.509 certificate"))?;
    if certificate.extensions_map().is_err() {
        return Err(EkRefused::BadDer("an extension occurs twice"));
    }
    if let Some(rsa) = rsa_key(&certificate)? {
        let bits = rsa_bits(rsa.modulus);
        if bits > MAX_RSA_BITS {
            return Err(EkRefused::RsaTooLarge(bits));
        }
        if bits < MIN_RSA_BITS {
            return Err(EkRefused::RsaTooSmall(bits));
        }
    }
    Ok(certificate)
}

fn check_critical(certificate: &X509Certificate<'_>, known: &[&str]) -> Result<(), EkRefused> {
    for extension in certificate.iter_extensions() {
        let oid = extension.oid.to_id_string();
        if extension.critical && !known.contains(&oid.as_str()) {
            return Err(EkRefused::CriticalExtension(oid));
        }
        if matches!(
            extension.parsed_extension(),
            ParsedExtension::ParseError { .. }
        ) {
            return Err(EkRefused::BadDer("an extension is malformed"));
        }
    }
    Ok(())
}

fn certified_key(certificate: &X509Certificate<'_>) -> Result<CertifiedKey, EkRefused> {
    if let Some(rsa) = rsa_key(certificate)? {
        let modulus = strip_zeros(rsa.modulus);
        if strip_zeros(rsa.exponent) != RSA_EXPONENT {
            return Err(EkRefused::RsaExponent);
        }
        if weak::has_roca_fingerprint(modulus) {
            return Err(EkRefused::Roca);
        }
        return Ok(CertifiedKey::Rsa {
            modulus: modulus.to_vec(),
        });
    }
    let info = certificate.public_key();
    let Ok(PublicKey::EC(point)) = info.parsed() else {
        return Err(EkRefused::NoTemplate(
            info.algorithm.algorithm.to_id_string(),
        ));
    };
    let curve = info
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok())
        .map(|oid| oid.to_id_string());
    let curve = match curve.as_deref() {
        Some(P256) => Curve::P256,
        Some(P384) => Curve::P384,
        _ => return Err(EkRefused::UnknownCurve),
    };
    let coordinates = point.data().strip_prefix(&[4]);
    match coordinates.and_then(|both| both.split_at_checked(curve.coordinate_len())) {
        Some((x, y)) if y.len() == x.len() => Ok(CertifiedKey::Ecc {
            curve,
            x: x.to_vec(),
            y: y.to_vec(),
        }),
        _ => Err(EkRefused::BadDer("not an uncompressed point")),
    }
}

/// The RSA key, under `rsaEncryption` or, as some makers have it, under `id-RSAES-OAEP`. `None` for other kinds.
fn rsa_key<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<Option<RSAPublicKey<'a>>, EkRefused> {
    let info = certificate.public_key();
    let algorithm = info.algorithm.algorithm.to_id_string();
    if algorithm != RSA_ENCRYPTION && algorithm != RSA_OAEP {
        return Ok(None);
    }
    match RSAPublicKey::from_der(&info.subject_public_key.data) {
        Ok(([], key)) => Ok(Some(key)),
        _ => Err(EkRefused::BadDer("not an rsa key")),
    }
}

fn check_key_usage(certificate: &X509Certificate<'_>, key: &CertifiedKey) -> Result<(), EkRefused> {
    let usage = certificate
        .key_usage()
        .ok()
        .flatten()
        .ok_or(EkRefused::KeyUsage)?
        .value;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(EkRefused::IsAuthority);
    }
    let decrypts = match key {
        CertifiedKey::Rsa { .. } => usage.key_encipherment(),
        CertifiedKey::Ecc { .. } => usage.key_agreement(),
    };
    // An EK is a storage key: a certificate for signing is somebody else's, or an AK's.
    if !decrypts || usage.digital_signature() {
        return Err(EkRefused::KeyUsage);
    }
    Ok(())
}

fn check_extended_key_usage(certificate: &X509Certificate<'_>) -> Result<(), EkRefused> {
    let usage = certificate.extended_key_usage().ok().flatten();
    let has_ek = usage.is_some_and(|usage| {
        usage
            .value
            .other
            .iter()
            .any(|oid| oid.to_id_string() == EKU_EK_CERTIFICATE)
    });
    has_ek.then_some(()).ok_or(EkRefused::ExtendedKeyUsage)
}

fn tpm_identity(certificate: &X509Certificate<'_>) -> Result<TpmIdentity, EkRefused> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let critical = extension
        .as_ref()
        .is_some_and(|extension| extension.critical);
    if certificate.subject().iter().next().is_none() && !critical {
        return Err(EkRefused::NoSubject);
    }
    let names = extension.map(|extension| &extension.value.general_names);
    let find = |wanted: &str| {
        names
            .into_iter()
            .flatten()
            .filter_map(|name| match name {
                GeneralName::DirectoryName(name) => Some(name),
                _ => None,
            })
            .flat_map(|name| name.iter_attributes())
            .find(|attribute| attribute.attr_type().to_id_string() == wanted)
            .and_then(|attribute| attribute.as_str().ok())
            .map(printable)
            .filter(|text| !text.is_empty())
            .ok_or(EkRefused::NoTpmIdentity)
    };
    Ok(TpmIdentity {
        manufacturer: find(TPM_MANUFACTURER)?,
        model: find(TPM_MODEL)?,
        version: find(TPM_VERSION)?,
    })
}

/// Goes to logs and terminals: printable ASCII only, cut.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(MAX_TEXT_CHARS)
        .collect()
}

fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn strip_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes
        .split_at_checked(zeros)
        .map_or(bytes, |(_, rest)| rest)
}

fn rsa_bits(modulus: &[u8]) -> usize {
    let digits = strip_zeros(modulus);
    let top_zeros = digits.first().map_or(0, |top| top.leading_zeros() as usize);
    digits.len() * 8 - top_zeros
}
