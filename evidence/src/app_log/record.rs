//! What a record says. Its bytes are one form only: what parses and is written again is the same.

use serde::{Deserialize, Serialize};

/// One thing that happened, with the level of enforcement under which it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub happened: Happened,
    pub level: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Happened {
    Installed(App),
    /// The first launch of this digest since the boot.
    Started(App),
    Revoked(App),
    /// A file that is not listed was asked for; the first time since the boot.
    Denied {
        digest: String,
    },
    /// `level` is the new one.
    LevelChanged {
        from: String,
    },
    /// From here on the log is silent: nothing can be proved of this boot any more.
    Overflow,
}

/// An application by what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    pub publisher: String,
    pub name: String,
    pub version: String,
    /// SHA-256 of its manifest, in hex.
    pub digest: String,
}

impl Event {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Structures of text only cannot fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let event: Self = serde_json::from_slice(bytes).ok()?;
        (event.to_bytes() == bytes).then_some(event)
    }
}
