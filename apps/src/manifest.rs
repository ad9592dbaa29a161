//! What a release is: its name, what it starts, what it may use, and every file in it.
//!
//! The bytes of a manifest are named by digest in signed metadata, so they have no canonical form and no signature of
//! their own. Content travels as chunks, named by digest too: a manifest is all that is needed to judge whatever else
//! arrives.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{AppName, Version};
use crate::path::{AppPath, PathError};
use crate::strict::{self, Ambiguous};

mod text;

use text::Text;

/// Longest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 8 * 1024 * 1024;
/// Most files and links in one app.
pub const MAX_ENTRIES: usize = 20_000;
/// Most bytes of one app, unpacked.
pub const MAX_APP_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Most chunks of one app.
pub const MAX_CHUNKS: usize = 65_536;
/// Longest chunk, in bytes.
pub const MAX_CHUNK_BYTES: u32 = 1024 * 1024;
/// Most arguments that an app is started with.
pub const MAX_ARGS: usize = 64;
/// Most variables in the environment that an app is started with.
pub const MAX_ENV: usize = 64;
/// Longest argument, and longest value of a variable, in bytes.
pub const MAX_ARG_BYTES: usize = 4_096;
/// Longest name of a variable, in bytes.
pub const MAX_VARIABLE_BYTES: usize = 128;
/// Most folders that an app may write to.
pub const MAX_WRITABLE: usize = 16;
/// Longest path of a workload's SPIFFE ID that an app asks for, in bytes.
pub const MAX_IDENTITY_BYTES: usize = 255;

/// What the loader, the shell or an interpreter obeys: never the publisher's to set.
const LOADER_VARIABLES: [&str; 9] = [
    "LD_",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "BASH_ENV",
    "ENV",
    "PYTHON",
    "PERL",
    "RUBY",
    "NODE_",
];

/// A manifest that holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub app: AppName,
    pub version: Version,
    pub entry: EntryPoint,
    pub resources: Resources,
    /// Path of the workload's SPIFFE ID that the app would like; policy decides.
    pub identity: Option<String>,
    /// Folders outside of the app's own tree that it may write to, by their names.
    pub writable: Vec<AppPath>,
    /// The OCI image (digest of its manifest) that the files come from.
    pub image: Option<Digest>,
    /// Whether it needs the machine's own libraries and loader. Otherwise it sees nothing but its tree.
    pub host_libraries: bool,
    entries: BTreeMap<AppPath, Entry>,
    /// Bytes of all files.
    size: u64,
}

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryPoint {
    pub path: AppPath,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// What it may use at most. `None`: what the node gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Of one processor, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// One thing in an app's tree. Folders are not told: they are where files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    File(File),
    /// The text of a symbolic link that stays inside.
    Link(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub digest: Digest,
    pub size: u64,
    pub executable: bool,
    /// Its content, in order.
    pub chunks: Vec<Chunk>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub digest: Digest,
    pub size: u32,
}

/// Why bytes are no manifest. Whose fault: the publisher's.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("manifest does not read: {0}")]
    Json(#[source] serde_json::Error),
    #[error("manifest is of another format: {0:?}")]
    Format(String),
    #[error("more entries than the limit: {MAX_ENTRIES}")]
    Entries,
    #[error("an entry stands there twice: {0}")]
    Twice(AppPath),
    #[error("a file or link is where another entry needs a folder: {0}")]
    NotAFolder(String),
    #[error("an entry is not either a file or a link: {0}")]
    Kind(AppPath),
    #[error("link {0}: {1}")]
    Link(AppPath, #[source] PathError),
    #[error("link {0} leads to nothing in the app")]
    Dangling(AppPath),
    #[error("chunks of {0} do not make its size")]
    Chunks(AppPath),
    #[error("more chunks than the limit: {MAX_CHUNKS}")]
    ChunkCount,
    #[error("the app is larger than the limit in bytes: {MAX_APP_BYTES}")]
    Size,
    #[error("the entry point is no executable file of the app: {0}")]
    EntryPoint(AppPath),
    #[error(
        "arguments exceed their limits: {MAX_ARGS} of {MAX_ARG_BYTES} bytes, without zero bytes"
    )]
    Args,
    #[error("environment: {0:?} is not the publisher's to set, or exceeds a limit")]
    Env(String),
    #[error("resources: a limit of zero starts nothing")]
    Resources,
    #[error("identity is no path of a workload: {0:?}")]
    Identity(String),
    #[error("more writable folders than the limit: {MAX_WRITABLE}")]
    Writable,
}

