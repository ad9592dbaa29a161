//! Objects that the cloud signs: attestation results, policy slices, deny-lists, cuts, the key set.
//!
//! Every one carries its purpose, trust domain, audience, number, issue time and expiry inside the
//! signature, so that none can be taken for another, replayed to somebody else, or kept for ever.
//!
//! Layout, all integers big-endian:
//! `"EWSO" | version 1 | purpose u8 | key id [32] | number u64 | issued u64 ms | expires u64 ms |
//! trust domain u16+bytes | audience u16+bytes | payload u32+bytes | signature u16+bytes`.
//! The signature (ECDSA P-256, DER) covers `"edgeward-signed-object-v1\0"` and everything before it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::keys::{PublicKey, SignError, Signer, SpkiHash};
use crate::spiffe_id::TrustDomain;

/// Largest signed object accepted, in bytes (a policy slice is the largest).
pub const MAX_SIGNED_BYTES: usize = 4 * 1024 * 1024;
/// Longest audience, in bytes.
pub const MAX_AUDIENCE_BYTES: usize = 2048;
/// Audience of objects that are for every member of the trust domain.
pub const EVERYBODY: &str = "*";

const MAGIC: &[u8; 4] = b"EWSO";
const VERSION: u8 = 1;
const LABEL: &[u8] = b"edgeward-signed-object-v1\0";

/// What a signed object is for. A key signs for the purposes the [`KeySet`] gives it, no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Purpose {
    /// The key set itself, signed by a root.
    Keys = 1,
    /// Attestation results.
    Results = 2,
    /// Policy slices.
    Policy = 3,
    /// The deny-list.
    DenyList = 4,
    /// Cuts and signed time.
    Control = 5,
    /// Checkpoints of the audit log.
    Log = 6,
    /// What a node journals is signed with (certified by its SVID key).
    Journal = 7,
    /// JWT-SVIDs of workloads.
    Jwt = 8,
    /// Grants that break-glass opens with the cloud gone.
    BreakGlass = 9,
    /// An operator's word that a grant may be opened. Signed with the key of its certificate, never one of the cloud's.
    Opening = 10,
    /// What one node should have of applications.
    Director = 11,
}

/// What the signature covers besides the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub purpose: Purpose,
    pub trust_domain: TrustDomain,
    /// The SPIFFE ID it is for, or [`EVERYBODY`].
    pub audience: String,
    /// Rises within (purpose, audience).
    pub number: u64,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

/// A parsed, not yet verified signed object. Its payload can only be read through [`SignedObject::open`].
#[derive(Clone, PartialEq, Eq)]
pub struct SignedObject {
    header: Header,
    key_id: SpkiHash,
    payload: Vec<u8>,
    signature: Vec<u8>,
    covered: Vec<u8>,
}

/// What the reader insists on.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    pub purpose: Purpose,
    pub trust_domain: &'a TrustDomain,
    pub audience: &'a str,
    /// Objects with a lower number are refused: rollback.
    pub least_number: u64,
    pub now: Timestamp,
}

/// The public keys of the cloud and what each may sign. Only [`KeySet::open`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    number: u64,
    keys: BTreeMap<Purpose, Vec<PurposeKey>>,
}

/// One key for one purpose, until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurposeKey {
    pub purpose: Purpose,
    pub key: PublicKey,
    pub not_after: Timestamp,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ListedKey {
    Known(PurposeKey),
    Later {
        #[serde(rename = "purpose")]
        _purpose: LaterPurpose,
        #[serde(rename = "key")]
        _key: PublicKey,
        #[serde(rename = "not_after")]
        _not_after: Timestamp,
    },
}

/// A word that is no purpose of this version.
struct LaterPurpose;

impl<'de> Deserialize<'de> for LaterPurpose {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let known = Purpose::ALL.into_iter().any(|purpose| {
            serde_json::to_value(purpose).is_ok_and(|value| value.as_str() == Some(&word))
        });
        match known {
            false => Ok(Self),
            true => Err(serde::de::Error::custom("a known purpose in another form")),
        }
    }
}

/// The bytes are not a signed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("larger than the limit in bytes: {MAX_SIGNED_BYTES}")]
    TooLarge,
    #[error("truncated or with trailing bytes")]
    Length,
    #[error("not a signed object of a known version")]
    Magic,
    #[error("unknown purpose")]
    Purpose,
    #[error("malformed trust domain or audience")]
    Names,
}

/// The signed object is not acceptable here and now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error("for another purpose: {0:?}")]
    Purpose(Purpose),
    #[error("for another trust domain: {0}")]
    TrustDomain(TrustDomain),
    #[error("for another audience: {0}")]
    Audience(String),
    #[error("number is behind what was accepted before: {number} < {least}")]
    Rollback { number: u64, least: u64 },
    #[error("expired")]
    Expired,
    #[error("signed by a key that may not sign this")]
    Key,
    #[error("signature does not verify")]
    Signature,
    #[error("payload is not what its purpose says")]
    Payload,
}

