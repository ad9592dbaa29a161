//! Records: events in a hash chain, one chain for each boot of each node.
//!
//! The bytes of a record are its JSON exactly as [`Record::seal`] writes it; its hash is SHA-256 over a label and those
//! bytes. A record names the hash of the one before, so whoever knows the last hash (the *head*) knows them all. The
//! first record of a boot ([`BootOpened`]) names where the boot before ended, so that the chains of a node form a chain
//! too.
//!
//! A record begins with a [`Salt`] of its keeper, so its hash commits to it without telling anything: where the bytes
//! were erased, nobody finds them again by guessing. Records of format 1 have no salt and a label of their own; they are
//! still read.
//!
//! Everything around the event has one encoding, and bytes that are not in it are refused. The event itself may be one
//! that a newer version wrote: it is kept as it came, and shown as `event.unknown`, so that no journal stops at it.

use std::fmt;
use std::str::FromStr;

use edgeward_identity::{Kind, SpiffeId};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, NotADigest};
use crate::event::{Event, EventKind};

mod chain;
mod foreign;
pub(crate) mod frame;
mod salt;
mod turn;

#[cfg(test)]
mod tests;

pub use chain::{Chain, ChainError, Head, Position};
pub use foreign::UNKNOWN_TYPE;
pub use salt::{NoRandom, SALT_BYTES, Salt, Salts};
pub use turn::{KeyChain, KeyTurn, MAX_RECORDS_A_KEY, RECORDS_A_KEY, TurnError};

/// Longest record, in bytes.
pub const MAX_RECORD_BYTES: usize = 16 * 1024;
/// Bytes of a boot id.
pub const BOOT_ID_BYTES: usize = 16;

/// Sets the hashes of records without salt apart from every other use of SHA-256.
const LABEL_1: &[u8] = b"edgeward journal record v1\n";
/// The same for records with salt.
const LABEL_2: &[u8] = b"edgeward journal record v2\n";
/// How every record with salt begins, and no other.
const SALTED: &[u8] = b"{\"salt\":";

/// Names one boot of one node: 16 random bytes, made when the boot's journal begins. A cloud process makes one for each start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId([u8; BOOT_ID_BYTES]);

/// One event in its place. Hold it as a [`SealedRecord`]; these fields are for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// None in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Salt>,
    /// Who keeps this journal: a node or a cloud process.
    pub node: SpiffeId,
    pub boot: BootId,
    /// Gapless from 0 within the boot.
    pub seq: u64,
    /// Hash of the record before; zeros at 0.
    pub prev: Digest,
    /// Present exactly at sequence number 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<BootOpened>,
    /// What this version can say of it: of type `event.unknown` where it cannot read the event.
    pub event: Event,
}

/// How a boot's journal begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootOpened {
    /// Where the journal of the boot before ended; none if this machine kept none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousBoot>,
    /// The TPM's resetCount; none without a TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_count: Option<u32>,
    /// The TPM's restartCount; none without a TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u32>,
}

/// The end of the boot before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousBoot {
    pub boot: BootId,
    pub last_seq: u64,
    pub head: Digest,
}

/// A record together with its bytes and its hash. Only [`Record::seal`] and [`SealedRecord::parse`] make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRecord {
    record: Record,
    bytes: Vec<u8>,
    hash: Digest,
}

/// Why bytes or fields are no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("record is longer than the limit in bytes: {MAX_RECORD_BYTES}")]
    TooLong,
    #[error("record is not the json this version writes")]
    Json(#[source] serde_json::Error),
    #[error("record is not in its one encoding")]
    NotCanonical,
    #[error("a journal is kept by a node or a cloud, not by a {0}")]
    Keeper(Kind),
    #[error("the first record of a boot, and no other, says how it was opened")]
    Opening,
    #[error("an event that cannot be read cannot be written")]
    Unreadable,
}

impl Record {
    /// Checks the record and fixes its bytes and hash.
    pub fn seal(self) -> Result<SealedRecord, RecordError> {
        if self.event.kind == EventKind::EventUnknown {
            return Err(RecordError::Unreadable);
        }
        let opens = self.event.kind == EventKind::JournalOpened;
        if opens != (self.seq == 0) {
            return Err(RecordError::Opening);
        }
        self.check()?;
        let bytes = serde_json::to_vec(&self).map_err(RecordError::Json)?;
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong);
        }
        Ok(SealedRecord::of(self, bytes))
    }

    /// What holds of every record, whatever its event says.
    fn check(&self) -> Result<(), RecordError> {
        if !matches!(self.node.kind(), Kind::Node | Kind::Cloud) {
            return Err(RecordError::Keeper(self.node.kind()));
        }
        let first = self.seq == 0;
        if self.opened.is_some() != first || (first && self.prev != Digest::ZERO) {
            return Err(RecordError::Opening);
        }
        match self.opened.as_ref().and_then(|opened| opened.previous) {
            Some(previous) if previous.boot == self.boot => Err(RecordError::Opening),
            Some(_) | None => Ok(()),
        }
    }
}

impl SealedRecord {
    /// Reads one record. Whether it continues a chain is for [`Chain::advance`] to say.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong);
        }
        let read = serde_json::from_slice(bytes).map_err(RecordError::Json);
        match read.and_then(Record::seal) {
            Ok(sealed) if sealed.bytes == bytes => Ok(sealed),
            // The event may be of a newer version; everything around it is as strict as ever.
            Ok(_) | Err(RecordError::Json(_) | RecordError::Unreadable) => {
                let record = foreign::read(bytes)?;
                record.check()?;
                Ok(Self::of(record, bytes.to_vec()))
            }
            Err(refused) => Err(refused),
        }
    }

    fn of(record: Record, bytes: Vec<u8>) -> Self {
        Self {
            record,
            hash: record_hash(&bytes),
            bytes,
        }
    }

    /// Whether the event is one that its keeper may not state as a fact ([`EventKind::keepers`]): evidence of what the
    /// keeper says, and no more.
    pub fn is_claimed(&self) -> bool {
        let keepers = self.record.event.kind.keepers();
        !keepers.include(self.record.node.kind())
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn event(&self) -> &Event {
        &self.record.event
    }

    /// The JSON that is hashed, kept and sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn hash(&self) -> Digest {
        self.hash
    }

    pub fn position(&self) -> Position {
        Position {
            boot: self.record.boot,
            seq: self.record.seq,
        }
    }

    pub fn head(&self) -> Head {
        Head {
            seq: self.record.seq,
            hash: self.hash,
        }
    }

    pub fn into_parts(self) -> (Record, Vec<u8>, Digest) {
        (self.record, self.bytes, self.hash)
    }
}

impl BootId {
    pub const fn from_bytes(bytes: [u8; BOOT_ID_BYTES]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; BOOT_ID_BYTES] {
        &self.0
    }
}

impl FromStr for BootId {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let mut bytes = [0; BOOT_ID_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotADigest)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for BootId {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<BootId> for String {
    fn from(boot: BootId) -> Self {
        boot.to_string()
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(crate) fn record_hash(bytes: &[u8]) -> Digest {
    let label = match bytes.starts_with(SALTED) {
        true => LABEL_2,
        false => LABEL_1,
    };
    Digest::of(&[label, bytes])
}
