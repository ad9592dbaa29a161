//! The keys of a trust domain: one purpose each, under a root that may be kept offline.
//!
//! | file in `<data>/keys/` | what | lifetime |
//! |---|---|---|
//! | `authorities.json` | which roots and issuing authorities there are, and in which state each is | |
//! | `root*.key`, `root*.crt` | signs issuing certificates, the key set and the next set of roots | 10 years |
//! | `root-*.cross.crt` | a root's key, certified by the root before it | that of the root before |
//! | `issuing*.key`, `issuing*.crt` | signs SVIDs | 1 year, renewed at half |
//! | `results.key` | signs attestation results | named by the key set |
//! | `control.key` | signs policy slices, the deny-list, cuts, signed time and break-glass grants | named by the key set |
//! | `log.key` | names the key that signs checkpoints of the audit log | named by the key set |
//! | `checkpoint.key` | Ed25519: signs checkpoints of the audit log (`notes`) | named by the log key |
//! | `witness.key` | Ed25519: cosigns the logs of others, where the cloud is to (`notes`) | its operators name it to those |
//! | `jwt.key` | signs JWT-SVIDs | named by the key set |
//! | `apps-online.key` | signs snapshot and timestamp of the image repository | named by its offline root |
//! | `director.key` | signs what each node should have of applications | named by the key set |
//! | `online.json` | names of the two above, once they were turned over (`online`) | |
//! | `sites/` | seal what the cloud stores of events, one for each site (`sites`) | until a site is erased |
//! | `keyset*` | the key set: which key may sign what, signed by the root | 2 years, renewed at half |
//!
//! A root's key may be moved away: the cloud runs without it, but can then renew neither the issuing certificate nor
//! the key set, nor rotate, until it is back. Every key is used through [`Signer`], so a PKCS#11 token, or a TPM behind
//! one, can stand in for a file (`stores`). How authorities are turned over: `ledger` (states), `rotation` (steps).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::bundle::BundleError;
use edgeward_identity::signed::{Header, Malformed, Unacceptable};
use edgeward_identity::{
    KeySet, PublicKey, Purpose, SignError, SignedObject, Signer, SpkiHash, Timestamp, TrustBundle,
    TrustDomain,
};
use parking_lot::Mutex;
use serde::Serialize;

use crate::issue::Issuer;

pub(crate) mod certificates;
pub(crate) mod files;
mod first;
mod key_set;
mod keyring;
pub mod ledger;
pub mod notes;
mod online;
pub mod pkcs11;
pub(crate) mod rcgen_key;
mod rotation;
pub mod sites;
pub mod stores;

use certificates::CertificateFault;
use files::FileFault;
use first::make_first;
use key_set::sign_key_set;
use keyring::Ring;
use ledger::{Authority, Ledger, NotNow, Role, State};
use notes::NoteKeys;
use online::Online;
use pkcs11::TokenFault;
use stores::{KeyStores, Owner, Stores};

/// Lifetime of a key set; renewed at half while the root key is at hand.
pub const KEY_SET_LIFETIME: Duration = Duration::from_secs(2 * 365 * 86_400);
/// How often members should ask for the trust bundle, in seconds (SPIFFE bundle `spiffe_refresh_hint`).
const BUNDLE_REFRESH_SECONDS: u64 = 3600;