impl Unacceptable {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "signed_malformed",
            Self::Purpose(_) => "signed_purpose",
            Self::TrustDomain(_) => "signed_trust_domain",
            Self::Audience(_) => "signed_audience",
            Self::Rollback { .. } => "signed_rollback",
            Self::Expired => "signed_expired",
            Self::Key => "signed_key",
            Self::Signature => "signed_signature",
            Self::Payload => "signed_payload",
        }
    }
}

impl SignedObject {
    pub fn sign(signer: &dyn Signer, header: Header, payload: Vec<u8>) -> Result<Self, SignError> {
        let key_id = signer.public_key().spki_hash();
        let covered = covered_bytes(&header, &key_id, &payload);
        let signature = signer.sign(&covered)?;
        Ok(Self {
            header,
            key_id,
            payload,
            signature,
            covered,
        })
    }

    /// Signs a value as JSON.
    pub fn sign_json<T: Serialize>(
        signer: &dyn Signer,
        header: Header,
        value: &T,
    ) -> Result<Self, SignError> {
        let payload = serde_json::to_vec(value).map_err(|e| SignError::KeyStore(e.to_string()))?;
        Self::sign(signer, header, payload)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the payload begins in [`SignedObject::to_bytes`].
    pub fn payload_at(&self) -> usize {
        let before = LABEL.len().saturating_add(self.payload.len());
        self.covered.len().saturating_sub(before)
    }

    /// Whose signature it claims to bear.
    pub fn key_id(&self) -> &SpkiHash {
        &self.key_id
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let (_, body) = self.covered.split_at(LABEL.len());
        let mut bytes = body.to_vec();
        put_short(&mut bytes, &self.signature);
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_SIGNED_BYTES {
            return Err(Malformed::TooLarge);
        }
        let mut reader = Reader(bytes);
        if reader.take(4)? != MAGIC || reader.u8()? != VERSION {
            return Err(Malformed::Magic);
        }
        let purpose = Purpose::from_u8(reader.u8()?).ok_or(Malformed::Purpose)?;
        let key_id = SpkiHash::from_bytes(reader.array()?);
        let number = u64::from_be_bytes(reader.array()?);
        let issued = Timestamp::from_millis(u64::from_be_bytes(reader.array()?));
        let expires = Timestamp::from_millis(u64::from_be_bytes(reader.array()?));
        let trust_domain = TrustDomain::new(&reader.short_text()?).map_err(|_| Malformed::Names)?;
        let audience = reader.short_text()?;
        if audience.len() > MAX_AUDIENCE_BYTES {
            return Err(Malformed::Names);
        }
        let payload_len = u32::from_be_bytes(reader.array()?);
        let payload = reader.take(usize::try_from(payload_len).map_err(|_| Malformed::Length)?)?;
        let covered_len = bytes.len().saturating_sub(reader.0.len());
        let signature = reader.short()?.to_vec();
        if !reader.0.is_empty() {
            return Err(Malformed::Length);
        }
        let (body, _) = bytes.split_at(covered_len);
        Ok(Self {
            header: Header {
                purpose,
                trust_domain,
                audience,
                number,
                issued,
                expires,
            },
            key_id,
            payload: payload.to_vec(),
            signature,
            covered: [LABEL, body].concat(),
        })
    }

    /// The payload, if everything about the object is as expected and a key of the set signed it.
    pub fn open(&self, keys: &KeySet, expect: &Expect<'_>) -> Result<&[u8], Unacceptable> {
        self.check_header(expect)?;
        let key = keys
            .for_purpose(expect.purpose, expect.now)
            .find(|key| key.spki_hash() == self.key_id)
            .ok_or(Unacceptable::Key)?;
        self.verify(key)?;
        Ok(&self.payload)
    }

    pub fn open_json<T: DeserializeOwned>(
        &self,
        keys: &KeySet,
        expect: &Expect<'_>,
    ) -> Result<T, Unacceptable> {
        serde_json::from_slice(self.open(keys, expect)?).map_err(|_| Unacceptable::Payload)
    }

    /// As [`SignedObject::open`], for a key known from elsewhere (a root, a journal key).
    pub fn open_with_key(
        &self,
        key: &PublicKey,
        expect: &Expect<'_>,
    ) -> Result<&[u8], Unacceptable> {
        self.check_header(expect)?;
        if key.spki_hash() != self.key_id {
            return Err(Unacceptable::Key);
        }
        self.verify(key)?;
        Ok(&self.payload)
    }

    fn verify(&self, key: &PublicKey) -> Result<(), Unacceptable> {
        key.verify(&self.covered, &self.signature)
            .map_err(|_| Unacceptable::Signature)
    }

    fn check_header(&self, expect: &Expect<'_>) -> Result<(), Unacceptable> {
        let header = &self.header;
        if header.purpose != expect.purpose {
            return Err(Unacceptable::Purpose(header.purpose));
        }
        if header.trust_domain != *expect.trust_domain {
            return Err(Unacceptable::TrustDomain(header.trust_domain.clone()));
        }
        if header.audience != expect.audience {
            return Err(Unacceptable::Audience(header.audience.clone()));
        }
        if header.number < expect.least_number {
            return Err(Unacceptable::Rollback {
                number: header.number,
                least: expect.least_number,
            });
        }
        if header.expires <= expect.now {
            return Err(Unacceptable::Expired);
        }
        Ok(())
    }
}

impl KeySet {
    /// Verifies a key set object under one of the roots' keys.
    pub fn open(
        object: &SignedObject,
        roots: &[PublicKey],
        trust_domain: &TrustDomain,
        least_number: u64,
        now: Timestamp,
    ) -> Result<Self, Unacceptable> {
        let expect = Expect {
            purpose: Purpose::Keys,
            trust_domain,
            audience: EVERYBODY,
            least_number,
            now,
        };
        let root = roots
            .iter()
            .find(|root| root.spki_hash() == object.key_id)
            .ok_or(Unacceptable::Key)?;
        let payload = object.open_with_key(root, &expect)?;
        let list: Vec<ListedKey> =
            serde_json::from_slice(payload).map_err(|_| Unacceptable::Payload)?;
        let mut keys: BTreeMap<Purpose, Vec<PurposeKey>> = BTreeMap::new();
        for listed in list {
            // A key for a purpose of a later version signs nothing that this one reads.
            if let ListedKey::Known(key) = listed {
                keys.entry(key.purpose).or_default().push(key);
            }
        }
        Ok(Self {
            number: object.header.number,
            keys,
        })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// The keys that may sign for a purpose now.
    pub fn keys_for(&self, purpose: Purpose, now: Timestamp) -> Vec<PublicKey> {
        self.for_purpose(purpose, now).copied().collect()
    }

    fn for_purpose(&self, purpose: Purpose, now: Timestamp) -> impl Iterator<Item = &PublicKey> {
        self.keys
            .get(&purpose)
            .into_iter()
            .flatten()
            .filter(move |key| key.not_after > now)
            .map(|key| &key.key)
    }
}

impl Purpose {
    const ALL: [Self; 11] = [
        Self::Keys,
        Self::Results,
        Self::Policy,
        Self::DenyList,
        Self::Control,
        Self::Log,
        Self::Journal,
        Self::Jwt,
        Self::BreakGlass,
        Self::Opening,
        Self::Director,
    ];