impl Manifest {
    /// Reads a manifest. Whether anybody signed it is decided elsewhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        strict::check(bytes, MAX_MANIFEST_BYTES)?;
        let text: Text = serde_json::from_slice(bytes).map_err(Malformed::Json)?;
        Self::hold(text)
    }

    /// For the publisher: the same checks, then the bytes to sign for.
    pub fn to_json(&self) -> Result<Vec<u8>, Malformed> {
        let text = Text::of(self);
        let bytes = serde_json::to_vec(&text).map_err(Malformed::Json)?;
        Self::parse(&bytes).map(|_| bytes)
    }

    /// For the publisher.
    pub fn new(
        app: AppName,
        version: Version,
        entry: EntryPoint,
        entries: BTreeMap<AppPath, Entry>,
    ) -> Result<Self, Malformed> {
        let size = check_entries(&entries)?;
        let made = Self {
            app,
            version,
            entry,
            resources: Resources::default(),
            identity: None,
            writable: Vec::new(),
            image: None,
            host_libraries: false,
            entries,
            size,
        };
        made.check()?;
        Ok(made)
    }

    pub fn entries(&self) -> &BTreeMap<AppPath, Entry> {
        &self.entries
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn file(&self, path: &AppPath) -> Option<&File> {
        match self.entries.get(path) {
            Some(Entry::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Every chunk once, in the order in which files need them.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        let mut seen = BTreeSet::new();
        let files = self.entries.values().filter_map(|entry| match entry {
            Entry::File(file) => Some(file),
            Entry::Link(_) => None,
        });
        files
            .flat_map(|file| file.chunks.iter().copied())
            .filter(move |chunk| seen.insert(chunk.digest))
    }

    fn hold(text: Text) -> Result<Self, Malformed> {
        if text.format != text::FORMAT {
            return Err(Malformed::Format(text.format));
        }
        if text.entries.len() > MAX_ENTRIES {
            return Err(Malformed::Entries);
        }
        let mut entries = BTreeMap::new();
        for entry in text.entries {
            let path = entry.path.clone();
            if entries.insert(path.clone(), entry.read()?).is_some() {
                return Err(Malformed::Twice(path));
            }
        }
        let manifest = Self {
            app: text.app,
            version: text.version,
            entry: text.entry,
            resources: text.resources,
            identity: text.identity,
            writable: text.writable,
            image: text.image,
            host_libraries: text.host_libraries,
            size: check_entries(&entries)?,
            entries,
        };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), Malformed> {
        let start = &self.entry;
        if !self.file(&start.path).is_some_and(|file| file.executable) {
            return Err(Malformed::EntryPoint(start.path.clone()));
        }
        let fits = |text: &String| text.len() <= MAX_ARG_BYTES && !text.contains('\0');
        if start.args.len() > MAX_ARGS || !start.args.iter().all(fits) {
            return Err(Malformed::Args);
        }
        for (index, (name, value)) in start.env.iter().enumerate() {
            if index >= MAX_ENV || !is_variable(name) || !fits(value) {
                return Err(Malformed::Env(name.clone()));
            }
        }
        let Resources {
            memory_bytes,
            cpu_percent,
            tasks,
        } = self.resources;
        if memory_bytes == Some(0) || cpu_percent == Some(0) || tasks == Some(0) {
            return Err(Malformed::Resources);
        }
        if let Some(wrong) = self
            .identity
            .as_ref()
            .filter(|identity| !is_identity(identity))
        {
            return Err(Malformed::Identity(wrong.clone()));
        }
        match self.writable.len() > MAX_WRITABLE {
            true => Err(Malformed::Writable),
            false => Ok(()),
        }
    }
}

/// A tree: nothing is a file and a folder at once, links lead to something inside, sums are sums.
fn check_entries(entries: &BTreeMap<AppPath, Entry>) -> Result<u64, Malformed> {
    if entries.len() > MAX_ENTRIES {
        return Err(Malformed::Entries);
    }
    let (mut size, mut chunks) = (0u64, 0usize);
    let mut folders = BTreeSet::new();
    for (path, entry) in entries {
        folders.extend(path.above());
        if let Entry::File(file) = entry {
            let sum: u64 = file.chunks.iter().map(|chunk| u64::from(chunk.size)).sum();
            let sound = file
                .chunks
                .iter()
                .all(|chunk| (1..=MAX_CHUNK_BYTES).contains(&chunk.size));
            if sum != file.size || !sound {
                return Err(Malformed::Chunks(path.clone()));
            }
            chunks = chunks.saturating_add(file.chunks.len());
            size = size.saturating_add(file.size);
        }
    }
    if chunks > MAX_CHUNKS {
        return Err(Malformed::ChunkCount);
    }
    if size > MAX_APP_BYTES {
        return Err(Malformed::Size);
    }
    if let Some(wrong) = entries.keys().find(|path| folders.contains(path.as_str())) {
        return Err(Malformed::NotAFolder(wrong.to_string()));
    }
    for (path, entry) in entries {
        let Entry::Link(target) = entry else { continue };
        let target = path
            .link(target)
            .map_err(|why| Malformed::Link(path.clone(), why))?;
        if !entries.contains_key(&target) && !folders.contains(target.as_str()) {
            return Err(Malformed::Dangling(path.clone()));
        }
    }
    Ok(size)
}

fn is_variable(name: &str) -> bool {
    let plain = (1..=MAX_VARIABLE_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    plain
        && !LOADER_VARIABLES.iter().any(|begin| name.starts_with(begin))
        && name != "PATH"
        && name != "IFS"
}

fn is_identity(text: &str) -> bool {
    text.len() <= MAX_IDENTITY_BYTES
        && text.split('/').all(|part| {
            !part.is_empty()
                && !matches!(part, "." | "..")
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        })
}

#[cfg(test)]
pub(crate) mod tests;
