//! The files of sites' keys: a few lines of text, ended by a sum, so that a torn one is known for what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use edgeward_identity::{Secret, Timestamp};
use ring::digest::{SHA256, digest};

use super::{MAX_SITE_KEYS, Site, SiteKeyFault, SiteKeyId, TERM_KEY, random};
use crate::keys::files::{self, FileFault};

const KEY_HEAD: &str = "edgeward site key v1";
const TERM_HEAD: &str = "edgeward term key v1";
const TOMBSTONE_HEAD: &str = "edgeward erased site key v1";
/// More than any of these files has, in bytes.
const MAX_TEXT_BYTES: usize = 512;
const KEY_WANTED: &str = "the key of a site";
const TERM_WANTED: &str = "the key of the search index";
const TOMBSTONE_WANTED: &str = "the tombstone of a site's key";

/// What a key's file says.
pub(super) struct KeyFile {
    pub(super) site: Site,
    pub(super) made: Timestamp,
    pub(super) key: Secret<[u8; 32]>,
}

/// What stays of an erased key.
pub(super) struct Tombstone {
    pub(super) site: Site,
    pub(super) made: Timestamp,
    pub(super) erased: Timestamp,
}

/// What a folder holds. A key that has a tombstone is only among the tombstones.
#[derive(Default)]
pub(super) struct Found {
    pub(super) keys: BTreeMap<SiteKeyId, KeyFile>,
    pub(super) tombstones: BTreeMap<SiteKeyId, Tombstone>,
}

/// What needs no second look.
pub(super) struct Seen {
    pub(super) alive: BTreeSet<SiteKeyId>,
    pub(super) erased: BTreeSet<SiteKeyId>,
}

impl Found {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.tombstones.is_empty()
    }
}

/// At a start: everything, after what a crash left half done is finished.
pub(super) fn scan(folder: &Path) -> Result<Found, SiteKeyFault> {
    // Never renamed, so never used.
    for name in files::names(folder)?
        .iter()
        .filter(|name| name.ends_with(".new"))
    {
        files::remove(&folder.join(name))?;
    }
    let nothing = Seen {
        alive: BTreeSet::new(),
        erased: BTreeSet::new(),
    };
    scan_new(folder, &nothing)
}

/// Everything; a key that has a tombstone is left to its cloud.
pub(super) fn read_only(folder: &Path) -> Result<Found, SiteKeyFault> {
    let nothing = Seen {
        alive: BTreeSet::new(),
        erased: BTreeSet::new(),
    };
    look(folder, &nothing, |_| Ok(()))
}

/// What came since: keys that are new, and tombstones that are.
pub(super) fn scan_new(folder: &Path, seen: &Seen) -> Result<Found, SiteKeyFault> {
    look(folder, seen, |id| wipe(folder, id))
}

fn look(
    folder: &Path,
    seen: &Seen,
    both: impl Fn(SiteKeyId) -> Result<(), FileFault>,
) -> Result<Found, SiteKeyFault> {
    let (mut keys, mut tombstones) = (BTreeSet::new(), BTreeSet::new());
    for name in files::names(folder)? {
        match name.rsplit_once('.') {
            _ if name == TERM_KEY => {}
            Some((id, "key")) => {
                keys.insert(id_of(folder, &name, id)?);
            }
            Some((id, "erased")) => {
                tombstones.insert(id_of(folder, &name, id)?);
            }
            // Another cloud writes just now.
            Some((_, "new")) => {}
            _ => return Err(content(&folder.join(&name), KEY_WANTED).into()),
        }
    }
    if keys.union(&tombstones).count() > MAX_SITE_KEYS {
        return Err(SiteKeyFault::TooMany);
    }
    let mut found = Found::default();
    for id in tombstones.difference(&seen.erased) {
        found
            .tombstones
            .insert(*id, read_tombstone(&path(folder, *id, "erased"))?);
    }
    for id in keys.intersection(&tombstones) {
        both(*id)?;
    }
    // What was erased once stays erased, also where a file came back.
    let is_new = |id: &&SiteKeyId| !seen.alive.contains(id) && !seen.erased.contains(id);
    for id in keys.difference(&tombstones).filter(is_new) {
        found.keys.insert(*id, read_key(&path(folder, *id, "key"))?);
    }
    Ok(found)
}

/// The key of the search index. Where other keys are, its absence is a loss: a new one would find nothing of what is
/// there.
pub(super) fn read_or_make_terms(
    path: &Path,
    is_new: bool,
) -> Result<Secret<[u8; 32]>, SiteKeyFault> {
    if is_new && !files::exists(path)? {
        let key = Secret::new(random()?);
        let hex = Secret::new(hex::encode(key.expose()));
        write(path, &[TERM_HEAD, "\nkey ", hex.expose(), "\n"])?;
        return Ok(key);
    }
    let text = files::read_private(path)?;
    let fields = lines(text.expose(), TERM_HEAD).and_then(|mut fields| {
        let key = key_of(fields.next()?)?;
        fields.next().is_none().then_some(key)
    });
    Ok(fields.ok_or_else(|| content(path, TERM_WANTED))?)
}

