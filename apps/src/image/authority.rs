//! Who may sign a role: keys told apart by what they are.
//!
//! TUF names keys by ids that whoever writes the metadata chooses. One key under two ids would count twice, so a role
//! that holds one is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_identity::PublicKey;
use edgeward_identity::keys::BadSignature;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use serde::{Deserialize, Serialize};
use sigstore_tuf::{Key, RoleKeys, Root, Targets};

use super::ImageRefused;
use crate::digest::{Digest, Hasher};
use crate::name::PublisherName;

/// Most keys of one role.
pub(super) const MAX_ROLE_KEYS: usize = 64;
/// DER of an Ed25519 `SubjectPublicKeyInfo` up to the key (RFC 8410, section 10.1).
const ED25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const ED25519_BYTES: usize = 32;

/// Whose signatures a role needs.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    keys: BTreeMap<String, Key>,
    role: RoleKeys,
    material: BTreeMap<String, Material>,
}

/// A publisher's keys as the policy has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublisherKeys {
    pub keys: BTreeSet<KeyText>,
    pub threshold: u16,
}

/// `ed25519:` and 64 hex digits, or `ecdsa-p256:` and 130 of the uncompressed point.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyText(Material);

/// What a key is, however it is written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Material {
    Ed25519([u8; ED25519_BYTES]),
    P256(PublicKey),
    /// DER of a `SubjectPublicKeyInfo` of another kind.
    Other(Vec<u8>),
}

/// Why keys do not make an authority.
#[derive(Debug, thiserror::Error)]
pub enum BadAuthority {
    #[error("no such role")]
    NoRole,
    #[error("more keys than the limit: {MAX_ROLE_KEYS}")]
    TooMany,
    #[error("key id {0} has no key, or one that is not written as a key")]
    Unreadable(String),
    #[error("one key stands there under two ids: {0}")]
    Twice(String),
    #[error("threshold {threshold} cannot be met by {keys} keys")]
    Threshold { threshold: usize, keys: usize },
    #[error("not a publisher's key: write ed25519: and 64 hex digits, or ecdsa-p256: and 130")]
    KeyText,
    #[error(
        "the policy's keys and those of the image role have fewer in common than the threshold: {common} of {threshold}"
    )]
    Disagree { common: usize, threshold: usize },
}

impl Authority {
    pub(super) fn top(root: &Root, role: &str) -> Result<Self, BadAuthority> {
        let keys = root.role(role).ok_or(BadAuthority::NoRole)?;
        Self::new(&root.keys, keys.clone())
    }

    /// A publisher's, if the image role gives it its own folder and nothing else.
    pub(super) fn delegated(
        targets: &Targets,
        publisher: &PublisherName,
    ) -> Result<Self, ImageRefused> {
        let refused = || ImageRefused::Delegation(publisher.clone());
        let delegations = targets.delegations.as_ref().ok_or_else(refused)?;
        let mut roles = delegations
            .roles
            .iter()
            .filter(|role| role.name == publisher.as_str());
        let (Some(role), None) = (roles.next(), roles.next()) else {
            return Err(refused());
        };
        let own = format!("{publisher}/*/*");
        let only_own = role.paths.as_deref() == Some(&[own]) && role.path_hash_prefixes.is_none();
        match only_own && role.terminating {
            true => Self::new(&delegations.keys, role.role_keys()).map_err(|source| {
                ImageRefused::Authority {
                    role: publisher.to_string(),
                    source,
                }
            }),
            false => Err(refused()),
        }
    }

    /// Both must name a key before its signature counts, and the higher threshold holds.
    pub(super) fn narrowed(
        &self,
        policy: &PublisherKeys,
    ) -> Result<(BTreeMap<String, Key>, RoleKeys), BadAuthority> {
        let common = |id: &String| {
            let material = self.material.get(id).cloned();
            material.is_some_and(|material| policy.keys.contains(&KeyText(material)))
        };
        let mut role = self.role.clone();
        role.keyids.retain(|id| common(id));
        role.threshold = role.threshold.max(usize::from(policy.threshold)).max(1);
        if role.keyids.len() < role.threshold {
            return Err(BadAuthority::Disagree {
                common: role.keyids.len(),
                threshold: role.threshold,
            });
        }
        Ok((self.keys.clone(), role))
    }

    pub(super) fn keys(&self) -> PublisherKeys {
        PublisherKeys {
            keys: self.material.values().cloned().map(KeyText).collect(),
            threshold: u16::try_from(self.role.threshold).unwrap_or(u16::MAX),
        }
    }

    /// Changes whenever a key or the threshold does.
    pub(super) fn fingerprint(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(&(self.role.threshold as u64).to_be_bytes());
        let keys: BTreeSet<&Material> = self.material.values().collect();
        for key in keys {
            let bytes = key.bytes();
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        }
        hasher.finish()
    }

