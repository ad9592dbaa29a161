//! What a role's file says of itself, for whoever keeps a repository or shows it. Nothing is verified here:
//! [`Refresh`](super::Refresh) does that, and whoever acts on a file has it judged there first.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::Timestamp;
use sigstore_tuf::metadata::Role;
use sigstore_tuf::{Metadata, Root, Targets};

use super::authority::{Authority, PublisherKeys};
use super::release::end_of;
use super::{ImageRefused, MAX_ROOT_BYTES, MAX_TARGETS_BYTES, bad, plain, unverified};
use crate::digest::Digest;
use crate::name::{AppName, PublisherName, Version};
use crate::provider;

/// Most publishers that an image role may name.
pub const MAX_DELEGATED: usize = 256;
/// Most releases of one publisher.
pub const MAX_RELEASES: usize = 1_000;

/// What a root says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedRoot {
    pub version: u64,
    pub expires: Timestamp,
    /// `root`, `timestamp`, `snapshot`, `targets`.
    pub roles: BTreeMap<String, PublisherKeys>,
}

/// What an image role says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedImage {
    pub version: u64,
    pub expires: Timestamp,
    pub publishers: BTreeMap<PublisherName, PublisherKeys>,
}

/// What a publisher's file says: manifests, by the releases that they are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedReleases {
    pub version: u64,
    pub expires: Timestamp,
    /// By app, and by the version's text: 2.3 and 2.3.0 are two releases.
    pub releases: BTreeMap<(AppName, String), StatedManifest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedManifest {
    pub version: Version,
    pub digest: Digest,
    /// In bytes.
    pub length: u64,
}

