//! The image repository: TUF 1.0.33 metadata, of which root, targets and the publishers' delegated roles are signed
//! offline. What it says exists; whether a node runs it is the director's and the policy's to say.
//!
//! [`Refresh`] tells which file it wants next and is given its bytes, from wherever they come: no byte is trusted for
//! where it lay. Nothing that was verified once is taken from a cache: the root that is held and the highest versions
//! come from the caller's sealed state, all else is verified again.

use std::collections::BTreeMap;

use edgeward_identity::Timestamp;
use sigstore_tuf::{Metadata, Targets, TrustedMetadataSet};

use crate::manifest::MAX_MANIFEST_BYTES;
use crate::name::PublisherName;
use crate::provider::{self, ForeignProvider};
use crate::strict::{self, Ambiguous};

mod authority;
mod codes;
mod floors;
mod release;
mod stated;

pub use authority::{BadAuthority, KeyText, PublisherKeys};
pub use floors::{ImageFloors, RoleFloor};
pub use release::{Image, Release};
/// What the library that verifies metadata says.
pub use sigstore_tuf::Error as MetadataError;
pub use stated::{
    BadFile, MAX_DELEGATED, MAX_RELEASES, StatedImage, StatedManifest, StatedReleases, StatedRoot,
};

use authority::Authority;
use release::{Published, end_of};

/// Longest root, in bytes.
pub const MAX_ROOT_BYTES: u64 = 512 * 1024;
/// Longest timestamp, in bytes.
pub const MAX_TIMESTAMP_BYTES: u64 = 16 * 1024;
/// Longest snapshot, in bytes.
pub const MAX_SNAPSHOT_BYTES: u64 = 2 * 1024 * 1024;
/// Longest targets of the image role or of a publisher, in bytes.
pub const MAX_TARGETS_BYTES: u64 = 5 * 1024 * 1024;
/// Most roots taken in one refresh; a node that missed more goes on in the next.
pub const MAX_ROOT_STEPS: u32 = 32;
/// Most publishers of one node.
pub const MAX_PUBLISHERS: usize = 64;

/// A refresh under way.
pub struct Refresh {
    set: TrustedMetadataSet,
    floors: ImageFloors,
    now: jiff::Timestamp,
    roots_left: u32,
    /// Whose releases are wanted, and with whose signatures.
    publishers: Vec<(PublisherName, PublisherKeys)>,
    /// Publishers whose metadata does not hold: nobody else's concern.
    refused: BTreeMap<PublisherName, ImageRefused>,
    step: Step,
}

/// The file that is wanted next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in the folder of metadata, as TUF's consistent snapshots have it.
    pub name: String,
    /// More bytes than these need not be fetched: they would be refused.
    pub max_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Root,
    Timestamp,
    Snapshot,
    Targets,
    Publisher(usize),
    Done,
}

/// Why metadata is refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageRefused {
    #[error(transparent)]
    Provider(#[from] ForeignProvider),
    #[error("{role} metadata: {source}")]
    Ambiguous {
        role: String,
        #[source]
        source: Ambiguous,
    },
    #[error("{role} metadata: {source}")]
    Unverified {
        role: String,
        #[source]
        source: sigstore_tuf::Error,
    },
    #[error("keys of role {role}: {source}")]
    Authority {
        role: String,
        #[source]
        source: BadAuthority,
    },
    #[error("{role} metadata was taken back: version {version} after {highest} was accepted")]
    Rollback {
        role: String,
        version: u64,
        highest: u64,
    },
    #[error("{0} is missing")]
    Missing(String),
    #[error("the repository does not use consistent snapshots")]
    Inconsistent,
    #[error("more publishers than the limit: {MAX_PUBLISHERS}")]
    Publishers,
    #[error("the image role delegates nothing to publisher {0}, or not only what is its own")]
    Delegation(PublisherName),
    #[error("time is out of range")]
    Time,
    #[error("the refresh is not at its end: {0} is wanted")]
    Unfinished(String),
    #[error("the refresh is at its end")]
    Finished,
    #[error("the metadata has expired: verify newer")]
    Expired,
    #[error("publisher {0} was not asked for")]
    NotAsked(PublisherName),
    #[error("what publisher {0} signed does not hold")]
    Publisher(PublisherName),
    #[error("no publisher signed a release {0}")]
    NoRelease(String),
    #[error("release {0} is not named by sha-256 and a length up to {MAX_MANIFEST_BYTES}")]
    Unpinned(String),
}