pub(super) fn write_key(folder: &Path, id: SiteKeyId, key: &KeyFile) -> Result<(), FileFault> {
    let hex = Secret::new(hex::encode(key.key.expose()));
    let head = format!(
        "{KEY_HEAD}\nsite {}\nmade {}\nkey ",
        key.site,
        key.made.millis()
    );
    write(&path(folder, id, "key"), &[&head, hex.expose(), "\n"])
}

pub(super) fn write_tombstone(
    folder: &Path,
    id: SiteKeyId,
    tombstone: &Tombstone,
) -> Result<(), FileFault> {
    let lines = format!(
        "{TOMBSTONE_HEAD}\nsite {}\nmade {}\nerased {}\n",
        tombstone.site,
        tombstone.made.millis(),
        tombstone.erased.millis()
    );
    write(&path(folder, id, "erased"), &[&lines])
}

/// Overwrites a key where it stands, then removes its file; one that is not there is no fault.
pub(super) fn wipe(folder: &Path, id: SiteKeyId) -> Result<(), FileFault> {
    let path = path(folder, id, "key");
    let fault = |source| files::io_fault(&path, source);
    match std::fs::OpenOptions::new().write(true).open(&path) {
        Ok(mut file) => {
            let length = file
                .metadata()
                .map_err(fault)?
                .len()
                .min(files::MAX_FILE_BYTES);
            let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
            file.rewind().map_err(fault)?;
            file.write_all(&zeros).map_err(fault)?;
            file.sync_all().map_err(fault)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fault(error)),
    }
    files::remove(&path)?;
    files::flush_directory(folder)
}

fn read_key(path: &Path) -> Result<KeyFile, FileFault> {
    let text = files::read_private(path)?;
    let parsed = lines(text.expose(), KEY_HEAD).and_then(|mut fields| {
        let site = Site::from_file(fields.next()?.strip_prefix("site ")?)?;
        let made = time_of(fields.next()?, "made ")?;
        let key = key_of(fields.next()?)?;
        fields
            .next()
            .is_none()
            .then_some(KeyFile { site, made, key })
    });
    parsed.ok_or_else(|| content(path, KEY_WANTED))
}

fn read_tombstone(path: &Path) -> Result<Tombstone, FileFault> {
    let text = files::read_private(path)?;
    let parsed = lines(text.expose(), TOMBSTONE_HEAD).and_then(|mut fields| {
        let site = Site::from_file(fields.next()?.strip_prefix("site ")?)?;
        let made = time_of(fields.next()?, "made ")?;
        let erased = time_of(fields.next()?, "erased ")?;
        fields
            .next()
            .is_none()
            .then_some(Tombstone { site, made, erased })
    });
    parsed.ok_or_else(|| content(path, TOMBSTONE_WANTED))
}

/// The lines between the head and a sum that is right.
fn lines<'t>(bytes: &'t [u8], head: &str) -> Option<std::str::Lines<'t>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let whole = text.get(..body.len() + 1)?;
    if sum.strip_prefix("sum ")? != sum_of(whole) {
        return None;
    }
    let mut lines = whole.lines();
    (lines.next()? == head).then_some(lines)
}

fn write(path: &Path, parts: &[&str]) -> Result<(), FileFault> {
    // Allocated once: what grows leaves copies of the key behind.
    let mut text = String::with_capacity(MAX_TEXT_BYTES);
    text.extend(parts.iter().copied());
    let sum = sum_of(&text);
    text.extend(["sum ", &sum, "\n"]);
    let text = Secret::new(text);
    files::write_private(path, text.expose().as_bytes())
}

fn sum_of(lines: &str) -> String {
    hex::encode(digest(&SHA256, lines.as_bytes()))
}

fn key_of(line: &str) -> Option<Secret<[u8; 32]>> {
    let mut key = [0; 32];
    hex::decode_to_slice(line.strip_prefix("key ")?, &mut key).ok()?;
    Some(Secret::new(key))
}

fn time_of(line: &str, name: &str) -> Option<Timestamp> {
    let millis = line.strip_prefix(name)?.parse().ok()?;
    Some(Timestamp::from_millis(millis))
}

fn path(folder: &Path, id: SiteKeyId, ending: &str) -> PathBuf {
    folder.join(format!("{id}.{ending}"))
}

fn id_of(folder: &Path, name: &str, id: &str) -> Result<SiteKeyId, FileFault> {
    let number = u64::from_str_radix(id, 16)
        .ok()
        .and_then(SiteKeyId::from_number);
    number
        .filter(|number| number.to_string() == id)
        .ok_or_else(|| content(&folder.join(name), KEY_WANTED))
}

fn content(path: &Path, wanted: &'static str) -> FileFault {
    FileFault::Content {
        path: path.to_owned(),
        wanted,
    }
}
