//! Proofs as text (C2SP tlog-proof): one file that shows, offline, that an entry is in the log.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>            (only if there is any; nobody vouches for it)
//! index <index of the entry>
//! <hash in base64>          (as many as the proof has, from the leaf's sibling up)
//!
//! <the log's checkpoint, as it was served: a signed note>
//! ```

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::digest::Digest;
use crate::merkle::{self, MAX_PROOF_HASHES, ProofError};
use crate::note::{MAX_NOTE_BYTES, NoteVerifier};

/// Most bytes of extra data.
pub const MAX_EXTRA_BYTES: usize = 16 * 1024;
/// Longest proof, in bytes: extra data in base64, the hashes, a note.
pub const MAX_LOG_PROOF_BYTES: usize =
    MAX_EXTRA_BYTES / 3 * 4 + 64 + MAX_PROOF_HASHES * HASH_LINE_BYTES + 128 + MAX_NOTE_BYTES;
/// How such files are named.
pub const FILE_EXTENSION: &str = "tlog-proof";

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// 32 bytes in base64, and the line's end.
const HASH_LINE_BYTES: usize = 45;

/// That one entry is in a log; nothing of it is verified before [`LogProof::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    /// The entry's place in the log, from 0.
    pub index: u64,
    /// The inclusion proof, from the leaf's sibling to the child of the root.
    pub hashes: Vec<Digest>,
    /// The signed checkpoint, byte by byte as the log gave it.
    pub checkpoint: String,
    /// Whatever the maker added. It is covered by nothing.
    pub extra: Option<Vec<u8>>,
}

/// Why bytes are no proof, or prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogProofError {
    #[error("proof is longer than the limit in bytes: {MAX_LOG_PROOF_BYTES}")]
    TooLong,
    #[error("proof is not utf-8 text that begins with {FIRST_LINE}")]
    Text,
    #[error(
        "extra data is not base64, is empty, or is longer than the limit in bytes: {MAX_EXTRA_BYTES}"
    )]
    Extra,
    #[error("index is not a decimal number")]
    Index,
    #[error("hash is not a sha-256 hash in base64")]
    Hash,
    #[error("proof has more hashes than the limit: {MAX_PROOF_HASHES}")]
    TooManyHashes,
    #[error("proof has no checkpoint under a blank line")]
    NoCheckpoint,
    #[error("checkpoint is not accepted: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("entry is not in the log of this checkpoint: {0}")]
    Proof(#[from] ProofError),
}

impl LogProof {
    /// Reads a proof. Of one proof there is one text: what is spelled otherwise is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogProofError> {
        if bytes.len() > MAX_LOG_PROOF_BYTES {
            return Err(LogProofError::TooLong);
        }
        let text = str::from_utf8(bytes).map_err(|_| LogProofError::Text)?;
        let rest = text
            .strip_prefix(FIRST_LINE)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or(LogProofError::Text)?;
        let (head, checkpoint) = rest.split_once("\n\n").ok_or(LogProofError::NoCheckpoint)?;
        if checkpoint.is_empty() || checkpoint.len() > MAX_NOTE_BYTES {
            return Err(LogProofError::NoCheckpoint);
        }
        let mut lines = head.split('\n').peekable();
        let extra = match lines.next_if(|line| line.starts_with("extra")) {
            Some(line) => Some(parse_extra(line)?),
            None => None,
        };
        let index = parse_index(lines.next().unwrap_or_default())?;
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() >= MAX_PROOF_HASHES {
                return Err(LogProofError::TooManyHashes);
            }
            hashes.push(parse_hash(line)?);
        }
        Ok(Self {
            index,
            hashes,
            checkpoint: checkpoint.to_owned(),
            extra,
        })
    }

    /// Checks that the log `origin` with this key has `entry` at [`LogProof::index`]. The entry of an audit record is
    /// its hash.
    pub fn verify(
        &self,
        entry: &[u8],
        origin: &str,
        log: &NoteVerifier,
    ) -> Result<Checkpoint, LogProofError> {
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), origin, log)?;
        merkle::verify_inclusion(
            &merkle::leaf_hash(entry),
            self.index,
            checkpoint.size,
            &self.hashes,
            &checkpoint.root,
        )?;
        Ok(checkpoint)
    }
}

impl LogProofError {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong
            | Self::Text
            | Self::Extra
            | Self::Index
            | Self::Hash
            | Self::TooManyHashes
            | Self::NoCheckpoint => "proof_malformed",
            Self::Checkpoint(_) => "proof_checkpoint",
            Self::Proof(_) => "proof_not_included",
        }
    }
}

/// The text, which ends as the checkpoint does.
impl fmt::Display for LogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64_STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", BASE64_STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, LogProofError> {
    let extra = line
        .strip_prefix("extra ")
        .and_then(|text| BASE64_STANDARD.decode(text).ok())
        .ok_or(LogProofError::Extra)?;
    match extra.len() {
        1..=MAX_EXTRA_BYTES => Ok(extra),
        _ => Err(LogProofError::Extra),
    }
}

fn parse_index(line: &str) -> Result<u64, LogProofError> {
    let digits = line.strip_prefix("index ").ok_or(LogProofError::Index)?;
    match digits.parse::<u64>() {
        // No sign, no leading zeros.
        Ok(index) if index.to_string() == digits => Ok(index),
        Ok(_) | Err(_) => Err(LogProofError::Index),
    }
}

fn parse_hash(line: &str) -> Result<Digest, LogProofError> {
    BASE64_STANDARD
        .decode(line)
        .ok()
        .and_then(|bytes| Digest::try_from(bytes.as_slice()).ok())
        .ok_or(LogProofError::Hash)
}

#[cfg(test)]
mod tests;
