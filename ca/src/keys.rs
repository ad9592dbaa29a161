//! The keys of a trust domain: one purpose each, under a root that may be kept offline.
//!
//! | file in `<data>/keys/` | what | lifetime |
//! |---|---|---|
//! | `root.key`, `root.crt` | signs issuing certificates and the key set | 10 years |
//! | `issuing.key`, `issuing.crt` | signs SVIDs | 1 year, renewed at half |
//! | `results.key` | signs attestation results | named by the key set |
//! | `control.key` | signs policy slices, the deny-list, cuts and signed time | named by the key set |
//! | `log.key` | signs checkpoints of the audit log | named by the key set |
//! | `keyset` | the key set: which key may sign what, signed by the root | 2 years, renewed at half |
//!
//! `root.key` may be moved away after the first start: the cloud runs without it, but can then renew neither the
//! issuing certificate nor the key set until it is back for one start. Every key is used through [`Signer`], so a
//! PKCS#11 token or a TPM can stand in for a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::bundle::{BundleError, spki_hash_of_certificate};
use edgeward_identity::signed::{EVERYBODY, Header, Malformed, PurposeKey, Unacceptable};
use edgeward_identity::{
    KeySet, PublicKey, Purpose, SignError, SignedObject, Signer, SoftwareKey, SpkiHash, Timestamp,
    TrustBundle, TrustDomain,
};
use rustls_pki_types::CertificateDer;
use serde::Serialize;

use crate::issue::Issuer;

pub(crate) mod certificates;
pub(crate) mod files;
pub(crate) mod rcgen_key;

use certificates::CertificateFault;
use files::FileFault;

/// Lifetime of a key set; renewed at half while the root key is at hand.
pub const KEY_SET_LIFETIME: Duration = Duration::from_secs(2 * 365 * 86_400);
/// How often members should ask for the trust bundle, in seconds (SPIFFE bundle `spiffe_refresh_hint`).
const BUNDLE_REFRESH_SECONDS: u64 = 3600;

/// The open keys of this trust domain.
#[derive(Debug)]
pub struct CloudKeys {
    trust_domain: TrustDomain,
    folder: PathBuf,
    root_certificate: CertificateDer<'static>,
    root_key: PublicKey,
    root: Option<Arc<dyn Signer>>,
    issuer: ArcSwap<Issuer>,
    results: Arc<dyn Signer>,
    control: Arc<dyn Signer>,
    log: Arc<dyn Signer>,
    key_set: ArcSwap<SignedObject>,
    last_number: AtomicU64,
}

