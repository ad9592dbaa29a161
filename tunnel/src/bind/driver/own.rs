//! What this node presents in its binds, as it is now.

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};

use super::OwnEvidence;
use crate::bind::endpoint::Identity;
use crate::bind::kem::SEED_BYTES;
use crate::bind::machine::{Local, Seeds};
use crate::wireguard::StaticKeys;
use edgeward_identity::Secret;

/// This node's side of binds to come.
pub(super) struct Own {
    pub(super) identity: Arc<Identity>,
    pub(super) wireguard: Arc<StaticKeys>,
    pub(super) evidence: OwnEvidence,
    pub(super) slice_number: u64,
}

/// The system's random source failed. Our fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the random source failed")]
pub(super) struct NoRandom;

impl Own {
    /// For a handshake that was made with `identity`.
    pub(super) fn local(&self, identity: &Identity) -> Local {
        let party = identity.party();
        Local {
            spki: party.spki,
            leaf_hash: party.leaf_hash,
            not_after: identity.not_after(),
            wireguard: Arc::clone(&self.wireguard),
            boot_key: Arc::clone(&self.evidence.boot_key),
            boot_id: self.evidence.boot_id,
            slice_number: self.slice_number,
            result: self.evidence.result.clone(),
            boot_statement: self.evidence.boot_statement.clone(),
        }
    }

    /// Whether a bind was made with the present SVID and WireGuard key; one that was not is to be made anew.
    pub(super) fn is_presented_in(&self, local: &Local) -> bool {
        local.leaf_hash == self.identity.party().leaf_hash
            && local.wireguard.public() == self.wireguard.public()
    }

    /// Without a result no peer would accept this node.
    pub(super) fn is_ready(&self) -> bool {
        !self.evidence.result.is_empty()
    }
}

pub(super) fn seeds() -> Result<Seeds, NoRandom> {
    Ok(Seeds {
        nonce: random()?,
        kem: Secret::new(random::<SEED_BYTES>()?),
    })
}

/// Between 0 and 1; 1 without randomness, which makes things late and nothing else.
pub(super) fn fraction() -> f64 {
    let number = random::<2>().map_or(u16::MAX, u16::from_ne_bytes);
    f64::from(number) / f64::from(u16::MAX)
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}
