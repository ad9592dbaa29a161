//! The witness protocol (C2SP tlog-witness): what a log submits, and whether a witness may cosign it.
//!
//! ```text
//! old <size of the tree that the witness cosigned last>
//! <hash in base64>          (the consistency proof; none where the old size is 0 or the same)
//!
//! <the log's checkpoint: a signed note>
//! ```
//!
//! A witness cosigns only what continues the tree that it cosigned before ([`Continued`]); everything else it refuses with a
//! status that the specification names. What it remembers must be on disk before the cosignature leaves it.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use edgeward_identity::Timestamp;

use crate::checkpoint::{Checkpoint, CheckpointError, parse_size};
use crate::cosignature::Cosigner;
use crate::digest::Digest;
use crate::merkle::{EMPTY_ROOT, ProofError, verify_consistency};
use crate::note::{
    MAX_NOTE_BYTES, Note, NoteMalformed, NoteSignature, NoteUnverified, NoteVerifier,
};

/// Most hashes of a submission.
pub const MAX_SUBMITTED_HASHES: usize = 63;
/// Longest submission, in bytes: what other routes take, and less than the longest note.
pub const MAX_SUBMISSION_BYTES: usize = MAX_NOTE_BYTES;
/// Largest tree, in leaves: what a database keeps as a number of 64 bits with a sign.
pub const MAX_TREE_SIZE: u64 = i64::MAX.cast_unsigned();
/// Media type of the size that answers a submission from another size.
pub const SIZE_MEDIA_TYPE: &str = "text/x.tlog.size";

/// What a log asks a witness to cosign. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What the log believes the witness has cosigned last.
    pub old: u64,
    pub proof: Vec<Digest>,
    /// The checkpoint, byte by byte.
    pub note: Note,
}

/// What a witness remembers of a log: the tree that it cosigned last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub size: u64,
    pub root: Digest,
}

/// A submitted checkpoint that its log signed. Only [`Submission::open`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    submission: Submission,
    checkpoint: Checkpoint,
}

/// A checkpoint that its log signed and that continues what the witness knew. Only [`Opened::judge`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continued {
    note: Note,
    checkpoint: Checkpoint,
}

/// The bytes are no submission: the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmissionMalformed {
    #[error("submission is longer than the limit in bytes: {MAX_SUBMISSION_BYTES}")]
    TooLong,
    #[error("submission is not utf-8 text that begins with the old size")]
    Old,
    #[error("proof is not of sha-256 hashes in base64")]
    Hash,
    #[error("proof has more hashes than the limit: {MAX_SUBMITTED_HASHES}")]
    TooManyHashes,
    #[error("no checkpoint behind a blank line: {0}")]
    Note(#[from] NoteMalformed),
    #[error("not a checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("the checkpoint's tree is larger than the limit in leaves: {MAX_TREE_SIZE}")]
    TooLarge,
}

/// Why a witness does not cosign a checkpoint that its log signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCosigned {
    /// The caller's fault.
    #[error("old size {old} is above the checkpoint's size {size}")]
    OldAbove { old: u64, size: u64 },
    /// The caller's, who must begin from this size.
    #[error("the checkpoint cosigned last is of another size than the old size: {0}")]
    OtherSize(u64),
    /// The log's: it signed two trees of one size.
    #[error("the log signed two different trees of one size: {0}")]
    Forked(u64),
    /// The caller's or the log's.
    #[error("the tree of size zero has another root than that of nothing")]
    NotEmpty,
    /// The caller's or the log's.
    #[error("the tree is not shown to continue the one cosigned last: {0}")]
    Inconsistent(#[from] ProofError),
}

impl Submission {
    pub fn parse(bytes: &[u8]) -> Result<Self, SubmissionMalformed> {
        if bytes.len() > MAX_SUBMISSION_BYTES {
            return Err(SubmissionMalformed::TooLong);
        }
        let text = str::from_utf8(bytes).map_err(|_| SubmissionMalformed::Old)?;
        let (head, note) = text.split_once("\n\n").ok_or(NoteMalformed::NoSignatures)?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(|size| parse_size(size).ok())
            .ok_or(SubmissionMalformed::Old)?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() >= MAX_SUBMITTED_HASHES {
                return Err(SubmissionMalformed::TooManyHashes);
            }
            proof.push(parse_hash(line)?);
        }
        let note = Note::parse(note.as_bytes())?;
        Ok(Self { old, proof, note })
    }

    /// What the checkpoint calls its log and its size, which nobody may have signed.
    pub fn stated(&self) -> Result<Checkpoint, SubmissionMalformed> {
        let stated = Checkpoint::parse_text(self.note.unverified_text())?;
        match stated.size <= MAX_TREE_SIZE {
            true => Ok(stated),
            false => Err(SubmissionMalformed::TooLarge),
        }
    }

    /// Checks that a key of the log signed the checkpoint: one of `keys` at least, and none that is named wrongly.
    pub fn open(self, stated: Checkpoint, keys: &[NoteVerifier]) -> Result<Opened, NoteUnverified> {
        let mut signed = false;
        for key in keys {
            match self.note.open(key) {
                Ok(_) => signed = true,
                Err(NoteUnverified::Missing) => {}
                Err(NoteUnverified::Signature) => return Err(NoteUnverified::Signature),
            }
        }
        // Read again: what is signed is what counts, whatever was handed in.
        let checkpoint = Checkpoint::parse_text(self.note.unverified_text());
        match checkpoint {
            Ok(checkpoint) if signed && checkpoint == stated => Ok(Opened {
                submission: self,
                checkpoint,
            }),
            Ok(_) | Err(_) => Err(NoteUnverified::Missing),
        }
    }
}

