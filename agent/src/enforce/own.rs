//! What the cloud says of this node itself.

use edgeward_evidence::result::{ResultExpect, check_result};
use edgeward_identity::{AttestationState, KeySet, SpiffeId, SpkiHash, Tier, Timestamp};

/// This node's newest attestation result, checked as a peer would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnResult {
    pub state: AttestationState,
    pub tier: Tier,
    pub passed: Timestamp,
}

/// Reads the result that binds will send. `None` where a peer would refuse it too.
pub fn read(
    result: &[u8],
    keys: &KeySet,
    node: &SpiffeId,
    spki: &SpkiHash,
    now: Timestamp,
) -> Option<OwnResult> {
    let expect = ResultExpect {
        trust_domain: node.trust_domain(),
        spiffe_id: node,
        svid_spki: spki,
        least_number: 0,
        now,
    };
    match check_result(result, keys, &expect) {
        Ok(checked) => Some(OwnResult {
            state: checked.result().state(),
            tier: checked.result().tier(),
            passed: checked.result().issued(),
        }),
        Err(refused) => {
            tracing::warn!(code = refused.code(), %refused, "this node's own result would be refused");
            None
        }
    }
}