/// Why a file is not what a node could use.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    #[error(transparent)]
    Image(#[from] ImageRefused),
    #[error("not a {0} file")]
    Kind(&'static str),
    #[error("more publishers than the limit: {MAX_DELEGATED}")]
    Publishers,
    #[error("more releases than the limit: {MAX_RELEASES}")]
    Releases,
    #[error("the image role delegates to what is no publisher: {0}")]
    Delegated(String),
    #[error("the image role names targets of its own")]
    OwnTargets,
    #[error("no release of publisher {0}: {1}")]
    Path(PublisherName, String),
    #[error("release {0} is not named by sha-256 alone, and a length")]
    Unpinned(String),
}

impl StatedRoot {
    pub fn read(bytes: &[u8]) -> Result<Self, BadFile> {
        let root: Root = signed("root", bytes, MAX_ROOT_BYTES)?;
        if root.type_ != "root" {
            return Err(BadFile::Kind("root"));
        }
        let mut roles = BTreeMap::new();
        for role in ["root", "timestamp", "snapshot", "targets"] {
            let authority = Authority::top(&root, role).map_err(|source| bad(role, source))?;
            roles.insert(role.to_owned(), authority.keys());
        }
        Ok(Self {
            version: root.version,
            expires: end_of(root.expires),
            roles,
        })
    }
}

impl StatedImage {
    pub fn read(bytes: &[u8]) -> Result<Self, BadFile> {
        let targets: Targets = signed("targets", bytes, MAX_TARGETS_BYTES)?;
        if targets.type_ != "targets" {
            return Err(BadFile::Kind("targets"));
        }
        if !targets.targets.is_empty() {
            return Err(BadFile::OwnTargets);
        }
        let delegations = targets.delegations.as_ref();
        let roles = delegations.map(|delegations| delegations.roles.as_slice());
        let roles = roles.unwrap_or_default();
        if roles.len() > MAX_DELEGATED {
            return Err(BadFile::Publishers);
        }
        let mut publishers = BTreeMap::new();
        for role in roles {
            let name: PublisherName = role
                .name
                .parse()
                .map_err(|_| BadFile::Delegated(role.name.chars().take(64).collect()))?;
            let keys = Authority::delegated(&targets, &name)?.keys();
            publishers.insert(name, keys);
        }
        Ok(Self {
            version: targets.version,
            expires: end_of(targets.expires),
            publishers,
        })
    }
}

impl StatedReleases {
    pub fn read(publisher: &PublisherName, bytes: &[u8]) -> Result<Self, BadFile> {
        let targets: Targets = signed(publisher.as_str(), bytes, MAX_TARGETS_BYTES)?;
        if targets.type_ != "targets" {
            return Err(BadFile::Kind("publisher's"));
        }
        if targets.targets.len() > MAX_RELEASES {
            return Err(BadFile::Releases);
        }
        let mut releases = BTreeMap::new();
        for (path, target) in &targets.targets {
            let (app, version) = release_of(publisher, path).ok_or_else(|| {
                BadFile::Path(publisher.clone(), path.chars().take(256).collect())
            })?;
            let algorithms: BTreeSet<&str> = target.hashes.keys().map(String::as_str).collect();
            let digest = target.hashes.get("sha256").and_then(|hex| hex.parse().ok());
            let digest = digest.filter(|_| algorithms.len() == 1 && target.length > 0);
            let digest = digest.ok_or_else(|| BadFile::Unpinned(path.clone()))?;
            let manifest = StatedManifest {
                version: version.clone(),
                digest,
                length: target.length,
            };
            releases.insert((app, version.to_string()), manifest);
        }
        Ok(Self {
            version: targets.version,
            expires: end_of(targets.expires),
            releases,
        })
    }
}

/// `publisher/name/version`, as a node would look it up.
fn release_of(publisher: &PublisherName, path: &str) -> Option<(AppName, Version)> {
    let (app, version) = path.rsplit_once('/')?;
    let app: AppName = app.parse().ok()?;
    let version: Version = version.parse().ok()?;
    (app.publisher() == publisher && app.target(&version) == path).then_some((app, version))
}

fn signed<T: Role>(role: &str, bytes: &[u8], max_bytes: u64) -> Result<T, ImageRefused> {
    provider::ensure()?;
    plain(role, bytes, max_bytes)?;
    Metadata::<T>::from_slice(bytes)
        .map(Metadata::into_signed)
        .map_err(|source| unverified(role, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::author::Envelope;
    use crate::testing::{Repository, acme, policy_keys, signed, tomorrow};

    #[test]
    fn a_file_of_another_role_is_refused() {
        let repository = Repository::new();
        let files = repository.files();
        let (root, image) = (repository.root(), &files["1.targets.json"]);
        assert!(StatedRoot::read(image).is_err());
        assert!(StatedImage::read(root).is_err());
        assert!(StatedReleases::read(&acme(), root).is_err());
        assert!(StatedImage::read(&files["timestamp.json"]).is_err());
        assert!(StatedRoot::read(b"{}").is_err());
    }

    #[test]
    fn what_no_node_would_look_up_is_refused() {
        let repository = Repository::new();
        let keys = repository.publisher_keys();
        for path in [
            "acme",
            "acme/x",
            "acme/x/01",
            "other/x/1.0",
            "acme/x/y/1.0",
            "acme/../1.0",
        ] {
            let manifests = BTreeMap::from([(path.to_owned(), (9, Digest::of(b"x")))]);
            let file = Envelope::releases(1, tomorrow(), &manifests).unwrap();
            let file = signed(file, &keys[..2]);
            let read = StatedReleases::read(&acme(), &file);
            assert!(matches!(read, Err(BadFile::Path(..))), "{path}");
        }
        let file = String::from_utf8(repository.files()["1.targets.json"].clone()).unwrap();
        let own = file.replace(
            "\"targets\":{}",
            "\"targets\":{\"acme/x/1\":{\"length\":1,\"hashes\":{}}}",
        );
        assert!(matches!(
            StatedImage::read(own.as_bytes()),
            Err(BadFile::OwnTargets)
        ));
        let wide = file.replace("acme/*/*", "*/*/*");
        assert!(StatedImage::read(wide.as_bytes()).is_err());
    }

    #[test]
    fn keys_versions_and_releases_are_told() {
        let mut repository = Repository::new();
        let named = (9, Digest::of(b"manifest"));
        repository
            .manifests
            .insert("acme/x/2.3.0".to_owned(), named);
        let files = repository.files();
        let root = StatedRoot::read(repository.root()).unwrap();
        assert_eq!((root.version, root.expires), (1, tomorrow()));
        assert_eq!(root.roles["targets"], policy_keys(&repository.offline(), 2));
        let image = StatedImage::read(&files["1.targets.json"]).unwrap();
        let keys = policy_keys(&repository.publisher_keys(), 2);
        assert_eq!(image.publishers, BTreeMap::from([(acme(), keys)]));
        let stated = StatedReleases::read(&acme(), &files["1.acme.json"]).unwrap();
        let (of, manifest) = stated.releases.first_key_value().unwrap();
        assert_eq!(of, &("acme/x".parse().unwrap(), "2.3.0".to_owned()));
        assert_eq!((manifest.length, manifest.digest), named);
    }
}
