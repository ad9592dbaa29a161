//! What either side brought: what this node presents, and what the peer offered.

use std::sync::Arc;

use edgeward_identity::{BootTime, Signer, SpkiHash, Timestamp};
use ipnet::IpNet;

use crate::bind::claims::PeerClaims;
use crate::bind::codec::{KemShare, Message, Offer};
use crate::bind::kem::KemKey;
use crate::bind::machine::VERSION;
use crate::wireguard::StaticKeys;

/// What this node brings into its binds: fixed for one bind when its handshake is done.
#[derive(Clone)]
pub struct Local {
    pub spki: SpkiHash,
    /// SHA-256 of the leaf presented in this handshake.
    pub leaf_hash: [u8; 32],
    /// End of that leaf.
    pub not_after: Timestamp,
    pub wireguard: Arc<StaticKeys>,
    /// The software key of this boot, named in the result or in the boot statement.
    pub boot_key: Arc<dyn Signer>,
    /// Random, made at each start of this boot.
    pub boot_id: [u8; 16],
    pub slice_number: u64,
    /// Signed attestation result. At most [`crate::bind::codec::MAX_RESULT_BYTES`].
    pub result: Vec<u8>,
    /// Only after a boot that the cloud has not seen. At most [`crate::bind::codec::MAX_STATEMENT_BYTES`].
    pub boot_statement: Option<Vec<u8>>,
}

/// What the peer offered, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    pub wireguard_key: [u8; 32],
    pub boot_id: [u8; 16],
    pub slice_number: u64,
    pub claims: PeerClaims,
    pub allowed_ips: Vec<IpNet>,
    /// End of the lease.
    pub until: BootTime,
}

impl Local {
    pub(super) fn offer_of_initiator(&self, key: &KemKey, nonce: [u8; 32]) -> Message {
        self.offer(KemShare::Key(key.encapsulation_key()), nonce)
    }

    pub(super) fn offer(&self, share: KemShare, nonce: [u8; 32]) -> Message {
        Message::Offer(Box::new(Offer {
            version: VERSION,
            wireguard_key: self.wireguard.public(),
            boot_id: self.boot_id,
            nonce,
            slice_number: self.slice_number,
            share,
            result: self.result.clone(),
            boot_statement: self.boot_statement.clone(),
        }))
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("spki", &self.spki)
            .field("slice_number", &self.slice_number)
            .finish_non_exhaustive()
    }
}
