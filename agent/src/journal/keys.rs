//! The journal's key: the one in use, and where it waits for the next start of the agent.
//!
//! A key lives until the next one's turn is on record ([`Journal::turn`]) and is gone then. Between starts of the agent
//! within one boot it lies beside the boot key, in a folder in RAM; elsewhere it is kept nowhere, and a start is a new
//! boot. While a turn is being written both keys are kept: the journal says which of them counts.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgeward_audit::journal::{JournalError, SegmentStore};
use edgeward_audit::record::KeyTurn;
use edgeward_audit::{BootId, Journal};
use edgeward_identity::{BootTime, Secret, Signer, SoftwareKey, Timestamp};

use crate::boot::Boot;

const FILE: &str = "journal-key";
const FILE_MODE: u32 = 0o600;
/// Longest file, in bytes: boot id and two keys.
const MAX_FILE_BYTES: u64 = 1024;
const ID_BYTES: usize = 16;
/// After a turn that failed, as in a full journal, so many records pass before the next try.
const RETRY_AFTER_RECORDS: u32 = 64;

/// The keys of one boot's journal.
pub(super) struct KeyRing {
    boot: BootId,
    boot_key: Arc<dyn Signer>,
    path: Option<PathBuf>,
    /// None before the first turn: the boot key is in use.
    current: Option<Held>,
    /// Written down, and perhaps turned to.
    pending: Option<Held>,
    /// Records until a turn that failed is tried again.
    pause: u32,
}

struct Held {
    number: u32,
    key: SoftwareKey,
}

/// The key did not turn; it stays in use and the next record asks again.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTurned {
    #[error("no new key could be made")]
    Random,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl KeyRing {
    /// The keys of the running boot, as the last start of the agent left them.
    pub(super) fn of(boot: &Boot) -> Self {
        let path = boot.folder().map(|folder| folder.join(FILE));
        let (current, pending) = path
            .as_deref()
            .and_then(|path| find(path, boot.id()))
            .unwrap_or_default();
        Self {
            boot: boot.id(),
            boot_key: boot.signer(),
            path,
            current,
            pending,
            pause: 0,
        }
    }

    /// Settles which key counts, by the newest turn that the journal holds. False: the key it turned to is lost, and the
    /// chain of keys cannot go on in this boot.
    pub(super) fn settle(&mut self, turn: Option<&KeyTurn>) -> bool {
        let Some(turn) = turn else {
            self.pending = None;
            return true;
        };
        let counts = |held: &Held| held.number == turn.number && *held.key.public_key() == turn.key;
        if self.pending.as_ref().is_some_and(counts) {
            self.current = self.pending.take();
            self.keep();
        }
        self.pending = None;
        self.current.as_ref().is_some_and(counts)
    }

    /// Whether a turn is due: after so many records, and first of all. Asked once after each record.
    pub(super) fn is_due<S: SegmentStore>(&mut self, journal: &Journal<S>) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        journal.is_turn_due() || (self.current.is_none() && journal.last_turn().is_none())
    }

    /// Turns to a new key. When this returns without an error the old one is nowhere any more.
    pub(super) fn turn<S: SegmentStore>(
        &mut self,
        journal: &mut Journal<S>,
        time: Timestamp,
        now: BootTime,
    ) -> Result<(), NotTurned> {
        let key = SoftwareKey::generate().map_err(|_| NotTurned::Random)?;
        let number = self.current.as_ref().map_or(0, |held| held.number + 1);
        let next = *key.public_key();
        self.pending = Some(Held { number, key });
        self.keep();
        let signer: &dyn Signer = match &self.current {
            Some(held) => &held.key,
            None => self.boot_key.as_ref(),
        };
        if let Err(error) = journal.turn(signer, (number, &next), time, now) {
            self.pause = RETRY_AFTER_RECORDS;
            return Err(error.into());
        }
        self.current = self.pending.take();
        self.keep();
        Ok(())
    }

    /// Writes down what a later start needs. Where that fails, the next start begins a new boot.
    fn keep(&self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = write(
            path,
            self.boot,
            self.current.as_ref(),
            self.pending.as_ref(),
        ) {
            tracing::warn!(path = %path.display(), %error, "the journal's key cannot be kept for a restart");
            let _ = wipe(path);
        }
    }
}

type Found = (Option<Held>, Option<Held>);

fn find(path: &Path, boot: BootId) -> Option<Found> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    let secret = Secret::new(bytes);
    let (id, rest) = secret.expose().split_first_chunk::<ID_BYTES>()?;
    if id != boot.as_bytes() {
        return None;
    }
    let (current, rest) = read_held(rest)?;
    let (pending, rest) = read_held(rest)?;
    rest.is_empty().then_some((current, pending))
}

/// `length u16 | number u32 | key`, or a length of zero for none.
fn read_held(bytes: &[u8]) -> Option<(Option<Held>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 {
        return Some((None, rest));
    }
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(length)?;
    let held = Held {
        number: u32::from_be_bytes(*number),
        key: SoftwareKey::from_pkcs8(Secret::new(key.to_vec())).ok()?,
    };
    Some((Some(held), rest))
}

fn write(
    path: &Path,
    boot: BootId,
    current: Option<&Held>,
    pending: Option<&Held>,
) -> std::io::Result<()> {
    let staged = path.with_extension("new");
    let _ = std::fs::remove_file(&staged);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&staged)?;
    file.write_all(boot.as_bytes())?;
    for held in [current, pending] {
        let Some(held) = held else {
            file.write_all(&[0, 0])?;
            continue;
        };
        let key = held.key.pkcs8().expose();
        // A P-256 key in PKCS#8 has 138 bytes.
        let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
        file.write_all(&length.to_be_bytes())?;
        file.write_all(&held.number.to_be_bytes())?;
        file.write_all(key)?;
    }
    // What is replaced holds a key that is to be gone: the pages too, not the name alone.
    overwrite(path)?;
    std::fs::rename(&staged, path)
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    let mut old = match std::fs::OpenOptions::new().write(true).open(path) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(old.metadata()?.len().min(MAX_FILE_BYTES)).unwrap_or(0);
    old.write_all(&vec![0; length])
}

fn wipe(path: &Path) -> std::io::Result<()> {
    overwrite(path)?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests;
