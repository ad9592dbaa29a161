//! A whole repository in memory, with every key at hand: what tests change and sign again.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{Signer, SoftwareKey, Timestamp};

use crate::author::{Envelope, Pin, RoleKey, Signers};
use crate::digest::Digest;
use crate::image::{ImageFloors, ImageRefused, PublisherKeys, Refresh};
use crate::manifest::Manifest;
use crate::name::PublisherName;

mod published;

pub use published::{Content, Published, TEST_NODE, noise};

/// A day after [`TEST_NOW`].
pub fn tomorrow() -> Timestamp {
    TEST_NOW.plus(Duration::from_secs(86_400))
}

pub fn role_key(key: &SoftwareKey) -> RoleKey {
    RoleKey::p256(key.public_key()).expect("what a test makes holds")
}

pub fn signers(keys: &[&SoftwareKey], threshold: usize) -> Signers {
    Signers {
        keys: keys.iter().map(|key| role_key(key)).collect(),
        threshold,
    }
}

pub fn signed(mut envelope: Envelope, keys: &[&SoftwareKey]) -> Vec<u8> {
    let bytes = envelope.to_sign().expect("what a test makes holds");
    for key in keys {
        envelope
            .add(
                &role_key(key),
                &key.sign(&bytes).expect("what a test makes holds"),
            )
            .expect("what a test makes holds");
    }
    envelope.to_bytes()
}

pub fn policy_keys(keys: &[&SoftwareKey], threshold: u16) -> PublisherKeys {
    let text = |key: &&SoftwareKey| format!("ecdsa-p256:{}", hex::encode(key.public_key().point()));
    PublisherKeys {
        keys: keys
            .iter()
            .map(|key| text(key).parse().expect("what a test makes holds"))
            .collect(),
        threshold,
    }
}

pub fn acme() -> PublisherName {
    "acme".parse().expect("what a test makes holds")
}

/// Keys and numbers of a repository; [`Repository::files`] signs it as it stands.
pub struct Repository {
    /// Two of them sign the root and the image role.
    pub offline: Vec<SoftwareKey>,
    /// Timestamp and snapshot.
    pub online: SoftwareKey,
    /// Two of the publisher's three sign.
    pub publisher: Vec<SoftwareKey>,
    pub versions: Versions,
    pub expires: Expires,
    pub manifests: BTreeMap<String, (u64, Digest)>,
    /// Roots that were signed before, by version.
    pub roots: BTreeMap<u64, Vec<u8>>,
    pub delegations: Option<BTreeMap<PublisherName, Signers>>,
}

#[derive(Clone, Copy)]
pub struct Versions {
    pub root: u64,
    pub timestamp: u64,
    pub snapshot: u64,
    pub targets: u64,
    pub publisher: u64,
}

#[derive(Clone, Copy)]
pub struct Expires {
    pub root: Timestamp,
    pub timestamp: Timestamp,
    pub snapshot: Timestamp,
    pub targets: Timestamp,
    pub publisher: Timestamp,
}

pub type Files = BTreeMap<String, Vec<u8>>;

impl Default for Repository {
    fn default() -> Self {
        Self::new()
    }
}

impl Repository {
    pub fn new() -> Self {
        let keys = |count| {
            (0..count)
                .map(|_| SoftwareKey::generate().expect("what a test makes holds"))
                .collect()
        };
        let end = tomorrow();
        let mut repository = Self {
            offline: keys(3),
            online: SoftwareKey::generate().expect("what a test makes holds"),
            publisher: keys(3),
            versions: Versions {
                root: 1,
                timestamp: 1,
                snapshot: 1,
                targets: 1,
                publisher: 1,
            },
            expires: Expires {
                root: end,
                timestamp: end,
                snapshot: end,
                targets: end,
                publisher: end,
            },
            manifests: BTreeMap::new(),
            roots: BTreeMap::new(),
            delegations: None,
        };
        repository.sign_root(&[]);
        repository
    }

    pub fn offline(&self) -> Vec<&SoftwareKey> {
        self.offline.iter().collect()
    }

