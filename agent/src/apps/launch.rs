//! From a release that was verified to what the launcher is told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use edgeward_apps::digest::Digest;
use edgeward_apps::manifest::{Entry, File, Manifest};
use edgeward_apps::name::{AppName, Version};
use edgeward_guard::control::{Order, Start};
use edgeward_guard::digest::Digest as GuardDigest;
use edgeward_guard::launch::order::{Limits, Written};
use edgeward_identity::Timestamp;

use super::check::{self, TreeDiffers};
use super::folder::Folder;

/// An application that is to run.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub manifest: Arc<Manifest>,
    /// Of the manifest.
    pub digest: Digest,
    /// Where its files are, on the volume.
    pub tree: PathBuf,
    /// When it ends unless somebody says otherwise.
    pub until: Timestamp,
    /// Its user and group, nobody else's.
    pub uid: u32,
}

/// An application that runs, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub app: AppName,
    pub version: Version,
    /// Of the manifest.
    pub manifest: Digest,
    /// Of the program that is started.
    pub entry: Digest,
    /// Of all its files.
    pub files: Arc<BTreeSet<Digest>>,
    pub cgroup: PathBuf,
    pub uid: u32,
}

/// Where applications live.
#[derive(Clone, Debug)]
pub struct Places {
    /// Group of all applications.
    pub cgroup: PathBuf,
    /// What they write, a folder each.
    pub state: PathBuf,
    /// The socket of the Workload API, where there is one.
    pub workload: Option<PathBuf>,
}

/// A tree is not what its manifest says.
#[derive(Debug, thiserror::Error)]
pub enum OtherTree {
    #[error("tree cannot be opened: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Differs(#[from] TreeDiffers),
}

/// The name of an application's group and of its state: unlike any other's, and no name of the kernel's.
pub fn group_name(app: &AppName) -> String {
    format!("{}@{}", app.publisher().as_str(), app.name())
}

/// The application of a group.
pub fn app_of_group(name: &str) -> Option<AppName> {
    name.replacen('@', "/", 1).parse().ok()
}

/// The manifest that [`Wanted::what`] names.
pub fn digest_in(what: &str) -> Option<Digest> {
    what.rsplit_once(' ')?.1.parse().ok()
}

/// All files of these applications, for the guard's book.
pub fn book_of<'m>(apps: impl IntoIterator<Item = &'m Manifest>) -> BTreeMap<GuardDigest, String> {
    let mut files = BTreeMap::new();
    for manifest in apps {
        let app = manifest.app.to_string();
        files.extend(files_of(manifest).map(|file| (guards(&file.digest), app.clone())));
    }
    files
}

impl Wanted {
    pub fn app(&self) -> &AppName {
        &self.manifest.app
    }

    /// What the guard is told to say again when it is asked what runs.
    pub fn what(&self) -> String {
        format!("{} {}", self.manifest.version, self.digest)
    }

    pub fn running(&self, places: &Places) -> Running {
        let manifest = &self.manifest;
        Running {
            app: manifest.app.clone(),
            version: manifest.version.clone(),
            manifest: self.digest,
            // A manifest whose entry is no file is not parsed: the digest of nothing stands for what cannot be.
            entry: manifest
                .file(&manifest.entry.path)
                .map_or_else(|| Digest::of(b""), |file| file.digest),
            files: Arc::new(files_of(manifest).map(|file| file.digest).collect()),
            cgroup: places.cgroup.join(group_name(&manifest.app)),
            uid: self.uid,
        }
    }

    pub fn start(&self, places: &Places) -> Order {
        let running = self.running(places);
        let manifest = &self.manifest;
        let name = group_name(&manifest.app);
        Order::Start(Box::new(Start {
            what: self.what(),
            order: Written {
                tree: self.tree.clone(),
                program: PathBuf::from(manifest.entry.path.as_str()),
                digest: guards(&running.entry),
                args: manifest.entry.args.clone(),
                env: manifest.entry.env.clone(),
                uid: self.uid,
                gid: self.uid,
                cgroup: running.cgroup,
                state: places.state.join(&name),
                writable: manifest
                    .writable
                    .iter()
                    .map(|path| PathBuf::from(path.as_str()))
                    .collect(),
                host_libraries: manifest.host_libraries,
                workload: places.workload.clone(),
                limits: Limits {
                    memory_bytes: manifest.resources.memory_bytes,
                    cpu_percent: manifest.resources.cpu_percent,
                    tasks: manifest.resources.tasks,
                },
            },
            name,
        }))
    }

    /// Reads the whole tree: for where nobody asks the kernel's questions about it. Blocks.
    pub fn verify_tree(&self) -> Result<(), OtherTree> {
        let tree = Folder::open(&self.tree)?;
        Ok(check::whole(&tree, &self.manifest)?)
    }
}

fn files_of(manifest: &Manifest) -> impl Iterator<Item = &File> {
    manifest.entries().values().filter_map(|entry| match entry {
        Entry::File(file) => Some(file),
        Entry::Link(_) => None,
    })
}

fn guards(digest: &Digest) -> GuardDigest {
    GuardDigest::new(*digest.as_bytes())
}
