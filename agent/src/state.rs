//! What survives a restart, sealed to the machine.
//!
//! Two sealed files: `held` (identity, trust, policy, peers, cuts; large, written when something of it changes) and
//! `recent` (clock floor, last heartbeat, newest result; small, written every few minutes). Both are encrypted with a
//! key that only this machine's TPM gives back, and carry the *epoch*: a number that is raised in the TPM whenever
//! losing the newest state would give rights back. A state older than the TPM's epoch was put back by somebody, and
//! nothing is granted on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeward_evidence::tpm::ClockInfo;
use edgeward_identity::{BootTime, Secret, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};

use crate::clock::Anchor;
use crate::root::{Root, RootError};
use crate::view::{Held as Hold, Standing};

mod base64_bytes;
pub(crate) mod file;
mod held;
mod lock;
mod origin;
mod recent;

pub use file::{FileError, MAX_STATE_BYTES, Opened, SealedFile};
pub use held::{Blob, Held, Stored, Unusable};
pub use lock::{FolderLock, LockError};
pub use origin::{NoOrigin, Origin};
pub use recent::{Recent, SignedTime};

/// Bytes of the key that encrypts the state (AES-256-GCM).
pub const STATE_KEY_BYTES: usize = 32;
const SEALED_KEY: &str = "state-key";
const HELD: &str = "held";
const RECENT: &str = "recent";
/// What a file of a state that does not open any more is called: its name, a dot, and this.
const LOST: &str = "lost";
const FOLDER_MODE: u32 = 0o700;
/// Most raises at once: one, and one for each crash between writing and raising.
const MAX_CATCH_UP: u32 = 8;

/// The state folder, opened with the machine's key.
pub struct StateFolder {
    path: PathBuf,
    held: SealedFile,
    recent: SealedFile,
    /// What the next files carry.
    epoch: u64,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Found {
    pub held: Option<Stored>,
    pub recent: Option<Recent>,
    /// The newest state is older than the TPM knows it should be.
    pub rolled_back: bool,
}

/// The state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state folder {path}: {source}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "state key of {path} does not open on this machine: it was altered, or belongs to another tpm"
    )]
    ForeignKey {
        path: PathBuf,
        #[source]
        source: RootError,
    },
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("the random source failed")]
    Random,
    #[error("state does not serialise: {0}")]
    Serialise(#[source] serde_json::Error),
}

impl StateError {
    /// The state was sealed by another TPM, or by this one before it was cleared; not a TPM that fails to answer.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::ForeignKey { source, .. } if source.is_foreign())
    }
}

impl StateFolder {
    /// Opens the folder, or makes it. Fails where the state is there and does not open: altered, or another machine's.
    pub async fn open(path: &Path, root: &dyn Root) -> Result<(Self, Found), StateError> {
        make_folder(path)?;
        let key = state_key(path, root).await?;
        let held = SealedFile::new(path.join(HELD), b"edgeward state held v1", &key)?;
        let recent = SealedFile::new(path.join(RECENT), b"edgeward state recent v1", &key)?;
        let stored: Option<Opened<Stored>> = held.read()?;
        let last: Option<Opened<Recent>> = recent.read()?;
        let newest = stored.as_ref().map(|opened| opened.epoch);
        let tpm = root.epoch().await?;
        let rolled_back = match (newest, tpm) {
            (Some(newest), Some(tpm)) => newest < tpm,
            _ => false,
        };
        // The floor must not be older than the rest either.
        let last = last.filter(|last| newest.is_none_or(|newest| last.epoch >= newest));
        let folder = Self {
            path: path.to_owned(),
            held,
            recent,
            epoch: newest.unwrap_or(0).max(tpm.unwrap_or(0)),
        };
        let found = Found {
            held: stored.map(|opened| opened.value),
            recent: last.map(|opened| opened.value),
            rolled_back,
        };
        Ok((folder, found))
    }

