//! Checkpoints (C2SP tlog-checkpoint): the log's word on its size and root, as a signed note.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::digest::Digest;
use crate::note::{Note, NoteMalformed, NoteSigner, NoteUnverified, NoteVerifier};

/// Longest origin, in bytes.
pub const MAX_ORIGIN_BYTES: usize = 255;
/// Most extension lines that are read; none are written.
pub const MAX_EXTENSION_LINES: usize = 16;

/// Size and root of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, for instance `plant.example/audit`.
    pub origin: String,
    pub size: u64,
    pub root: Digest,
}

/// Why a note is no acceptable checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("not a signed note")]
    Note(#[from] NoteMalformed),
    #[error("not signed by the log")]
    Unverified(#[from] NoteUnverified),
    #[error("origin is empty, too long or holds a control character")]
    Origin,
    #[error("checkpoint is of another log: {0}")]
    OtherLog(String),
    #[error("tree size is not a decimal number")]
    Size,
    #[error("root is not a sha-256 hash in base64")]
    Root,
    #[error("extension lines are malformed or too many")]
    Extension,
}

impl Checkpoint {
    /// Reads the text of a checkpoint, unverified. Extension lines are allowed and dropped.
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let text = text.strip_suffix('\n').ok_or(CheckpointError::Root)?;
        let mut lines = text.split('\n');
        let origin = lines.next().unwrap_or_default();
        check_origin(origin)?;
        let size = parse_size(lines.next().unwrap_or_default())?;
        let root = BASE64_STANDARD
            .decode(lines.next().unwrap_or_default())
            .ok()
            .and_then(|bytes| Digest::try_from(bytes.as_slice()).ok())
            .ok_or(CheckpointError::Root)?;
        let extensions: Vec<&str> = lines.collect();
        if extensions.len() > MAX_EXTENSION_LINES || extensions.iter().any(|line| line.is_empty()) {
            return Err(CheckpointError::Extension);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }

    /// Reads a signed checkpoint of the log `origin` and checks its signature by `verifier`.
    pub fn open(
        note: &[u8],
        origin: &str,
        verifier: &NoteVerifier,
    ) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        let checkpoint = Self::parse_text(note.open(verifier)?)?;
        if checkpoint.origin == origin {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::OtherLog(checkpoint.origin))
        }
    }

    /// Signs it.
    pub fn sign(&self, signer: &NoteSigner) -> Result<Note, CheckpointError> {
        check_origin(&self.origin)?;
        Ok(Note::sign(&self.to_string(), signer)?)
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = BASE64_STANDARD.encode(self.root.as_bytes());
        writeln!(f, "{}\n{}\n{root}", self.origin, self.size)
    }
}

fn check_origin(origin: &str) -> Result<(), CheckpointError> {
    if origin.is_empty() || origin.len() > MAX_ORIGIN_BYTES || origin.contains(char::is_control) {
        return Err(CheckpointError::Origin);
    }
    Ok(())
}

/// A decimal number without sign or leading zeros.
pub(crate) fn parse_size(text: &str) -> Result<u64, CheckpointError> {
    match text.parse::<u64>() {
        Ok(size) if size.to_string() == text => Ok(size),
        Ok(_) | Err(_) => Err(CheckpointError::Size),
    }
}

#[cfg(test)]
mod tests;
