//! What the bind asks of policy: a decision of the agent, taken without I/O.

use edgeward_identity::{Timestamp, VerifiedPeer};
use ipnet::IpNet;

use super::claims::PeerClaims;
use super::lease::Limits;

/// Most prefixes granted to one peer.
pub const MAX_ALLOWED_IPS: usize = 1024;

/// Whether two peers have anything to say to each other.
pub trait MayBind: Send + Sync {
    /// Grants a bind if any rule, in either direction, lets these two talk. Must not block.
    fn may_bind(
        &self,
        peer: &VerifiedPeer,
        claims: &PeerClaims,
        now: Timestamp,
    ) -> Result<Grant, NotGranted>;
}

/// What policy gives a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Inner prefixes that are the peer's: from policy, never from the peer. At least one, at most
    /// [`MAX_ALLOWED_IPS`].
    pub allowed_ips: Vec<IpNet>,
    pub limits: Limits,
}

/// Policy refuses the pair: the reason, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy grants nothing: {0}")]
pub struct NotGranted(pub String);
