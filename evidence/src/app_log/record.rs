//! What a record says. Its bytes are one form only: what parses and is written again is the same.

use serde::{Deserialize, Serialize};

/// Longest name of a publisher, and of an application within its publisher, in bytes.
const MAX_NAME_BYTES: usize = 63;
/// Longest version, in bytes: four numbers and three dots.
const MAX_VERSION_BYTES: usize = 43;
/// Longest name of a level of enforcement, in bytes.
const MAX_LEVEL_BYTES: usize = 16;

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
    /// From here on it runs, in the place of another release of the same name. Starts after a crash are not told.
    Started(App),
    /// It ended and is not started again.
    Stopped(App),
    Revoked(App),
    /// A file that is not listed was asked for; the first time since the boot.
    Denied {
        digest: String,
    },
    /// More denials than are told: further ones are not.
    DenialsFull,
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
        (event.is_good() && event.to_bytes() == bytes).then_some(event)
    }

    /// Texts of an own choice would go into results and onto screens.
    fn is_good(&self) -> bool {
        let happened = match &self.happened {
            Happened::Installed(app)
            | Happened::Started(app)
            | Happened::Stopped(app)
            | Happened::Revoked(app) => app.is_good(),
            Happened::Denied { digest } => is_digest(digest),
            Happened::LevelChanged { from } => is_level(from),
            Happened::DenialsFull | Happened::Overflow => true,
        };
        happened && is_level(&self.level)
    }
}

impl App {
    /// `publisher/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.publisher, self.name)
    }

    fn is_good(&self) -> bool {
        is_name(&self.publisher)
            && is_name(&self.name)
            && is_version(&self.version)
            && is_digest(&self.digest)
    }
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().next().is_some_and(plain)
        && text
            .bytes()
            .all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

pub(crate) fn is_full_name(text: &str) -> bool {
    text.split_once('/')
        .is_some_and(|(publisher, name)| is_name(publisher) && is_name(name))
}

pub(crate) fn is_version(text: &str) -> bool {
    text.len() <= MAX_VERSION_BYTES
        && text
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// The empty text says that nothing is enforced.
fn is_level(text: &str) -> bool {
    text.len() <= MAX_LEVEL_BYTES && text.bytes().all(|b| b.is_ascii_lowercase())
}