    /// A new folder in the place of one that does not open any more. What was in it is kept under another name, for
    /// people: nothing reads it.
    pub async fn anew(path: &Path, root: &dyn Root) -> Result<Self, StateError> {
        for name in [SEALED_KEY, HELD, RECENT] {
            let from = path.join(name);
            match std::fs::rename(&from, path.join(format!("{name}.{LOST}"))) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StateError::Folder { path: from, source });
                }
                _ => {}
            }
        }
        Self::open(path, root).await.map(|(folder, _)| folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a node's state lies in the folder; nothing is opened or made.
    pub fn is_there(path: &Path) -> bool {
        path.join(HELD).exists()
    }

    /// Writes `held` within the present epoch.
    pub fn write_held(&self, held: &Stored) -> Result<(), StateError> {
        self.held.write(self.epoch, held)?;
        Ok(())
    }

    /// Writes `recent` within the present epoch.
    pub fn write_recent(&self, recent: &Recent) -> Result<(), StateError> {
        self.recent.write(self.epoch, recent)?;
        Ok(())
    }

    /// Writes both files as the next epoch, then raises the TPM's: whoever puts an older state back is found out. A
    /// crash in between leaves a state that is ahead, which is harmless.
    pub async fn write_new_epoch(
        &mut self,
        root: &dyn Root,
        held: &Stored,
        recent: &Recent,
    ) -> Result<(), StateError> {
        let Some(tpm) = root.epoch().await? else {
            self.write_held(held)?;
            return self.write_recent(recent);
        };
        // A new counter may start anywhere: then the files follow it.
        let mut current = match tpm {
            0 => root.raise_epoch().await?.unwrap_or(0),
            known => known,
        };
        let next = self.epoch.max(current).saturating_add(1);
        self.held.write(next, held)?;
        self.recent.write(next, recent)?;
        self.epoch = next;
        for _ in 0..MAX_CATCH_UP {
            if current >= next {
                break;
            }
            current = root.raise_epoch().await?.unwrap_or(next);
        }
        if let Err(error) = Origin::of(held).write(&self.path, root).await {
            tracing::error!(%error, "no origin file: a node whose tpm is cleared now needs a token to come back");
        }
        Ok(())
    }
}

/// What the machine says of the time at the start.
#[derive(Clone, Copy, Debug)]
pub struct Clocks<'a> {
    /// The kernel's boot id: `boottime` of one boot is one clock.
    pub kernel_boot: &'a str,
    pub boottime: BootTime,
    pub wall: Timestamp,
    /// None without a TPM.
    pub tpm: Option<ClockInfo>,
}

/// Whether anything may be granted on what was found, and where the clock goes on from. Time is at least what was
/// stored, and at least what the cloud signed last plus what has passed on the TPM's clock since: a wall clock behind
/// either was set back.
pub fn judge(found: &Found, clocks: &Clocks<'_>) -> (Standing, Anchor) {
    let Some(recent) = &found.recent else {
        // What the cloud signed last is a lower bound too: enough for its certificate to be valid.
        let signed = found
            .held
            .as_ref()
            .map(Stored::newest_signed)
            .unwrap_or_default();
        let anchor = Anchor {
            time: clocks.wall.max(signed),
            at: clocks.boottime,
        };
        return (Standing::Held(Hold::NoFloor), anchor);
    };
    let same_boot =
        recent.kernel_boot == clocks.kernel_boot && recent.boottime() <= clocks.boottime;
    let since = if same_boot {
        clocks.boottime.since(recent.boottime())
    } else {
        Duration::ZERO
    };
    let by_tpm = recent
        .signed
        .zip(clocks.tpm)
        .and_then(|(signed, tpm)| signed.floor(&tpm))
        .unwrap_or_default();
    let anchor = Anchor {
        time: recent.floor.plus(since).max(by_tpm),
        at: clocks.boottime,
    };
    let standing = if found.rolled_back {
        Standing::Held(Hold::StateRolledBack)
    } else if !same_boot && clocks.wall < anchor.time {
        Standing::Held(Hold::ClockBehindFloor)
    } else {
        Standing::Granting
    };
    (standing, anchor)
}

fn make_folder(path: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)
        .map_err(|source| StateError::Folder {
            path: path.to_owned(),
            source,
        })
}

async fn state_key(folder: &Path, root: &dyn Root) -> Result<Secret<Vec<u8>>, StateError> {
    let path = folder.join(SEALED_KEY);
    if let Some(sealed) = file::read_bounded(&path)? {
        return root
            .unseal(&sealed)
            .await
            .map_err(|source| StateError::ForeignKey { path, source });
    }
    let mut key = vec![0; STATE_KEY_BYTES];
    SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| StateError::Random)?;
    let key = Secret::new(key);
    let sealed = root.seal(&key).await?;
    file::replace(&path, &sealed)?;
    Ok(key)
}

#[cfg(test)]
mod tests;
