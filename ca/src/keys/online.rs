//! The keys that sign for applications, and how they are turned over.
//!
//! A key that follows has a name of its own, so that it lies in the same file system or token beside the one before;
//! `online.json` says which name is in use. It is written whole, so a stop in between leaves one or the other.
//!
//! * `director`: the root names the new key in the next key set, and the old one ends with it.
//! * `apps-online`: nobody but the offline root of the image repository can name it. The next key waits beside the one in
//!   use; whichever the root in force names signs.

use std::path::Path;
use std::sync::Arc;

use edgeward_identity::{PublicKey, Purpose, Signer, SpkiHash, Timestamp};
use serde::{Deserialize, Serialize};

use super::keyring::{self, Ring};
use super::ledger::{NotNow, Role};
use super::pkcs11::TokenFault;
use super::rotation::random_id;
use super::stores::{Owner, Stores};
use super::{CloudKeys, KeysFault, files, sign_key_set};

const NAMES: &str = "online.json";

/// Names of keys, where they are not those of their owners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Names {
    director: Option<String>,
    apps_online: Option<String>,
    /// Waits for a root that names it.
    apps_online_next: Option<String>,
}

/// The keys in use. Replaced as a whole.
#[derive(Debug)]
pub(super) struct Online {
    names: Names,
    /// An older installation has none before its first start with the root key at hand.
    pub(super) director: Option<Arc<dyn Signer>>,
    /// No member knows it by the key set: the image repository's offline root names it.
    apps: Arc<dyn Signer>,
    next: Option<Arc<dyn Signer>>,
}

/// A director's key that nobody was told of yet.
#[derive(Debug)]
pub(crate) struct NewDirector {
    pub(super) name: String,
    pub(crate) key: SpkiHash,
}

impl Online {
    /// What lacks is made: the director's key only where the root can name it, and never without that of JWT-SVIDs.
    pub(super) fn open(
        folder: &Path,
        stores: &Stores,
        has_jwt: bool,
        root_is_here: bool,
    ) -> Result<Self, KeysFault> {
        let names = read(folder)?;
        let open = |owner: Owner, name: &Option<String>| {
            let name = name.as_deref().unwrap_or(owner.as_str());
            match stores.named(owner, folder, name) {
                Err(KeysFault::Missing(_) | KeysFault::Token(TokenFault::NoKey { .. })) => Ok(None),
                found => found.map(Some),
            }
        };
        let make = |owner: Owner, name: &Option<String>| {
            let name = name.as_deref().unwrap_or(owner.as_str());
            stores.make(owner, folder, name).map(|(key, _)| key)
        };
        let director = match has_jwt {
            true => match open(Owner::Director, &names.director)? {
                None if root_is_here => Some(make(Owner::Director, &names.director)?),
                found => found,
            },
            false => None,
        };
        let apps = match open(Owner::AppsOnline, &names.apps_online)? {
            Some(found) => found,
            None => make(Owner::AppsOnline, &names.apps_online)?,
        };
        let next = match &names.apps_online_next {
            Some(_) => open(Owner::AppsOnline, &names.apps_online_next)?,
            None => None,
        };
        Ok(Self {
            director,
            apps,
            next,
            names,
        })
    }
}

impl CloudKeys {
    /// The key that signs snapshot and timestamp of the image repository, unless its root names the next one.
    pub(crate) fn apps_signer(&self) -> Arc<dyn Signer> {
        self.online.load().apps.clone()
    }

    /// The key that a root may name in the place of the one in use.
    pub(crate) fn next_apps_signer(&self) -> Option<Arc<dyn Signer>> {
        self.online.load().next.clone()
    }

    /// The key of these that is here, the next one first. What another cloud wrote is read, if none is known.
    pub(crate) fn apps_signer_of(
        &self,
        names: impl Fn(&PublicKey) -> bool,
    ) -> Result<Option<Arc<dyn Signer>>, KeysFault> {
        let known = |online: &Online| {
            let keys = online.next.iter().chain([&online.apps]);
            keys.into_iter()
                .find(|key| names(key.public_key()))
                .cloned()
        };
        if let Some(key) = known(&self.online.load()) {
            return Ok(Some(key));
        }
        let _turn = self.turn.lock();
        self.read_online_again()?;
        Ok(known(&self.online.load()))
    }

