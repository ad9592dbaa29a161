//! The newest metadata that came along, as it came: for nodes nearby, which verify it themselves.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use edgeward_apps::image::{MAX_PUBLISHERS, MAX_ROOT_STEPS, MAX_TARGETS_BYTES, Wanted};
use edgeward_apps::manifest::Chunk;
use edgeward_apps::{Digest, Release};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::super::fetch::{NotFetched, Source};
use super::super::folder::Folder;

/// Longest name of a file, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Most files: roots, one of each other role, and of each publisher.
const MAX_FILES: usize = MAX_ROOT_STEPS as usize + 3 + MAX_PUBLISHERS;
const FILE_MODE: u32 = 0o600;
const UNFINISHED: &str = "unfinished";
const ROOT: &str = "root.json";

/// A folder of metadata.
#[derive(Debug)]
pub struct Remembered(Mutex<Folder>);

/// A source whose metadata is remembered.
pub struct Remembering {
    source: Arc<dyn Source>,
    remembered: Arc<Remembered>,
}

impl Remembered {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(Folder::made(path)?)))
    }

    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        role_of(name)?;
        let mut bytes = Vec::new();
        let file = self.0.lock().file(name).ok()?;
        let read = file.take(MAX_TARGETS_BYTES).read_to_end(&mut bytes);
        read.ok().map(|_| bytes)
    }

    /// Of each role the newest stays, and of the root the last few: others walk from theirs to ours.
    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let Some((version, role)) = role_of(name) else {
            return Ok(());
        };
        let folder = self.0.lock();
        folder.remove(UNFINISHED)?;
        let mut file = folder.create(UNFINISHED, FILE_MODE)?;
        file.write_all(bytes)?;
        folder.replace(UNFINISHED, name)?;
        let names = folder.names()?;
        let least = match role {
            ROOT => version
                .saturating_sub(u64::from(MAX_ROOT_STEPS))
                .saturating_add(1),
            _ => version,
        };
        for other in &names {
            if role_of(other).is_some_and(|(at, of)| of == role && at < least) {
                folder.remove(other)?;
            }
        }
        // More roles than there may be: somebody made them up.
        match names.len() > MAX_FILES {
            true => folder.remove(name),
            false => Ok(()),
        }
    }
}

impl Remembering {
    pub fn new(source: Arc<dyn Source>, remembered: Arc<Remembered>) -> Self {
        Self { source, remembered }
    }
}

#[async_trait]
impl Source for Remembering {
    fn name(&self) -> String {
        self.source.name()
    }

    async fn metadata(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, NotFetched> {
        let bytes = self.source.metadata(wanted).await?;
        if let Some(bytes) = bytes.clone() {
            let (remembered, name) = (self.remembered.clone(), wanted.name.clone());
            let kept = tokio::task::spawn_blocking(move || remembered.keep(&name, &bytes));
            if let Ok(Err(error)) = kept.await {
                tracing::warn!(file = wanted.name, %error, "metadata cannot be kept for others");
            }
        }
        Ok(bytes)
    }

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched> {
        self.source.manifest(release).await
    }

    async fn chunks(
        &self,
        wanted: &[Chunk],
        take: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched> {
        self.source.chunks(wanted, take).await
    }
}

/// Version and role that a file's name tells; `timestamp.json` has no version. `None`: no name of metadata.
fn role_of(name: &str) -> Option<(u64, &str)> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
    if !plain || name.len() > MAX_NAME_BYTES || !name.ends_with(".json") {
        return None;
    }
    if name == "timestamp.json" {
        return Some((0, name));
    }
    let (version, role) = name.split_once('.')?;
    let known: u64 = version.parse().ok()?;
    (known.to_string() == version && role.len() > ".json".len()).then_some((known, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_metadata_are_files_of_it() {
        for wrong in [
            "",
            ".json",
            "../1.root.json",
            "/etc/passwd",
            "1.root.json/..",
            "1.root",
            "01.root.json",
            "root.json",
            "1..json/x",
            "1.json",
            "1.Root.json",
            "x.timestamp.json",
            "unfinished",
        ] {
            assert_eq!(role_of(wrong), None, "{wrong}");
        }
        assert!(role_of(&format!("1.{}.json", "a".repeat(MAX_NAME_BYTES))).is_none());
        assert_eq!(role_of("12.root.json"), Some((12, "root.json")));
        assert_eq!(role_of("timestamp.json"), Some((0, "timestamp.json")));
        assert_eq!(role_of("3.acme.json"), Some((3, "acme.json")));
    }

    #[test]
    fn of_each_role_the_newest_is_kept_and_no_more_than_there_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let remembered = Remembered::open(&folder.path().join("metadata")).unwrap();
        for name in [
            "timestamp.json",
            "1.snapshot.json",
            "2.snapshot.json",
            "1.acme.json",
        ] {
            remembered.keep(name, name.as_bytes()).unwrap();
        }
        remembered.keep("timestamp.json", b"newer").unwrap();
        remembered.keep("../outside.json", b"x").unwrap();
        assert_eq!(remembered.read("1.snapshot.json"), None);
        assert_eq!(
            remembered.read("2.snapshot.json").as_deref(),
            Some(&b"2.snapshot.json"[..])
        );
        assert_eq!(
            remembered.read("timestamp.json").as_deref(),
            Some(&b"newer"[..])
        );
        for version in 1..=40 {
            remembered
                .keep(&format!("{version}.root.json"), b"root")
                .unwrap();
        }
        assert_eq!(remembered.read("8.root.json"), None);
        assert!(remembered.read("9.root.json").is_some());
        for other in 0..MAX_FILES {
            remembered
                .keep(&format!("1.made-up-{other}.json"), b"x")
                .unwrap();
        }
        let files = std::fs::read_dir(folder.path().join("metadata"))
            .unwrap()
            .count();
        assert!(files <= MAX_FILES, "{files}");
        assert!(remembered.read("timestamp.json").is_some());
        assert!(!folder.path().join("outside.json").exists());
    }
}
