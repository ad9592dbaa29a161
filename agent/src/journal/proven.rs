//! What this node deleted because the log proved that it has it: nothing of that is signed as lost any more, whoever asks.

use std::path::{Path, PathBuf};

use edgeward_audit::BootId;
use serde::{Deserialize, Serialize};

use crate::state::file::{FileError, read_bounded, replace};

/// The file beside the journal.
const FILE: &str = "log-deleted";
/// Most boots that are remembered; of the oldest it is forgotten then.
const MAX_BOOTS: usize = 1024;

/// What was deleted for a proof, and of which contradictions of the log there is a record.
#[derive(Debug)]
pub(super) struct Proven {
    path: PathBuf,
    kept: Kept,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// The one that was deleted from last is the last.
    boots: Vec<Deleted>,
    /// Codes of contradictions that are on record.
    told: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deleted {
    boot: BootId,
    /// The log proved that it has the record before: with it everything below.
    next: u64,
}

impl Proven {
    /// Reads what was remembered in `folder`. A file that cannot be read is none.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let kept = match read_bounded(&path) {
            Ok(None) => Ok(Kept::default()),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let kept = kept.unwrap_or_else(|error| {
            tracing::error!(error, path = %path.display(), "what the log proved to have is not known any more");
            Kept::default()
        });
        Self { path, kept }
    }

    /// Everything of the boot below this was proven to be in the log when it was deleted here; 0: nothing.
    pub(super) fn below(&self, boot: BootId) -> u64 {
        let known = self.kept.boots.iter().find(|known| known.boot == boot);
        known.map_or(0, |known| known.next)
    }

    /// Remembers it: on disk when this returns.
    pub(super) fn put(&mut self, boot: BootId, next: u64) -> Result<(), FileError> {
        let next = next.max(self.below(boot));
        let mut kept = self.kept.clone();
        kept.boots.retain(|known| known.boot != boot);
        kept.boots.push(Deleted { boot, next });
        let too_many = kept.boots.len().saturating_sub(MAX_BOOTS);
        kept.boots.drain(..too_many);
        self.write(kept)
    }

    pub(super) fn has_told(&self, code: &str) -> bool {
        self.kept.told.iter().any(|told| told == code)
    }

    /// A record says it: another one need not.
    pub(super) fn put_told(&mut self, code: &str) -> Result<(), FileError> {
        let mut kept = self.kept.clone();
        kept.told.push(code.to_owned());
        self.write(kept)
    }

    /// There is no trace of it any more: the next one is told of again.
    pub(super) fn forget_told(&mut self, code: &str) {
        self.kept.told.retain(|told| told != code);
    }

    fn write(&mut self, kept: Kept) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(&kept).map_err(|source| FileError::Content {
            path: self.path.clone(),
            source,
        })?;
        replace(&self.path, &bytes)?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(number: u64) -> BootId {
        BootId::from_bytes(u128::from(number).to_be_bytes())
    }

    #[test]
    fn what_cannot_be_written_is_not_remembered_either() {
        let folder = tempfile::tempdir().unwrap();
        let mut proven = Proven::open(folder.path());
        std::fs::create_dir(folder.path().join("log-deleted.new")).unwrap();
        assert!(proven.put(boot(1), 5).is_err());
        assert_eq!(proven.below(boot(1)), 0);
    }

    #[test]
    fn the_newest_boots_are_remembered_over_a_restart_and_never_less_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut proven = Proven::open(folder.path());
        let last = u64::try_from(MAX_BOOTS).unwrap();
        for number in 0..=last {
            proven.put(boot(number), 7).unwrap();
        }
        proven.put(boot(5), 3).unwrap();
        proven.put_told("log_forked").unwrap();
        let again = Proven::open(folder.path());
        let below = [0, 1, 5, last].map(|number| again.below(boot(number)));
        assert_eq!(below, [0, 7, 7, 7]);
        assert!(again.has_told("log_forked"));
        std::fs::write(folder.path().join(FILE), "torn").unwrap();
        assert_eq!(Proven::open(folder.path()).below(boot(5)), 0);
    }
}
