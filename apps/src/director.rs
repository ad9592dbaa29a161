//! The director: what the cloud says that one node should have. Signed online, for that node alone, and worth nothing
//! without the image repository: both must name a manifest, with the same digest.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::signed::{Expect, Unacceptable};
use edgeward_identity::{KeySet, SignedObject, Timestamp};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::image::{Image, ImageFloors, ImageRefused, Release};
use crate::manifest::{Malformed, Manifest};
use crate::name::{AppName, Version};
use crate::strict::{self, Ambiguous};

/// Most apps of one node.
pub const MAX_ASSIGNED: usize = 256;
/// Most denied digests.
pub const MAX_DENIED: usize = 20_000;
/// Longest payload, in bytes.
pub const MAX_DIRECTOR_BYTES: u64 = 4 * 1024 * 1024;

/// A director's word that was verified: its maker is [`Director::open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Director {
    number: u64,
    expires: Timestamp,
    orders: Orders,
}

/// The payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    pub apps: BTreeMap<AppName, Assigned>,
    /// Digests of manifests, or of files in apps, that run nowhere from now on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub denied: BTreeSet<Digest>,
    /// What the repository has reached: a node that lost its state starts from here.
    #[serde(default)]
    pub floors: ImageFloors,
    /// The highest version of each app that this node was assigned, for the same purpose.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub highest: BTreeMap<AppName, Version>,
}

/// What a node should have of one app. What is not assigned is stopped and removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assigned {
    pub version: Version,
    /// Of the manifest.
    pub digest: Digest,
    /// Of the manifest, in bytes.
    pub length: u64,
    pub state: Wish,
    /// An operator ordered the way back to a lower version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Installed, not started.
    Installed,
    Running,
}

/// A release of which both sides said the same. Only [`Director::agree`] makes one.
#[derive(Clone, Debug)]
pub struct Agreed {
    release: Release,
    assigned: Assigned,
    /// Of the director's word.
    number: u64,
    until: Timestamp,
}

/// Why there is nothing to install.
#[derive(Debug, thiserror::Error)]
pub enum Disagreed {
    #[error("director: {0}")]
    Signed(#[source] Unacceptable),
    #[error("director: {0}")]
    Ambiguous(#[from] Ambiguous),
    #[error("director: payload does not read")]
    Payload,
    #[error("director: more entries than the limit: {0}")]
    TooMany(usize),
    #[error("the director assigns nothing of {0}")]
    NotAssigned(AppName),
    #[error("the director's word has expired")]
    Expired,
    #[error(transparent)]
    Image(#[from] ImageRefused),
    #[error("director and image repository name different manifests of {0}")]
    Different(AppName),
    #[error("manifest has {found} bytes in the place of {signed}")]
    Length { found: usize, signed: u64 },
    #[error("manifest is not the one that was signed: {0}")]
    Digest(Digest),
    #[error("manifest is of another release: {0} {1}")]
    Other(AppName, Version),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Director {
    pub fn open(
        object: &SignedObject,
        keys: &KeySet,
        expect: &Expect<'_>,
    ) -> Result<Self, Disagreed> {
        let payload = object.open(keys, expect).map_err(Disagreed::Signed)?;
        let header = object.header();
        Ok(Self {
            number: header.number,
            expires: header.expires,
            orders: Orders::parse(payload)?,
        })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Until when it holds: apps that run by it are stopped then.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The release of an app that both the director and its publisher name.
    pub fn agree(&self, image: &Image, app: &AppName, now: Timestamp) -> Result<Agreed, Disagreed> {
        if now >= self.expires {
            return Err(Disagreed::Expired);
        }
        let assigned = self
            .orders
            .apps
            .get(app)
            .ok_or_else(|| Disagreed::NotAssigned(app.clone()))?;
        let release = image.release(app, &assigned.version, now)?;
        if release.digest != assigned.digest || release.length != assigned.length {
            return Err(Disagreed::Different(app.clone()));
        }
        Ok(Agreed {
            release,
            assigned: assigned.clone(),
            number: self.number,
            until: self.expires.min(image.valid_until(app.publisher())?),
        })
    }
}

impl Orders {
    /// Reads a payload. What signed it is [`Director::open`]'s to check.
    pub fn parse(bytes: &[u8]) -> Result<Self, Disagreed> {
        strict::check(bytes, MAX_DIRECTOR_BYTES)?;
        let orders: Self = serde_json::from_slice(bytes).map_err(|_| Disagreed::Payload)?;
        if orders.apps.len() > MAX_ASSIGNED || orders.highest.len() > MAX_ASSIGNED {
            return Err(Disagreed::TooMany(MAX_ASSIGNED));
        }
        match orders.denied.len() > MAX_DENIED {
            true => Err(Disagreed::TooMany(MAX_DENIED)),
            false => Ok(orders),
        }
    }
}

impl Agreed {
    pub fn release(&self) -> &Release {
        &self.release
    }

    pub fn assigned(&self) -> &Assigned {
        &self.assigned
    }

    /// Of the director's word.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When the first of the words that it rests on ends.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// The manifest, wherever its bytes were fetched.
    pub fn manifest(&self, bytes: &[u8]) -> Result<Manifest, Disagreed> {
        let Release {
            app,
            version,
            digest,
            length,
        } = &self.release;
        if bytes.len() as u64 != *length {
            return Err(Disagreed::Length {
                found: bytes.len(),
                signed: *length,
            });
        }
        let found = Digest::of(bytes);
        if found != *digest {
            return Err(Disagreed::Digest(found));
        }
        let manifest = Manifest::parse(bytes)?;
        // As text: 2.3 and 2.3.0 are equal, and yet two releases.
        match manifest.app == *app && manifest.version.to_string() == version.to_string() {
            true => Ok(manifest),
            false => Err(Disagreed::Other(manifest.app, manifest.version)),
        }
    }
}