    /// Makes the next key for snapshot and timestamp; the one that waits already, if there is one. Whether it is new.
    pub(crate) fn prepare_apps_online(&self) -> Result<(Arc<dyn Signer>, bool), KeysFault> {
        let _turn = self.turn.lock();
        self.read_online_again()?;
        let online = self.online.load_full();
        if let Some(next) = &online.next {
            return Ok((next.clone(), false));
        }
        let name = format!("{}-{}", Owner::AppsOnline.as_str(), random_id()?);
        let (key, _) = self.stores.make(Owner::AppsOnline, &self.folder, &name)?;
        let names = Names {
            apps_online_next: Some(name),
            ..online.names.clone()
        };
        self.use_names(&names)?;
        Ok((key, true))
    }

    /// The next key takes the place of the one before, whose file goes, where the root in force names it alone.
    pub(crate) fn settle_apps_online(
        &self,
        names: impl Fn(&PublicKey) -> bool,
    ) -> Result<bool, KeysFault> {
        let _turn = self.turn.lock();
        let is_due = |online: &Online| {
            let next = online.next.as_ref();
            next.is_some_and(|next| names(next.public_key())) && !names(online.apps.public_key())
        };
        if !is_due(&self.online.load()) {
            return Ok(false);
        }
        // What another cloud of this folder wrote meanwhile stays.
        self.read_online_again()?;
        let online = self.online.load_full();
        if !is_due(&online) {
            return Ok(false);
        }
        let settled = Names {
            apps_online: online.names.apps_online_next.clone(),
            apps_online_next: None,
            ..online.names.clone()
        };
        self.use_names(&settled)?;
        self.forget(Owner::AppsOnline, online.names.apps_online.as_deref());
        Ok(true)
    }

    /// Makes the director's next key. Nobody takes its word yet.
    pub(crate) fn new_director(&self) -> Result<NewDirector, KeysFault> {
        let _turn = self.turn.lock();
        let ring = self.ring.load();
        // Its own key set is signed already, and names the key in use.
        if let Some(root) = ring.ledger.coming(Role::Root) {
            return Err(NotNow::UnderWay(root.key).into());
        }
        if self.jwt.is_none() {
            return Err(KeysFault::Missing("jwt.key"));
        }
        let root = ring.ledger.active(Role::Root).ok_or(KeysFault::Ledger)?;
        self.root_signer(root, "to name the director's new key in the key set")?;
        let name = format!("{}-{}", Owner::Director.as_str(), random_id()?);
        let (key, _) = self.stores.make(Owner::Director, &self.folder, &name)?;
        Ok(NewDirector {
            name,
            key: key.public_key().spki_hash(),
        })
    }

    /// The next key set names it, and the one before no more. Where that set cannot be written, the key before speaks on;
    /// stopped in between, a start with the root key at hand goes on.
    pub(crate) fn turn_director(&self, new: &NewDirector, now: Timestamp) -> Result<(), KeysFault> {
        let _turn = self.turn.lock();
        // What another cloud of this folder wrote meanwhile stays.
        self.read_online_again()?;
        let ring = Ring::open(&self.folder, &self.trust_domain, &self.stores)?;
        if let Some(root) = ring.ledger.coming(Role::Root) {
            return Err(NotNow::UnderWay(root.key).into());
        }
        let root = ring.ledger.active(Role::Root).ok_or(KeysFault::Ledger)?;
        let signer = self.root_signer(root, "to name the director's new key in the key set")?;
        let before = self.online.load().names.clone();
        let names = Names {
            director: Some(new.name.clone()),
            ..before.clone()
        };
        let written = self.use_names(&names).and_then(|()| {
            let online = self.online.load();
            let director = online.director.as_ref();
            if director.is_none_or(|key| key.public_key().spki_hash() != new.key) {
                return Err(KeysFault::Missing("the director's new key"));
            }
            let number = ring.key_set.header().number.saturating_add(1);
            let keys = self.purpose_keys();
            let set = sign_key_set(&self.trust_domain, signer.as_ref(), &keys, number, now)?;
            let path = self.folder.join(keyring::key_set_name(root));
            Ok(files::write_public(&path, &set.to_bytes())?)
        });
        if let Err(fault) = written {
            if let Err(error) = self.use_names(&before) {
                tracing::error!(%error, "the director's key before cannot be taken up again: start anew");
            }
            return Err(fault);
        }
        let ring = Ring::open(&self.folder, &self.trust_domain, &self.stores)?;
        self.ring.store(Arc::new(ring));
        self.forget(Owner::Director, before.director.as_deref());
        Ok(())
    }

