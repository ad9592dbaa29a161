//! The files of sites' keys: a few lines of text, ended by a sum, so that a torn one is known for what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeward_identity::{Secret, Timestamp};
use ring::digest::{SHA256, digest};

use super::{MAX_SITE_KEYS, Site, SiteKeyFault, SiteKeyId, TERM_KEY, random};
use crate::keys::files::{self, FileFault};

const KEY_HEAD: &str = "edgeward site key v1";
const TERM_HEAD: &str = "edgeward term key v1";
const TOMBSTONE_HEAD: &str = "edgeward erased site key v1";
/// More than any of these files has, in bytes.
const MAX_TEXT_BYTES: usize = 512;
/// What is being written for so long was left by a crash.
const LEFT_AFTER: Duration = Duration::from_secs(60);
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

/// At a start: everything, after what a crash left half done is finished. A name that is nearly a key's is refused: by
/// its right one it may be missed.
pub(super) fn scan(folder: &Path) -> Result<Found, SiteKeyFault> {
    for name in files::names(folder)? {
        match name.rsplit_once('.') {
            _ if name == TERM_KEY => {}
            Some((_, "new")) => remove_left(&folder.join(&name))?,
            Some((_, "key" | "erased")) if id_of(&name).is_none() => {
                return Err(content(&folder.join(&name), KEY_WANTED).into());
            }
            Some((_, "key" | "erased")) => {}
            _ => tracing::warn!(name, "no key of a site: this folder is for nothing else"),
        }
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

/// Removes what was never renamed, so never used. Young, another cloud may be writing it.
fn remove_left(path: &Path) -> Result<(), FileFault> {
    let written = std::fs::metadata(path).and_then(|file| file.modified());
    let age = written.map(|when| when.elapsed().unwrap_or_default());
    match age {
        Ok(age) if age >= LEFT_AFTER => files::remove(path),
        _ => Ok(()),
    }
}

fn look(
    folder: &Path,
    seen: &Seen,
    both: impl Fn(SiteKeyId) -> Result<(), FileFault>,
) -> Result<Found, SiteKeyFault> {
    let (mut keys, mut tombstones) = (BTreeSet::new(), BTreeSet::new());
    for name in files::names(folder)? {
        match (name.rsplit_once('.'), id_of(&name)) {
            (Some((_, "key")), Some(id)) => _ = keys.insert(id),
            (Some((_, "erased")), Some(id)) => _ = tombstones.insert(id),
            // What another cloud writes just now; an operator's note; what a share keeps for whoever has it open. No key
            // is lost by any of them.
            _ => tracing::debug!(name, "no key of a site, and passed over"),
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
        match read_key(&path(folder, *id, "key")) {
            Ok(key) => {
                found.keys.insert(*id, key);
            }
            // Another cloud destroys it at this moment.
            Err(_) if files::exists(&path(folder, *id, "erased"))? => {
                let tombstone = read_tombstone(&path(folder, *id, "erased"))?;
                found.tombstones.insert(*id, tombstone);
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(found)
}

/// The key of the search index. Where other keys are, its absence is a loss: a new one would find nothing of what is
/// there. Of clouds that begin at once one makes it, and all read what is there.
pub(super) fn read_or_make_terms(
    path: &Path,
    is_new: bool,
) -> Result<Secret<[u8; 32]>, SiteKeyFault> {
    match is_new && !files::exists(path)? {
        true => make_terms(path),
        false => read_terms(path),
    }
}

pub(super) fn make_terms(path: &Path) -> Result<Secret<[u8; 32]>, SiteKeyFault> {
    let key = Secret::new(random::<32>()?);
    let hex = Secret::new(hex::encode(key.expose()));
    let text = whole(&[TERM_HEAD, "\nkey ", hex.expose(), "\n"]);
    files::create_private(path, &beside(path)?, text.expose().as_bytes())?;
    read_terms(path)
}

fn read_terms(path: &Path) -> Result<Secret<[u8; 32]>, SiteKeyFault> {
    let text = files::read_private(path)?;
    let fields = lines(text.expose(), TERM_HEAD).and_then(|mut fields| {
        let key = key_of(fields.next()?)?;
        fields.next().is_none().then_some(key)
    });
    Ok(fields.ok_or_else(|| content(path, TERM_WANTED))?)
}

pub(super) fn write_key(folder: &Path, id: SiteKeyId, key: &KeyFile) -> Result<(), SiteKeyFault> {
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
) -> Result<(), SiteKeyFault> {
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

fn write(path: &Path, parts: &[&str]) -> Result<(), SiteKeyFault> {
    let text = whole(parts);
    files::write_private(path, &beside(path)?, text.expose().as_bytes())?;
    Ok(())
}

fn whole(parts: &[&str]) -> Secret<String> {
    // Allocated once: what grows leaves copies of the key behind.
    let mut text = String::with_capacity(MAX_TEXT_BYTES);
    text.extend(parts.iter().copied());
    let sum = sum_of(&text);
    text.extend(["sum ", &sum, "\n"]);
    Secret::new(text)
}

/// Where a file is written before it has its name: two clouds may write the same.
fn beside(path: &Path) -> Result<PathBuf, SiteKeyFault> {
    let random = hex::encode(random::<8>()?);
    Ok(path.with_extension(format!("{random}.new")))
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

/// The id that a file is named by, as we write it.
fn id_of(name: &str) -> Option<SiteKeyId> {
    let (id, _) = name.rsplit_once('.')?;
    let number = u64::from_str_radix(id, 16).ok();
    let number = number.and_then(SiteKeyId::from_number);
    number.filter(|number| number.to_string() == id)
}

fn content(path: &Path, wanted: &'static str) -> FileFault {
    FileFault::Content {
        path: path.to_owned(),
        wanted,
    }
}
