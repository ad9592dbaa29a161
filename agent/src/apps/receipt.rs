//! What was installed, and by whose words: one record for each release whose tree is on the volume, kept off the volume.
//!
//! Records lie on an unsealed disk. They tell what a tree should hold, for as long as the digest of the manifest is one
//! that the sealed state or the signed words name; nothing is allowed to run for being recorded here.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use edgeward_apps::manifest::{Entry, MAX_MANIFEST_BYTES, Malformed, Manifest};
use edgeward_apps::strict::{self, Ambiguous};
use edgeward_apps::{AppName, AppPath, Digest, Version};
use edgeward_identity::Timestamp;
use serde::{Deserialize, Serialize};

use super::folder::{Folder, Kind};
use super::stage::{DATA_MODE, PROGRAM_MODE};

/// Longest receipt, in bytes: the longest manifest, with a few more words for each of its entries.
pub const MAX_RECEIPT_BYTES: u64 = 2 * MAX_MANIFEST_BYTES;
const FORMAT: &str = "edgeward-receipt/1";
const FILE_MODE: u32 = 0o600;
const MANIFEST: &str = "manifest.json";
const RECEIPT: &str = "receipt.json";
const UNFINISHED: &str = ".new";

/// Versions of the signed words that a release was installed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    pub root: u64,
    pub timestamp: u64,
    pub snapshot: u64,
    pub targets: u64,
    pub publisher: u64,
    pub director: u64,
    pub policy: u64,
}

/// One file of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstalledFile {
    pub sha256: Digest,
    pub size: u64,
    pub mode: u32,
}

/// What was installed when, by which words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    format: String,
    pub app: AppName,
    pub version: Version,
    /// SHA-256.
    pub manifest: Digest,
    pub words: Words,
    pub installed_at: Timestamp,
    /// The release that it took the place of: the one that is kept for a way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    pub files: BTreeMap<AppPath, InstalledFile>,
}

/// Bytes are no receipt.
#[derive(Debug, thiserror::Error)]
pub enum BadReceipt {
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("receipt does not read: {0}")]
    Json(#[source] serde_json::Error),
    #[error("receipt is of another format: {0:?}")]
    Format(String),
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("records of applications: {0}")]
    Io(#[from] io::Error),
    #[error("record of {0} does not hold")]
    Altered(Digest),
    #[error(transparent)]
    Receipt(#[from] BadReceipt),
    #[error(transparent)]
    Manifest(#[from] Malformed),
}

impl Receipt {
    pub(super) fn of(
        manifest: &Manifest,
        digest: Digest,
        words: Words,
        installed_at: Timestamp,
        previous: Option<Digest>,
    ) -> Self {
        let files = manifest
            .entries()
            .iter()
            .filter_map(|(path, entry)| match entry {
                Entry::Link(_) => None,
                Entry::File(file) => Some((
                    path.clone(),
                    InstalledFile {
                        sha256: file.digest,
                        size: file.size,
                        mode: if file.executable {
                            PROGRAM_MODE
                        } else {
                            DATA_MODE
                        },
                    },
                )),
            });
        Self {
            format: FORMAT.to_owned(),
            app: manifest.app.clone(),
            version: manifest.version.clone(),
            manifest: digest,
            words,
            installed_at,
            previous,
            files: files.collect(),
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, BadReceipt> {
        strict::check(bytes, MAX_RECEIPT_BYTES)?;
        let receipt: Self = serde_json::from_slice(bytes).map_err(BadReceipt::Json)?;
        match receipt.format == FORMAT {
            true => Ok(receipt),
            false => Err(BadReceipt::Format(receipt.format)),
        }
    }

    pub fn to_json(&self) -> Result<Vec<u8>, BadReceipt> {
        serde_json::to_vec(self).map_err(BadReceipt::Json)
    }

    /// For the audit log, whose records are shorter than a receipt may be.
    pub fn digest(&self) -> Result<Digest, BadReceipt> {
        self.to_json().map(|bytes| Digest::of(&bytes))
    }
}

/// The folder of records, by digests of manifests.
#[derive(Debug)]
pub(super) struct Records(Folder);

impl Records {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Folder::made(path).map(Self)
    }

    /// On disk when this returns; when it fails, what was there is there.
    pub(super) fn write(&self, manifest: &[u8], receipt: &Receipt) -> Result<(), RecordError> {
        let receipt_bytes = receipt.to_json()?;
        let name = receipt.manifest.to_string();
        let own = self.0.ensure(&name)?;
        put(&own, MANIFEST, manifest)?;
        put(&own, RECEIPT, &receipt_bytes)?;
        self.0.sync()?;
        Ok(())
    }

    pub(super) fn manifest(&self, digest: &Digest) -> Result<Manifest, RecordError> {
        let bytes = self.read(digest, MANIFEST, MAX_MANIFEST_BYTES)?;
        match Digest::of(&bytes) == *digest {
            true => Ok(Manifest::parse(&bytes)?),
            false => Err(RecordError::Altered(*digest)),
        }
    }

    /// The bytes that the publisher signed for.
    pub(super) fn manifest_bytes(&self, digest: &Digest) -> Result<Vec<u8>, RecordError> {
        let bytes = self.read(digest, MANIFEST, MAX_MANIFEST_BYTES)?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(RecordError::Altered(*digest)),
        }
    }

    pub(super) fn receipt(&self, digest: &Digest) -> Result<Receipt, RecordError> {
        let receipt = Receipt::parse(&self.read(digest, RECEIPT, MAX_RECEIPT_BYTES)?)?;
        match receipt.manifest == *digest {
            true => Ok(receipt),
            false => Err(RecordError::Altered(*digest)),
        }
    }

    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        self.0.remove(&digest.to_string())
    }

    /// Keeps these and removes all else.
    pub(super) fn keep(&self, kept: &dyn Fn(&Digest) -> bool) -> io::Result<()> {
        for name in self.0.names()? {
            if !name.parse().is_ok_and(|digest| kept(&digest)) {
                self.0.remove(&name)?;
            }
        }
        Ok(())
    }

    fn read(&self, digest: &Digest, name: &str, limit: u64) -> Result<Vec<u8>, RecordError> {
        let path = format!("{digest}/{name}");
        let known = self.0.known(&path)?;
        if !known.is_some_and(|known| known.kind == Kind::File && known.bytes <= limit) {
            return Err(RecordError::Altered(*digest));
        }
        let mut bytes = Vec::new();
        self.0
            .file(&path)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn put(folder: &Folder, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = format!("{name}{UNFINISHED}");
    folder.remove(&unfinished)?;
    let written = folder
        .create(&unfinished, FILE_MODE)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| folder.replace(&unfinished, name))
        .and_then(|()| folder.sync());
    if written.is_err() {
        // What went wrong first is what counts.
        let _ = folder.remove(&unfinished);
    }
    written
}