    /// The key that signs what nodes should have, if members know it.
    pub(super) fn director_signer(&self, now: Timestamp) -> Option<Arc<dyn Signer>> {
        let director = self.online.load().director.clone()?;
        let set = self.key_set(now).ok()?;
        let known = set.keys_for(Purpose::Director, now);
        known.contains(director.public_key()).then_some(director)
    }

    fn use_names(&self, names: &Names) -> Result<(), KeysFault> {
        let bytes = serde_json::to_vec_pretty(names).map_err(|_| KeysFault::Names)?;
        files::write_public(&self.folder.join(NAMES), &bytes)?;
        self.read_online_again()
    }

    fn read_online_again(&self) -> Result<(), KeysFault> {
        let online = Online::open(&self.folder, &self.stores, self.jwt.is_some(), false)?;
        self.online.store(Arc::new(online));
        Ok(())
    }

    /// A key in a token stays there: who keeps the token removes it. Another one signs by now, so nothing depends on it;
    /// what cannot be removed goes with the next start.
    fn forget(&self, owner: Owner, name: Option<&str>) {
        let name = name.unwrap_or(owner.as_str());
        if let Err(error) = files::remove(&self.folder.join(format!("{name}.key"))) {
            tracing::error!(name, %error, "the file of a key that signs no more stays");
        }
    }
}

/// Removes keys that nothing names: they were to be removed, or were made and not taken up, and then came a stop. Where
/// no name was ever written nothing is known, and everything stays.
pub(super) fn sweep(folder: &Path) -> Result<(), KeysFault> {
    if !files::exists(&folder.join(NAMES))? {
        return Ok(());
    }
    let names = read(folder)?;
    let used = [
        names.director.as_deref().or(Some(Owner::Director.as_str())),
        names
            .apps_online
            .as_deref()
            .or(Some(Owner::AppsOnline.as_str())),
        names.apps_online_next.as_deref(),
    ];
    for file in files::names(folder)? {
        let Some(name) = file.strip_suffix(".key") else {
            continue;
        };
        let owners = [Owner::Director, Owner::AppsOnline];
        let ours = |owner: Owner| name == owner.as_str() || is_name_of(owner, name);
        if owners.into_iter().any(ours) && !used.contains(&Some(name)) {
            tracing::info!(name, "the file of a key that nothing names is removed");
            files::remove(&folder.join(&file))?;
        }
    }
    Ok(())
}

fn is_name_of(owner: Owner, name: &str) -> bool {
    let id = name.strip_prefix(owner.as_str());
    id.and_then(|id| id.strip_prefix('-'))
        .is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn read(folder: &Path) -> Result<Names, KeysFault> {
    let path = folder.join(NAMES);
    if !files::exists(&path)? {
        return Ok(Names::default());
    }
    let names: Names =
        serde_json::from_slice(&files::read(&path)?).map_err(|_| KeysFault::Names)?;
    let ours = |owner: Owner, name: &Option<String>| {
        name.as_ref().is_none_or(|name| is_name_of(owner, name))
    };
    let sound = ours(Owner::Director, &names.director)
        && ours(Owner::AppsOnline, &names.apps_online)
        && ours(Owner::AppsOnline, &names.apps_online_next);
    match sound {
        true => Ok(names),
        false => Err(KeysFault::Names),
    }
}
