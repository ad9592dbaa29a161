//! The deny-list: keys that are refused although their certificates have not expired.
//!
//! Numbered, signed with purpose [`Purpose::DenyList`](crate::Purpose), and only ever replaced by a higher
//! number. Entries fall off once the certificate they name has expired.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::keys::SpkiHash;

/// Most entries in one deny-list.
pub const MAX_DENIED: usize = 20_000;

/// Keys refused, by the SHA-256 of their SPKI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyList {
    number: u64,
    entries: BTreeMap<SpkiHash, Denied>,
}

/// Why a key is refused and for how long that must be remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denied {
    /// Stable reason code such as `quarantined`, `removed`, `superseded`.
    pub reason: String,
    /// When the last certificate for the key ends.
    pub until: Timestamp,
}

/// The list would outgrow its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deny-list is full: {MAX_DENIED} entries")]
pub struct Full;

impl DenyList {
    pub fn new(number: u64, entries: BTreeMap<SpkiHash, Denied>) -> Result<Self, Full> {
        if entries.len() > MAX_DENIED {
            return Err(Full);
        }
        Ok(Self { number, entries })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn get(&self, key: &SpkiHash) -> Option<&Denied> {
        self.entries.get(key)
    }

    pub fn entries(&self) -> &BTreeMap<SpkiHash, Denied> {
        &self.entries
    }
}
