//! Releases with their content, and all that a node needs to take them: from files in memory to an [`Installable`].

use std::collections::BTreeMap;

use edgeward_identity::signed::{EVERYBODY, Expect, Header, PurposeKey};
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{KeySet, Purpose, SignedObject, Signer as _, SoftwareKey, TrustDomain};

use super::{Repository, acme, policy_keys, refreshed, tomorrow};
use crate::admit::{Allow, AppFloors, AppRules, Installable, NotAdmitted, admit};
use crate::chunk::cut;
use crate::digest::Digest;
use crate::director::{Assigned, Director, Orders, Wish};
use crate::image::{Image, ImageFloors};
use crate::manifest::{Entry, EntryPoint, Manifest};
use crate::name::AppName;
use crate::path::AppPath;

const PURPOSE: Purpose = Purpose::Director;
/// Whose the director's word is.
pub const TEST_NODE: &str = "spiffe://plant.example/node/gw-3";

/// What one entry of an app's tree is made from.
#[derive(Clone, Copy, Debug)]
pub enum Content<'c> {
    Program(&'c [u8]),
    Data(&'c [u8]),
    Link(&'c str),
}

/// A cloud, the publisher `acme` and a policy that allows all of its apps.
pub struct Published {
    pub repository: Repository,
    root: SoftwareKey,
    director: SoftwareKey,
    pub orders: Orders,
    pub rules: AppRules,
    pub floors: AppFloors,
    /// Of the director's word.
    pub number: u64,
    /// Bytes of manifests, by their digests.
    pub manifests: BTreeMap<Digest, Vec<u8>>,
    pub chunks: BTreeMap<Digest, Vec<u8>>,
}

impl Default for Published {
    fn default() -> Self {
        Self::new()
    }
}

impl Published {
    pub fn new() -> Self {
        let key = || SoftwareKey::generate().expect("a key");
        let repository = Repository::new();
        let mut rules = AppRules::default();
        let keys = policy_keys(&repository.publisher_keys(), 2);
        rules.publishers.insert(acme(), keys);
        rules.allow.push(Allow::Publisher {
            publisher: acme(),
            name: None,
            min_version: None,
        });
        Self {
            repository,
            root: key(),
            director: key(),
            orders: Orders::default(),
            rules,
            floors: AppFloors::default(),
            number: 1,
            manifests: BTreeMap::new(),
            chunks: BTreeMap::new(),
        }
    }

    /// A release of an app whose entry point is the first program; it is assigned at once.
    pub fn release(&mut self, app: &str, version: &str, tree: &[(&str, Content<'_>)]) -> Manifest {
        let mut entries = BTreeMap::new();
        let mut start: Option<AppPath> = None;
        for (path, content) in tree {
            let path: AppPath = path.parse().expect("a path");
            let entry = match content {
                Content::Link(target) => Entry::Link((*target).to_owned()),
                Content::Program(bytes) => {
                    start.get_or_insert_with(|| path.clone());
                    self.file(bytes, true)
                }
                Content::Data(bytes) => self.file(bytes, false),
            };
            entries.insert(path, entry);
        }
        let entry = EntryPoint {
            path: start.expect("a program"),
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        let app = app.parse().expect("a name");
        let version = version.parse().expect("a version");
        let manifest = Manifest::new(app, version, entry, entries).expect("a manifest");
        self.publish(&manifest);
        manifest
    }

    /// Signs for a manifest and assigns it. Its chunks are the caller's concern.
    pub fn publish(&mut self, manifest: &Manifest) -> Digest {
        let bytes = self.repository.publish(manifest);
        let digest = Digest::of(&bytes);
        let assigned = Assigned {
            version: manifest.version.clone(),
            digest,
            length: bytes.len() as u64,
            state: Wish::Running,
            back: false,
        };
        self.orders.apps.insert(manifest.app.clone(), assigned);
        self.manifests.insert(digest, bytes);
        digest
    }

    pub fn object(&self) -> SignedObject {
        let header = self.header(PURPOSE, TEST_NODE);
        SignedObject::sign_json(&self.director, header, &self.orders).expect("signs")
    }

    /// The keys of the cloud, of which one signs the director's word.
    pub fn keys(&self) -> KeySet {
        let keys = vec![PurposeKey {
            purpose: PURPOSE,
            key: *self.director.public_key(),
            not_after: tomorrow(),
        }];
        let header = self.header(Purpose::Keys, EVERYBODY);
        let object = SignedObject::sign_json(&self.root, header, &keys).expect("signs");
        let roots = [*self.root.public_key()];
        KeySet::open(&object, &roots, &domain(), 0, TEST_NOW).expect("opens")
    }

    pub fn director(&self) -> Director {
        let domain = domain();
        let expect = Expect {
            purpose: PURPOSE,
            trust_domain: &domain,
            audience: TEST_NODE,
            least_number: 0,
            now: TEST_NOW,
        };
        Director::open(&self.object(), &self.keys(), &expect).expect("opens")
    }

    pub fn image(&self) -> Image {
        let Self { repository, .. } = self;
        let none = ImageFloors::default();
        let policy = repository.policy();
        refreshed(
            &repository.files(),
            repository.root(),
            &none,
            &policy,
            TEST_NOW,
        )
        .expect("the repository holds")
    }

    /// As a node judges the release that is assigned; what was accepted is remembered.
    pub fn installable(&mut self, app: &str) -> Result<Installable, NotAdmitted> {
        let app: AppName = app.parse().expect("a name");
        let director = self.director();
        let agreed = director.agree(&self.image(), &app, TEST_NOW)?;
        let bytes = self.manifests.get(&agreed.release().digest);
        let bytes = bytes.map(Vec::as_slice).unwrap_or_default();
        let (rules, floors) = (&self.rules, &self.floors);
        let admitted = admit(&agreed, bytes, &director, rules, floors, TEST_NOW)?;
        self.floors = admitted.floors().clone();
        Ok(admitted)
    }

    fn file(&mut self, bytes: &[u8], executable: bool) -> Entry {
        let file = cut(bytes, executable);
        let mut rest = bytes;
        for chunk in &file.chunks {
            let (own, after) = rest.split_at(chunk.size as usize);
            self.chunks.insert(chunk.digest, own.to_vec());
            rest = after;
        }
        Entry::File(file)
    }

    fn header(&self, purpose: Purpose, audience: &str) -> Header {
        Header {
            purpose,
            trust_domain: domain(),
            audience: audience.to_owned(),
            number: self.number,
            issued: TEST_NOW,
            expires: tomorrow(),
        }
    }
}

/// Bytes that no chunk repeats, the same for the same seed.
pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let byte = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_be_bytes()[0]
    };
    std::iter::repeat_with(byte).take(length).collect()
}

fn domain() -> TrustDomain {
    "plant.example".parse().expect("a trust domain")
}
