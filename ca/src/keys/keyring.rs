//! What is on disk, opened: the ledger, the certificates of its authorities, the key that issues, the key set.

use std::path::Path;
use std::sync::Arc;

use edgeward_identity::bundle::{BundleError, spki_hash_of_certificate};
use edgeward_identity::{
    KeySet, PublicKey, Purpose, SignedObject, Signer, TrustBundle, TrustDomain,
};
use rustls_pki_types::CertificateDer;

use super::files::{self, FileFault};
use super::ledger::{Authority, Ledger, Place, Role, State};
use super::stores::{Owner, Stores};
use super::{BUNDLE_REFRESH_SECONDS, KeysFault};
use crate::issue::{Above, Issuer};

const LEDGER: &str = "authorities.json";

/// One state of the trust domain's keys. Replaced as a whole.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) ledger: Ledger,
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) key_set: SignedObject,
    pub(crate) root_key: PublicKey,
    pub(crate) bundle: TrustBundle,
}

impl Ring {
    pub(crate) fn open(
        folder: &Path,
        trust_domain: &TrustDomain,
        stores: &Stores,
    ) -> Result<Self, KeysFault> {
        let ledger = read_ledger(folder)?;
        let root = ledger.active(Role::Root).ok_or(KeysFault::Ledger)?;
        let root_certificate = certificate(folder, root)?;
        check_trust_domain(&root_certificate, trust_domain)?;
        let issuing = ledger.active(Role::Issuing).ok_or(KeysFault::Ledger)?;
        let signer = key(stores, folder, issuing)?.ok_or(KeysFault::Missing("issuing.key"))?;
        let issuer = Issuer::new(
            trust_domain.clone(),
            certificate(folder, issuing)?,
            above(folder, &ledger, root, root_certificate.clone())?,
            signer,
        )?;
        let key_set = SignedObject::parse(&files::read(&folder.join(key_set_name(root)))?)?;
        let root_key = key_of(&root_certificate)?;
        let bundle = bundle(folder, trust_domain, &ledger)?.with_jwt_keys(jwt_keys(
            &key_set,
            &root_key,
            trust_domain,
        )?);
        Ok(Self {
            root_key,
            issuer: Arc::new(issuer),
            key_set,
            bundle,
            ledger,
        })
    }
}

/// The ledger on disk; that of a trust domain which an earlier version made has none yet.
pub(crate) fn read_ledger(folder: &Path) -> Result<Ledger, KeysFault> {
    let path = folder.join(LEDGER);
    if !files::exists(&path)? {
        return first_ledger(folder);
    }
    serde_json::from_slice(&files::read(&path)?)
        .ok()
        .filter(Ledger::is_sound)
        .ok_or(KeysFault::Ledger)
}

/// The step: before this the old state holds, after it the new one.
pub(crate) fn write_ledger(folder: &Path, ledger: &Ledger) -> Result<(), KeysFault> {
    let bytes = serde_json::to_vec_pretty(ledger).map_err(|_| KeysFault::Ledger)?;
    Ok(files::write_public(&folder.join(LEDGER), &bytes)?)
}

/// Removes what a step left that was never taken, and the private keys of what is retired.
pub(crate) fn sweep(folder: &Path, ledger: &Ledger) -> Result<(), KeysFault> {
    for file in files::names(folder)? {
        let Some((name, kind)) = file.split_once('.') else {
            let owner = file.strip_prefix("keyset-");
            let known = owner.is_none_or(|id| {
                ledger
                    .authorities
                    .iter()
                    .any(|known| known.name.strip_prefix("root-") == Some(id))
            });
            if !known {
                files::remove(&folder.join(&file))?;
            }
            continue;
        };
        let rotated = name.starts_with("root-") || name.starts_with("issuing-");
        let known = ledger.authorities.iter().find(|known| known.name == name);
        let goes = match known {
            None => rotated,
            Some(known) => known.state == State::Retired && kind == "key",
        };
        if goes {
            tracing::info!(file, "removed: nothing needs it any more");
            files::remove(&folder.join(&file))?;
        }
    }
    Ok(())
}