    fn from_u8(value: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|purpose| *purpose as u8 == value)
    }
}

impl std::fmt::Debug for SignedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedObject")
            .field("header", &self.header)
            .field("key_id", &self.key_id)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

fn covered_bytes(header: &Header, key_id: &SpkiHash, payload: &[u8]) -> Vec<u8> {
    let mut bytes = LABEL.to_vec();
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.push(header.purpose as u8);
    bytes.extend_from_slice(key_id.as_bytes());
    bytes.extend_from_slice(&header.number.to_be_bytes());
    bytes.extend_from_slice(&header.issued.millis().to_be_bytes());
    bytes.extend_from_slice(&header.expires.millis().to_be_bytes());
    put_short(&mut bytes, header.trust_domain.as_str().as_bytes());
    put_short(&mut bytes, header.audience.as_bytes());
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn put_short(bytes: &mut Vec<u8>, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed::Length)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Length)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<&'a [u8], Malformed> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(usize::from(length))
    }

    fn short_text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.short()?.to_vec()).map_err(|_| Malformed::Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SoftwareKey;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn domain() -> TrustDomain {
        TrustDomain::new("plant.example").unwrap()
    }

    fn header(purpose: Purpose) -> Header {
        Header {
            purpose,
            trust_domain: domain(),
            audience: "spiffe://plant.example/node/a".into(),
            number: 7,
            issued: NOW,
            expires: NOW.plus(Duration::from_secs(60)),
        }
    }

    fn key_set(root: &SoftwareKey, keys: &[PurposeKey]) -> SignedObject {
        let header = Header {
            audience: EVERYBODY.into(),
            ..header(Purpose::Keys)
        };
        SignedObject::sign_json(root, header, &keys).unwrap()
    }

    fn setup() -> (SoftwareKey, KeySet) {
        let root = SoftwareKey::generate().unwrap();
        let key = SoftwareKey::generate().unwrap();
        let set = key_set(
            &root,
            &[PurposeKey {
                purpose: Purpose::Policy,
                key: *key.public_key(),
                not_after: NOW.plus(Duration::from_secs(3600)),
            }],
        );
        let set = KeySet::open(&set, &[*root.public_key()], &domain(), 0, NOW).unwrap();
        (key, set)
    }

    #[test]
    fn an_object_opens_only_where_everything_is_as_expected() {
        let (key, keys) = setup();
        let object =
            SignedObject::sign(&key, header(Purpose::Policy), b"payload".to_vec()).unwrap();
        let object = SignedObject::parse(&object.to_bytes()).unwrap();
        let domain = domain();
        let other_domain = TrustDomain::new("other.example").unwrap();
        let good = Expect {
            purpose: Purpose::Policy,
            trust_domain: &domain,
            audience: "spiffe://plant.example/node/a",
            least_number: 7,
            now: NOW,
        };
        assert_eq!(object.open(&keys, &good), Ok(b"payload".as_slice()));
        let refused = |expect: Expect<'_>| object.open(&keys, &expect).unwrap_err().code();
        assert_eq!(
            refused(Expect {
                purpose: Purpose::DenyList,
                ..good
            }),
            "signed_purpose"
        );
        assert_eq!(
            refused(Expect {
                trust_domain: &other_domain,
                ..good
            }),
            "signed_trust_domain"
        );
        assert_eq!(
            refused(Expect {
                audience: EVERYBODY,
                ..good
            }),
            "signed_audience"
        );
        assert_eq!(
            refused(Expect {
                least_number: 8,
                ..good
            }),
            "signed_rollback"
        );
        assert_eq!(
            refused(Expect {
                now: NOW.plus(Duration::from_secs(60)),
                ..good
            }),
            "signed_expired"
        );
    }

    #[test]
    fn a_key_signs_for_its_own_purpose_only() {
        let (key, keys) = setup();
        let object =
            SignedObject::sign(&key, header(Purpose::Results), b"payload".to_vec()).unwrap();
        let domain = domain();
        let expect = Expect {
            purpose: Purpose::Results,
            trust_domain: &domain,
            audience: "spiffe://plant.example/node/a",
            least_number: 0,
            now: NOW,
        };
        assert_eq!(
            object.open(&keys, &expect).unwrap_err().code(),
            "signed_key"
        );
    }

    #[test]
    fn a_key_for_a_purpose_of_a_later_version_is_left_out_and_spoils_no_other() {
        let root = SoftwareKey::generate().unwrap();
        let key = SoftwareKey::generate().unwrap();
        let sealed = |purpose: &str, not_after: &str| {
            let point = hex::encode(key.public_key().point());
            let json = format!(
                r#"[{{"purpose":"policy","key":"{point}","not_after":1900000000000}},
                    {{"purpose":"{purpose}","key":"{point}","not_after":{not_after}}}]"#
            );
            let header = Header {
                audience: EVERYBODY.into(),
                ..header(Purpose::Keys)
            };
            let object = SignedObject::sign(&root, header, json.into_bytes()).unwrap();
            KeySet::open(&object, &[*root.public_key()], &domain(), 0, NOW)
        };
        let set = sealed("of_a_later_version", "1900000000000").unwrap();
        assert_eq!(set.keys_for(Purpose::Policy, NOW), [*key.public_key()]);
        assert_eq!(sealed("results", "\"no time\""), Err(Unacceptable::Payload));
        assert_eq!(sealed("later", "\"no time\""), Err(Unacceptable::Payload));
    }

    #[test]
    fn a_key_set_needs_a_root() {
        let (_, _) = setup();
        let root = SoftwareKey::generate().unwrap();
        let impostor = SoftwareKey::generate().unwrap();
        let set = key_set(&impostor, &[]);
        assert_eq!(
            KeySet::open(&set, &[*root.public_key()], &domain(), 0, NOW),
            Err(Unacceptable::Key)
        );
    }

    #[test]
    fn any_altered_or_missing_byte_is_refused() {
        let (key, keys) = setup();
        let bytes = SignedObject::sign(&key, header(Purpose::Policy), b"payload".to_vec())
            .unwrap()
            .to_bytes();
        let domain = domain();
        let expect = Expect {
            purpose: Purpose::Policy,
            trust_domain: &domain,
            audience: "spiffe://plant.example/node/a",
            least_number: 0,
            now: NOW,
        };
        for index in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 1;
            let accepted = SignedObject::parse(&altered)
                .is_ok_and(|object| object.open(&keys, &expect).is_ok());
            assert!(!accepted, "byte {index}");
            assert!(
                SignedObject::parse(&bytes[..index]).is_err(),
                "cut at {index}"
            );
        }
    }
}
