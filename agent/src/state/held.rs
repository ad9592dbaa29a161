//! The large file: who this node is, whom it trusts, what it may do, whom it may meet.

use std::net::Ipv4Addr;
use std::sync::Arc;

use edgeward_apps::Director;
use edgeward_evidence::result::{CheckedResult, ResultExpect, check_result};
use edgeward_identity::SignedObject;
use edgeward_identity::bundle::BundleError;
use edgeward_identity::svid::SvidError;
use edgeward_identity::{
    KeySet, Signer, SpiffeId, Svid, Timestamp, TrustBundle, TrustView, overlay,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{Recent, base64_bytes};
use crate::accept::{self, NotAccepted};
use crate::apps::floors::AppsState;
use crate::break_glass::GlassUses;
use crate::tpm::SvidSlot;
use crate::view::{CutFloors, Directory, HeldSlice, Overlay, StoredPeer};

/// As it lies in the file. The signed objects are kept as received and verified again when loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    pub node: SpiffeId,
    /// Addresses of the cloud, `host:port`, tried in order.
    pub addresses: Vec<String>,
    /// Where the SVID's key is.
    pub slot: SvidSlot,
    /// DER, leaf first.
    pub svid_chain: Vec<Blob>,
    pub trust_bundle: Blob,
    pub key_set: Blob,
    pub deny_list: Blob,
    /// Empty before the cloud has sent one.
    pub slice: Blob,
    pub v4: Option<Ipv4Addr>,
    pub peers: Vec<StoredPeer>,
    pub cuts: CutFloors,
    /// The join counter that the cloud may be told: never above what lies in the file.
    #[serde(default)]
    pub join: u64,
    /// Break-glass grants that were opened here.
    #[serde(default)]
    pub glass: GlassUses,
    /// What this node has of applications, and must not fall behind of.
    #[serde(default)]
    pub apps: AppsState,
}

/// Bytes, base64 in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Blob(#[serde(with = "base64_bytes")] pub Vec<u8>);

/// As the agent uses it: verified.
#[derive(Debug)]
pub struct Held {
    pub svid: Arc<Svid>,
    pub trust: TrustView,
    pub keys: KeySet,
    pub slice: Option<Arc<HeldSlice>>,
    pub result: Option<CheckedResult>,
    pub peers: Directory,
    pub overlay: Overlay,
    pub cuts: CutFloors,
    pub director: Option<Arc<Director>>,
}

/// The stored state does not hold what a node needs.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("stored svid: {0}")]
    Svid(#[from] SvidError),
    #[error("stored svid is of another identity: {0}")]
    Identity(SpiffeId),
    #[error("stored trust bundle: {0}")]
    Bundle(#[from] BundleError),
    #[error("stored {0}")]
    Signed(#[from] NotAccepted),
}

impl Stored {
    /// Verifies what is stored. Key set and deny-list are taken as of their issue: an expired one still says whom to
    /// deny, and the keys in it end by themselves. A policy or result that has ended is left out.
    pub fn open(
        &self,
        recent: Option<&Recent>,
        signer: Arc<dyn Signer>,
        now: Timestamp,
    ) -> Result<Held, Unusable> {
        let svid = self.svid(signer)?;
        let trust_domain = self.node.trust_domain();
        let bundle = TrustBundle::from_spiffe_json(trust_domain.clone(), &self.trust_bundle.0)?;
        let keys = accept::key_set(&self.key_set.0, &bundle, 0, issued(&self.key_set.0))?;
        let deny = accept::deny_list(
            &self.deny_list.0,
            &keys,
            trust_domain,
            0,
            issued(&self.deny_list.0),
        )?;
        let slice = match self.slice.0.is_empty() {
            true => None,
            false => accept::slice(&self.slice.0, &keys, &self.node, 0, now)
                .inspect_err(|error| {
                    tracing::warn!(%error, "the stored policy does not hold any more");
                })
                .ok()
                .map(Arc::new),
        };
        let director = match self.apps.director.0.is_empty() {
            true => None,
            false => accept::director(&self.apps.director.0, &keys, &self.node, 0, now)
                .inspect_err(|error| {
                    tracing::warn!(%error, "the stored director's word does not hold any more");
                })
                .ok()
                .map(Arc::new),
        };
        let result = recent.and_then(|recent| {
            let expect = ResultExpect {
                trust_domain,
                spiffe_id: &self.node,
                svid_spki: &svid.leaf().key.spki_hash(),
                least_number: recent.result_number,
                now,
            };
            check_result(&recent.result, &keys, &expect).ok()
        });
        Ok(Held {
            svid: Arc::new(svid),
            trust: TrustView { bundle, deny },
            keys,
            slice,
            result,
            peers: Directory::from_stored(&self.peers),
            overlay: Overlay {
                v6: overlay::ipv6_of(&self.node),
                v4: self.v4,
            },
            cuts: self.cuts.clone(),
            director,
        })
    }

    /// What a recovery does not bring anew: whom this node met, whom it cut off, which grants it used.
    pub fn keep_of(&mut self, before: &Self) {
        self.peers.clone_from(&before.peers);
        self.cuts = before.cuts.clone();
        self.glass = before.glass.clone();
        self.apps = before.apps.of_before();
    }

    /// When the newest of the signed objects was issued: it is not earlier than that now.
    pub fn newest_signed(&self) -> Timestamp {
        let director = &self.apps.director;
        [&self.key_set, &self.deny_list, &self.slice, director]
            .into_iter()
            .map(|object| issued(&object.0))
            .max()
            .unwrap_or_default()
    }

    fn svid(&self, signer: Arc<dyn Signer>) -> Result<Svid, Unusable> {
        let chain = self
            .svid_chain
            .iter()
            .map(|der| CertificateDer::from(der.0.clone()))
            .collect();
        let svid = Svid::new(chain, signer)?;
        if svid.id() == &self.node {
            Ok(svid)
        } else {
            Err(Unusable::Identity(svid.id().clone()))
        }
    }
}

impl Blob {
    /// When a signed object says it was issued; the epoch if it is none.
    pub fn issued(&self) -> Timestamp {
        issued(&self.0)
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// When a signed object says it was issued; the epoch if it is none.
fn issued(bytes: &[u8]) -> Timestamp {
    SignedObject::parse(bytes).map_or(Timestamp::default(), |object| object.header().issued)
}
