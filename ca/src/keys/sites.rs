//! The keys of sites: what the cloud stores of an event is sealed by the key of the event's site, so that destroying
//! one key erases the events of one site, in the database, in its backups and in archived segments alike, while every
//! proof stays valid: the log's leaf is a salted hash.
//!
//! | file in `<data>/keys/sites/` | what |
//! |---|---|
//! | `term.key` | keys the terms of the search index: names of nobody are readable there |
//! | `<id>.key` | one key of one site; the newest of a site seals |
//! | `<id>.erased` | its tombstone: the key is gone on purpose |
//!
//! A file is on disk before its key is used. An erasure writes the tombstone first, then overwrites the key, then
//! removes it; whatever of that a crash left undone is done at the next start. A key whose file is lost without a
//! tombstone is [`Unopened::NoKey`], never "erased": somebody lost it, and the self-check says so. The keys are no part
//! of the database, so that no backup of it brings back what was erased; clouds of one database share this folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgeward_audit::block::TermKey;
use edgeward_identity::{Clock, Secret, SystemClock, Timestamp};
use parking_lot::{Mutex, RwLock};
use ring::rand::{SecureRandom, SystemRandom};

use super::files::{self, FileFault};

mod file;
mod name;
mod seal;
#[cfg(test)]
mod tests;

use file::{Found, KeyFile, Tombstone};
pub use name::{MAX_SITE_BYTES, Site, SiteKeyId};
use seal::Sealer;

/// Most keys and tombstones together.
pub const MAX_SITE_KEYS: usize = 65_536;
/// The folder is looked at for keys that are not known at most this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const TERM_KEY: &str = "term.key";

/// The opened keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SiteKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None: nothing is written (tests and tools).
    folder: Option<PathBuf>,
    terms: TermKey,
    state: RwLock<State>,
    /// Held by whoever makes or erases a key.
    turn: Mutex<()>,
    /// When the folder was looked at last for a key that is not known.
    looked: Mutex<Option<Instant>>,
    /// The newest key that an erasure made, as far as this process took notice of it.
    followed: Mutex<Option<SiteKeyId>>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<SiteKeyId, Known>,
    current: BTreeMap<Site, SiteKeyId>,
}

#[derive(Debug)]
struct Known {
    site: Site,
    made: Timestamp,
    key: Held,
}

#[derive(Debug)]
enum Held {
    Alive(Arc<Sealer>),
    Erased(Timestamp),
}

/// A key, as people may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteKeyState {
    pub site: Site,
    pub id: SiteKeyId,
    pub made: Timestamp,
    pub erased: Option<Timestamp>,
}

/// Why a key cannot be used, made or erased.
#[derive(Debug, thiserror::Error)]
pub enum SiteKeyFault {
    /// The operator's or the disk's.
    #[error(transparent)]
    File(#[from] FileFault),
    /// The operator's: keys were made without end.
    #[error("too many keys of sites: {MAX_SITE_KEYS}")]
    TooMany,
    /// The caller's: it held an id for longer than the key lived. Asking for the current one helps.
    #[error("the key of this site was erased")]
    Erased,
    /// The caller's.
    #[error("no such key of a site: {0}")]
    Unknown(SiteKeyId),
    /// The caller's: what the cloud did outlives what it did it to.
    #[error("what belongs to site {0} is not erased")]
    Reserved(Site),
    /// Ours.
    #[error("no randomness")]
    Random,
    /// Ours.
    #[error("cannot be sealed")]
    Seal,
}

/// Why something sealed stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// As somebody wished: the audit log says who.
    #[error("its key was erased")]
    Erased,
    /// The operator's: a file is missing, or this is another cloud's folder.
    #[error("its key is not here")]
    NoKey,
    /// The store's, or an attacker's: not what was sealed there.
    #[error("it is not what was sealed")]
    Damaged,
}

