//! What a repository that was verified says: releases, by their publishers.

use std::collections::BTreeMap;

use edgeward_identity::Timestamp;
use sigstore_tuf::Targets;

use super::{ImageFloors, ImageRefused};
use crate::digest::Digest;
use crate::manifest::MAX_MANIFEST_BYTES;
use crate::name::{AppName, PublisherName, Version};

/// The verified repository, for the publishers that were asked for. Only [`Refresh::finish`](super::Refresh::finish) makes one.
#[derive(Debug)]
pub struct Image {
    pub(super) root: Vec<u8>,
    pub(super) floors: ImageFloors,
    pub(super) publishers: BTreeMap<PublisherName, Published>,
    pub(super) refused: BTreeMap<PublisherName, ImageRefused>,
    /// Of the roles that all publishers share.
    pub(super) valid_until: Timestamp,
}

#[derive(Debug)]
pub(super) struct Published {
    pub(super) targets: Targets,
    pub(super) valid_until: Timestamp,
}

/// One release, as its publisher signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub app: AppName,
    pub version: Version,
    /// Of its manifest.
    pub digest: Digest,
    /// Of its manifest, in bytes.
    pub length: u64,
}

impl Image {
    /// The newest root: what the next refresh starts from.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The highest versions accepted: what the next refresh starts from.
    pub fn floors(&self) -> &ImageFloors {
        &self.floors
    }

    /// Publishers that were asked for and whose metadata does not hold.
    pub fn refused(&self) -> &BTreeMap<PublisherName, ImageRefused> {
        &self.refused
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn take_refused(&mut self) -> Option<ImageRefused> {
        self.refused.pop_first().map(|(_, why)| why)
    }

    pub fn into_refused(self) -> BTreeMap<PublisherName, ImageRefused> {
        self.refused
    }

    /// When the first of the roles ends on which releases of a publisher rest.
    pub fn valid_until(&self, publisher: &PublisherName) -> Result<Timestamp, ImageRefused> {
        self.published(publisher)
            .map(|published| published.valid_until.min(self.valid_until))
    }

    pub fn release(
        &self,
        app: &AppName,
        version: &Version,
        now: Timestamp,
    ) -> Result<Release, ImageRefused> {
        if now >= self.valid_until(app.publisher())? {
            return Err(ImageRefused::Expired);
        }
        let path = app.target(version);
        let target = self
            .published(app.publisher())?
            .targets
            .target(&path)
            .ok_or_else(|| ImageRefused::NoRelease(path.clone()))?;
        let digest = target
            .hashes
            .get("sha256")
            .and_then(|text| text.parse().ok());
        match digest {
            Some(digest) if (1..=MAX_MANIFEST_BYTES).contains(&target.length) => Ok(Release {
                app: app.clone(),
                version: version.clone(),
                digest,
                length: target.length,
            }),
            _ => Err(ImageRefused::Unpinned(path)),
        }
    }

    fn published(&self, publisher: &PublisherName) -> Result<&Published, ImageRefused> {
        match self.publishers.get(publisher) {
            Some(published) => Ok(published),
            None if self.refused.contains_key(publisher) => {
                Err(ImageRefused::Publisher(publisher.clone()))
            }
            None => Err(ImageRefused::NotAsked(publisher.clone())),
        }
    }
}

pub(super) fn end_of(expires: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(u64::try_from(expires.as_millisecond()).unwrap_or(0))
}