    fn new(keys: &BTreeMap<String, Key>, role: RoleKeys) -> Result<Self, BadAuthority> {
        if role.keyids.len() > MAX_ROLE_KEYS {
            return Err(BadAuthority::TooMany);
        }
        let (mut own, mut material) = (BTreeMap::new(), BTreeMap::new());
        let mut seen = BTreeSet::new();
        for id in &role.keyids {
            let unreadable = || BadAuthority::Unreadable(id.clone());
            let key = keys.get(id).ok_or_else(unreadable)?;
            let read = Material::of(&key.keyval.public).ok_or_else(unreadable)?;
            if !seen.insert(read.clone()) {
                return Err(BadAuthority::Twice(id.clone()));
            }
            own.insert(id.clone(), key.clone());
            material.insert(id.clone(), read);
        }
        match (1..=role.keyids.len()).contains(&role.threshold) {
            true => Ok(Self {
                keys: own,
                role,
                material,
            }),
            false => Err(BadAuthority::Threshold {
                threshold: role.threshold,
                keys: role.keyids.len(),
            }),
        }
    }
}

impl Material {
    /// As TUF writes keys: PEM of a `SubjectPublicKeyInfo`, or hex of an Ed25519 key or (old) of a point.
    fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some(pem) = text.strip_prefix("-----BEGIN PUBLIC KEY-----") else {
            let bytes = hex::decode(text).ok()?;
            return match <[u8; ED25519_BYTES]>::try_from(bytes.as_slice()) {
                Ok(key) => Some(Self::Ed25519(key)),
                Err(_) => PublicKey::from_point(&bytes).ok().map(Self::P256),
            };
        };
        let body: String = pem
            .strip_suffix("-----END PUBLIC KEY-----")?
            .chars()
            .filter(|char| !char.is_ascii_whitespace())
            .collect();
        Some(Self::of_der(&STANDARD.decode(body).ok()?))
    }

    fn of_der(der: &[u8]) -> Self {
        let ed25519 = der
            .strip_prefix(&ED25519_SPKI_PREFIX)
            .map(TryInto::try_into);
        match ed25519 {
            Some(Ok(key)) => Self::Ed25519(key),
            _ => {
                PublicKey::from_spki_der(der).map_or_else(|_| Self::Other(der.to_vec()), Self::P256)
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key,
            Self::P256(key) => key.point(),
            Self::Other(der) => der,
        }
    }
}

impl KeyText {
    pub fn p256(key: PublicKey) -> Self {
        Self(Material::P256(key))
    }

    pub fn ed25519(key: [u8; ED25519_BYTES]) -> Self {
        Self(Material::Ed25519(key))
    }

    /// A key of one of the two kinds, from DER of its `SubjectPublicKeyInfo`.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, BadAuthority> {
        match Material::of_der(der) {
            Material::Other(_) => Err(BadAuthority::KeyText),
            known => Ok(Self(known)),
        }
    }

    /// As metadata writes keys, of whatever kind.
    pub(crate) fn of_metadata(text: &str) -> Option<Self> {
        Material::of(text).map(Self)
    }

    /// `ed25519`, `ecdsa-p256`, or `other` for what is not used here.
    pub fn kind(&self) -> &'static str {
        match self.0 {
            Material::Ed25519(_) => "ed25519",
            Material::P256(_) => "ecdsa-p256",
            Material::Other(_) => "other",
        }
    }

    /// Checks a signature: ECDSA as ASN.1 DER, Ed25519 as its 64 bytes.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let algorithm: &dyn VerificationAlgorithm = match &self.0 {
            Material::Ed25519(_) => &ED25519,
            Material::P256(_) => &ECDSA_P256_SHA256_ASN1,
            Material::Other(_) => return Err(BadSignature),
        };
        UnparsedPublicKey::new(algorithm, self.0.bytes())
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }

    /// Whether it is an Ed25519 key, and its bytes as verifiers take them.
    pub(crate) fn parts(&self) -> (bool, &[u8]) {
        (matches!(self.0, Material::Ed25519(_)), self.0.bytes())
    }

    /// DER of its `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> Vec<u8> {
        match &self.0 {
            Material::Ed25519(key) => [ED25519_SPKI_PREFIX.as_slice(), key].concat(),
            Material::P256(key) => key.spki_der(),
            Material::Other(der) => der.clone(),
        }
    }
}

impl FromStr for KeyText {
    type Err = BadAuthority;

    fn from_str(text: &str) -> Result<Self, BadAuthority> {
        let (kind, digits) = text.split_once(':').ok_or(BadAuthority::KeyText)?;
        let bytes = hex::decode(digits).map_err(|_| BadAuthority::KeyText)?;
        let material = match kind {
            "ed25519" => bytes.try_into().ok().map(Material::Ed25519),
            "ecdsa-p256" => PublicKey::from_point(&bytes).ok().map(Material::P256),
            _ => None,
        };
        material.map(Self).ok_or(BadAuthority::KeyText)
    }
}

impl TryFrom<String> for KeyText {
    type Error = BadAuthority;

    fn try_from(text: String) -> Result<Self, BadAuthority> {
        text.parse()
    }
}

impl From<KeyText> for String {
    fn from(key: KeyText) -> Self {
        key.to_string()
    }
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), hex::encode(self.0.bytes()))
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.bytes()))
    }
}
