//! Why an upload is not taken.

use edgeward_apps::image::{BadFile, ImageRefused};
use edgeward_apps::manifest::Malformed;
use edgeward_apps::{AppName, Digest, PublisherName, Version};

use super::online::Unsigned;
use super::shelf::ShelfFault;
use crate::audit::RecordFault;
use crate::keys::KeysFault;
use crate::store::StoreError;

/// Most missing digests that a refusal names.
pub(super) const MAX_NAMED: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The uploader's.
    #[error(transparent)]
    File(#[from] BadFile),
    #[error(transparent)]
    Refused(#[from] ImageRefused),
    #[error(
        "the root names other keys for timestamp and snapshot than this cloud's, or asks for more than one signature: {0}"
    )]
    OnlineKey(String),
    #[error("there is no {0} yet: upload it first")]
    Before(&'static str),
    #[error("{role} version {version} is in force with another content")]
    SameVersion { role: String, version: u64 },
    #[error("the image role names no such publisher: {0}")]
    UnknownPublisher(PublisherName),
    #[error("a manifest of another publisher: {0}")]
    OtherPublisher(AppName),
    #[error("bytes are not what their digest says, or too many: {0}")]
    Content(Digest),
    #[error("manifest: {0}")]
    Manifest(#[source] Malformed),
    #[error("the manifest of {app} {version} is not that of this release, or has another length")]
    OtherRelease { app: AppName, version: Version },
    #[error(
        "{app} {version} is not complete: {count} of its chunks, or its manifest, are not here"
    )]
    Incomplete {
        app: AppName,
        version: Version,
        count: usize,
        /// The first of them.
        missing: Vec<Digest>,
    },
    #[error(
        "{app} {version} was published with another content: a release never changes, take a new version"
    )]
    Changed { app: AppName, version: Version },
    #[error("{app} {version} compares equal to {other}, which is published beside it")]
    Equal {
        app: AppName,
        version: String,
        other: String,
    },
    /// The operator's.
    #[error("{what} would hold more than its limit in bytes: {limit}")]
    Full { what: &'static str, limit: u64 },
    /// Nobody's: worth trying again.
    #[error("another cloud changed the repository meanwhile: try again")]
    Busy,
    /// Ours.
    #[error("the work was interrupted")]
    Interrupted,
    #[error(transparent)]
    Keys(#[from] KeysFault),
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    #[error(transparent)]
    Shelf(#[from] ShelfFault),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordFault),
}

impl NotTaken {
    /// Stable; `None`: ours, and only the log says more.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::File(why) => why.code(),
            Self::Refused(why) => why.code(),
            Self::OnlineKey(_) => "online-key",
            Self::Before(_) => "metadata-missing",
            Self::SameVersion { .. } => "metadata-rollback",
            Self::UnknownPublisher(_) | Self::OtherPublisher(_) => "publisher-unknown",
            Self::Content(_) => "chunk-mismatch",
            Self::Manifest(_) | Self::OtherRelease { .. } => "manifest-malformed",
            Self::Incomplete { .. } => "app-incomplete",
            Self::Changed { .. } => "app-release-changed",
            Self::Equal { .. } => "app-release-equal",
            Self::Full { .. } => "apps-full",
            Self::Busy => "apps-busy",
            Self::Interrupted
            | Self::Keys(_)
            | Self::Unsigned(_)
            | Self::Shelf(_)
            | Self::Store(_)
            | Self::Record(_) => return None,
        })
    }
}
