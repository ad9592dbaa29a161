//! Secrets never enter a log or a record: whatever a lab's processes wrote is searched for every secret that the harness
//! can know, when the lab goes.
//!
//! Known are tokens and API keys that a command printed or was given, and the private parts of every key in a place where
//! keys belong (see `holds`). They are gathered when a process starts and ends, too, since some live no longer than it.
//! Of each secret every stretch of 16 bytes is looked for, so that one that is cut short or wrapped is found, as it
//! is, in hex and in base64; of a PostgreSQL database in its dump, as text, and in what its columns of bytes hold. Not
//! known, since no file or answer ever holds them: secrets that a TPM activates, WireGuard's keys, the keys of sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;

mod dump;
mod forms;
mod keys;
mod search;

pub use search::Leak;

/// Largest file that can be a holder, in bytes.
const MAX_HOLDER_BYTES: u64 = 256 * 1024;
/// Most files and most bytes that are looked through for one lab: beyond that the scenario fails, for nobody would know
/// what was not looked at.
const MAX_FILES: usize = 50_000;
const MAX_BYTES: u64 = 2 << 30;
/// What begins a bootstrap token, and an API key.
const TOKEN: &str = "edgeward1.";
const API_KEY: &str = "ewk1_";
/// Folders that are neither logs nor records: chips, volumes of apps, and what publishers sign for everybody.
const ELSEWHERE: &[&str] = &["tpm", "tpm-ca", "apps", "apps-state", "repository"];
/// A disk that a volume of apps is on.
const DISK: &str = "img";

/// A secret, what it is, and the files where it belongs.
#[derive(Clone)]
struct Secret {
    name: String,
    bytes: Vec<u8>,
    holders: BTreeSet<PathBuf>,
}

/// Of all labs of this process, by a folder of theirs.
static KNOWN: Mutex<BTreeMap<PathBuf, Vec<Secret>>> = Mutex::new(BTreeMap::new());

/// From now on nothing below the lab of `folder` may hold this.
pub fn keep(folder: &Path, name: &str, bytes: &[u8]) {
    learn(folder, name, bytes, None);
}

/// As [`keep`], for what a private key in PKCS#8 holds that is not public.
pub fn keep_key(folder: &Path, name: &str, pkcs8: &[u8]) {
    for part in keys::private_parts(pkcs8) {
        keep(folder, name, &part);
    }
}

/// Keeps the tokens and API keys that stand in a text. Says how many.
pub fn keep_words(folder: &Path, text: &str) -> usize {
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let mut count = 0;
    for word in text.split(is_end) {
        if let Some(at) = word.find(TOKEN) {
            // The first bytes of a token are its secret; its pin and addresses are not.
            let Ok(bytes) = forms::from_base64(&word[at + TOKEN.len()..]) else {
                continue;
            };
            if let Some(secret) = bytes.first_chunk::<32>() {
                keep(folder, "a bootstrap token", secret);
                count += 1;
            }
        } else if let Some(at) = word.find(API_KEY) {
            let secret = word[at..].splitn(3, '_').nth(2).unwrap_or_default();
            let secret = forms::from_base64(secret).unwrap_or_default();
            if secret.len() >= search::STRETCH {
                keep(folder, "an api key", &secret);
                count += 1;
            }
        }
    }
    count
}

/// Learns the keys that lie below `folder` now.
pub fn gather(folder: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    for path in files.iter().filter(|path| holds(path)) {
        let Some(bytes) = read_holder(path)? else {
            continue;
        };
        let name = format!("a key of {}", path.display());
        for part in keys::of_file(&bytes, is_whole(path)) {
            learn(folder, &name, &part, Some(path));
        }
    }
    Ok(())
}

