//! What is installed and what is on its way: chunks, trees and records together.
//!
//! Everything here waits for the disk, and on a guarded volume for the guard: it belongs on a thread that may wait.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use edgeward_apps::admit::Installable;
use edgeward_apps::manifest::{Chunk, Manifest};
use edgeward_apps::{AppName, AppPath, Digest, Version};
use edgeward_identity::Timestamp;
use parking_lot::Mutex;

use super::activate::{self, Kept, NotActivated};
use super::check::{self, TreeDiffers};
use super::place::{ReleaseId, home_of};
use super::receipt::{Receipt, RecordError, Records, Words};
use super::shared::SharedChunks;
use super::stage::{self, Chunks, NotStaged, Staged};
use super::store::{ChunkStore, Limits, StoreError};
use super::sweep::{Swept, sweep};
use super::volume::{STAGING, Volume};

const CHUNKS: &str = "chunks";
pub(super) const RELEASES: &str = "releases";

/// The one who writes to the volume.
#[derive(Debug)]
pub struct Installer {
    volume: Volume,
    store: ChunkStore,
    records: Records,
    /// Chunks of what is wanted that installed trees have.
    shared: Mutex<SharedChunks>,
    /// Chunks that installed trees have, for nodes nearby. None: it is made when somebody asks.
    given: Mutex<Option<SharedChunks>>,
    kept: Mutex<Vec<(AppName, Kept)>>,
}

/// A release whose tree is on the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub app: AppName,
    pub version: Version,
    /// Of the manifest.
    pub digest: Digest,
    pub tree: PathBuf,
    /// It is the one in use; otherwise it is kept for a way back.
    pub current: bool,
}

/// Why what is installed cannot be told or changed.
#[derive(Debug, thiserror::Error)]
pub enum InstallerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("volume of applications: {0}")]
    Io(#[from] io::Error),
}

impl Installer {
    /// Takes up what is there, after what was left half done is undone. `folder` is not on the volume.
    pub fn open(
        volume: Volume,
        folder: &Path,
        limits: Limits,
    ) -> Result<(Self, Swept), InstallerError> {
        let records = Records::open(&folder.join(RELEASES))?;
        let store = ChunkStore::open(&folder.join(CHUNKS), limits)?;
        let swept = sweep(&volume, &records)?;
        let installer = Self {
            volume,
            store,
            records,
            shared: Mutex::default(),
            given: Mutex::default(),
            kept: Mutex::new(swept.apps.clone()),
        };
        Ok((installer, swept))
    }

    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// From now on the content of these releases is taken, and no other kept. What installed trees have of it need not
    /// be fetched.
    pub fn want(&self, releases: &[&Manifest]) -> Result<(), InstallerError> {
        self.store.want(releases)?;
        let mut shared = SharedChunks::wanted_by(releases);
        for installed in self.installed() {
            match self.records.manifest(&installed.digest) {
                Ok(manifest) => shared.look_into(&installed.path(), &manifest),
                // What it has is fetched again.
                Err(error) => tracing::warn!(app = %installed.app, %error, "record is of no use"),
            }
        }
        *self.shared.lock() = shared;
        Ok(())
    }

    /// What is to be fetched for a release, in the order in which it is needed.
    pub fn missing(&self, release: &Manifest) -> Result<Vec<Chunk>, StoreError> {
        let shared = self.shared.lock();
        let missing: Vec<Chunk> = release
            .chunks()
            .filter(|chunk| !self.store.holds(&chunk.digest) && !shared.has(&chunk.digest))
            .collect();
        let bytes = missing.iter().map(|chunk| u64::from(chunk.size)).sum();
        self.store.check_size(bytes)?;
        Ok(missing)
    }

    pub fn put(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.store.put(digest, bytes)
    }

