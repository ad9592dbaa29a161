//! Holding the log to its word: what a reader who remembers one checkpoint demands of the next.
//!
//! A node deletes its records when the log has them. It believes that for a proof only: the record is a leaf of a tree
//! whose checkpoint the log signed, and that tree continues the one whose checkpoint the node saw last. So a log that is
//! cut short, changed or shown otherwise to somebody is noticed by every node that it talks to, and gets nothing deleted.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::digest::Digest;
use crate::log_proof::{LogProof, LogProofError};
use crate::merkle::{ProofError, verify_consistency};
use crate::note::{NoteMalformed, NoteVerifier};

#[cfg(test)]
mod tests;

/// Who signs the checkpoints of a log. The log key of the trust domain's key set signs this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogKey {
    /// The log's name.
    pub origin: String,
    /// As C2SP signed-note writes it: name, key id and key.
    pub verifier: String,
}

/// A log as one of its readers knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWatch {
    origin: String,
    verifier: NoteVerifier,
}

/// What the log shows.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Of one entry.
    pub proof: &'a LogProof,
    /// The size from which `consistency` leads to the proof's checkpoint; 0: the log thinks that the reader knows none.
    pub from: u64,
    pub consistency: &'a [Digest],
}

/// Why what the log shows is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    #[error("proof is not accepted: {0}")]
    Proof(#[from] LogProofError),
    #[error(
        "the log does not show that it continues the checkpoint of {seen} events, but of {from}"
    )]
    From { seen: u64, from: u64 },
    #[error("the log shows a checkpoint of {shown} events after one of {seen}")]
    Behind { seen: u64, shown: u64 },
    #[error("the log's checkpoint of {shown} events does not continue that of {seen}: {source}")]
    Forked {
        seen: u64,
        shown: u64,
        #[source]
        source: ProofError,
    },
}

impl LogKey {
    /// The log that it names.
    pub fn watch(&self) -> Result<LogWatch, NoteMalformed> {
        Ok(LogWatch {
            origin: self.origin.clone(),
            verifier: NoteVerifier::parse(&self.verifier)?,
        })
    }
}

impl LogWatch {
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The checkpoint of a note of this log.
    pub fn open(&self, note: &[u8]) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open(note, &self.origin, &self.verifier)
    }

    /// Checks what the log shows against the checkpoint that was seen last. `entry` is what must be in the log; without
    /// one only the checkpoint is looked at. What comes back is to be remembered in the place of `seen`.
    pub fn check(
        &self,
        seen: Option<&Checkpoint>,
        shown: Shown<'_>,
        entry: Option<&Digest>,
    ) -> Result<Checkpoint, NotShown> {
        let note = shown.proof.checkpoint.as_bytes();
        let checkpoint = self.open(note).map_err(LogProofError::from)?;
        if let Some(seen) = seen {
            self.continues(seen, &checkpoint, shown)?;
        }
        if let Some(entry) = entry {
            let (origin, verifier) = (&self.origin, &self.verifier);
            shown.proof.verify(entry.as_bytes(), origin, verifier)?;
        }
        Ok(checkpoint)
    }

    fn continues(
        &self,
        seen: &Checkpoint,
        next: &Checkpoint,
        shown: Shown<'_>,
    ) -> Result<(), NotShown> {
        if next.size < seen.size {
            return Err(NotShown::Behind {
                seen: seen.size,
                shown: next.size,
            });
        }
        // Two trees of one size need no proof to contradict each other.
        if shown.from != seen.size && next.size != seen.size {
            return Err(NotShown::From {
                seen: seen.size,
                from: shown.from,
            });
        }
        let proof = match next.size == seen.size {
            true => &[],
            false => shown.consistency,
        };
        verify_consistency(seen.size, next.size, proof, &seen.root, &next.root).map_err(|source| {
            NotShown::Forked {
                seen: seen.size,
                shown: next.size,
                source,
            }
        })
    }
}

impl NotShown {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Proof(refused) => refused.code(),
            Self::From { .. } => "log_not_continued",
            Self::Behind { .. } => "log_went_back",
            Self::Forked { .. } => "log_forked",
        }
    }

    /// Whether the log signed two words that do not go together.
    pub fn is_contradiction(&self) -> bool {
        matches!(self, Self::Forked { .. })
    }
}
