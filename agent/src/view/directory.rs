//! The directory: which peers there are and where. A false directory can only deny service.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_evidence::result::{MAX_RESULT_BYTES, issued_unverified};
use edgeward_identity::{Kind, SpiffeId, SpkiHash, Timestamp, TrustDomain};
use edgeward_wire::limits::MAX_ENDPOINTS;
use edgeward_wire::v1;
use serde::{Deserialize, Serialize};

/// Most peers of one node.
pub const MAX_DIRECTORY_PEERS: usize = 10_000;
/// Longest `host:port`, in bytes (RFC 1035 name, colon, port).
const MAX_ENDPOINT_BYTES: usize = 253 + 1 + 5;

/// Peers by SPIFFE ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    peers: BTreeMap<SpiffeId, DirectoryPeer>,
}

/// How to reach a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPeer {
    pub endpoints: Vec<Endpoint>,
    /// What a first flight must be addressed to; the bind checks the key itself.
    pub spki_hash: SpkiHash,
    /// Its newest result as a signed object, not verified; empty if it has none, or this node may meet many.
    pub result: Arc<[u8]>,
    /// When it passed last, as the cloud says: it only saves dialling in vain.
    pub passed: Timestamp,
}

/// `host:port` of a UDP port; the host is an address or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(String);

/// One entry as it is stored: without its result, which the peer brings to a bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredPeer {
    id: SpiffeId,
    endpoints: Vec<Endpoint>,
    spki_hash: SpkiHash,
    #[serde(default)]
    passed: Timestamp,
    /// What files of earlier versions hold, base64. Never written.
    #[serde(default, skip_serializing)]
    result: String,
}

/// Why an update of the directory is refused. All are the cloud's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPeer {
    #[error("not the spiffe id of a node of this trust domain: {0:?}")]
    Id(String),
    #[error("not a sha-256")]
    SpkiHash,
    #[error("not host:port: {0:?}")]
    Endpoint(String),
    #[error("more peers than the limit: {MAX_DIRECTORY_PEERS}")]
    TooMany,
}

impl Directory {
    pub fn get(&self, peer: &SpiffeId) -> Option<&DirectoryPeer> {
        self.peers.get(peer)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SpiffeId, &DirectoryPeer)> {
        self.peers.iter()
    }

    /// Whether both name the same peers at the same endpoints with the same keys. Results come and go every minute, and a
    /// peer brings its own to a bind.
    pub fn has_places_of(&self, other: &Self) -> bool {
        self.peers.len() == other.peers.len()
            && self.peers.iter().zip(&other.peers).all(|(own, theirs)| {
                own.0 == theirs.0
                    && own.1.endpoints == theirs.1.endpoints
                    && own.1.spki_hash == theirs.1.spki_hash
            })
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The directory after an update; as it was where the update is bad.
    pub fn updated(
        &self,
        trust_domain: &TrustDomain,
        update: &v1::PeerUpdate,
    ) -> Result<Self, BadPeer> {
        let mut peers = if update.full {
            BTreeMap::new()
        } else {
            self.peers.clone()
        };
        for gone in &update.gone {
            peers.remove(&node_id(trust_domain, gone)?);
        }
        for peer in &update.peers {
            let id = node_id(trust_domain, &peer.spiffe_id)?;
            peers.insert(id, DirectoryPeer::parse(peer)?);
        }
        if peers.len() > MAX_DIRECTORY_PEERS {
            return Err(BadPeer::TooMany);
        }
        Ok(Self { peers })
    }

    /// For the stored state.
    pub fn to_stored(&self) -> Vec<StoredPeer> {
        self.peers
            .iter()
            .map(|(id, peer)| StoredPeer {
                id: id.clone(),
                endpoints: peer.endpoints.clone(),
                spki_hash: peer.spki_hash,
                passed: peer.passed,
                result: String::new(),
            })
            .collect()
    }

    /// From the stored state.
    pub fn from_stored(stored: &[StoredPeer]) -> Self {
        let peers = stored
            .iter()
            .take(MAX_DIRECTORY_PEERS)
            .map(|peer| {
                let result = STANDARD.decode(&peer.result).unwrap_or_default();
                let entry = DirectoryPeer {
                    endpoints: peer.endpoints.clone(),
                    spki_hash: peer.spki_hash,
                    passed: peer.passed.max(passed_by(&result)),
                    result: Arc::default(),
                };
                (peer.id.clone(), entry)
            })
            .collect();
        Self { peers }
    }
}

impl DirectoryPeer {
    /// Endpoints are the peer's own words: what is none is left out, so that no node spoils another's directory.
    fn parse(peer: &v1::Peer) -> Result<Self, BadPeer> {
        let endpoints = peer
            .endpoints
            .iter()
            .take(MAX_ENDPOINTS)
            .filter_map(|text| text.parse().ok())
            .collect();
        let spki_hash = <[u8; 32]>::try_from(peer.spki_hash.as_slice())
            .map(SpkiHash::from_bytes)
            .map_err(|_| BadPeer::SpkiHash)?;
        let result: Arc<[u8]> = match peer.result.len() {
            0..=MAX_RESULT_BYTES => peer.result.as_slice().into(),
            _ => Arc::default(),
        };
        Ok(Self {
            endpoints,
            spki_hash,
            passed: Timestamp::from_millis(peer.passed).max(passed_by(&result)),
            result,
        })
    }
}

fn passed_by(result: &[u8]) -> Timestamp {
    issued_unverified(result).unwrap_or_default()
}

impl Endpoint {
    /// As `host:port`, for a resolver.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = BadPeer;