/// The key of an authority; `None` where its file was taken away.
pub(crate) fn key(
    stores: &Stores,
    folder: &Path,
    authority: &Authority,
) -> Result<Option<Arc<dyn Signer>>, KeysFault> {
    let (owner, file) = match authority.role {
        Role::Root => (Owner::Root, "root.key"),
        Role::Issuing => (Owner::Issuing, "issuing.key"),
    };
    let key = stores.open(owner, folder, &authority.name, authority.place)?;
    match &key {
        Some(key) if key.public_key().spki_hash() != authority.key => {
            Err(KeysFault::Mismatch(file))
        }
        _ => Ok(key),
    }
}

/// An authority's own certificate.
pub(crate) fn certificate(
    folder: &Path,
    authority: &Authority,
) -> Result<CertificateDer<'static>, KeysFault> {
    let certificate = one_certificate(&folder.join(format!("{}.crt", authority.name)))?;
    match spki_hash_of_certificate(&certificate)? == authority.key {
        true => Ok(certificate),
        false => Err(KeysFault::Mismatch(match authority.role {
            Role::Root => "root.crt",
            Role::Issuing => "issuing.crt",
        })),
    }
}

/// The bundle of these roots.
pub(crate) fn bundle(
    folder: &Path,
    trust_domain: &TrustDomain,
    ledger: &Ledger,
) -> Result<TrustBundle, KeysFault> {
    let roots = ledger
        .trusted_roots()
        .map(|root| certificate(folder, root))
        .collect::<Result<_, _>>()?;
    Ok(TrustBundle::new(
        trust_domain.clone(),
        ledger.sequence,
        BUNDLE_REFRESH_SECONDS,
        roots,
    )?)
}

/// File with the key set that this root signed.
pub(crate) fn key_set_name(root: &Authority) -> String {
    match root.name.strip_prefix("root-") {
        Some(id) => format!("keyset-{id}"),
        None => "keyset".to_owned(),
    }
}

/// File with the certificate of this root that the one before it signed.
pub(crate) fn cross_name(root: &Authority) -> String {
    format!("{}.cross", root.name)
}

/// The keys for JWT-SVIDs that the key set names, as of its issue.
fn jwt_keys(
    object: &SignedObject,
    root: &PublicKey,
    trust_domain: &TrustDomain,
) -> Result<Vec<PublicKey>, KeysFault> {
    let issued = object.header().issued;
    let set = KeySet::open(object, &[*root], trust_domain, 0, issued)?;
    Ok(set.keys_for(Purpose::Jwt, issued))
}

/// What stands above the issuing certificate in the chains that it signs.
fn above(
    folder: &Path,
    ledger: &Ledger,
    root: &Authority,
    certificate: CertificateDer<'static>,
) -> Result<Above, KeysFault> {
    let before = root.above.and_then(|before| ledger.get(&before));
    let cross = folder.join(cross_name(root));
    match before {
        Some(before) if files::exists(&cross)? => Ok(Above {
            root: self::certificate(folder, before)?,
            cross: Some(one_certificate(&cross)?),
            with_leaves: before.state.is_trusted(),
        }),
        _ => Ok(Above {
            root: certificate,
            cross: None,
            with_leaves: false,
        }),
    }
}

fn first_ledger(folder: &Path) -> Result<Ledger, KeysFault> {
    let authority = |role: Role, above| -> Result<Authority, KeysFault> {
        let name = role.as_str();
        let certificate = one_certificate(&folder.join(format!("{name}.crt")))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|_| BundleError::Certificate)?;
        let begins = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
        Ok(Authority {
            role,
            key: spki_hash_of_certificate(&certificate)?,
            name: name.to_owned(),
            place: Place::File,
            state: State::Active,
            since: edgeward_identity::Timestamp::from_secs(begins),
            above,
        })
    };
    let root = authority(Role::Root, None)?;
    let key = root.key;
    Ok(Ledger::first(root, authority(Role::Issuing, Some(key))?))
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
    match found == format!("spiffe://{trust_domain}") {
        true => Ok(()),
        false => Err(KeysFault::TrustDomain(found)),
    }
}