/// Why the keys of the trust domain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysFault {
    /// The operator's or the disk's.
    #[error(transparent)]
    File(#[from] FileFault),
    #[error("keys belong to another trust domain: {0}")]
    TrustDomain(String),
    #[error("{0} does not belong to its certificate")]
    Mismatch(&'static str),
    #[error("{0} has expired and the root key is not here to renew it")]
    RootOffline(&'static str),
    #[error("root certificate: {0}")]
    Root(#[from] BundleError),
    #[error("key set: {0}")]
    KeySet(#[from] Unacceptable),
    /// Ours.
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    #[error("key cannot be made: {0}")]
    Key(#[from] edgeward_identity::keys::KeyError),
    #[error("signing failed: {0}")]
    Sign(#[from] SignError),
}

impl From<Malformed> for KeysFault {
    fn from(malformed: Malformed) -> Self {
        Self::KeySet(Unacceptable::Malformed(malformed))
    }
}

/// What a signed object is about, beyond its content.
#[derive(Clone, Debug)]
pub struct Label {
    pub purpose: Purpose,
    /// A SPIFFE ID, or [`EVERYBODY`].
    pub audience: String,
    pub number: u64,
    pub issued: Timestamp,
    pub lifetime: Duration,
}

impl CloudKeys {
    /// Whether `data` holds the keys of a trust domain.
    pub fn exist(data: &Path) -> Result<bool, KeysFault> {
        Ok(files::exists(&folder_of(data))?)
    }

    /// Makes a trust domain. Nothing of it is visible before all of it is on disk.
    ///
    /// `also` runs just before that, with keys that already work: what it makes exists if the trust domain does.
    pub fn create(
        data: &Path,
        trust_domain: &TrustDomain,
        now: Timestamp,
        also: impl FnOnce(&Self) -> Result<(), KeysFault>,
    ) -> Result<Self, KeysFault> {
        files::private_directory(data)?;
        let folder = folder_of(data);
        let beside = data.join("keys.new");
        files::remove_directory(&beside)?;
        files::private_directory(&beside)?;
        let root = SoftwareKey::generate()?;
        let root_certificate = certificates::root(trust_domain, &root, now)?;
        files::write_key(&beside.join("root.key"), &root)?;
        files::write_certificates(
            &beside.join("root.crt"),
            std::slice::from_ref(&root_certificate),
        )?;
        make_issuing(&beside, trust_domain, &root_certificate, &root, now)?;
        let mut publics = Vec::new();
        for name in ["results", "control", "log"] {
            let key = SoftwareKey::generate()?;
            files::write_key(&beside.join(format!("{name}.key")), &key)?;
            publics.push(*key.public_key());
        }
        let set = sign_key_set(trust_domain, &root, &publics, 1, now)?;
        files::write_public(&beside.join("keyset"), &set.to_bytes())?;
        let keys = Self::open_folder(&beside, trust_domain, now)?;
        also(&keys)?;
        files::rename_directory(&beside, &folder)?;
        Ok(Self { folder, ..keys })
    }

    /// Opens the keys in `data`; renews what is due if the root key is at hand.
    pub fn open(
        data: &Path,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<Self, KeysFault> {
        Self::open_folder(&folder_of(data), trust_domain, now)
    }

    fn open_folder(
        folder: &Path,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<Self, KeysFault> {
        let root_certificate = one_certificate(&folder.join("root.crt"))?;
        check_trust_domain(&root_certificate, trust_domain)?;
        let root_key = key_of(&root_certificate)?;
        let root_path = folder.join("root.key");
        let root: Option<Arc<dyn Signer>> = match files::exists(&root_path)? {
            true => Some(Arc::new(files::read_key(&root_path)?)),
            false => None,
        };
        if root
            .as_ref()
            .is_some_and(|key| *key.public_key() != root_key)
        {
            return Err(KeysFault::Mismatch("root.key"));
        }
        let open = |name: &str| -> Result<Arc<dyn Signer>, KeysFault> {
            Ok(Arc::new(files::read_key(&folder.join(name))?))
        };
        let issuer = Self::open_issuer(folder, trust_domain, &root_certificate)?;
        let keys = Self {
            trust_domain: trust_domain.clone(),
            folder: folder.to_owned(),
            root_certificate,
            root_key,
            root,
            issuer: ArcSwap::from_pointee(issuer),
            results: open("results.key")?,
            control: open("control.key")?,
            log: open("log.key")?,
            key_set: ArcSwap::from_pointee(SignedObject::parse(&files::read(
                &folder.join("keyset"),
            )?)?),
            last_number: AtomicU64::new(0),
        };
        keys.renew(now)?;
        keys.key_set(now)?;
        Ok(keys)
    }

    fn open_issuer(
        folder: &Path,
        trust_domain: &TrustDomain,
        root: &CertificateDer<'static>,
    ) -> Result<Issuer, KeysFault> {
        let certificate = one_certificate(&folder.join("issuing.crt"))?;
        let signer: Arc<dyn Signer> = Arc::new(files::read_key(&folder.join("issuing.key"))?);
        if key_of(&certificate)? != *signer.public_key() {
            return Err(KeysFault::Mismatch("issuing.key"));
        }
        Ok(Issuer::new(
            trust_domain.clone(),
            certificate,
            root.clone(),
            signer,
        )?)
    }

    /// Renews issuing certificate and key set where half of their life is over and the root key is at hand. An
    /// expired one without the root key is an error.
    pub fn renew(&self, now: Timestamp) -> Result<(), KeysFault> {
        let issuer = self.issuer.load_full();
        if now >= issuer.half_life() {
            match &self.root {
                Some(root) => {
                    make_issuing(
                        &self.folder,
                        &self.trust_domain,
                        &self.root_certificate,
                        root.as_ref(),
                        now,
                    )?;
                    self.issuer.store(Arc::new(Self::open_issuer(
                        &self.folder,
                        &self.trust_domain,
                        &self.root_certificate,
                    )?));
                }
                None if now >= issuer.not_after() => {
                    return Err(KeysFault::RootOffline("issuing certificate"));
                }
                None => {}
            }
        }
        let header = self.key_set.load().header().clone();
        if now >= header.issued.plus(KEY_SET_LIFETIME / 2) {
            match &self.root {
                Some(root) => {
                    let publics = [&self.results, &self.control, &self.log]
                        .map(|signer| *signer.public_key());
                    let number = header.number.saturating_add(1);
                    let set =
                        sign_key_set(&self.trust_domain, root.as_ref(), &publics, number, now)?;
                    files::write_public(&self.folder.join("keyset"), &set.to_bytes())?;
                    self.key_set.store(Arc::new(set));
                }
                None if now >= header.expires => return Err(KeysFault::RootOffline("key set")),
                None => {}
            }
        }
        Ok(())
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whether the root key is in its file.
    pub fn root_is_here(&self) -> bool {
        self.root.is_some()
    }

    /// SHA-256 of the root's SPKI: what bootstrap tokens pin.
    pub fn root_pin(&self) -> SpkiHash {
        self.root_key.spki_hash()
    }

    pub fn issuer(&self) -> Arc<Issuer> {
        self.issuer.load_full()
    }

    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::new(
            self.trust_domain.clone(),
            1,
            BUNDLE_REFRESH_SECONDS,
            vec![self.root_certificate.clone()],
        )
        .expect("the root was checked when it was opened")
    }

    /// The key set as members receive it.
    pub fn key_set_bytes(&self) -> Vec<u8> {
        self.key_set.load().to_bytes()
    }

    pub fn key_set_number(&self) -> u64 {
        self.key_set.load().header().number
    }

    /// The key set as members read it.
    pub fn key_set(&self, now: Timestamp) -> Result<KeySet, KeysFault> {
        let object = self.key_set.load();
        Ok(KeySet::open(
            &object,
            &[self.root_key],
            &self.trust_domain,
            0,
            now,
        )?)
    }

    /// The key that signs checkpoints of the audit log.
    pub fn log_signer(&self) -> &Arc<dyn Signer> {
        &self.log
    }

    /// The key that signs attestation results.
    pub(crate) fn results_signer(&self) -> &dyn Signer {
        self.results.as_ref()
    }

    /// Signs a value for members, with the key of its purpose.
    pub fn sign<T: Serialize>(&self, label: Label, value: &T) -> Result<Vec<u8>, SignError> {
        let signer = match label.purpose {
            Purpose::Results => &self.results,
            Purpose::Policy | Purpose::DenyList | Purpose::Control => &self.control,
            Purpose::Log => &self.log,
            Purpose::Keys | Purpose::Journal | Purpose::Jwt => {
                return Err(SignError::KeyStore("no key for this purpose".to_owned()));
            }
        };
        let header = Header {
            purpose: label.purpose,
            trust_domain: self.trust_domain.clone(),
            audience: label.audience,
            number: label.number,
            issued: label.issued,
            expires: label.issued.plus(label.lifetime),
        };
        Ok(SignedObject::sign_json(signer.as_ref(), header, value)?.to_bytes())
    }

    /// A number that rises with every call: the time in milliseconds, or one more than the last.
    pub fn rising_number(&self, now: Timestamp) -> u64 {
        let next = |last: u64| now.millis().max(last.saturating_add(1));
        match self
            .last_number
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(next(last))
            }) {
            Ok(last) | Err(last) => next(last),
        }
    }
}

fn folder_of(data: &Path) -> PathBuf {
    data.join("keys")
}

fn make_issuing(
    folder: &Path,
    trust_domain: &TrustDomain,
    root_certificate: &CertificateDer<'static>,
    root: &dyn Signer,
    now: Timestamp,
) -> Result<(), KeysFault> {
    // The key stays when the certificate is renewed, so that a crash between two files cannot part them.
    let path = folder.join("issuing.key");
    let key = match files::exists(&path)? {
        true => files::read_key(&path)?,
        false => {
            let key = SoftwareKey::generate()?;
            files::write_key(&path, &key)?;
            key
        }
    };
    let certificate =
        certificates::issuing(trust_domain, key.public_key(), root_certificate, root, now)?;
    files::write_certificates(&folder.join("issuing.crt"), &[certificate])?;
    Ok(())
}

fn sign_key_set(
    trust_domain: &TrustDomain,
    root: &dyn Signer,
    publics: &[PublicKey],
    number: u64,
    now: Timestamp,
) -> Result<SignedObject, SignError> {
    let expires = now.plus(KEY_SET_LIFETIME);
    let purposes: [&[Purpose]; 3] = [
        &[Purpose::Results],
        &[Purpose::Policy, Purpose::DenyList, Purpose::Control],
        &[Purpose::Log],
    ];
    let keys: Vec<PurposeKey> = publics
        .iter()
        .zip(purposes)
        .flat_map(|(key, purposes)| {
            purposes.iter().map(|purpose| PurposeKey {
                purpose: *purpose,
                key: *key,
                not_after: expires,
            })
        })
        .collect();
    let header = Header {
        purpose: Purpose::Keys,
        trust_domain: trust_domain.clone(),
        audience: EVERYBODY.to_owned(),
        number,
        issued: now,
        expires,
    };
    SignedObject::sign_json(root, header, &keys)
}

fn one_certificate(path: &Path) -> Result<CertificateDer<'static>, KeysFault> {
    match <[_; 1]>::try_from(files::read_certificates(path)?) {
        Ok([certificate]) => Ok(certificate),
        Err(_) => Err(FileFault::Content {
            path: path.to_owned(),
            wanted: "one certificate in pem",
        }
        .into()),
    }
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, KeysFault> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| BundleError::Certificate)?;
    Ok(PublicKey::from_spki_der(parsed.public_key().raw)?)
}

fn check_trust_domain(
    root: &CertificateDer<'_>,
    trust_domain: &TrustDomain,
) -> Result<(), KeysFault> {
    spki_hash_of_certificate(root)?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(root).map_err(|_| BundleError::Certificate)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| BundleError::Certificate)?;
    let found = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .find_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .unwrap_or_default();
    if found == format!("spiffe://{trust_domain}") {
        Ok(())
    } else {
        Err(KeysFault::TrustDomain(found))
    }
}

#[cfg(test)]
mod tests;
