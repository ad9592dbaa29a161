//! Who signs releases, at places that the cloud never sees: holders of the offline roles and of a publisher's keys, and
//! the folder in which what they signed lies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use edgeward_apps::author::{Envelope, Pin, RoleKey, Signers};
use edgeward_apps::manifest::{Entry, EntryPoint};
use edgeward_apps::{Digest, Manifest, PublisherName};
use edgeward_identity::{Clock as _, PublicKey, Signer as _, SoftwareKey, SystemClock, Timestamp};

use crate::secrets;

mod programs;

pub use programs::{Content, Program};

/// How long what is signed offline is good for.
const OFFLINE_VALIDITY: Duration = Duration::from_secs(30 * 86_400);

/// Keys of one role and how many of them must sign.
#[derive(Debug)]
pub struct Holders {
    pub keys: Vec<SoftwareKey>,
    pub threshold: usize,
}

/// One publisher with its releases.
#[derive(Debug)]
pub struct Publisher {
    pub holders: Holders,
    version: u64,
    manifests: BTreeMap<String, (u64, Digest)>,
}

/// Who signs snapshots and timestamps.
#[derive(Debug)]
pub enum Online {
    /// A cloud, which keeps the key to itself.
    Cloud(PublicKey),
    /// Whoever holds this key: a repository that no cloud serves.
    Own(Box<SoftwareKey>),
}

/// The image repository as a folder: `metadata`, `targets` and `chunks` below `image`.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    pub offline: Holders,
    online: Online,
    publishers: BTreeMap<PublisherName, Publisher>,
    root: u64,
    image: u64,
    /// Of snapshot and timestamp.
    fresh: u64,
    pub expires: Expires,
}

/// When what is signed from now on ends.
#[derive(Clone, Copy, Debug)]
pub struct Expires {
    pub root: Timestamp,
    pub image: Timestamp,
    pub publisher: Timestamp,
    pub snapshot: Timestamp,
    pub timestamp: Timestamp,
}

/// A release as it was signed.
#[derive(Clone, Debug)]
pub struct Released {
    pub manifest: Manifest,
    pub digest: Digest,
}

impl Holders {
    pub fn new(threshold: usize, count: usize) -> anyhow::Result<Self> {
        let keys = (0..count)
            .map(|_| SoftwareKey::generate())
            .collect::<Result<_, _>>()?;
        Ok(Self { keys, threshold })
    }

    fn signers(&self) -> anyhow::Result<Signers> {
        let keys = self.keys.iter().map(|key| RoleKey::p256(key.public_key()));
        Ok(Signers {
            keys: keys.collect::<Result<_, _>>()?,
            threshold: self.threshold,
        })
    }

    /// No log or record of the lab may hold their private halves.
    fn are_secret_in(&self, folder: &Path) {
        for key in &self.keys {
            secrets::keep_key(folder, "a publisher's key", key.pkcs8().expose());
        }
    }

    /// As many as are needed.
    fn enough(&self) -> Vec<&SoftwareKey> {
        self.keys.iter().take(self.threshold).collect()
    }

    /// As policy files and the operator's commands write keys.
    pub fn texts(&self) -> Vec<String> {
        self.keys
            .iter()
            .map(|key| key_text(key.public_key()))
            .collect()
    }
}

/// As policy files and the operator's commands write a key.
pub fn key_text(key: &PublicKey) -> String {
    format!("ecdsa-p256:{}", hex::encode(key.point()))
}

/// Signs with these keys, each once.
pub fn signed(mut envelope: Envelope, keys: &[&SoftwareKey]) -> anyhow::Result<Vec<u8>> {
    let bytes = envelope.to_sign()?;
    for key in keys {
        envelope.add(&RoleKey::p256(key.public_key())?, &key.sign(&bytes)?)?;
    }
    Ok(envelope.to_bytes())
}

