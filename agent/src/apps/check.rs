//! Whether a tree is what its manifest says, byte for byte, and nothing besides.

use std::collections::BTreeSet;
use std::io::{self, Read};

use edgeward_apps::digest::Hasher;
use edgeward_apps::manifest::{Entry, File, Manifest};
use edgeward_apps::{AppPath, Digest};

use super::folder::{Folder, Kind, Known};
use super::stage::{DATA_MODE, FOLDER_MODE, PROGRAM_MODE};

const READ_BYTES: usize = 256 * 1024;

/// What is not as the manifest says.
#[derive(Debug, thiserror::Error)]
pub enum TreeDiffers {
    #[error("{0} is missing")]
    Missing(String),
    #[error("{0} is not in the manifest")]
    Unexpected(String),
    #[error("{0} is of another kind")]
    Kind(String),
    #[error("{0} has other permissions, another owner or a second name")]
    Access(String),
    #[error("{0} has another content")]
    Content(String),
    #[error("{path} cannot be read: {source}")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Reads everything. The tree's own folder may still be open to the agent: it is closed when it is in its place.
pub(super) fn whole(tree: &Folder, manifest: &Manifest) -> Result<(), TreeDiffers> {
    let owner = nix::unistd::geteuid().as_raw();
    let folders: BTreeSet<&str> = manifest.entries().keys().flat_map(AppPath::above).collect();
    check_names(tree, "", manifest, &folders)?;
    for folder in &folders {
        let known = stands(tree, folder)?;
        if known.kind != Kind::Folder {
            return Err(TreeDiffers::Kind((*folder).to_owned()));
        }
        if known.mode != FOLDER_MODE || known.owner != owner {
            return Err(TreeDiffers::Access((*folder).to_owned()));
        }
        check_names(
            &tree.below(folder).map_err(at(folder))?,
            folder,
            manifest,
            &folders,
        )?;
    }
    for (path, entry) in manifest.entries() {
        let path = path.as_str();
        let known = stands(tree, path)?;
        match entry {
            Entry::Link(target) => match tree.target(path).map_err(at(path))? {
                Some(found) if found == *target => {}
                Some(_) => return Err(TreeDiffers::Content(path.to_owned())),
                None => return Err(TreeDiffers::Kind(path.to_owned())),
            },
            Entry::File(file) => check_file(tree, path, file, &known, owner)?,
        }
    }
    Ok(())
}

/// Whether a folder has names that the manifest does not know.
fn check_names(
    folder: &Folder,
    path: &str,
    manifest: &Manifest,
    folders: &BTreeSet<&str>,
) -> Result<(), TreeDiffers> {
    for name in folder.names().map_err(at(path))? {
        let full = match path {
            "" => name,
            above => format!("{above}/{name}"),
        };
        let known = folders.contains(full.as_str())
            || full
                .parse::<AppPath>()
                .is_ok_and(|full| manifest.entries().contains_key(&full));
        if !known {
            return Err(TreeDiffers::Unexpected(full));
        }
    }
    Ok(())
}

fn check_file(
    tree: &Folder,
    path: &str,
    file: &File,
    known: &Known,
    owner: u32,
) -> Result<(), TreeDiffers> {
    let mode = match file.executable {
        true => PROGRAM_MODE,
        false => DATA_MODE,
    };
    if known.kind != Kind::File {
        return Err(TreeDiffers::Kind(path.to_owned()));
    }
    if known.mode != mode || known.owner != owner || known.shared {
        return Err(TreeDiffers::Access(path.to_owned()));
    }
    if known.bytes != file.size || digest_of(tree, path).map_err(at(path))? != file.digest {
        return Err(TreeDiffers::Content(path.to_owned()));
    }
    Ok(())
}

fn digest_of(tree: &Folder, path: &str) -> io::Result<Digest> {
    let mut file = tree.file(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some([]) | None => return Ok(hasher.finish()),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

fn stands(tree: &Folder, path: &str) -> Result<Known, TreeDiffers> {
    tree.known(path)
        .map_err(at(path))?
        .ok_or_else(|| TreeDiffers::Missing(path.to_owned()))
}

fn at(path: &str) -> impl Fn(io::Error) -> TreeDiffers + '_ {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => TreeDiffers::Missing(path.to_owned()),
        _ => TreeDiffers::Io {
            path: path.to_owned(),
            source,
        },
    }
}