/// The body of the request.
impl fmt::Display for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", BASE64_STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.note)
    }
}

impl Opened {
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The checkpoint as the log signed it.
    pub fn note(&self) -> &Note {
        &self.submission.note
    }

    /// Whether it is another tree than the one of the same size that the witness cosigned. Whatever old size came with it:
    /// two signed trees of one size prove what the log did, also where the answer is another refusal.
    pub fn forks(&self, known: &Known) -> bool {
        let Checkpoint { size, root, .. } = &self.checkpoint;
        *size > 0 && *size == known.size && *root != known.root
    }

    /// Holds it to what the witness knows of this log; `None`: it cosigned none yet. The answer counts only while that
    /// stays so: whoever calls this keeps others from changing it until the new one is stored.
    pub fn judge(self, known: Option<Known>) -> Result<Continued, NotCosigned> {
        let (old, size) = (self.submission.old, self.checkpoint.size);
        let known = known.unwrap_or(Known {
            size: 0,
            root: EMPTY_ROOT,
        });
        if old > size {
            return Err(NotCosigned::OldAbove { old, size });
        }
        // Before anything else that is wrong with it, as the specification has it.
        if old != known.size {
            return Err(NotCosigned::OtherSize(known.size));
        }
        if self.forks(&known) {
            return Err(NotCosigned::Forked(size));
        }
        if size == 0 && self.checkpoint.root != EMPTY_ROOT {
            return Err(NotCosigned::NotEmpty);
        }
        let proof = &self.submission.proof;
        match old {
            0 if proof.is_empty() => {}
            0 => return Err(ProofError::Length(proof.len()).into()),
            _ => verify_consistency(old, size, proof, &known.root, &self.checkpoint.root)?,
        }
        Ok(Continued {
            note: self.submission.note,
            checkpoint: self.checkpoint,
        })
    }
}

impl Continued {
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Cosigns it. The signature may leave the witness when the tree is remembered, and not before.
    pub fn cosign(&self, witness: &Cosigner, now: Timestamp) -> NoteSignature {
        witness.cosign(self.note.unverified_text(), now)
    }

    /// The note with the lines of the log's keys and the cosignature, without those of strangers.
    pub fn noted(
        &self,
        keys: &[NoteVerifier],
        cosignature: NoteSignature,
    ) -> Result<Note, NoteMalformed> {
        let mut lines = String::new();
        let ours = |line: &&NoteSignature| {
            keys.iter()
                .any(|key| key.name() == line.name && key.key_id() == line.key_id)
        };
        for line in self.note.signatures().iter().filter(ours) {
            lines.push_str(&format!("{line}\n"));
        }
        let mut note = self.note.with_lines(lines.as_bytes())?;
        note.add(cosignature)?;
        Ok(note)
    }
}

impl NotCosigned {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OldAbove { .. } => "witness_old_above",
            Self::OtherSize(_) => "witness_other_size",
            Self::Forked(_) => "witness_forked",
            Self::NotEmpty => "witness_not_empty",
            Self::Inconsistent(_) => "witness_inconsistent",
        }
    }
}

/// Reads the size in the answer to a submission from another size.
pub fn parse_size_answer(bytes: &[u8]) -> Result<u64, SubmissionMalformed> {
    str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .and_then(|text| parse_size(text).ok())
        .ok_or(SubmissionMalformed::Old)
}

fn parse_hash(line: &str) -> Result<Digest, SubmissionMalformed> {
    BASE64_STANDARD
        .decode(line)
        .ok()
        .and_then(|bytes| Digest::try_from(bytes.as_slice()).ok())
        .ok_or(SubmissionMalformed::Hash)
}

#[cfg(test)]
mod tests;