impl Refresh {
    /// `root` is the newest one that is held: pinned at first, later what [`Image::root`] gave.
    pub fn new(
        root: &[u8],
        floors: ImageFloors,
        publishers: Vec<(PublisherName, PublisherKeys)>,
        now: Timestamp,
    ) -> Result<Self, ImageRefused> {
        provider::ensure()?;
        if publishers.len() > MAX_PUBLISHERS {
            return Err(ImageRefused::Publishers);
        }
        plain("root", root, MAX_ROOT_BYTES)?;
        let set =
            TrustedMetadataSet::from_root(root).map_err(|source| unverified("root", source))?;
        let version = set.root().version;
        if version < floors.root {
            return Err(ImageRefused::Rollback {
                role: "root".to_owned(),
                version,
                highest: floors.root,
            });
        }
        let millis = i64::try_from(now.millis()).map_err(|_| ImageRefused::Time)?;
        let refresh = Self {
            set,
            floors,
            now: jiff::Timestamp::from_millisecond(millis).map_err(|_| ImageRefused::Time)?,
            roots_left: MAX_ROOT_STEPS,
            publishers,
            refused: BTreeMap::new(),
            step: Step::Root,
        };
        refresh.check_root()?;
        Ok(refresh)
    }

    /// What to fetch next; `None` at the end.
    pub fn wanted(&self) -> Result<Option<Wanted>, ImageRefused> {
        let (name, max_bytes) = match self.step {
            Step::Done => return Ok(None),
            Step::Root => {
                let next = self.set.root().version.saturating_add(1);
                (format!("{next}.root.json"), MAX_ROOT_BYTES)
            }
            Step::Timestamp => ("timestamp.json".to_owned(), MAX_TIMESTAMP_BYTES),
            Step::Snapshot => {
                let pin = self
                    .set
                    .timestamp()
                    .and_then(|timestamp| timestamp.snapshot_meta());
                let version = pin
                    .ok_or_else(|| ImageRefused::Missing("snapshot.json".to_owned()))?
                    .version;
                (format!("{version}.snapshot.json"), MAX_SNAPSHOT_BYTES)
            }
            Step::Targets => self.pinned("targets")?,
            Step::Publisher(index) => match self.publishers.get(index) {
                Some((publisher, _)) => self.pinned(publisher.as_str())?,
                None => return Ok(None),
            },
        };
        Ok(Some(Wanted { name, max_bytes }))
    }

    /// The wanted file, or `None` where it is not there. After an error the refresh is void.
    pub fn give(&mut self, bytes: Option<&[u8]>) -> Result<(), ImageRefused> {
        let Some(wanted) = self.wanted()? else {
            return Err(ImageRefused::Finished);
        };
        if self.step == Step::Root && (bytes.is_none() || self.roots_left == 0) {
            return self.end_of_roots();
        }
        let bytes = bytes.ok_or_else(|| ImageRefused::Missing(wanted.name.clone()));
        let bytes =
            bytes.and_then(|bytes| plain(&wanted.name, bytes, wanted.max_bytes).map(|()| bytes));
        if let Step::Publisher(index) = self.step {
            return self.take_publisher(index, bytes);
        }
        let bytes = bytes?;
        match self.step {
            Step::Root => self.take_root(bytes),
            Step::Timestamp => self.take_timestamp(bytes),
            Step::Snapshot => self.take_snapshot(bytes),
            Step::Targets => self.take_targets(bytes),
            Step::Publisher(_) | Step::Done => Err(ImageRefused::Finished),
        }
    }

