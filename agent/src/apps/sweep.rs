//! What a stop of the machine left half done on the volume is undone when the agent starts.

use std::collections::BTreeSet;
use std::io;

use edgeward_apps::{AppName, Digest, PublisherName};

use super::activate::{Kept, in_use, kept_with, trim};
use super::folder::{Folder, Kind};
use super::place::{CURRENT, NEXT, ReleaseId};
use super::receipt::Records;
use super::stage::seal;
use super::volume::{STAGING, Volume};

/// What the makers of a file system put into it.
const LOST_AND_FOUND: &str = "lost+found";

/// What was found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Apps with a release in use, and what is kept of each.
    pub(super) apps: Vec<(AppName, Kept)>,
    /// Things on the volume that are not the agent's. They are left alone; nothing of them may run.
    pub foreign: Vec<String>,
}

pub(super) fn sweep(volume: &Volume, records: &Records) -> io::Result<Swept> {
    let root = volume.root();
    let staging = root.ensure(STAGING)?;
    for name in staging.names()? {
        staging.remove(&name)?;
    }
    let mut swept = Swept::default();
    for publisher in root.names()? {
        if publisher == STAGING || publisher == LOST_AND_FOUND {
            continue;
        }
        let folder = match publisher.parse::<PublisherName>() {
            Ok(_) if is_folder(root, &publisher)? => root.below(&publisher)?,
            _ => {
                swept.foreign.push(publisher);
                continue;
            }
        };
        let mut left = 0usize;
        for name in folder.names()? {
            let full = format!("{publisher}/{name}");
            match full.parse::<AppName>() {
                Ok(app) if is_folder(&folder, &name)? => {
                    let home = folder.below(&name)?;
                    match sweep_app(volume, &home, &app, records)? {
                        Some(kept) => swept.apps.push((app, kept)),
                        None if home.names()?.is_empty() => {
                            folder.remove(&name)?;
                            continue;
                        }
                        None => {}
                    }
                }
                _ => swept.foreign.push(full),
            }
            left = left.saturating_add(1);
        }
        if left == 0 {
            root.remove(&publisher)?;
        }
    }
    let kept: BTreeSet<Digest> = swept
        .apps
        .iter()
        .flat_map(|(_, kept)| kept.digests())
        .collect();
    records.keep(&|digest| kept.contains(digest))?;
    Ok(swept)
}

/// `None`: no release is in use, and none is kept.
fn sweep_app(
    volume: &Volume,
    home: &Folder,
    app: &AppName,
    records: &Records,
) -> io::Result<Option<Kept>> {
    home.remove(NEXT)?;
    let mut sound = BTreeSet::new();
    for name in home.names()? {
        let Some(ReleaseId { version, digest }) = ReleaseId::of(&name) else {
            continue;
        };
        // A tree whose record is lost cannot be told from one that somebody put there.
        let recorded = records.manifest(&digest).is_ok_and(|manifest| {
            manifest.app == *app && manifest.version.to_string() == version.to_string()
        });
        match recorded && is_folder(home, &name)? {
            true => {
                sound.insert(digest);
            }
            false => home.remove(&name)?,
        }
    }
    let current = in_use(home)?.filter(|id| sound.contains(&id.digest));
    let Some(current) = current else {
        home.remove(CURRENT)?;
        for name in home.names()? {
            if ReleaseId::of(&name).is_some() {
                home.remove(&name)?;
            }
        }
        return Ok(None);
    };
    let kept = Kept {
        previous: kept_with(home, records, &current.digest)?,
        current,
    };
    trim(home, records, &kept)?;
    for id in kept.releases() {
        seal(&home.below(&id.folder())?, volume.locks())?;
    }
    Ok(Some(kept))
}

fn is_folder(folder: &Folder, name: &str) -> io::Result<bool> {
    let known = folder.known(name)?;
    Ok(known.is_some_and(|known| known.kind == Kind::Folder))
}