    pub fn publisher_keys(&self) -> Vec<&SoftwareKey> {
        self.publisher.iter().collect()
    }

    /// The root as the keys stand now, signed by two of them and by `also`.
    pub fn sign_root(&mut self, also: &[&SoftwareKey]) {
        let offline = self.offline();
        let roles = BTreeMap::from([
            ("root", signers(&offline, 2)),
            ("targets", signers(&offline, 2)),
            ("timestamp", signers(&[&self.online], 1)),
            ("snapshot", signers(&[&self.online], 1)),
        ]);
        let envelope = Envelope::root(self.versions.root, self.expires.root, &roles)
            .expect("what a test makes holds");
        let keys: Vec<&SoftwareKey> = offline
            .into_iter()
            .take(2)
            .chain(also.iter().copied())
            .collect();
        let bytes = signed(envelope, &keys);
        self.roots.insert(self.versions.root, bytes);
    }

    pub fn root(&self) -> &[u8] {
        self.roots
            .get(&self.versions.root)
            .expect("the root was signed")
    }

    pub fn publish(&mut self, manifest: &Manifest) -> Vec<u8> {
        let bytes = manifest.to_json().expect("what a test makes holds");
        let named = (bytes.len() as u64, Digest::of(&bytes));
        self.manifests
            .insert(manifest.app.target(&manifest.version), named);
        bytes
    }

    pub fn files(&self) -> Files {
        let Versions {
            timestamp,
            snapshot,
            targets,
            publisher,
            ..
        } = self.versions;
        let releases = Envelope::releases(publisher, self.expires.publisher, &self.manifests)
            .expect("what a test makes holds");
        let releases = signed(
            releases,
            &self
                .publisher_keys()
                .into_iter()
                .take(2)
                .collect::<Vec<_>>(),
        );
        let default = BTreeMap::from([(acme(), signers(&self.publisher_keys(), 2))]);
        let delegations = self.delegations.as_ref().unwrap_or(&default);
        let image = Envelope::image(targets, self.expires.targets, delegations)
            .expect("what a test makes holds");
        let image = signed(
            image,
            &self.offline().into_iter().take(2).collect::<Vec<_>>(),
        );
        let pins = BTreeMap::from([
            ("targets".to_owned(), Pin::of(targets, &image)),
            ("acme".to_owned(), Pin::of(publisher, &releases)),
        ]);
        let whole = Envelope::snapshot(snapshot, self.expires.snapshot, &pins)
            .expect("what a test makes holds");
        let whole = signed(whole, &[&self.online]);
        let fresh = Envelope::timestamp(
            timestamp,
            self.expires.timestamp,
            &Pin::of(snapshot, &whole),
        )
        .expect("what a test makes holds");
        let fresh = signed(fresh, &[&self.online]);
        let mut files: Files = self
            .roots
            .iter()
            .map(|(version, root)| (format!("{version}.root.json"), root.clone()))
            .collect();
        files.insert("timestamp.json".to_owned(), fresh);
        files.insert(format!("{snapshot}.snapshot.json"), whole);
        files.insert(format!("{targets}.targets.json"), image);
        files.insert(format!("{publisher}.acme.json"), releases);
        files
    }

    pub fn policy(&self) -> Vec<(PublisherName, PublisherKeys)> {
        vec![(acme(), policy_keys(&self.publisher_keys(), 2))]
    }
}

/// A refresh from files, to its end.
pub fn refreshed(
    files: &Files,
    root: &[u8],
    floors: &ImageFloors,
    policy: &[(PublisherName, PublisherKeys)],
    now: Timestamp,
) -> Result<crate::image::Image, ImageRefused> {
    let mut refresh = Refresh::new(root, floors.clone(), policy.to_vec(), now)?;
    while let Some(wanted) = refresh.wanted()? {
        refresh.give(files.get(&wanted.name).map(Vec::as_slice))?;
    }
    let mut image = refresh.finish()?;
    // Tests have one publisher: what is wrong with it is what went wrong.
    match image.take_refused() {
        Some(why) => Err(why),
        None => Ok(image),
    }
}