/// The open keys of this trust domain.
#[derive(Debug)]
pub struct CloudKeys {
    trust_domain: TrustDomain,
    folder: PathBuf,
    stores: Stores,
    ring: ArcSwap<Ring>,
    /// Held by whoever changes the ring.
    turn: Mutex<()>,
    results: Arc<dyn Signer>,
    control: Arc<dyn Signer>,
    log: Arc<dyn Signer>,
    notes: NoteKeys,
    /// An older installation has none before its first start with the root key at hand.
    jwt: Option<Arc<dyn Signer>>,
    /// What signs for applications.
    online: ArcSwap<Online>,
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
    #[error("{0} is not there")]
    Missing(&'static str),
    #[error(
        "{0}.key is in a file, and [keys.{0}] names a token: it is taken there only when a trust domain is made"
    )]
    InFile(&'static str),
    #[error("key {key} is in a token: [keys.{owner}] must name it in store")]
    Elsewhere { key: String, owner: &'static str },
    #[error(transparent)]
    Token(#[from] TokenFault),
    #[error("authorities.json is not what this version writes")]
    Ledger,
    #[error("online.json is not what this version writes")]
    Names,
    #[error(
        "the root key is offline and needed {why}: put it back as {} (mode 0600), and repeat", path.display()
    )]
    RootNeeded { path: PathBuf, why: &'static str },
    #[error(transparent)]
    NotNow(#[from] NotNow),
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
    /// A SPIFFE ID, or [`edgeward_identity::signed::EVERYBODY`].
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

    /// As [`CloudKeys::create_in`], with all keys in files.
    pub fn create(
        data: &Path,
        trust_domain: &TrustDomain,
        now: Timestamp,
        also: impl FnOnce(&Self) -> Result<(), KeysFault>,
    ) -> Result<Self, KeysFault> {
        Self::create_in(data, trust_domain, KeyStores::default(), now, also)
    }

    /// Makes a trust domain. Nothing of it is visible before all of it is on disk.
    ///
    /// `also` runs just before that, with keys that already work: what it makes exists if the trust domain does.
    pub fn create_in(
        data: &Path,
        trust_domain: &TrustDomain,
        stores: KeyStores,
        now: Timestamp,
        also: impl FnOnce(&Self) -> Result<(), KeysFault>,
    ) -> Result<Self, KeysFault> {
        files::private_directory(data)?;
        let folder = folder_of(data);
        let beside = data.join("keys.new");
        files::remove_directory(&beside)?;
        files::private_directory(&beside)?;
        let stores = Stores::new(stores);
        make_first(&beside, trust_domain, &stores, now)?;
        let keys = Self::open_folder(&beside, trust_domain, stores, now)?;
        also(&keys)?;
        files::rename_directory(&beside, &folder)?;
        Ok(Self { folder, ..keys })
    }

    /// As [`CloudKeys::open_in`], with all keys in files.
    pub fn open(
        data: &Path,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<Self, KeysFault> {
        Self::open_in(data, trust_domain, KeyStores::default(), now)
    }

    /// Opens the keys in `data`; renews what is due if the root key is at hand.
    pub fn open_in(
        data: &Path,
        trust_domain: &TrustDomain,
        stores: KeyStores,
        now: Timestamp,
    ) -> Result<Self, KeysFault> {
        Self::open_folder(&folder_of(data), trust_domain, Stores::new(stores), now)
    }

    fn open_folder(
        folder: &Path,
        trust_domain: &TrustDomain,
        stores: Stores,
        now: Timestamp,
    ) -> Result<Self, KeysFault> {
        let ring = Ring::open(folder, trust_domain, &stores)?;
        keyring::sweep(folder, &ring.ledger)?;
        let root = ring.ledger.active(Role::Root).ok_or(KeysFault::Ledger)?;
        // A root key that is here must be the right one, before anybody relies on it.
        let root_is_here = keyring::key(&stores, folder, root)?.is_some();
        // An older installation lacks them: nobody would take their word before the root has named them.
        let added = |owner: Owner| match stores.fixed(owner, folder) {
            Err(KeysFault::Missing(_) | KeysFault::Token(TokenFault::NoKey { .. })) => {
                match root_is_here {
                    true => Ok(Some(stores.make(owner, folder, owner.as_str())?.0)),
                    false => Ok(None),
                }
            }
            found => found.map(Some),
        };
        let jwt = added(Owner::Jwt)?;
        let online = Online::open(folder, &stores, jwt.is_some(), root_is_here)?;
        online::sweep(folder)?;
        let keys = Self {
            trust_domain: trust_domain.clone(),
            folder: folder.to_owned(),
            results: stores.fixed(Owner::Results, folder)?,
            control: stores.fixed(Owner::Control, folder)?,
            log: stores.fixed(Owner::Log, folder)?,
            notes: NoteKeys::open(folder, trust_domain)?,
            jwt,
            online: ArcSwap::from_pointee(online),
            stores,
            ring: ArcSwap::from_pointee(ring),
            turn: Mutex::new(()),
            last_number: AtomicU64::new(0),
        };
        keys.renew(now)?;
        keys.key_set(now)?;
        Ok(keys)
    }

    /// Renews issuing certificate and key set where half of their life is over and the root key is at hand. An
    /// expired one without the root key is an error.
    pub fn renew(&self, now: Timestamp) -> Result<(), KeysFault> {
        let _turn = self.turn.lock();
        let ring = self.ring.load_full();
        let issuing_due = now >= ring.issuer.half_life();
        let header = ring.key_set.header();
        // While a root is on its way, its own key set is what follows this one.
        let set_due = (now >= header.issued.plus(KEY_SET_LIFETIME / 2)
            || (self.jwt.is_some() && !self.names_jwt_key(header.issued))
            || (self.online.load().director.is_some()
                && self.director_signer(header.issued).is_none())
            || !self.may_grant_break_glass(header.issued))
            && ring.ledger.coming(Role::Root).is_none();
        if !issuing_due && !set_due {
            return Ok(());
        }
        let Some(root) = self.root_key()? else {
            if now >= ring.issuer.not_after() {
                return Err(KeysFault::RootOffline("issuing certificate"));
            }
            if now >= header.expires {
                return Err(KeysFault::RootOffline("key set"));
            }
            return Ok(());
        };
        let active = |role| ring.ledger.active(role).ok_or(KeysFault::Ledger);
        if issuing_due {
            // The key stays when the certificate is renewed, so that a crash between two files cannot part them.
            let certificate = certificates::issuing(
                &self.trust_domain,
                ring.issuer.public_key(),
                &keyring::certificate(&self.folder, active(Role::Root)?)?,
                root.as_ref(),
                now,
            )?;
            let name = format!("{}.crt", active(Role::Issuing)?.name);
            files::write_certificates(&self.folder.join(name), &[certificate])?;
        }
        if set_due {
            let number = header.number.saturating_add(1);
            let keys = self.purpose_keys();
            let set = sign_key_set(&self.trust_domain, root.as_ref(), &keys, number, now)?;
            let name = keyring::key_set_name(active(Role::Root)?);
            files::write_public(&self.folder.join(name), &set.to_bytes())?;
        }
        let ring = Ring::open(&self.folder, &self.trust_domain, &self.stores)?;
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    /// The key of the root that signs, if it is here now.
    fn root_key(&self) -> Result<Option<Arc<dyn Signer>>, KeysFault> {
        let ring = self.ring.load();
        let root = ring.ledger.active(Role::Root).ok_or(KeysFault::Ledger)?;
        keyring::key(&self.stores, &self.folder, root)
    }

    fn purpose_keys(&self) -> Vec<PublicKey> {
        let online = self.online.load();
        [&self.results, &self.control, &self.log]
            .into_iter()
            .chain(&self.jwt)
            .chain(&online.director)
            .map(|signer| *signer.public_key())
            .collect()
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whether the key of the root that signs is at hand.
    pub fn root_is_here(&self) -> bool {
        self.root_key().is_ok_and(|key| key.is_some())
    }

    /// SHA-256 of the root's SPKI: what bootstrap tokens pin.
    pub fn root_pin(&self) -> SpkiHash {
        self.ring.load().root_key.spki_hash()
    }

    pub fn issuer(&self) -> Arc<Issuer> {
        self.ring.load().issuer.clone()
    }

    pub fn bundle(&self) -> TrustBundle {
        self.ring.load().bundle.clone()
    }

    /// Every authority and its state.
    pub fn ledger(&self) -> Ledger {
        self.ring.load().ledger.clone()
    }

    /// The signed sets of roots, oldest first: how a member comes from any of them to the newest.
    pub fn steps(&self) -> Vec<Vec<u8>> {
        self.ring
            .load()
            .ledger
            .steps
            .iter()
            .filter_map(|step| hex::decode(step).ok())
            .collect()
    }

    /// When an authority's certificate begins and ends.
    pub fn validity(&self, authority: &Authority) -> Result<(Timestamp, Timestamp), KeysFault> {
        let certificate = keyring::certificate(&self.folder, authority)?;
        Ok(certificates::validity_of(&certificate)?)
    }

    /// Whether a private key is at hand, and where it is or belongs.
    pub fn whereabouts(&self, authority: &Authority) -> (bool, String) {
        let path = self.folder.join(format!("{}.key", authority.name));
        match authority.place {
            ledger::Place::File => (
                files::exists(&path).unwrap_or(false),
                path.display().to_string(),
            ),
            ledger::Place::Pkcs11 => {
                let here = keyring::key(&self.stores, &self.folder, authority).is_ok();
                (here, format!("pkcs11: {}", authority.name))
            }
        }
    }

    /// Whether what this authority signed is to be renewed at once.
    pub fn is_tainted(&self, issuer: &SpkiHash) -> bool {
        self.ring
            .load()
            .ledger
            .get(issuer)
            .is_some_and(|known| known.state == State::Tainted)
    }

    /// The key set as members receive it.
    pub fn key_set_bytes(&self) -> Vec<u8> {
        self.ring.load().key_set.to_bytes()
    }

    pub fn key_set_number(&self) -> u64 {
        self.ring.load().key_set.header().number
    }

    /// The key set as members read it.
    pub fn key_set(&self, now: Timestamp) -> Result<KeySet, KeysFault> {
        let ring = self.ring.load();
        Ok(KeySet::open(
            &ring.key_set,
            &[ring.root_key],
            &self.trust_domain,
            0,
            now,
        )?)
    }

    /// The key that signs JWT-SVIDs, if members know it.
    pub(crate) fn jwt_signer(&self, now: Timestamp) -> Option<&dyn Signer> {
        self.jwt.as_deref().filter(|_| self.names_jwt_key(now))
    }

    fn names_jwt_key(&self, now: Timestamp) -> bool {
        let (Some(jwt), Ok(set)) = (&self.jwt, self.key_set(now)) else {
            return false;
        };
        set.keys_for(Purpose::Jwt, now).contains(jwt.public_key())
    }

    /// Whether members take break-glass grants of the control key: the key set of an older installation says so only
    /// after its first start with the root key at hand.
    pub(crate) fn may_grant_break_glass(&self, now: Timestamp) -> bool {
        let signer = self.control.public_key();
        self.key_set(now)
            .is_ok_and(|set| set.keys_for(Purpose::BreakGlass, now).contains(signer))
    }

    /// The key that signs attestation results.
    pub(crate) fn results_signer(&self) -> &dyn Signer {
        self.results.as_ref()
    }

    /// Signs a value for members, with the key of its purpose.
    pub fn sign<T: Serialize>(&self, label: Label, value: &T) -> Result<Vec<u8>, SignError> {
        let director;
        let signer = match label.purpose {
            Purpose::Results => &self.results,
            Purpose::Policy | Purpose::DenyList | Purpose::Control | Purpose::BreakGlass => {
                &self.control
            }
            Purpose::Log => &self.log,
            Purpose::Director => {
                let missing = "the key set names no director: start once with the root key at hand";
                director = self.director_signer(label.issued);
                director
                    .as_ref()
                    .ok_or_else(|| SignError::KeyStore(missing.to_owned()))?
            }
            Purpose::Keys | Purpose::Journal | Purpose::Jwt | Purpose::Opening => {
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

#[cfg(test)]
mod tests;