/// Looks through everything below `folder`, and through these texts, each with the name of where it comes from.
pub fn look(folder: &Path, texts: &[(String, Vec<u8>)]) -> anyhow::Result<Vec<Leak>> {
    gather(folder)?;
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    for path in &files {
        if let Some(text) = lone_word(path)? {
            keep_words(folder, &text);
        }
    }
    let secrets = known(folder);
    let search = search::Search::new(&secrets)?;
    let mut leaks = BTreeSet::new();
    for (name, bytes) in texts {
        leaks.extend(search.text(name, bytes));
        for column in dump::columns_of_bytes(bytes) {
            leaks.extend(search.text(name, &column));
        }
    }
    let mut left = MAX_BYTES;
    for path in &files {
        if lone_word(path)?.is_none() {
            leaks.extend(search.file(path, &mut left)?);
        }
    }
    Ok(leaks.into_iter().collect())
}

/// Forgets what was kept below `folder`.
pub fn forget(folder: &Path) {
    all().retain(|owner, _| !owner.starts_with(folder));
}

/// How many secrets are known below `folder`, by name.
pub fn names(folder: &Path) -> Vec<String> {
    known(folder)
        .into_iter()
        .map(|secret| secret.name)
        .collect()
}

fn learn(folder: &Path, name: &str, bytes: &[u8], holder: Option<&Path>) {
    let mut all = all();
    let of_folder = all.entry(folder.to_owned()).or_default();
    let found = of_folder.iter().position(|secret| secret.bytes == bytes);
    let at = found.unwrap_or_else(|| {
        of_folder.push(Secret {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
            holders: BTreeSet::new(),
        });
        of_folder.len() - 1
    });
    if let (Some(secret), Some(holder)) = (of_folder.get_mut(at), holder) {
        secret.holders.insert(holder.to_owned());
    }
}

/// What is known below a folder, each secret once: copies of a disk have the keys of the first.
fn known(folder: &Path) -> Vec<Secret> {
    let mut by_bytes: BTreeMap<Vec<u8>, Secret> = BTreeMap::new();
    let all = all();
    let below = all.iter().filter(|(owner, _)| owner.starts_with(folder));
    for secret in below.flat_map(|(_, secrets)| secrets) {
        by_bytes
            .entry(secret.bytes.clone())
            .or_insert_with(|| secret.clone())
            .holders
            .extend(secret.holders.iter().cloned());
    }
    by_bytes.into_values().collect()
}

fn all() -> MutexGuard<'static, BTreeMap<PathBuf, Vec<Secret>>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a file is one where keys belong: by its place, never by what is in it.
fn holds(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or_default();
    let is_key = name == "key" || name.ends_with(".key") || name.ends_with("-key");
    let among_keys = path
        .ancestors()
        .skip(1)
        .any(|above| above.ends_with("data/keys"));
    is_key || among_keys || name.ends_with(".secret")
}

/// Whether a file that has no structure is a secret as a whole.
fn is_whole(path: &Path) -> bool {
    let is = |end: &str| path.extension().is_some_and(|found| found == end);
    is("key") || is("secret") || path.parent().is_some_and(|above| above.ends_with("sites"))
}

/// A file that holds nothing but one token or API key was written for a command to read.
fn lone_word(path: &Path) -> anyhow::Result<Option<String>> {
    let Some(bytes) = read_holder(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).unwrap_or_default();
    let word = text.trim();
    let is_one = !word.contains(char::is_whitespace)
        && (word.starts_with(TOKEN) || word.starts_with(API_KEY));
    Ok(is_one.then(|| word.to_owned()))
}

/// A small file; none for a larger one, and for one that is gone again.
fn read_holder(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match std::fs::metadata(path) {
        Ok(found) if found.len() > MAX_HOLDER_BYTES => return Ok(None),
        Err(error) if gone(&error) => return Ok(None),
        Ok(_) | Err(_) => {}
    }
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Plain files below a folder. Neither sockets nor links: nothing is read that lies elsewhere.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && !ELSEWHERE.iter().any(|elsewhere| name == *elsewhere) {
            walk(&path, files)?;
        } else if kind.is_file() && path.extension().is_none_or(|end| end != DISK) {
            anyhow::ensure!(files.len() < MAX_FILES, "more than {MAX_FILES} files");
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