impl SiteKeys {
    /// Opens `<data>/keys/sites/`, makes it where there is none, and ends erasures that a crash interrupted.
    pub fn open(folder: &Path) -> Result<Self, SiteKeyFault> {
        files::private_directory(folder)?;
        if let Some(above) = folder.parent() {
            files::flush_directory(above)?;
        }
        let found = file::scan(folder)?;
        let terms = file::read_or_make_terms(&folder.join(TERM_KEY), found.is_empty())?;
        let keys = Self(Arc::new(Inner {
            folder: Some(folder.to_owned()),
            terms: TermKey::from_bytes(*terms.expose()),
            state: RwLock::default(),
            turn: Mutex::new(()),
            looked: Mutex::new(None),
            followed: Mutex::new(None),
        }));
        keys.take_in(found)?;
        Ok(keys)
    }

    /// Opens a folder that is there, and changes nothing in it: for whoever reads an archive beside a running cloud.
    pub fn open_existing(folder: &Path) -> Result<Self, SiteKeyFault> {
        let found = file::read_only(folder)?;
        let terms = file::read_or_make_terms(&folder.join(TERM_KEY), false)?;
        let keys = Self(Arc::new(Inner {
            folder: None,
            terms: TermKey::from_bytes(*terms.expose()),
            state: RwLock::default(),
            turn: Mutex::new(()),
            looked: Mutex::new(None),
            followed: Mutex::new(None),
        }));
        keys.take_in(found)?;
        Ok(keys)
    }

    /// Keys that are nowhere written: for tests and tools.
    pub fn temporary() -> Self {
        Self(Arc::new(Inner {
            folder: None,
            terms: TermKey::from_bytes(random().expect("the machine has randomness")),
            state: RwLock::default(),
            turn: Mutex::new(()),
            looked: Mutex::new(None),
            followed: Mutex::new(None),
        }))
    }

    /// What the terms of the search index are keyed with.
    pub fn term_key(&self) -> &TermKey {
        &self.0.terms
    }

    /// The key that seals for a site now; made, and on disk, before this returns.
    pub fn current(&self, site: &Site) -> Result<SiteKeyId, SiteKeyFault> {
        if let Some(id) = self.0.state.read().current.get(site) {
            return Ok(*id);
        }
        let _turn = self.0.turn.lock();
        if let Some(id) = self.0.state.read().current.get(site) {
            return Ok(*id);
        }
        self.make(site, SystemClock.now())
    }