impl Repository {
    /// With a first root and an image role that knows nobody yet.
    pub fn new(folder: &Path, offline: Holders, online: Online) -> anyhow::Result<Self> {
        for part in ["metadata", "targets", "chunks"] {
            std::fs::create_dir_all(folder.join("image").join(part))?;
        }
        offline.are_secret_in(folder);
        let end = SystemClock.now().plus(OFFLINE_VALIDITY);
        let mut repository = Self {
            folder: folder.to_owned(),
            offline,
            online,
            publishers: BTreeMap::new(),
            root: 0,
            image: 0,
            fresh: 0,
            expires: Expires {
                root: end,
                image: end,
                publisher: end,
                snapshot: end,
                timestamp: end,
            },
        };
        repository.sign_root(&[])?;
        repository.sign_image()?;
        Ok(repository)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The newest file of an offline role or of a publisher: `root`, `targets`, `acme`.
    pub fn newest(&self, role: &str) -> anyhow::Result<PathBuf> {
        let version = match role {
            "root" => self.root,
            "targets" => self.image,
            publisher => self.publisher(publisher)?.version,
        };
        Ok(self.metadata(&format!("{version}.{role}.json")))
    }

    /// A file of metadata by the name that TUF's consistent snapshots give it.
    pub fn metadata(&self, name: &str) -> PathBuf {
        self.folder.join("image/metadata").join(name)
    }

    /// SHA-256 of the first root, as a policy pins it.
    pub fn root_sha256(&self) -> anyhow::Result<String> {
        let bytes = std::fs::read(self.metadata("1.root.json"))?;
        Ok(Digest::of(&bytes).to_string())
    }

    pub fn publisher(&self, name: &str) -> anyhow::Result<&Publisher> {
        self.publishers
            .get(&name.parse::<PublisherName>()?)
            .with_context(|| format!("no publisher {name}"))
    }

    /// The next root: keys as they stand now, signed by enough of them and by those that `also` must.
    pub fn sign_root(&mut self, also: &[&SoftwareKey]) -> anyhow::Result<()> {
        self.root += 1;
        let online = || -> anyhow::Result<Signers> {
            let key = match &self.online {
                Online::Cloud(key) => key,
                Online::Own(key) => key.public_key(),
            };
            Ok(Signers {
                keys: vec![RoleKey::p256(key)?],
                threshold: 1,
            })
        };
        let roles = BTreeMap::from([
            ("root", self.offline.signers()?),
            ("targets", self.offline.signers()?),
            ("timestamp", online()?),
            ("snapshot", online()?),
        ]);
        let envelope = Envelope::root(self.root, self.expires.root, &roles)?;
        let keys = [self.offline.enough().as_slice(), also].concat();
        self.write(
            &format!("{}.root.json", self.root),
            &signed(envelope, &keys)?,
        )
    }

    /// New holders of the offline roles, in the next root; the old ones sign it, too.
    pub fn turn_offline_keys(&mut self, next: Holders) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut self.offline, next);
        self.sign_root(&before.enough())?;
        self.sign_image()
    }

    /// Another key of the cloud's, in the next root.
    pub fn turn_online_key(&mut self, key: PublicKey) -> anyhow::Result<()> {
        self.online = Online::Cloud(key);
        self.sign_root(&[])
    }

    /// Adds a publisher, or gives one other keys; its releases stay and are signed anew.
    pub fn add_publisher(&mut self, name: &str, holders: Holders) -> anyhow::Result<()> {
        let name: PublisherName = name.parse()?;
        holders.are_secret_in(&self.folder);
        let (version, manifests) = match self.publishers.remove(&name) {
            Some(before) => (before.version, before.manifests),
            None => (0, BTreeMap::new()),
        };
        let publisher = Publisher {
            holders,
            version,
            manifests,
        };
        self.publishers.insert(name.clone(), publisher);
        self.sign_image()?;
        self.sign_releases(name.as_str())
    }

    /// Cuts a program into chunks, and signs for it.
    pub fn release(
        &mut self,
        app: &str,
        version: &str,
        program: &Program,
    ) -> anyhow::Result<Released> {
        let entry = EntryPoint {
            path: program.entry.parse()?,
            args: program.args.clone(),
            env: BTreeMap::new(),
        };
        let mut entries = BTreeMap::new();
        for (path, content) in &program.files {
            let entry = match content {
                Content::Link(target) => Entry::Link(target.clone()),
                Content::File { bytes, executable } => {
                    let file = edgeward_apps::chunk::cut(bytes, *executable);
                    self.write_chunks(&file, bytes)?;
                    Entry::File(file)
                }
            };
            entries.insert(path.parse()?, entry);
        }
        let mut manifest = Manifest::new(app.parse()?, version.parse()?, entry, entries)?;
        manifest.identity = program.identity.clone();
        manifest.host_libraries = program.host_libraries;
        manifest.resources = program.resources;
        self.release_manifest(manifest)
    }

    fn release_manifest(&mut self, manifest: Manifest) -> anyhow::Result<Released> {
        let bytes = manifest.to_json()?;
        let (digest, app) = (Digest::of(&bytes), manifest.app.clone());
        let folder = self.folder.join("image/targets").join(app.to_string());
        std::fs::create_dir_all(&folder)?;
        let version = &manifest.version;
        std::fs::write(folder.join(format!("{digest}.{version}")), &bytes)?;
        let publisher = self
            .publishers
            .get_mut(app.publisher())
            .with_context(|| format!("no publisher {}", app.publisher()))?;
        let named = (bytes.len() as u64, digest);
        publisher.manifests.insert(app.target(version), named);
        self.sign_releases(app.publisher().as_str())?;
        Ok(Released { manifest, digest })
    }

    /// The publisher's next metadata, signed by enough holders.
    pub fn sign_releases(&mut self, name: &str) -> anyhow::Result<()> {
        let enough = self.publisher(name)?.holders.threshold;
        self.sign_releases_by(name, enough)
    }

    /// As [`Repository::sign_releases`], by so many holders, whether that is enough or not.
    pub fn sign_releases_by(&mut self, name: &str, count: usize) -> anyhow::Result<()> {
        let end = self.expires.publisher;
        let publisher = self
            .publishers
            .get_mut(&name.parse::<PublisherName>()?)
            .with_context(|| format!("no publisher {name}"))?;
        publisher.version += 1;
        let envelope = Envelope::releases(publisher.version, end, &publisher.manifests)?;
        let keys: Vec<&SoftwareKey> = publisher.holders.keys.iter().take(count).collect();
        let (bytes, version) = (signed(envelope, &keys)?, publisher.version);
        self.write(&format!("{version}.{name}.json"), &bytes)
    }

    /// What a cloud does by itself: the next snapshot and timestamp over what lies here now. Only with a key of one's own.
    pub fn sign_fresh(&mut self) -> anyhow::Result<()> {
        self.fresh += 1;
        let mut pins = BTreeMap::new();
        let roles = self.publishers.keys().map(|name| name.as_str().to_owned());
        for role in roles.chain(["targets".to_owned()]) {
            let bytes = std::fs::read(self.newest(&role)?)?;
            let version = match role.as_str() {
                "targets" => self.image,
                publisher => self.publisher(publisher)?.version,
            };
            pins.insert(role, Pin::of(version, &bytes));
        }
        let Online::Own(key) = &self.online else {
            anyhow::bail!("the cloud signs here");
        };
        let snapshot = signed(
            Envelope::snapshot(self.fresh, self.expires.snapshot, &pins)?,
            &[key],
        )?;
        let pin = Pin::of(self.fresh, &snapshot);
        let timestamp = signed(
            Envelope::timestamp(self.fresh, self.expires.timestamp, &pin)?,
            &[key],
        )?;
        self.write(&format!("{}.snapshot.json", self.fresh), &snapshot)?;
        self.write("timestamp.json", &timestamp)
    }

    /// `[publisher.x]` of every publisher and the pinned root, as a policy file has them.
    pub fn policy(&self) -> anyhow::Result<String> {
        let mut text = format!("[apps_root]\nsha256 = \"{}\"\n", self.root_sha256()?);
        for (name, publisher) in &self.publishers {
            let keys = publisher.holders.texts();
            let threshold = publisher.holders.threshold;
            text += &format!(
                "\n[publisher.{}]\nkeys = {keys:?}\nthreshold = {threshold}\n",
                name.as_str()
            );
        }
        Ok(text)
    }

    fn sign_image(&mut self) -> anyhow::Result<()> {
        self.image += 1;
        let publishers = self
            .publishers
            .iter()
            .map(|(name, publisher)| Ok((name.clone(), publisher.holders.signers()?)))
            .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        let envelope = Envelope::image(self.image, self.expires.image, &publishers)?;
        let bytes = signed(envelope, &self.offline.enough())?;
        self.write(&format!("{}.targets.json", self.image), &bytes)
    }

    fn write_chunks(
        &self,
        file: &edgeward_apps::manifest::File,
        mut rest: &[u8],
    ) -> anyhow::Result<()> {
        for chunk in &file.chunks {
            let size = usize::try_from(chunk.size)?;
            let (bytes, after) = rest.split_at_checked(size).context("a chunk is cut")?;
            let name = chunk.digest.to_string();
            let (folder, _) = name.split_at(2);
            let folder = self.folder.join("image/chunks").join(folder);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join(&name), bytes)?;
            rest = after;
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(std::fs::write(self.metadata(name), bytes)?)
    }
}
