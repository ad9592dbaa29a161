//! Metadata in the making: what an operator, a publisher and the cloud sign, and how signatures are added one by one,
//! by keys that may only be asked to sign, at places that have no network.

use std::collections::BTreeMap;

use edgeward_identity::{PublicKey, Timestamp};
use serde_json::{Map, Value, json};
use sigstore_tuf::{Key, canonical_json};

use crate::digest::Digest;
use crate::image::KeyText;
use crate::name::PublisherName;
use crate::provider::{self, ForeignProvider};
use crate::strict::{self, Ambiguous};

mod reading;
mod tally;

pub use reading::{Kind, TOP_ROLES};
pub use tally::Tally;

const SPEC_VERSION: &str = "1.0.33";
/// Longest metadata that is taken up to be signed further, in bytes.
pub const MAX_METADATA_BYTES: u64 = 5 * 1024 * 1024;
/// Most signatures of one role.
pub const MAX_SIGNATURES: usize = 64;

/// A key as metadata names it: by the digest of what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleKey {
    id: String,
    value: Value,
    text: KeyText,
}

/// Who signs a role.
#[derive(Clone, Debug)]
pub struct Signers {
    pub keys: Vec<RoleKey>,
    pub threshold: usize,
}

/// One file that other metadata pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    pub version: u64,
    pub length: u64,
    pub digest: Digest,
}

/// Metadata with the signatures it has so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    signed: Value,
    signatures: BTreeMap<String, String>,
}

/// Why metadata cannot be made or taken up.
#[derive(Debug, thiserror::Error)]
pub enum Unauthored {
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("not signed metadata")]
    Shape,
    #[error("more signatures than the limit: {MAX_SIGNATURES}")]
    Signatures,
    #[error("metadata has no canonical form: {0}")]
    Canonical(#[source] sigstore_tuf::Error),
    #[error("time is out of range")]
    Time,
    #[error("key {0} is of a kind that is not used here: ed25519 and ecdsa-p256 are")]
    Key(String),
    #[error(transparent)]
    Provider(#[from] ForeignProvider),
}

impl RoleKey {
    pub fn p256(key: &PublicKey) -> Result<Self, Unauthored> {
        Self::of(&KeyText::p256(*key))
    }

    pub fn ed25519(key: &[u8; 32]) -> Result<Self, Unauthored> {
        Self::of(&KeyText::ed25519(*key))
    }

    /// A key as this version writes it.
    pub fn of(text: &KeyText) -> Result<Self, Unauthored> {
        provider::ensure()?;
        let value = match text.kind() {
            "ed25519" => {
                let digits = hex::encode(text.parts().1);
                json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": digits } })
            }
            "ecdsa-p256" => {
                let public = public_pem(text);
                json!({ "keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": { "public": public } })
            }
            _ => return Err(Unauthored::Key(text.to_string())),
        };
        let key: Key = serde_json::from_value(value.clone()).map_err(|_| Unauthored::Shape)?;
        let id = key.key_id().map_err(Unauthored::Canonical)?;
        let text = text.clone();
        Ok(Self { id, value, text })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is, however metadata writes it.
    pub fn text(&self) -> &KeyText {
        &self.text
    }
}

/// PEM of the `SubjectPublicKeyInfo`.
pub fn public_pem(key: &KeyText) -> String {
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.encode(key.spki_der());
    let lines: Vec<&str> = der
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}

impl Signers {
    fn role(&self) -> Value {
        let ids: Vec<&str> = self.keys.iter().map(RoleKey::id).collect();
        json!({ "keyids": ids, "threshold": self.threshold })
    }

    fn keys(&self) -> impl Iterator<Item = (String, Value)> + '_ {
        self.keys
            .iter()
            .map(|key| (key.id.clone(), key.value.clone()))
    }
}

impl Pin {
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        Self {
            version,
            length: bytes.len() as u64,
            digest: Digest::of(bytes),
        }
    }

    fn value(&self) -> Value {
        json!({ "version": self.version, "length": self.length, "hashes": { "sha256": self.digest } })
    }
}

impl Envelope {
    /// `roles`: `root`, `timestamp`, `snapshot` and `targets`.
    pub fn root(
        version: u64,
        expires: Timestamp,
        roles: &BTreeMap<&str, Signers>,
    ) -> Result<Self, Unauthored> {
        let keys: Map<String, Value> = roles.values().flat_map(Signers::keys).collect();
        let roles: Map<String, Value> = roles
            .iter()
            .map(|(name, signers)| ((*name).to_owned(), signers.role()))
            .collect();
        let more = json!({ "consistent_snapshot": true, "keys": keys, "roles": roles });
        Self::new("root", version, expires, more)
    }