    /// What was verified so far counts, also where the refresh fails later: whoever holds back one file must not keep a
    /// node at versions that it has seen surpassed.
    pub fn floors(&self) -> &ImageFloors {
        &self.floors
    }

    /// The newest root so far: for the same reason.
    pub fn root(&self) -> &[u8] {
        self.set.root_bytes()
    }

    /// What was verified. Its floors and root are to be stored before anything is done on its word.
    pub fn finish(self) -> Result<Image, ImageRefused> {
        if let Some(wanted) = self.wanted()? {
            return Err(ImageRefused::Unfinished(wanted.name));
        }
        let mut ends = vec![self.set.root().expires];
        ends.extend(self.set.timestamp().map(|role| role.expires));
        ends.extend(self.set.snapshot().map(|role| role.expires));
        ends.extend(self.set.targets_role("targets").map(|role| role.expires));
        let mut publishers = BTreeMap::new();
        for (publisher, _) in self.publishers {
            if let Some(targets) = self.set.targets_role(publisher.as_str())
                && !self.refused.contains_key(&publisher)
            {
                let valid_until = end_of(targets.expires);
                let targets = targets.clone();
                publishers.insert(
                    publisher,
                    Published {
                        targets,
                        valid_until,
                    },
                );
            }
        }
        let end = ends.into_iter().min().unwrap_or(jiff::Timestamp::MIN);
        Ok(Image {
            root: self.set.root_bytes().to_vec(),
            floors: self.floors,
            publishers,
            refused: self.refused,
            valid_until: end_of(end),
        })
    }

    fn take_root(&mut self, bytes: &[u8]) -> Result<(), ImageRefused> {
        self.set
            .update_root(bytes)
            .map_err(|source| unverified("root", source))?;
        self.check_root()?;
        self.roots_left = self.roots_left.saturating_sub(1);
        self.floors.root = self.floors.root.max(self.set.root().version);
        Ok(())
    }

    fn end_of_roots(&mut self) -> Result<(), ImageRefused> {
        self.set
            .check_root_expired(self.now)
            .map_err(|source| unverified("root", source))?;
        if !self.set.root().consistent_snapshot {
            return Err(ImageRefused::Inconsistent);
        }
        self.floors.root = self.floors.root.max(self.set.root().version);
        self.step = Step::Timestamp;
        Ok(())
    }

    fn take_timestamp(&mut self, bytes: &[u8]) -> Result<(), ImageRefused> {
        self.set
            .update_timestamp(bytes, self.now)
            .map_err(|source| unverified("timestamp", source))?;
        let (version, pinned) = match self.set.timestamp() {
            Some(timestamp) => (
                timestamp.version,
                timestamp.snapshot_meta().map(|pin| pin.version),
            ),
            None => return Err(ImageRefused::Missing("timestamp.json".to_owned())),
        };
        let authority = self.top("timestamp")?;
        self.floors.raise("timestamp", version, &authority)?;
        // Refused before it is fetched, and without raising anything: only a verified snapshot raises its own floor.
        self.floors
            .check("snapshot", pinned.unwrap_or(0), &self.top("snapshot")?)?;
        self.step = Step::Snapshot;
        Ok(())
    }

    fn take_snapshot(&mut self, bytes: &[u8]) -> Result<(), ImageRefused> {
        self.set
            .update_snapshot(bytes, self.now)
            .map_err(|source| unverified("snapshot", source))?;
        let version = self.set.snapshot().map_or(0, |snapshot| snapshot.version);
        let authority = self.top("snapshot")?;
        self.floors.raise("snapshot", version, &authority)?;
        self.step = Step::Targets;
        Ok(())
    }