    /// Seals under a key and a context, which must be the same when it is opened. [`SiteKeyFault::Erased`]: ask for the
    /// current key again.
    pub fn seal(
        &self,
        id: SiteKeyId,
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, SiteKeyFault> {
        let sealer = match self.0.state.read().keys.get(&id).map(|known| &known.key) {
            Some(Held::Alive(sealer)) => sealer.clone(),
            Some(Held::Erased(_)) => return Err(SiteKeyFault::Erased),
            None => return Err(SiteKeyFault::Unknown(id)),
        };
        sealer.seal(context, plain)
    }

    /// Opens what [`SiteKeys::seal`] made.
    pub fn open_sealed(
        &self,
        id: SiteKeyId,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, Unopened> {
        let sealer = match self.held(id) {
            // Another cloud of this database may have made it a moment ago.
            Err(Unopened::NoKey) if self.looks_for_it() => self.held(id)?,
            found => found?,
        };
        sealer.open(context, sealed)
    }

    /// Gives a site a new key for what comes, and returns the keys that were in use until now. What is recorded after
    /// this outlives their erasure, as the word of the erasure itself must.
    pub fn turn_over(&self, site: &Site, now: Timestamp) -> Result<Vec<SiteKeyId>, SiteKeyFault> {
        if !site.is_erasable() {
            return Err(SiteKeyFault::Reserved(site.clone()));
        }
        let _turn = self.0.turn.lock();
        let old: Vec<SiteKeyId> = self.alive(site);
        if !old.is_empty() {
            self.make(site, now)?;
        }
        Ok(old)
    }

    /// Destroys keys for good. What they sealed cannot be read again by anybody.
    pub fn destroy(&self, ids: &[SiteKeyId], now: Timestamp) -> Result<(), SiteKeyFault> {
        let _turn = self.0.turn.lock();
        for id in ids {
            let tombstone = self.tombstone(*id, now);
            self.bury(*id, tombstone.ok_or(SiteKeyFault::Unknown(*id))?)?;
        }
        Ok(())
    }

    /// Destroys a key that the log names as erased, also one that is not here any more: then its tombstone is.
    pub fn destroy_named(&self, key: &SiteKeyState) -> Result<(), SiteKeyFault> {
        let _turn = self.0.turn.lock();
        let erased = key.erased.unwrap_or_else(|| SystemClock.now());
        let tombstone = self.tombstone(key.id, erased).unwrap_or(Tombstone {
            site: key.site.clone(),
            made: key.made,
            erased,
        });
        self.bury(key.id, tombstone)
    }

    /// Both at once: gives the site a new key, destroys all others, and says which.
    pub fn erase(&self, site: &Site, now: Timestamp) -> Result<Vec<SiteKeyId>, SiteKeyFault> {
        let old = self.turn_over(site, now)?;
        self.destroy(&old, now)?;
        Ok(old)
    }

    /// Looks at the folder again: another cloud that shares it may have made or erased keys.
    pub fn look_again(&self) -> Result<(), SiteKeyFault> {
        let Some(folder) = &self.0.folder else {
            return Ok(());
        };
        let _turn = self.0.turn.lock();
        let known = self.0.state.read().known();
        self.take_in(file::scan_new(folder, &known)?)
    }

    /// All keys, those that were erased among them, in the order of their sites.
    pub fn list(&self) -> Vec<SiteKeyState> {
        let state = self.0.state.read();
        let mut list: Vec<_> = state
            .keys
            .iter()
            .map(|(id, known)| SiteKeyState {
                site: known.site.clone(),
                id: *id,
                made: known.made,
                erased: match known.key {
                    Held::Alive(_) => None,
                    Held::Erased(when) => Some(when),
                },
            })
            .collect();
        list.sort_by(|a, b| (&a.site, a.made, a.id).cmp(&(&b.site, b.made, b.id)));
        list
    }

    /// Whether this process knows what the erasure knew that made the key `newest`. Looks into the folder if that is news.
    pub fn follows(&self, newest: SiteKeyId) -> Result<bool, SiteKeyFault> {
        if *self.0.followed.lock() == Some(newest) {
            return Ok(true);
        }
        self.look_again()?;
        let found = self.0.state.read().keys.contains_key(&newest);
        if found {
            self.follow_without(newest);
        }
        Ok(found)
    }

    /// Takes it as known.
    pub fn follow_without(&self, newest: SiteKeyId) {
        *self.0.followed.lock() = Some(newest);
    }

    /// Whether a key is known, and was destroyed.
    pub fn is_erased(&self, id: SiteKeyId) -> bool {
        matches!(self.held(id), Err(Unopened::Erased))
    }

    fn held(&self, id: SiteKeyId) -> Result<Arc<Sealer>, Unopened> {
        match self.0.state.read().keys.get(&id).map(|known| &known.key) {
            Some(Held::Alive(sealer)) => Ok(sealer.clone()),
            Some(Held::Erased(_)) => Err(Unopened::Erased),
            None => Err(Unopened::NoKey),
        }
    }

    /// Looks into the folder, unless that was done just now. What it finds wrong there the next start says.
    fn looks_for_it(&self) -> bool {
        let mut looked = self.0.looked.lock();
        if self.0.folder.is_none() || looked.is_some_and(|when| when.elapsed() < LOOK_EVERY) {
            return false;
        }
        let found = self.look_again().is_ok();
        *looked = Some(Instant::now());
        found
    }

    fn alive(&self, site: &Site) -> Vec<SiteKeyId> {
        let state = self.0.state.read();
        let alive = state
            .keys
            .iter()
            .filter(|(_, known)| known.site == *site && matches!(known.key, Held::Alive(_)));
        alive.map(|(id, _)| *id).collect()
    }

    /// A new current key. The turn is held.
    fn make(&self, site: &Site, now: Timestamp) -> Result<SiteKeyId, SiteKeyFault> {
        let (id, made) = {
            let state = self.0.state.read();
            if state.keys.len() >= MAX_SITE_KEYS {
                return Err(SiteKeyFault::TooMany);
            }
            let mut id = SiteKeyId::draw()?;
            while state.keys.contains_key(&id) {
                id = SiteKeyId::draw()?;
            }
            // The newest key of a site is its current one, also where a clock went back.
            let newest = state.keys.values().filter(|known| known.site == *site);
            let newest = newest.map(|known| known.made).max();
            (
                id,
                newest.map_or(now, |newest| now.max(newest.plus(Duration::from_millis(1)))),
            )
        };
        let key = KeyFile {
            site: site.clone(),
            made,
            key: Secret::new(random()?),
        };
        if let Some(folder) = &self.0.folder {
            file::write_key(folder, id, &key)?;
        }
        let mut state = self.0.state.write();
        state.put_alive(id, key)?;
        Ok(id)
    }

    /// The turn is held. Also where it is erased already: an earlier try may have failed between the tombstone and the
    /// key.
    fn bury(&self, id: SiteKeyId, tombstone: Tombstone) -> Result<(), SiteKeyFault> {
        if let Some(folder) = &self.0.folder {
            file::write_tombstone(folder, id, &tombstone)?;
            self.0.state.write().put_erased(id, tombstone);
            file::wipe(folder, id)?;
        } else {
            self.0.state.write().put_erased(id, tombstone);
        }
        Ok(())
    }

    /// What is to stay of a key that is known.
    fn tombstone(&self, id: SiteKeyId, now: Timestamp) -> Option<Tombstone> {
        let state = self.0.state.read();
        let known = state.keys.get(&id)?;
        Some(Tombstone {
            site: known.site.clone(),
            made: known.made,
            erased: match known.key {
                Held::Alive(_) => now,
                Held::Erased(when) => when,
            },
        })
    }

    fn take_in(&self, found: Found) -> Result<(), SiteKeyFault> {
        let mut state = self.0.state.write();
        for (id, key) in found.keys {
            state.put_alive(id, key)?;
        }
        for (id, tombstone) in found.tombstones {
            state.put_erased(id, tombstone);
        }
        Ok(())
    }
}

impl State {
    fn put_alive(&mut self, id: SiteKeyId, key: KeyFile) -> Result<(), SiteKeyFault> {
        let sealer = Arc::new(Sealer::new(key.key)?);
        let known = Known {
            site: key.site.clone(),
            made: key.made,
            key: Held::Alive(sealer),
        };
        self.keys.insert(id, known);
        self.choose(key.site);
        Ok(())
    }

    fn put_erased(&mut self, id: SiteKeyId, tombstone: Tombstone) {
        let known = Known {
            site: tombstone.site.clone(),
            made: tombstone.made,
            key: Held::Erased(tombstone.erased),
        };
        self.keys.insert(id, known);
        self.choose(tombstone.site);
    }

    fn choose(&mut self, site: Site) {
        let alive = self
            .keys
            .iter()
            .filter(|(_, known)| known.site == site && matches!(known.key, Held::Alive(_)));
        match alive
            .max_by_key(|(id, known)| (known.made, **id))
            .map(|(id, _)| *id)
        {
            Some(id) => self.current.insert(site, id),
            None => self.current.remove(&site),
        };
    }

    /// Which ids need no second look, by whether they live.
    fn known(&self) -> file::Seen {
        let of = |alive: bool| -> BTreeSet<SiteKeyId> {
            let wanted = self
                .keys
                .iter()
                .filter(|(_, known)| matches!(known.key, Held::Alive(_)) == alive);
            wanted.map(|(id, _)| *id).collect()
        };
        file::Seen {
            alive: of(true),
            erased: of(false),
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], SiteKeyFault> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| SiteKeyFault::Random)?;
    Ok(bytes)
}
