//! What IMA may have measured: digests under their own algorithm, each where it may lie.

use std::collections::{BTreeSet, HashMap};

use super::FileDigest;
use crate::digest::Digest;
use crate::tpm::HashAlg;

/// Whether a list may hold violations: files that changed while they were being measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violations {
    /// One makes a node fail.
    Fail,
    /// They are counted, not judged. An opening.
    Ignore,
}

/// One file of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedFile<'a> {
    pub hash: HashAlg,
    pub digest: &'a [u8],
    /// `None`: wherever the file lies.
    pub path: Option<&'a [u8]>,
}

/// Lists to compare measurements with. The allow-list is never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct ImaPolicy {
    allow: Files,
    deny: Files,
    violations: Violations,
    hash: Digest,
}

/// Why lists are no policy. The fault is the operator's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadImaPolicy {
    #[error("list allows nothing, so that every node would fail")]
    AllowsNothing,
    #[error("digest in a list is sha-1, which is broken")]
    Sha1,
    #[error("digest in a list has not its algorithm's length: {0}")]
    Length(&'static str),
}

/// How a measurement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Allowed,
    /// Neither allowed nor denied.
    Unknown,
    /// Its digest is allowed, for a file that lies elsewhere.
    OtherPath,
    Denied,
}

/// One map for each algorithm, so that a digest is looked up under its own only.
#[derive(Clone, Default, PartialEq, Eq)]
struct Files {
    by_hash: [HashMap<Box<[u8]>, Places>; 3],
    count: usize,
}

/// Where a file with a digest may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    Anywhere,
    At(BTreeSet<Box<[u8]>>),
}

impl ImaPolicy {
    pub fn new<'a>(
        allow: impl IntoIterator<Item = ListedFile<'a>>,
        deny: impl IntoIterator<Item = ListedFile<'a>>,
        violations: Violations,
    ) -> Result<Self, BadImaPolicy> {
        let (allow, deny) = (Files::new(allow)?, Files::new(deny)?);
        if allow.count == 0 {
            return Err(BadImaPolicy::AllowsNothing);
        }
        let mut text = format!("edgeward-ima-v1\n{violations:?}\n");
        allow.write_to(&mut text, "allow");
        deny.write_to(&mut text, "deny");
        Ok(Self {
            hash: Digest::of(text.as_bytes()),
            allow,
            deny,
            violations,
        })
    }

    pub fn violations(&self) -> Violations {
        self.violations
    }

    /// SHA-256 over all that it says, in whatever order it was written.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// A denied digest is denied wherever the file lies, unless the list names places for it.
    pub fn compare(&self, file: FileDigest<'_>, path: &[u8]) -> Comparison {
        if self.deny.find(file).is_some_and(|places| places.hold(path)) {
            return Comparison::Denied;
        }
        match self.allow.find(file) {
            Some(places) if places.hold(path) => Comparison::Allowed,
            Some(_) => Comparison::OtherPath,
            None => Comparison::Unknown,
        }
    }
}

impl Files {
    fn new<'a>(files: impl IntoIterator<Item = ListedFile<'a>>) -> Result<Self, BadImaPolicy> {
        let mut made = Self::default();
        for file in files {
            if file.digest.len() != file.hash.digest_len() {
                return Err(BadImaPolicy::Length(file.hash.name()));
            }
            let map = match made.map_mut(file.hash) {
                Some(map) => map,
                None => return Err(BadImaPolicy::Sha1),
            };
            match (map.get_mut(file.digest), file.path) {
                (Some(places), None) => *places = Places::Anywhere,
                (Some(Places::Anywhere), Some(_)) => {}
                (Some(Places::At(paths)), Some(path)) => {
                    paths.insert(path.into());
                }
                (None, path) => {
                    let places = match path {
                        None => Places::Anywhere,
                        Some(path) => Places::At(BTreeSet::from([path.into()])),
                    };
                    map.insert(file.digest.into(), places);
                    made.count += 1;
                }
            }
        }
        Ok(made)
    }

    fn find(&self, file: FileDigest<'_>) -> Option<&Places> {
        let [sha256, sha384, sha512] = &self.by_hash;
        let map = match file.hash {
            HashAlg::Sha1 => return None,
            HashAlg::Sha256 => sha256,
            HashAlg::Sha384 => sha384,
            HashAlg::Sha512 => sha512,
        };
        map.get(file.digest)
    }

    fn map_mut(&mut self, hash: HashAlg) -> Option<&mut HashMap<Box<[u8]>, Places>> {
        let [sha256, sha384, sha512] = &mut self.by_hash;
        match hash {
            HashAlg::Sha1 => None,
            HashAlg::Sha256 => Some(sha256),
            HashAlg::Sha384 => Some(sha384),
            HashAlg::Sha512 => Some(sha512),
        }
    }

    fn write_to(&self, out: &mut String, label: &str) {
        for (algorithm, map) in ["sha256", "sha384", "sha512"].iter().zip(&self.by_hash) {
            let mut lines: Vec<String> = map
                .iter()
                .map(|(digest, places)| {
                    let places = match places {
                        Places::Anywhere => "*".to_owned(),
                        Places::At(paths) => {
                            let paths: Vec<String> = paths.iter().map(hex::encode).collect();
                            paths.join(",")
                        }
                    };
                    format!("{label} {algorithm}:{} {places}\n", hex::encode(digest))
                })
                .collect();
            lines.sort_unstable();
            out.extend(lines);
        }
    }
}

impl Places {
    fn hold(&self, path: &[u8]) -> bool {
        match self {
            Self::Anywhere => true,
            Self::At(paths) => paths.contains(path),
        }
    }
}

impl BadImaPolicy {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AllowsNothing => "ima_allows_nothing",
            Self::Sha1 => "ima_list_sha1",
            Self::Length(_) => "ima_list_digest_length",
        }
    }
}

impl std::fmt::Debug for ImaPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImaPolicy")
            .field("allow", &self.allow.count)
            .field("deny", &self.deny.count)
            .field("violations", &self.violations)
            .field("hash", &self.hash)
            .finish()
    }
}
