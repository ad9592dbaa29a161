//! A release becomes a tree, beside those that are in use: from chunks, each checked before it is written, into a folder
//! that no path leads out of. Only what was admitted is staged.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::AsFd;

use edgeward_apps::admit::Installable;
use edgeward_apps::chunk::{Filling, NotThatFile};
use edgeward_apps::manifest::{Chunk, Entry, File, Manifest};
use edgeward_apps::{AppPath, Digest};
use edgeward_guard::verity;
use rustix::fs::{Mode, fchmod};

use super::check;
use super::folder::{self, Folder, is_full};
use super::place::{ReleaseId, home_of};
use super::store::StoreError;
use super::volume::{NoRoom, STAGING, Volume};

/// Files and folders of a release belong to root, and nobody writes to them.
pub(super) const PROGRAM_MODE: u32 = 0o555;
pub(super) const DATA_MODE: u32 = 0o444;
pub(super) const FOLDER_MODE: u32 = 0o555;
const UNFINISHED_MODE: u32 = 0o600;

/// Where content comes from. What it gives is checked by whoever takes it.
pub(super) trait Chunks {
    fn chunk(&self, chunk: &Chunk) -> Result<Vec<u8>, NotStaged>;

    /// What it gave is something else: it is not to give that again.
    fn spoiled(&self, chunk: &Chunk) -> Result<(), NotStaged>;
}

/// A release whose tree is whole, on disk, and not in use.
#[derive(Debug)]
pub struct Staged {
    pub(super) manifest: Manifest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) digest: Digest,
    /// It is in its place already, from an earlier installation, and was found whole.
    pub(super) in_place: bool,
}

/// Why a release cannot be made into a tree.
#[derive(Debug, thiserror::Error)]
pub enum NotStaged {
    #[error("manifest is not that of the release: {0}")]
    Manifest(Digest),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("volume of applications is full")]
    Full,
    #[error("chunk is not here: {0}")]
    Missing(Digest),
    #[error("{path}: {source}")]
    Content {
        path: AppPath,
        #[source]
        source: NotThatFile,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("staging {path}: {source}")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl NotStaged {
    /// Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Manifest(_) | Self::Content { .. } => "app-unproven",
            Self::NoRoom(_) | Self::Full => "apps-full",
            Self::Missing(_) => "chunk-missing",
            Self::Store(_) | Self::Io { .. } => "apps-disk",
        }
    }
}

impl Staged {
    pub(super) fn id(&self) -> ReleaseId {
        ReleaseId {
            version: self.manifest.version.clone(),
            digest: self.digest,
        }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Of the manifest.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// Makes the tree. What an earlier attempt left is removed first; so is what this one leaves when it fails.
pub(super) fn stage(
    volume: &Volume,
    release: &Installable,
    manifest_bytes: &[u8],
    chunks: &dyn Chunks,
) -> Result<Staged, NotStaged> {
    let (manifest, digest) = (release.manifest(), release.digest());
    let found = Digest::of(manifest_bytes);
    if found != digest {
        return Err(NotStaged::Manifest(found));
    }
    let staged = |in_place| Staged {
        manifest: manifest.clone(),
        manifest_bytes: manifest_bytes.to_vec(),
        digest,
        in_place,
    };
    if is_in_place(volume, manifest, digest) {
        return Ok(staged(true));
    }
    let failed = at(STAGING);
    let staging = volume.root().ensure(STAGING).map_err(&failed)?;
    let name = digest.to_string();
    staging.remove(&name).map_err(&failed)?;
    volume.fits(manifest).map_err(&failed)??;
    let made = make(volume, &staging, &name, manifest, chunks);
    if let Err(why) = made {
        if let Err(error) = staging.remove(&name) {
            tracing::warn!(%error, "what was staged cannot be removed");
        }
        return Err(why);
    }
    Ok(staged(false))
}

fn is_in_place(volume: &Volume, manifest: &Manifest, digest: Digest) -> bool {
    let id = ReleaseId {
        version: manifest.version.clone(),
        digest,
    };
    let home = volume.root().below(&home_of(&manifest.app));
    home.and_then(|home| home.below(&id.folder()))
        .is_ok_and(|tree| check::whole(&tree, manifest).is_ok())
}

fn make(
    volume: &Volume,
    staging: &Folder,
    name: &str,
    manifest: &Manifest,
    chunks: &dyn Chunks,
) -> Result<(), NotStaged> {
    let top = staging.ensure(name).map_err(at(name))?;
    let folders: BTreeSet<&str> = manifest.entries().keys().flat_map(AppPath::above).collect();
    // A folder stands before what is in it.
    for folder in &folders {
        top.make(folder).map_err(at(folder))?;
    }
    for (path, entry) in manifest.entries() {
        if let Entry::File(file) = entry {
            fill(&top, path, file, chunks, volume.locks())?;
        }
    }
    // Links last: nothing was written through one, whatever the manifest says.
    for (path, entry) in manifest.entries() {
        if let Entry::Link(target) = entry {
            let path = path.as_str();
            top.link(path, target).map_err(at(path))?;
        }
    }
    for folder in folders.iter().rev() {
        let own = top.below(folder).map_err(at(folder))?;
        seal(&own, volume.locks()).map_err(at(folder))?;
    }
    volume.root().sync_all().map_err(at(name))
}

fn fill(
    top: &Folder,
    path: &AppPath,
    file: &File,
    chunks: &dyn Chunks,
    locks: bool,
) -> Result<(), NotStaged> {
    let wrong = |source| NotStaged::Content {
        path: path.clone(),
        source,
    };
    let failed = at(path.as_str());
    let mut out = top
        .create(path.as_str(), UNFINISHED_MODE)
        .map_err(&failed)?;
    let mut filling = Filling::new(file);
    while let Some(wanted) = filling.wanted() {
        let bytes = chunks.chunk(&wanted)?;
        match filling.take(&bytes) {
            // The disk changed it: it is fetched again.
            Err(NotThatFile::Chunk(_)) => {
                chunks.spoiled(&wanted)?;
                return Err(NotStaged::Missing(wanted.digest));
            }
            taken => taken.map_err(wrong)?,
        }
        out.write_all(&bytes).map_err(&failed)?;
    }
    filling.finish().map_err(wrong)?;
    drop(out);
    // The file system keeps it as it is, where it can; it must be open for reading only.
    let out = top.file(path.as_str()).map_err(&failed)?;
    verity::seal(&out).map_err(&failed)?;
    let mode = match file.executable {
        true => PROGRAM_MODE,
        false => DATA_MODE,
    };
    let sealed = fchmod(&out, Mode::from_raw_mode(mode)).map_err(io::Error::from);
    sealed
        .and_then(|()| match locks {
            true => folder::lock(out.as_fd()),
            false => Ok(()),
        })
        .map_err(&failed)
}

/// From now on nobody adds to a folder or takes from it.
pub(super) fn seal(folder: &Folder, locks: bool) -> io::Result<()> {
    // Of a locked folder not even the mode can be set again.
    if locks && folder::is_locked(folder)? {
        return Ok(());
    }
    folder.set_mode(FOLDER_MODE)?;
    match locks {
        true => folder::lock(folder),
        false => Ok(()),
    }
}

fn at(path: &str) -> impl Fn(io::Error) -> NotStaged + '_ {
    move |source| match is_full(&source) {
        true => NotStaged::Full,
        false => NotStaged::Io {
            path: path.to_owned(),
            source,
        },
    }
}
