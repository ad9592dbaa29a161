//! How a bind ends, and whose fault it was.

use super::claims::ClaimsRefused;
use super::code::Code;
use super::codec::Malformed;
use super::kem;
use super::lease::NoLease;
use super::policy::NotGranted;
use super::proof::ProofRefused;
use super::schedule::NotNext;
use edgeward_identity::tls::peer::PeerRefused;

/// The end of a bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the peer learned, or told.
    pub code: Code,
    /// What the operator and the audit log learn.
    pub reason: String,
    pub by: By,
    /// The peer's rights are gone: cut its tunnel. Otherwise the tunnel lives on until its lease ends.
    pub cut: bool,
}

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The peer broke a rule.
    PeersFault,
    /// The peer left.
    Peer,
    /// This node decided.
    Us,
}

/// Why a step was refused: everything a peer can do wrong, and the two things this node can.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error("message out of turn: {0}")]
    OutOfTurn(&'static str),
    #[error("version of the protocol: {0}")]
    Version(u16),
    #[error("{0}")]
    Kem(#[from] kem::BadKey),
    #[error("{0}")]
    Claims(#[from] ClaimsRefused),
    #[error("{0}")]
    Proof(#[from] ProofRefused),
    #[error("{0}")]
    Policy(#[from] NotGranted),
    #[error("policy grants no prefix, or too many: {0}")]
    Prefixes(usize),
    #[error("lease: {0}")]
    Lease(#[from] NoLease),
    #[error("wireguard key is ours")]
    OwnKey,
    #[error("wireguard key is already another identity's: {0}")]
    KeyTaken(String),
    #[error("{0}")]
    Epoch(#[from] NotNext),
    #[error("peer is this node itself")]
    Reflected,
    #[error("peer is no longer accepted: {0}")]
    Identity(#[from] PeerRefused),
    #[error("boot changed within one bind")]
    BootChanged,
}

impl Fault {
    fn code(&self) -> Code {
        match self {
            Self::Malformed(_) | Self::OutOfTurn(_) | Self::Kem(_) | Self::Epoch(_) => {
                Code::Protocol
            }
            Self::Version(_) => Code::Version,
            Self::Claims(refused) if refused.is_of_statement() => Code::BootStatement,
            Self::Claims(_) | Self::BootChanged => Code::Result,
            Self::Proof(ProofRefused::Sign(_)) => Code::Internal,
            Self::Proof(ProofRefused::NonContributory) | Self::OwnKey | Self::KeyTaken(_) => {
                Code::WireGuardKey
            }
            Self::Proof(_) => Code::Proof,
            Self::Policy(_) | Self::Prefixes(_) => Code::Policy,
            Self::Lease(_) => Code::Lease,
            Self::Identity(_) | Self::Reflected => Code::Identity,
        }
    }

    fn by(&self) -> By {
        match self {
            Self::Proof(ProofRefused::Sign(_))
            | Self::Policy(_)
            | Self::Prefixes(_)
            | Self::Lease(_) => By::Us,
            _ => By::PeersFault,
        }
    }

    /// The ending that this fault causes. Before the bind has armed WireGuard there is nothing of its own to cut,
    /// and an older tunnel with the same peer is not this bind's to take away.
    pub(super) fn ending(&self, armed: bool) -> Ending {
        Ending {
            code: self.code(),
            reason: self.to_string(),
            by: self.by(),
            cut: armed,
        }
    }
}