    fn from_str(text: &str) -> Result<Self, BadPeer> {
        let bad = || BadPeer::Endpoint(text.chars().take(MAX_ENDPOINT_BYTES).collect());
        if text.len() > MAX_ENDPOINT_BYTES {
            return Err(bad());
        }
        if text.parse::<std::net::SocketAddr>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let name = !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
        if name && port.parse::<u16>().is_ok_and(|port| port != 0) {
            Ok(Self(text.to_owned()))
        } else {
            Err(bad())
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = BadPeer;

    fn try_from(text: String) -> Result<Self, BadPeer> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn node_id(trust_domain: &TrustDomain, text: &str) -> Result<SpiffeId, BadPeer> {
    text.parse::<SpiffeId>()
        .ok()
        .filter(|id| id.kind() == Kind::Node && id.trust_domain() == trust_domain)
        .ok_or_else(|| {
            BadPeer::Id(
                text.chars()
                    .take(edgeward_identity::spiffe_id::MAX_ID_BYTES)
                    .collect(),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::new("plant.example").unwrap()
    }

    fn peer(id: &str, endpoint: &str) -> v1::Peer {
        v1::Peer {
            spiffe_id: id.to_owned(),
            endpoints: vec![endpoint.to_owned()],
            spki_hash: vec![7; 32],
            result: Vec::new(),
            passed: 0,
        }
    }

    fn update(full: bool, peers: Vec<v1::Peer>, gone: &[&str]) -> v1::PeerUpdate {
        v1::PeerUpdate {
            full,
            peers,
            gone: gone.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    const B: &str = "spiffe://plant.example/node/b";

    #[test]
    fn an_update_that_is_bad_anywhere_changes_nothing() {
        let directory = Directory::default();
        for id in [
            "spiffe://other.example/node/b",
            "spiffe://plant.example/cloud/b",
            "b",
        ] {
            let peers = vec![peer(B, "192.0.2.9:9"), peer(id, "192.0.2.1:1")];
            assert!(
                directory
                    .updated(&domain(), &update(false, peers, &[]))
                    .is_err(),
                "{id}"
            );
        }
        let mut short = peer(B, "192.0.2.9:9");
        short.spki_hash.pop();
        assert!(
            directory
                .updated(&domain(), &update(false, vec![short], &[]))
                .is_err()
        );
    }

    #[test]
    fn an_endpoint_that_is_none_is_left_out_and_spoils_nothing_else() {
        let endpoints = [
            "192.0.2.1",
            ":51820",
            "host name:51820",
            "host:0",
            "host:70000",
            "good.example:51820",
        ];
        let mut bad = peer(B, "");
        bad.endpoints = endpoints.iter().map(|text| (*text).to_owned()).collect();
        bad.result = vec![0; MAX_RESULT_BYTES + 1];
        let directory = Directory::default()
            .updated(&domain(), &update(true, vec![bad], &[]))
            .unwrap();
        let b = directory.get(&B.parse().unwrap()).unwrap();
        assert_eq!(b.endpoints, ["good.example:51820".parse().unwrap()]);
        assert!(b.result.is_empty());
    }

    #[test]
    fn when_a_peer_passed_is_stored_and_its_result_is_not() {
        let mut known = peer(B, "192.0.2.9:9");
        (known.result, known.passed) = (vec![7; 1400], 1_800_000_000_000);
        let directory = Directory::default()
            .updated(&domain(), &update(true, vec![known], &[]))
            .unwrap();
        let stored = serde_json::to_string(&directory.to_stored()).unwrap();
        assert!(stored.len() < 250, "{} bytes", stored.len());
        let stored: Vec<StoredPeer> = serde_json::from_str(&stored).unwrap();
        let again = Directory::from_stored(&stored);
        let b = again.get(&B.parse().unwrap()).unwrap();
        assert_eq!(b.passed, Timestamp::from_millis(1_800_000_000_000));
        assert!(again.has_places_of(&directory));
        // As earlier versions wrote it.
        let hash = serde_json::to_string(&b.spki_hash).unwrap();
        let old = format!(
            r#"[{{"id":"{B}","endpoints":["192.0.2.9:9"],"spki_hash":{hash},"result":"AAAA"}}]"#
        );
        let stored: Vec<StoredPeer> = serde_json::from_str(&old).unwrap();
        assert!(Directory::from_stored(&stored).has_places_of(&directory));
    }

    #[test]
    fn changes_add_and_remove_and_a_full_update_replaces() {
        let c = "spiffe://plant.example/node/c";
        let one = Directory::default()
            .updated(
                &domain(),
                &update(true, vec![peer(B, "[2001:db8::1]:51820")], &[]),
            )
            .unwrap();
        let two = one
            .updated(
                &domain(),
                &update(false, vec![peer(c, "edge.example:51820")], &[]),
            )
            .unwrap();
        assert_eq!(two.len(), 2);
        let three = two
            .updated(&domain(), &update(false, Vec::new(), &[B]))
            .unwrap();
        assert_eq!(three.len(), 1);
        assert_eq!(Directory::from_stored(&three.to_stored()), three);
        assert!(
            two.updated(&domain(), &update(true, Vec::new(), &[]))
                .unwrap()
                .is_empty()
        );
    }
}
