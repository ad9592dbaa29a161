//! The trust bundle: the root certificates of one trust domain (SPIFFE Trust Domain and Bundle standard).
//!
//! Reads and writes the SPIFFE bundle format (a JWK set whose X.509 authorities are `use: x509-svid` with
//! one certificate in `x5c` and no `kid`; the keys that sign JWT-SVIDs are `use: jwt-svid` with a `kid`). A bundle
//! without X.509 authorities is refused.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::FromDer;

use crate::jwt::JwtBundle;
use crate::jwt::bundle::{JWT_USE, read_keys, write_keys};
use crate::keys::{PublicKey, SpkiHash};
use crate::spiffe_id::TrustDomain;

mod succession;

pub use succession::{MAX_STEPS, NoSuccession};

/// Largest bundle document accepted, in bytes.
pub const MAX_BUNDLE_BYTES: usize = 256 * 1024;
/// Most authorities in one bundle.
pub const MAX_AUTHORITIES: usize = 16;

/// The roots of one trust domain. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    sequence: u64,
    refresh_hint: u64,
    roots: Vec<CertificateDer<'static>>,
    /// By key id.
    jwt_keys: BTreeMap<String, PublicKey>,
}

/// Why a document is not a usable trust bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("larger than the limit in bytes: {MAX_BUNDLE_BYTES}")]
    TooLarge,
    #[error("not a json web key set: {0}")]
    Json(#[source] serde_json::Error),
    #[error("no x.509 authorities")]
    NoAuthorities,
    #[error("more authorities than the limit: {MAX_AUTHORITIES}")]
    TooManyAuthorities,
    #[error("an x509-svid entry holds {0} certificates instead of one")]
    NotOneCertificate(usize),
    #[error("an x509-svid entry has a key id")]
    KeyId,
    #[error("a jwt-svid entry has no key id")]
    NoKeyId,
    #[error("two jwt-svid entries have one key id")]
    KeyIdTwice,
    #[error("a certificate is malformed")]
    Certificate,
    #[error("a certificate is not a certification authority")]
    NotAnAuthority,
}

#[derive(Serialize, Deserialize)]
struct Document {
    keys: Vec<Jwk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    #[serde(rename = "use", default)]
    usage: String,
    #[serde(default)]
    kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl TrustBundle {
    /// `sequence` rises with every change; `refresh_hint` is in seconds.
    pub fn new(
        trust_domain: TrustDomain,
        sequence: u64,
        refresh_hint: u64,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        if roots.is_empty() {
            return Err(BundleError::NoAuthorities);
        }
        if roots.len() > MAX_AUTHORITIES {
            return Err(BundleError::TooManyAuthorities);
        }
        for root in &roots {
            check_authority(root)?;
        }
        Ok(Self {
            trust_domain,
            sequence,
            refresh_hint,
            roots,
            jwt_keys: BTreeMap::new(),
        })
    }

    /// The same with these keys for JWT-SVIDs, each named by the SHA-256 of its SPKI.
    #[must_use]
    pub fn with_jwt_keys(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let bundle = JwtBundle::new(self.trust_domain.clone(), keys);
        self.jwt_keys.clone_from(bundle.keys());
        self
    }

    pub fn from_spiffe_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        let document: Document = serde_json::from_slice(json).map_err(BundleError::Json)?;
        let mut roots = Vec::new();
        for key in document.keys.iter().filter(|key| key.usage == "x509-svid") {
            let [certificate] = key.x5c.as_slice() else {
                return Err(BundleError::NotOneCertificate(key.x5c.len()));
            };
            if key.kid.is_some() {
                return Err(BundleError::KeyId);
            }
            let der = STANDARD
                .decode(certificate)
                .map_err(|_| BundleError::Certificate)?;
            roots.push(CertificateDer::from(der));
        }
        let mut bundle = Self::new(
            trust_domain,
            document.spiffe_sequence.unwrap_or(0),
            document.spiffe_refresh_hint.unwrap_or(0),
            roots,
        )?;
        let for_tokens = document.keys.iter().filter(|key| key.usage == JWT_USE);
        let for_tokens: Vec<_> = for_tokens
            .map(|key| serde_json::to_value(key).map_err(BundleError::Json))
            .collect::<Result<_, _>>()?;
        bundle.jwt_keys = read_keys(for_tokens.iter())?;
        Ok(bundle)
    }

    pub fn to_spiffe_json(&self) -> Vec<u8> {
        let for_tokens =
            write_keys(&self.jwt_keys).filter_map(|key| serde_json::from_value(key).ok());
        let document = Document {
            keys: self.roots.iter().map(jwk_of).chain(for_tokens).collect(),
            spiffe_sequence: Some(self.sequence),
            spiffe_refresh_hint: Some(self.refresh_hint),
        };
        serde_json::to_vec(&document).expect("a map with string keys always serialises")
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The keys that sign JWT-SVIDs, by key id. Perhaps none.
    pub fn jwt_keys(&self) -> &BTreeMap<String, PublicKey> {
        &self.jwt_keys
    }

    /// The roots' keys, as key sets are verified with; a root of another key type has none here.
    pub fn root_keys(&self) -> Vec<PublicKey> {
        self.roots
            .iter()
            .filter_map(|root| {
                let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(root).ok()?;
                PublicKey::from_spki_der(parsed.public_key().raw).ok()
            })
            .collect()
    }

    /// The root whose key has this pin, if the bundle has one.
    pub fn root_with_spki(&self, pin: &SpkiHash) -> Option<&CertificateDer<'static>> {
        self.roots
            .iter()
            .find(|root| spki_hash_of_certificate(root).is_ok_and(|hash| hash == *pin))
    }
}

impl std::fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.trust_domain)
            .field("sequence", &self.sequence)
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// SHA-256 of the `SubjectPublicKeyInfo` of a DER certificate.
pub fn spki_hash_of_certificate(certificate: &[u8]) -> Result<SpkiHash, BundleError> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|_| BundleError::Certificate)?;
    Ok(SpkiHash::of_spki(parsed.public_key().raw))
}

fn check_authority(der: &[u8]) -> Result<(), BundleError> {
    let (rest, parsed) = x509_parser::certificate::X509Certificate::from_der(der)
        .map_err(|_| BundleError::Certificate)?;
    if !rest.is_empty() {
        return Err(BundleError::Certificate);
    }
    match parsed.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => Ok(()),
        _ => Err(BundleError::NotAnAuthority),
    }
}

fn jwk_of(root: &CertificateDer<'static>) -> Jwk {
    let mut rest = serde_json::Map::new();
    if let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(root)
        && let Ok(key) = crate::keys::PublicKey::from_spki_der(parsed.public_key().raw)
    {
        let (x, y) = key.coordinates();
        let encode = |half: &[u8]| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD
                .encode(half)
                .into()
        };
        rest.insert("crv".into(), "P-256".into());
        rest.insert("x".into(), encode(x));
        rest.insert("y".into(), encode(y));
    }
    Jwk {
        usage: "x509-svid".into(),
        kty: "EC".into(),
        kid: None,
        x5c: vec![STANDARD.encode(root)],
        rest,
    }
}
