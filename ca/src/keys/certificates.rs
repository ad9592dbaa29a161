//! The certificates above every leaf: root and issuing authority.

use std::time::Duration;

use edgeward_identity::{PublicKey, Signer, Timestamp, TrustDomain};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;

use super::rcgen_key::{Holder, Issuing};

/// Lifetime of the root certificate.
pub(crate) const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Lifetime of an issuing certificate; renewed at half.
pub(crate) const ISSUING_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// A certificate is valid from this long before it was made: clocks differ.
pub(crate) const BACKDATE: Duration = Duration::from_secs(60);
/// Bytes of a certificate's serial number: 128 random bits.
const SERIAL_BYTES: usize = 16;

/// A certificate could not be made. Ours, or the key store's.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    #[error("random source failed")]
    Random,
    #[error("certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// A self-signed root for the trust domain.
pub(super) fn root(
    trust_domain: &TrustDomain,
    signer: &dyn Signer,
    now: Timestamp,
) -> Result<CertificateDer<'static>, CertificateFault> {
    let params = authority(trust_domain, "root", 1, now, now.plus(ROOT_LIFETIME))?;
    Ok(params.self_signed(&Issuing(signer))?.der().clone())
}

/// An issuing authority under the root; it may sign leaves only.
pub(super) fn issuing(
    trust_domain: &TrustDomain,
    key: &PublicKey,
    root: &CertificateDer<'static>,
    root_signer: &dyn Signer,
    now: Timestamp,
) -> Result<CertificateDer<'static>, CertificateFault> {
    let not_after = now.plus(ISSUING_LIFETIME).min(end_of(root)?);
    let issuer = Issuer::from_ca_cert_der(root, Issuing(root_signer))?;
    let params = authority(trust_domain, "issuing", 0, now, not_after)?;
    Ok(params.signed_by(&Holder(key), &issuer)?.der().clone())
}

/// The key of a new root, certified by the one before: who trusts only that one follows the new one through it.
pub(super) fn cross(
    trust_domain: &TrustDomain,
    key: &PublicKey,
    before: &CertificateDer<'static>,
    before_signer: &dyn Signer,
    now: Timestamp,
) -> Result<CertificateDer<'static>, CertificateFault> {
    let not_after = now.plus(ROOT_LIFETIME).min(end_of(before)?);
    let issuer = Issuer::from_ca_cert_der(before, Issuing(before_signer))?;
    // Issuer and subject have one name, so that this certificate does not count towards the root's path length
    // (RFC 5280 4.2.1.9: self-issued).
    let params = authority(trust_domain, "root", 1, now, not_after)?;
    Ok(params.signed_by(&Holder(key), &issuer)?.der().clone())
}

/// When a certificate ends.
pub(crate) fn end_of(certificate: &CertificateDer<'_>) -> Result<Timestamp, CertificateFault> {
    Ok(validity_of(certificate)?.1)
}

/// When a certificate begins and ends.
pub(crate) fn validity_of(
    certificate: &CertificateDer<'_>,
) -> Result<(Timestamp, Timestamp), CertificateFault> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    let time = |seconds: i64| Timestamp::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = parsed.validity();
    Ok((
        time(validity.not_before.timestamp()),
        time(validity.not_after.timestamp()),
    ))
}

/// What every certificate of ours has: a random serial, a subject, an authority key identifier.
pub(crate) fn parameters(
    common_name: &str,
    uri: &str,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, CertificateFault> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
    params.serial_number = Some(random_serial()?);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before.secs());
    params.not_after = epoch + Duration::from_secs(not_after.secs());
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority(
    trust_domain: &TrustDomain,
    role: &str,
    path_length: u8,
    now: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, CertificateFault> {
    // X.520 bounds a common name at 64 characters; a trust domain may be longer.
    let short: String = trust_domain.as_str().chars().take(48).collect();
    let mut params = parameters(
        &format!("Edgeward {role} {short}"),
        &format!("spiffe://{trust_domain}"),
        now.minus(BACKDATE),
        not_after,
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn random_serial() -> Result<SerialNumber, CertificateFault> {
    let mut bytes = [0; SERIAL_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CertificateFault::Random)?;
    // Positive and of full length in DER (RFC 5280 4.1.2.2).
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}