    /// Content that is here, for nodes nearby. It may be read from the volume, where the guard answers for it.
    pub fn give(&self, digest: &Digest) -> Option<Vec<u8>> {
        match self.store.read(digest) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "content cannot be given to a neighbour"),
        }
        let mut given = self.given.lock();
        let known = given.get_or_insert_with(|| {
            let mut known = SharedChunks::default();
            for installed in self.installed() {
                if let Ok(manifest) = self.records.manifest(&installed.digest) {
                    known.know(&installed.path(), &manifest);
                }
            }
            known
        });
        known.read(self.volume.root(), digest)
    }

    pub fn stage(&self, release: &Installable, manifest: &[u8]) -> Result<Staged, NotStaged> {
        stage::stage(&self.volume, release, manifest, self)
    }

    /// A file of a staged tree, which was held against its manifest when it was made.
    pub fn open_staged(&self, staged: &Staged, path: &AppPath) -> io::Result<Box<dyn Read>> {
        let root = self.volume.root();
        let own = match staged.in_place {
            false => root.below(STAGING)?.below(&staged.digest.to_string())?,
            true => root.below(&format!(
                "{}/{}",
                home_of(&staged.manifest.app),
                staged.id().folder()
            ))?,
        };
        Ok(Box::new(own.file(path.as_str())?))
    }

    /// The release comes into use, and all but the one before it is removed.
    pub fn activate(
        &self,
        staged: &Staged,
        words: Words,
        now: Timestamp,
    ) -> Result<Receipt, NotActivated> {
        let (volume, records) = (&self.volume, &self.records);
        let (receipt, kept) = activate::activate(volume, records, staged, words, now)?;
        let app = &receipt.app;
        *self.given.lock() = None;
        {
            let mut all = self.kept.lock();
            all.retain(|(other, _)| other != app);
            all.push((app.clone(), kept.clone()));
        }
        // It is in use by now: what cannot be cleared away is for the next start.
        let trimmed = activate::home_if_there(volume, app)
            .and_then(|home| home.map_or(Ok(()), |home| activate::trim(&home, records, &kept)));
        if let Err(error) = trimmed {
            tracing::warn!(%app, %error, "an older release cannot be removed");
        }
        let chunks: Vec<Digest> = staged.manifest.chunks().map(|chunk| chunk.digest).collect();
        if let Err(error) = self.store.drop_all(chunks.iter()) {
            tracing::warn!(%app, %error, "chunks that were installed cannot be removed");
        }
        Ok(receipt)
    }

    /// What is on the volume, of each app first what is in use.
    pub fn installed(&self) -> Vec<Installed> {
        let kept = self.kept.lock();
        let of = |(app, kept): &(AppName, Kept)| {
            let current = kept.current.digest;
            let releases = kept.releases().map(|id| {
                let mut installed = Installed {
                    app: app.clone(),
                    version: id.version.clone(),
                    digest: id.digest,
                    tree: PathBuf::new(),
                    current: id.digest == current,
                };
                installed.tree = self.volume.path().join(installed.path());
                installed
            });
            releases.collect::<Vec<_>>()
        };
        kept.iter().flat_map(of).collect()
    }

    /// Of a release whose tree is on the volume.
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest, RecordError> {
        self.records.manifest(digest)
    }

    /// Its bytes, as the publisher signed for them.
    pub fn manifest_bytes(&self, digest: &Digest) -> Result<Vec<u8>, RecordError> {
        self.records.manifest_bytes(digest)
    }

    pub fn receipt(&self, digest: &Digest) -> Result<Receipt, RecordError> {
        self.records.receipt(digest)
    }

    /// Reads a whole tree, against its manifest.
    pub fn check(&self, installed: &Installed) -> Result<(), CheckError> {
        let manifest = self.records.manifest(&installed.digest)?;
        let tree = self.volume.root().below(&installed.path())?;
        Ok(check::whole(&tree, &manifest)?)
    }

    /// Takes one release away; with the one in use all of its app. What it takes from a running app is the caller's
    /// concern, before.
    pub fn remove(&self, installed: &Installed) -> Result<(), InstallerError> {
        *self.given.lock() = None;
        let mut all = self.kept.lock();
        let Some(at) = all.iter().position(|(app, _)| *app == installed.app) else {
            return Ok(());
        };
        let (app, kept) = all.swap_remove(at);
        let in_use = kept.current.digest == installed.digest;
        let (gone, stays): (Vec<&ReleaseId>, Vec<&ReleaseId>) = kept
            .releases()
            .partition(|id| in_use || id.digest == installed.digest);
        if let Some(home) = activate::home_if_there(&self.volume, &app)? {
            for id in &gone {
                activate::remove(&home, id)?;
                self.records.remove(&id.digest)?;
            }
        }
        match stays.first() {
            None => self.clear_home(&app),
            Some(_) => {
                let kept = Kept {
                    current: kept.current.clone(),
                    previous: kept
                        .previous
                        .clone()
                        .filter(|id| id.digest != installed.digest),
                };
                all.push((app, kept));
                Ok(())
            }
        }
    }

    fn clear_home(&self, app: &AppName) -> Result<(), InstallerError> {
        let publisher = app.publisher().as_str();
        let root = self.volume.root();
        root.below(publisher)?.remove(app.name())?;
        if root.below(publisher)?.names()?.is_empty() {
            root.remove(publisher)?;
        }
        Ok(())
    }
}

/// Why a tree is not known to be whole.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Differs(#[from] TreeDiffers),
    #[error("volume of applications: {0}")]
    Io(#[from] io::Error),
}

impl Chunks for Installer {
    fn chunk(&self, chunk: &Chunk) -> Result<Vec<u8>, NotStaged> {
        // Hashed once, by whoever makes the file of it.
        if let Some(bytes) = self.store.read_unchecked(&chunk.digest)? {
            return Ok(bytes);
        }
        let found = self.shared.lock().read(self.volume.root(), &chunk.digest);
        found.ok_or(NotStaged::Missing(chunk.digest))
    }

    fn spoiled(&self, chunk: &Chunk) -> Result<(), NotStaged> {
        Ok(self.store.drop_spoiled(&chunk.digest)?)
    }
}

impl Installed {
    /// On the volume.
    fn path(&self) -> String {
        let id = ReleaseId {
            version: self.version.clone(),
            digest: self.digest,
        };
        format!("{}/{}", home_of(&self.app), id.folder())
    }
}

#[cfg(test)]
mod tests;
