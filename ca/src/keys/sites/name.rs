//! Names of sites, and of their keys.

use super::{SiteKeyFault, random};

/// Longest name of a site, in bytes: that of a label's value.
pub const MAX_SITE_BYTES: usize = 63;
/// Holds what the value of a label cannot.
const CLOUD: &str = ":cloud";

/// A site: the value of a node's label `site`; `default`; or `:cloud`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site(String);

/// Names a key, its file and what it sealed. Random: it says nothing about the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteKeyId(u64);

impl Site {
    /// Nodes that have no label `site`.
    pub fn rest() -> Self {
        Self("default".to_owned())
    }

    /// What a cloud did that no node has to do with. It is not erased: who erased what is told there. No label can be
    /// this one.
    pub fn cloud() -> Self {
        Self(CLOUD.to_owned())
    }

    /// Whether an admin may have its events erased.
    pub fn is_erasable(&self) -> bool {
        self.0 != CLOUD
    }

    /// 1 to 63 of what the value of a label may hold.
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=MAX_SITE_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
        good.then(|| Self(text.to_owned()))
    }

    /// From where it was written down: any site.
    pub(super) fn from_file(text: &str) -> Option<Self> {
        match text {
            CLOUD => Some(Self::cloud()),
            text => Self::parse(text),
        }
    }

    /// Of a node, by its label `site`. What is none, and what cannot be one, is `default`.
    pub fn of_label(value: Option<&str>) -> Self {
        value.and_then(Self::parse).unwrap_or_else(Self::rest)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl SiteKeyId {
    /// As the store keeps it.
    pub fn to_column(self) -> i64 {
        crate::store::number_to_column(self.0)
    }

    /// From the store. What is no id is one that no key has.
    pub fn from_column(column: i64) -> Self {
        Self(crate::store::number_from_column(column))
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// From a segment's or a file's text; 63 bits.
    pub const fn from_number(number: u64) -> Option<Self> {
        if number == 0 || number > i64::MAX.cast_unsigned() {
            return None;
        }
        Some(Self(number))
    }

    pub(super) fn draw() -> Result<Self, SiteKeyFault> {
        let number = u64::from_be_bytes(random()?) >> 1;
        Ok(Self(number.max(1)))
    }
}

impl std::fmt::Display for SiteKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
