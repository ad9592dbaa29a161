//! Stable codes of refused metadata.

use sigstore_tuf::Error;

use super::ImageRefused;
use super::authority::BadAuthority;
use super::stated::BadFile;
use crate::name::PublisherName;

impl ImageRefused {
    /// Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Provider(_) => "internal",
            Self::Ambiguous { .. } | Self::Time | Self::Unpinned(_) => "metadata-malformed",
            Self::Unverified { role, source } => match source {
                Error::ThresholdNotMet { .. } if role.parse::<PublisherName>().is_ok() => {
                    "publisher-threshold"
                }
                Error::ThresholdNotMet { .. } => "metadata-threshold",
                Error::Expired { .. } => "metadata-expired",
                Error::Rollback { .. } | Error::EqualVersion { .. } => "metadata-rollback",
                Error::BadRootVersion { .. } => "metadata-version",
                Error::IntegrityMismatch(_) => "metadata-mismatch",
                _ => "metadata-malformed",
            },
            Self::Authority { source, .. } => match source {
                BadAuthority::Disagree { .. } => "publisher-threshold",
                _ => "metadata-keys",
            },
            Self::Rollback { .. } => "metadata-rollback",
            Self::Missing(_) | Self::Unfinished(_) | Self::Finished => "metadata-missing",
            Self::Inconsistent => "metadata-inconsistent",
            Self::Publishers => "metadata-full",
            Self::Delegation(_) => "publisher-unknown",
            Self::Expired => "metadata-expired",
            Self::NotAsked(_) | Self::Publisher(_) | Self::NoRelease(_) => "app-unproven",
        }
    }
}

impl BadFile {
    /// Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Image(why) => why.code(),
            Self::Publishers | Self::Releases => "metadata-full",
            Self::Kind(_)
            | Self::Delegated(_)
            | Self::OwnTargets
            | Self::Path(..)
            | Self::Unpinned(_) => "metadata-malformed",
        }
    }
}
