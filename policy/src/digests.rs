//! Lists of file digests beside the policy: what IMA may, or may not, have measured.

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The hash algorithms that a list may use: IMA's, but for those that are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileHash {
    Sha256,
    Sha384,
    Sha512,
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedDigest {
    pub hash: FileHash,
    /// Of the algorithm's length.
    pub digest: Box<[u8]>,
    /// `None`: wherever the file lies.
    pub path: Option<Box<str>>,
}

/// A list of file digests, in order and each once. Outside the cloud only its hash is known: that is how it travels.
#[derive(Clone)]
pub struct DigestList {
    hash: [u8; 32],
    entries: Option<Vec<ListedDigest>>,
}

impl FileHash {
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of a digest, in bytes.
    pub fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl DigestList {
    pub fn new(mut entries: Vec<ListedDigest>) -> Self {
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        let mut text = String::new();
        for entry in &entries {
            text.push_str(&entry.to_string());
            text.push('\n');
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self {
            hash,
            entries: Some(entries),
        }
    }

    /// SHA-256 over the entries as text, sorted, a line each: comments and order mean nothing.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// `None` where only the hash has travelled: nothing can be compared then.
    pub fn entries(&self) -> Option<&[ListedDigest]> {
        self.entries.as_deref()
    }

    /// Whether it is known to list nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.as_ref().is_some_and(Vec::is_empty)
    }
}

impl fmt::Display for ListedDigest {
    /// The line: `sha256:<hex>`, and the path where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.hash.as_str(), hex::encode(&self.digest))?;
        match &self.path {
            Some(path) => write!(f, " {path}"),
            None => Ok(()),
        }
    }
}

impl PartialEq for DigestList {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for DigestList {}

impl Default for DigestList {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl fmt::Debug for DigestList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestList")
            .field("hash", &hex::encode(self.hash))
            .field("entries", &self.entries.as_ref().map(Vec::len))
            .finish()
    }
}

impl Serialize for DigestList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.hash))
    }
}

impl<'de> Deserialize<'de> for DigestList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(&text, &mut hash)
            .map_err(|_| serde::de::Error::custom("not a SHA-256 in hex"))?;
        Ok(Self {
            hash,
            entries: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(byte: u8, path: Option<&str>) -> ListedDigest {
        ListedDigest {
            hash: FileHash::Sha256,
            digest: Box::from([byte; 32]),
            path: path.map(Box::from),
        }
    }

    #[test]
    fn a_list_that_travelled_knows_its_hash_and_compares_nothing() {
        let list = DigestList::new(vec![entry(1, None)]);
        let json = serde_json::to_string(&list).unwrap();
        let read: DigestList = serde_json::from_str(&json).unwrap();
        assert_eq!(read, list);
        assert_eq!(read.entries(), None);
        assert!(!read.is_empty());
        for bad in ["\"\"", "\"zz\"", "\"00\"", "7", "null"] {
            assert!(serde_json::from_str::<DigestList>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn order_and_repetition_mean_nothing_and_every_digest_and_path_does() {
        let list = |entries: &[ListedDigest]| DigestList::new(entries.to_vec());
        let both = [entry(1, None), entry(2, Some("/bin/sh"))];
        let turned = [both[1].clone(), both[0].clone(), both[1].clone()];
        assert_eq!(list(&both), list(&turned));
        assert_ne!(list(&both), list(&both[..1]));
        assert_ne!(list(&both[..1]), list(&[entry(1, Some("/bin/sh"))]));
        assert!(DigestList::default().is_empty());
    }
}
