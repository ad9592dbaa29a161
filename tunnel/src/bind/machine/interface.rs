//! What goes into the machine and what comes out.

use std::sync::Arc;

use edgeward_identity::{BootTime, KeySet, Secret, SpiffeId, SpkiHash, TrustView, VerifiedPeer};
use ipnet::IpNet;

use crate::bind::Role;
use crate::bind::claims::{Floor, PeerClaims};
use crate::bind::code::Code;
use crate::bind::ending::Ending;
use crate::bind::kem::SEED_BYTES;
use crate::bind::lease::{CloudLink, Now};
use crate::bind::policy::MayBind;
use crate::bind::schedule::{EXPORTER_BYTES, Transcript};
use crate::wireguard::StaticKeys;

/// A finished handshake, as the machine needs it.
pub struct Channel {
    pub role: Role,
    pub peer: VerifiedPeer,
    /// The exporter's context ([`exporter_context`](crate::bind::schedule::exporter_context)) over this node's and the peer's leaf.
    pub context: [u8; 32],
    /// What the exporter gave for it.
    pub root: Secret<[u8; EXPORTER_BYTES]>,
}

/// Randomness of one bind, used once.
pub struct Seeds {
    pub nonce: [u8; 32],
    pub kem: Secret<[u8; SEED_BYTES]>,
}

/// What the machine may look at in one step.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub now: Now,
    pub link: CloudLink,
    pub trust: &'a TrustView,
    /// The cloud's keys: who may sign attestation results.
    pub keys: &'a KeySet,
    pub policy: &'a dyn MayBind,
    pub memory: &'a dyn Memory,
    /// 32 random bytes, fresh for this step.
    pub nonce: &'a [u8; 32],
}

/// What is remembered of peers across binds.
pub trait Memory {
    /// Which identity holds a WireGuard key now: one key belongs to one identity.
    fn holder(&self, wireguard_key: &[u8; 32]) -> Option<&SpiffeId>;
    /// What the peer with this key must not fall behind.
    fn floor(&self, peer: &SpkiHash) -> Floor;
}

/// What happens to a bind.
#[derive(Debug)]
pub enum Input<'a> {
    /// The body of one frame.
    Frame(&'a [u8]),
    /// Time passed: [`Machine::deadline`](super::Machine::deadline) was reached.
    Tick,
    /// WireGuard completed a handshake under the key of this epoch.
    WireGuardConfirmed { epoch: u64 },
    /// This node has a newer attestation result.
    OwnResult(&'a [u8]),
    /// The trust view, the policy, the cloud's keys or the link to the cloud changed.
    Recheck,
    /// Turn the epoch now. Only the initiator can.
    Turn,
    /// Leave, for this reason. `cut` says whether an open tunnel goes at once; one that is armed but not open
    /// always does.
    Leave { code: Code, cut: bool },
    /// The connection was lost.
    Disconnected,
    /// An output could not be performed.
    Failed(String),
}

/// What to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Put these bytes on the stream: one frame with its length.
    Send(Vec<u8>),
    /// Arm WireGuard with the peer. Nothing may be forwarded yet.
    Arm(Box<Arm>),
    /// Arm the key of a later epoch; the present one goes on until WireGuard confirms the new one.
    TurnArmed { epoch: u64, psk: Secret<[u8; 32]> },
    /// Record the bind, then open forwarding.
    Open(Box<Opened>),
    /// The lease or the prefixes changed.
    Lease {
        until: BootTime,
        allowed_ips: Vec<IpNet>,
    },
    /// The connection is of no more use, but the tunnel lives on. The machine watches it until its lease ends,
    /// policy or trust takes it away, or another bind with this peer arms WireGuard: then drop the machine.
    Adrift(Ending),
    /// The bind has ended. If [`Ending::cut`], the tunnel must go before anything else is done.
    End(Ending),
}

/// What WireGuard needs.
pub struct Arm {
    pub role: Role,
    pub peer: SpiffeId,
    pub wireguard_key: [u8; 32],
    pub own_keys: Arc<StaticKeys>,
    pub epoch: u64,
    pub psk: Secret<[u8; 32]>,
    /// What path probes between the two are sealed under ([`crate::reach`]); another one for every bind.
    pub reach_key: Secret<[u8; 32]>,
    pub allowed_ips: Vec<IpNet>,
    pub until: BootTime,
}

/// What the audit log learns of an open bind. No secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub role: Role,
    pub peer: SpiffeId,
    pub peer_spki: SpkiHash,
    pub peer_leaf: [u8; 32],
    pub wireguard_key: [u8; 32],
    pub claims: PeerClaims,
    pub peer_slice_number: u64,
    pub transcript: Transcript,
    pub epoch: u64,
    pub allowed_ips: Vec<IpNet>,
    pub until: BootTime,
}

impl std::fmt::Debug for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arm")
            .field("role", &self.role)
            .field("peer", &self.peer)
            .field("epoch", &self.epoch)
            .field("allowed_ips", &self.allowed_ips)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}
