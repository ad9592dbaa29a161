//! A folder with a repository in it: a USB stick, or what a publisher's tool made.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use edgeward_apps::image::Wanted;
use edgeward_apps::manifest::Chunk;
use edgeward_apps::{Digest, Release};
use edgeward_identity::signed::MAX_SIGNED_BYTES;
use tokio::sync::mpsc;

use super::{NotFetched, Source};

/// See docs/apps.md: `image/{metadata,targets,chunks}` and `director/NODE.signed`.
#[derive(Clone, Debug)]
pub struct FolderSource(PathBuf);

impl FolderSource {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What the director says to a node, if the folder has it.
    pub async fn word(&self, node: &str) -> Result<Option<Vec<u8>>, NotFetched> {
        let path = self.0.join("director").join(format!("{node}.signed"));
        read(path, u64::try_from(MAX_SIGNED_BYTES).unwrap_or(u64::MAX)).await
    }

    fn image(&self) -> PathBuf {
        self.0.join("image")
    }
}

#[async_trait]
impl Source for FolderSource {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    async fn metadata(&self, wanted: &Wanted) -> Result<Option<Vec<u8>>, NotFetched> {
        let path = self.image().join("metadata").join(&wanted.name);
        read(path, wanted.max_bytes).await
    }

    async fn manifest(&self, release: &Release) -> Result<Option<Vec<u8>>, NotFetched> {
        let Release {
            app,
            version,
            digest,
            length,
        } = release;
        let folder = self.image().join("targets").join(app.to_string());
        read(folder.join(format!("{digest}.{version}")), *length).await
    }

    async fn chunks(
        &self,
        wanted: &[Chunk],
        take: mpsc::Sender<(Digest, Vec<u8>)>,
    ) -> Result<(), NotFetched> {
        let folder = self.image().join("chunks");
        for chunk in wanted {
            let name = chunk.digest.to_string();
            let first: String = name.chars().take(2).collect();
            let path = folder.join(first).join(&name);
            if let Some(bytes) = read(path, u64::from(chunk.size)).await? {
                let taken = take.send((chunk.digest, bytes)).await;
                taken.map_err(|_| NotFetched::Over)?;
            }
        }
        Ok(())
    }
}

async fn read(path: PathBuf, most: u64) -> Result<Option<Vec<u8>>, NotFetched> {
    let read = tokio::task::spawn_blocking(move || read_now(&path, most));
    read.await.unwrap_or(Err(NotFetched::Over))
}

/// A stick is made by anybody: no pipe holds the agent up, and no link leads it elsewhere.
fn read_now(path: &Path, most: u64) -> Result<Option<Vec<u8>>, NotFetched> {
    let shown = || path.display().to_string();
    let io = |source| NotFetched::Io(shown(), source);
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if !file.metadata().map_err(io)?.is_file() {
        return Err(NotFetched::Refused(format!("{} is no file", shown())));
    }
    let mut bytes = Vec::new();
    let mut limited = file.take(most.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(io)?;
    match u64::try_from(bytes.len()).is_ok_and(|length| length <= most) {
        true => Ok(Some(bytes)),
        false => Err(NotFetched::TooLong(shown())),
    }
}
