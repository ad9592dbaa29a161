//! Where a release lies on the volume: `publisher/name/version-digest`, and `current` beside it leads to the one in use.

use edgeward_apps::{AppName, Digest, Version};

/// The link to the release in use.
pub(super) const CURRENT: &str = "current";
/// The link in the making.
pub(super) const NEXT: &str = ".current.new";

/// The folder of an app's releases.
pub(super) fn home_of(app: &AppName) -> String {
    app.to_string()
}

/// One release of an app that is known. One version that was signed twice is two.
#[derive(Clone, Debug)]
pub(super) struct ReleaseId {
    pub(super) version: Version,
    /// Of the manifest.
    pub(super) digest: Digest,
}

impl ReleaseId {
    /// The folder of the release within its app's.
    pub(super) fn folder(&self) -> String {
        format!("{}-{}", self.version, self.digest)
    }

    /// `None`: not the folder of a release.
    pub(super) fn of(folder: &str) -> Option<Self> {
        let (version, digest) = folder.split_once('-')?;
        Some(Self {
            version: version.parse().ok()?,
            digest: digest.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_one_release_and_other_folders_none() {
        let id = ReleaseId {
            version: "2.3.0".parse().unwrap(),
            digest: Digest::of(b"x"),
        };
        let folder = id.folder();
        let found = ReleaseId::of(&folder).unwrap();
        assert_eq!(found.version.to_string(), "2.3.0");
        assert_eq!(found.digest, id.digest);
        for other in ["", "-", "2.3.0", "current", "2.3.0-", "..", ".current.new"] {
            assert!(ReleaseId::of(other).is_none(), "{other}");
        }
        assert!(ReleaseId::of(&folder.to_uppercase()).is_none());
        assert!(ReleaseId::of(&format!("0{folder}")).is_none());
    }
}
