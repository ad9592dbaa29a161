//! The keys that sign a trust domain's JWT-SVIDs, as a JWK set (SPIFFE Trust Domain and Bundle standard; RFC 7517).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::bundle::{BundleError, MAX_AUTHORITIES, MAX_BUNDLE_BYTES};
use crate::keys::{POINT_BYTES, PublicKey};
use crate::spiffe_id::TrustDomain;

/// `use` of a key in a SPIFFE bundle that signs JWT-SVIDs.
pub(crate) const JWT_USE: &str = "jwt-svid";
/// Longest key id, in bytes.
const MAX_KEY_ID_BYTES: usize = 256;

/// Keys by their id. May be empty: then no token is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtBundle {
    trust_domain: TrustDomain,
    keys: BTreeMap<String, PublicKey>,
}

impl JwtBundle {
    /// The key id is the SHA-256 of the key's SPKI.
    pub fn new(trust_domain: TrustDomain, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let keys = keys.into_iter();
        Self {
            trust_domain,
            keys: keys.map(|key| (key.spki_hash().to_string(), key)).collect(),
        }
    }

    /// Reads a JWK set. Keys of other uses and kinds are left out: no token that they sign is good here.
    pub fn from_jwks(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        let document: Value = serde_json::from_slice(json).map_err(BundleError::Json)?;
        let list = document.get("keys").and_then(Value::as_array);
        let list = list.ok_or(BundleError::NoAuthorities)?;
        let used = |key: &&Value| {
            let usage = key.get("use").and_then(Value::as_str);
            usage.is_none_or(|usage| usage == JWT_USE)
        };
        let keys = read_keys(list.iter().filter(used))?;
        Ok(Self { trust_domain, keys })
    }

    pub fn to_jwks(&self) -> Vec<u8> {
        let keys: Vec<Value> = write_keys(&self.keys).collect();
        json!({ "keys": keys }).to_string().into_bytes()
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub fn get(&self, key_id: &str) -> Option<&PublicKey> {
        self.keys.get(key_id)
    }

    pub fn keys(&self) -> &BTreeMap<String, PublicKey> {
        &self.keys
    }
}

/// Keys of a JWK set that sign JWT-SVIDs. One without an id is refused, one that is not P-256 left out.
pub(crate) fn read_keys<'v>(
    list: impl Iterator<Item = &'v Value>,
) -> Result<BTreeMap<String, PublicKey>, BundleError> {
    let mut keys = BTreeMap::new();
    for (index, entry) in list.enumerate() {
        if index >= MAX_AUTHORITIES {
            return Err(BundleError::TooManyAuthorities);
        }
        let id = entry.get("kid").and_then(Value::as_str);
        let id = id
            .filter(|id| (1..=MAX_KEY_ID_BYTES).contains(&id.len()))
            .ok_or(BundleError::NoKeyId)?;
        let Some(key) = read_key(entry) else {
            continue;
        };
        if keys.insert(id.to_owned(), key).is_some() {
            return Err(BundleError::KeyIdTwice);
        }
    }
    Ok(keys)
}

/// Entries of a JWK set.
pub(crate) fn write_keys(keys: &BTreeMap<String, PublicKey>) -> impl Iterator<Item = Value> {
    keys.iter().map(|(id, key)| {
        let (x, y) = key.coordinates();
        json!({
            "use": JWT_USE,
            "kty": "EC",
            "crv": "P-256",
            "kid": id,
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        })
    })
}

fn read_key(entry: &Value) -> Option<PublicKey> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    if text("kty") != Some("EC") || text("crv") != Some("P-256") {
        return None;
    }
    let mut point = vec![4];
    for name in ["x", "y"] {
        let half = URL_SAFE_NO_PAD.decode(text(name)?).ok()?;
        if half.len() != POINT_BYTES / 2 {
            return None;
        }
        point.extend(half);
    }
    PublicKey::from_point(&point).ok()
}