    /// The image role: it names publishers and no release.
    pub fn image(
        version: u64,
        expires: Timestamp,
        publishers: &BTreeMap<PublisherName, Signers>,
    ) -> Result<Self, Unauthored> {
        let keys: Map<String, Value> = publishers.values().flat_map(Signers::keys).collect();
        let roles: Vec<Value> = publishers
            .iter()
            .map(|(name, signers)| {
                let mut role = signers.role();
                if let Some(role) = role.as_object_mut() {
                    role.insert("name".to_owned(), json!(name));
                    role.insert("paths".to_owned(), json!([format!("{name}/*/*")]));
                    role.insert("terminating".to_owned(), json!(true));
                }
                role
            })
            .collect();
        let more = json!({ "targets": {}, "delegations": { "keys": keys, "roles": roles } });
        Self::new("targets", version, expires, more)
    }

    /// A publisher's releases: manifests by their target paths.
    pub fn releases(
        version: u64,
        expires: Timestamp,
        manifests: &BTreeMap<String, (u64, Digest)>,
    ) -> Result<Self, Unauthored> {
        let targets: Map<String, Value> = manifests
            .iter()
            .map(|(path, (length, digest))| {
                (
                    path.clone(),
                    json!({ "length": length, "hashes": { "sha256": digest } }),
                )
            })
            .collect();
        Self::new("targets", version, expires, json!({ "targets": targets }))
    }

    pub fn snapshot(
        version: u64,
        expires: Timestamp,
        roles: &BTreeMap<String, Pin>,
    ) -> Result<Self, Unauthored> {
        let meta: Map<String, Value> = roles
            .iter()
            .map(|(role, pin)| (format!("{role}.json"), pin.value()))
            .collect();
        Self::new("snapshot", version, expires, json!({ "meta": meta }))
    }

    pub fn timestamp(version: u64, expires: Timestamp, snapshot: &Pin) -> Result<Self, Unauthored> {
        Self::new(
            "timestamp",
            version,
            expires,
            json!({ "meta": { "snapshot.json": snapshot.value() } }),
        )
    }

    /// Takes up metadata that others signed already. Nothing is verified: whoever signs has looked at it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unauthored> {
        strict::check(bytes, MAX_METADATA_BYTES)?;
        let mut value: Value = serde_json::from_slice(bytes).map_err(|_| Unauthored::Shape)?;
        let listed = value
            .get("signatures")
            .and_then(Value::as_array)
            .ok_or(Unauthored::Shape)?;
        if listed.len() > MAX_SIGNATURES {
            return Err(Unauthored::Signatures);
        }
        let mut signatures = BTreeMap::new();
        for entry in listed {
            let text = |key| entry.get(key).and_then(Value::as_str).map(str::to_owned);
            let (Some(id), Some(signature)) = (text("keyid"), text("sig")) else {
                return Err(Unauthored::Shape);
            };
            signatures.insert(id, signature);
        }
        match value.get_mut("signed").map(Value::take) {
            Some(signed) if signed.is_object() => Ok(Self { signed, signatures }),
            _ => Err(Unauthored::Shape),
        }
    }

    /// The bytes that a signature covers.
    pub fn to_sign(&self) -> Result<Vec<u8>, Unauthored> {
        canonical_json::to_canonical_bytes(&self.signed).map_err(Unauthored::Canonical)
    }

    /// ECDSA as ASN.1 DER, Ed25519 as its 64 bytes. A later signature of one key takes the place of its earlier.
    pub fn add(&mut self, key: &RoleKey, signature: &[u8]) -> Result<(), Unauthored> {
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(Unauthored::Signatures);
        }
        self.signatures
            .insert(key.id.clone(), hex::encode(signature));
        Ok(())
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let signatures: Vec<Value> = self
            .signatures
            .iter()
            .map(|(id, signature)| json!({ "keyid": id, "sig": signature }))
            .collect();
        json!({ "signed": self.signed, "signatures": signatures })
            .to_string()
            .into_bytes()
    }

    fn new(kind: &str, version: u64, expires: Timestamp, more: Value) -> Result<Self, Unauthored> {
        let secs = i64::try_from(expires.secs()).map_err(|_| Unauthored::Time)?;
        let expires = jiff::Timestamp::from_second(secs).map_err(|_| Unauthored::Time)?;
        let mut signed = more;
        let fields = signed.as_object_mut().ok_or(Unauthored::Shape)?;
        fields.insert("_type".to_owned(), json!(kind));
        fields.insert("spec_version".to_owned(), json!(SPEC_VERSION));
        fields.insert("version".to_owned(), json!(version));
        fields.insert("expires".to_owned(), json!(expires.to_string()));
        Ok(Self {
            signed,
            signatures: BTreeMap::new(),
        })
    }
}
