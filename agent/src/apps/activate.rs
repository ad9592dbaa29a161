//! A staged release comes into use at once or not at all, and the one before it is kept.
//!
//! The record is on disk before the tree is in its place, and the tree before `current` leads to it. Whenever the
//! machine stops, `current` leads to a whole tree or is not there.

use std::io;

use edgeward_apps::{AppName, Digest};
use edgeward_identity::Timestamp;

use super::folder::{self, Folder, is_full};
use super::place::{CURRENT, NEXT, ReleaseId, home_of};
use super::receipt::{Receipt, RecordError, Records, Words};
use super::stage::{self, Staged};
use super::volume::{STAGING, Volume};

/// Why a release did not come into use. What was in use is in use.
#[derive(Debug, thiserror::Error)]
pub enum NotActivated {
    #[error("volume of applications, or the disk of its records, is full")]
    Full,
    #[error(transparent)]
    Record(RecordError),
    #[error("activating {app}: {source}")]
    Io {
        app: AppName,
        #[source]
        source: io::Error,
    },
}

/// The two releases that are kept of an app.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) current: ReleaseId,
    pub(super) previous: Option<ReleaseId>,
}

impl Kept {
    pub(super) fn releases(&self) -> impl Iterator<Item = &ReleaseId> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.releases().map(|id| id.digest)
    }
}

/// Puts a tree into its place and lets `current` lead to it.
pub(super) fn activate(
    volume: &Volume,
    records: &Records,
    staged: &Staged,
    words: Words,
    now: Timestamp,
) -> Result<(Receipt, Kept), NotActivated> {
    let (manifest, digest) = (&staged.manifest, staged.digest);
    let app = &manifest.app;
    let failed = at(app);
    let home = home(volume, app).map_err(&failed)?;
    let before = in_use(&home).map_err(&failed)?;
    let previous = match &before {
        // The same again: what was kept stays kept.
        Some(same) if same.digest == digest => kept_with(&home, records, &digest),
        other => Ok(other.clone()),
    };
    let previous = previous.map_err(&failed)?;
    let before_it = previous.as_ref().map(|id| id.digest);
    let receipt = Receipt::of(manifest, digest, words, now, before_it);
    records
        .write(&staged.manifest_bytes, &receipt)
        .map_err(|why| match why {
            RecordError::Io(error) if is_full(&error) => NotActivated::Full,
            why => NotActivated::Record(why),
        })?;
    let current = staged.id();
    let name = current.folder();
    let used = put(volume, &home, staged, &name)
        .and_then(|()| volume.root().sync_all())
        .and_then(|()| lead(&home, &name));
    if let Err(error) = used {
        let kept = before.is_some_and(|id| id.digest == digest) || before_it == Some(digest);
        if let Err(error) = withdraw(volume, &home, staged, &name, kept) {
            tracing::warn!(%app, %error, "a release that was not activated cannot be removed");
        }
        return Err(failed(error));
    }
    Ok((receipt, Kept { current, previous }))
}

/// Removes what is neither in use nor kept for a way back.
pub(super) fn trim(home: &Folder, records: &Records, kept: &Kept) -> io::Result<()> {
    for name in home.names()? {
        let Some(id) = ReleaseId::of(&name) else {
            continue;
        };
        if !kept.digests().any(|kept| kept == id.digest) {
            home.remove(&name)?;
            records.remove(&id.digest)?;
        }
    }
    home.sync()
}

/// Takes a release away; of the one in use, its being in use first.
pub(super) fn remove(home: &Folder, id: &ReleaseId) -> io::Result<()> {
    if in_use(home)?.is_some_and(|current| current.digest == id.digest) {
        home.remove(CURRENT)?;
        home.sync()?;
    }
    home.remove(&id.folder())?;
    home.sync()
}

/// The release that `current` leads to.
pub(super) fn in_use(home: &Folder) -> io::Result<Option<ReleaseId>> {
    let target = home.target(CURRENT)?;
    Ok(target.and_then(|name| ReleaseId::of(&name)))
}

/// The release that is kept beside the one in use.
pub(super) fn kept_with(
    home: &Folder,
    records: &Records,
    current: &Digest,
) -> io::Result<Option<ReleaseId>> {
    let Some(previous) = records.receipt(current).ok().and_then(|it| it.previous) else {
        return Ok(None);
    };
    let names = home.names()?;
    let mut releases = names.iter().filter_map(|name| ReleaseId::of(name));
    Ok(releases.find(|id| id.digest == previous))
}

fn home(volume: &Volume, app: &AppName) -> io::Result<Folder> {
    let publisher = volume.root().ensure(app.publisher().as_str())?;
    let home = publisher.ensure(app.name())?;
    publisher.sync()?;
    volume.root().sync()?;
    Ok(home)
}

fn put(volume: &Volume, home: &Folder, staged: &Staged, name: &str) -> io::Result<()> {
    if !staged.in_place {
        let staging = volume.root().below(STAGING)?;
        let from = staged.digest.to_string();
        match staging.rename(&from, home, name) {
            // One that was found damaged gives way.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let damaged = home.below(name)?;
                folder::unlock(&damaged)?;
                damaged.set_mode(folder::OPEN_FOLDER)?;
                staging.exchange(&from, home, name)?;
                staging.remove(&from)?;
            }
            moved => moved?,
        }
    }
    // Not before: a folder that nobody may change cannot be moved either.
    stage::seal(&home.below(name)?, volume.locks())?;
    home.sync()
}

fn lead(home: &Folder, name: &str) -> io::Result<()> {
    home.remove(NEXT)?;
    home.link(NEXT, name)?;
    home.replace(NEXT, CURRENT)?;
    home.sync()
}

fn withdraw(
    volume: &Volume,
    home: &Folder,
    staged: &Staged,
    name: &str,
    kept: bool,
) -> io::Result<()> {
    home.remove(NEXT)?;
    if !kept {
        home.remove(name)?;
    }
    volume
        .root()
        .below(STAGING)?
        .remove(&staged.digest.to_string())
}

fn at(app: &AppName) -> impl Fn(io::Error) -> NotActivated + '_ {
    move |source| match is_full(&source) {
        true => NotActivated::Full,
        false => NotActivated::Io {
            app: app.clone(),
            source,
        },
    }
}

pub(super) fn home_if_there(volume: &Volume, app: &AppName) -> io::Result<Option<Folder>> {
    match volume.root().below(&home_of(app)) {
        Ok(home) => Ok(Some(home)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