    fn take_targets(&mut self, bytes: &[u8]) -> Result<(), ImageRefused> {
        let version = self
            .set
            .update_targets(bytes, self.now)
            .map_err(|source| unverified("targets", source))?
            .version;
        let authority = self.top("targets")?;
        self.floors.raise("targets", version, &authority)?;
        self.go_on_from(0);
        Ok(())
    }

    /// One publisher's metadata that does not hold stops no other publisher.
    fn take_publisher(
        &mut self,
        index: usize,
        bytes: Result<&[u8], ImageRefused>,
    ) -> Result<(), ImageRefused> {
        let (publisher, keys) = self
            .publishers
            .get(index)
            .ok_or(ImageRefused::Finished)?
            .clone();
        if let Err(why) = bytes.and_then(|bytes| self.verify_publisher(&publisher, &keys, bytes)) {
            self.refused.insert(publisher, why);
        }
        self.go_on_from(index.saturating_add(1));
        Ok(())
    }

    fn verify_publisher(
        &mut self,
        publisher: &PublisherName,
        keys: &PublisherKeys,
        bytes: &[u8],
    ) -> Result<(), ImageRefused> {
        let role = publisher.as_str();
        let targets = self
            .set
            .targets_role("targets")
            .ok_or_else(|| ImageRefused::Missing("targets.json".to_owned()))?;
        let authority = Authority::delegated(targets, publisher)?;
        // Two words must agree before a signature counts: the image role's, and the policy's.
        let (named, threshold) = authority
            .narrowed(keys)
            .map_err(|source| bad(role, source))?;
        Metadata::<Targets>::from_slice(bytes)
            .and_then(|metadata| metadata.verify_threshold(&named, &threshold, role))
            .map_err(|source| unverified(role, source))?;
        let version = self
            .set
            .update_delegated_targets(bytes, role, "targets", self.now)
            .map_err(|source| unverified(role, source))?
            .version;
        self.floors.raise(role, version, &authority)
    }

    /// To the next publisher that the snapshot knows.
    fn go_on_from(&mut self, index: usize) {
        for (at, (publisher, _)) in self.publishers.iter().enumerate().skip(index) {
            match self.pinned(publisher.as_str()) {
                Ok(_) => {
                    self.step = Step::Publisher(at);
                    return;
                }
                Err(why) => {
                    self.refused.insert(publisher.clone(), why);
                }
            }
        }
        self.step = Step::Done;
    }

    /// The name that a role's file has under the version that the snapshot pins.
    fn pinned(&self, role: &str) -> Result<(String, u64), ImageRefused> {
        let file = format!("{role}.json");
        let pin = self
            .set
            .snapshot()
            .and_then(|snapshot| snapshot.meta.get(&file));
        let version = pin
            .ok_or_else(|| ImageRefused::Missing(file.clone()))?
            .version;
        Ok((format!("{version}.{file}"), MAX_TARGETS_BYTES))
    }

    fn top(&self, role: &str) -> Result<Authority, ImageRefused> {
        Authority::top(self.set.root(), role).map_err(|source| bad(role, source))
    }

    /// Every role of the root has keys that are told apart by what they are, not by what they are called.
    fn check_root(&self) -> Result<(), ImageRefused> {
        ["root", "timestamp", "snapshot", "targets"]
            .into_iter()
            .try_for_each(|role| self.top(role).map(|_| ()))
    }
}

fn plain(role: &str, bytes: &[u8], max_bytes: u64) -> Result<(), ImageRefused> {
    strict::check(bytes, max_bytes).map_err(|source| ImageRefused::Ambiguous {
        role: role.to_owned(),
        source,
    })
}

fn unverified(role: &str, source: sigstore_tuf::Error) -> ImageRefused {
    ImageRefused::Unverified {
        role: role.to_owned(),
        source,
    }
}

fn bad(role: &str, source: BadAuthority) -> ImageRefused {
    ImageRefused::Authority {
        role: role.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
