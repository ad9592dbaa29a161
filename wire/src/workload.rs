//! What cloud and agent must agree on about workloads.

use std::time::Duration;

use edgeward_identity::{PublicKey, SpiffeId};

/// A JWT-SVID cannot be taken back and works for whoever holds it: it lives no longer than this.
pub const MAX_JWT_LIFETIME: Duration = Duration::from_secs(300);

const POSSESSION: &[u8] = b"edgeward-workload-key-v1\0";

/// What a workload's new key signs to show that the agent holds it.
pub fn possession(id: &SpiffeId, key: &PublicKey) -> Vec<u8> {
    [POSSESSION, id.to_string().as_bytes(), key.point()].concat()
}
