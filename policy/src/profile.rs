//! Profiles: what a group of nodes must measure to be `trusted`.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_identity::Tier;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::digests::DigestList;
use crate::seconds::Seconds;

mod stated;

pub use stated::{MAX_STATED, NotALabel, ProfileLabel, StatedProfiles, shown};

/// Highest PCR index (TCG PC Client Platform TPM Profile 1.05, 4.4).
pub const MAX_PCR: u8 = 23;
/// PCRs that anybody on the machine can reset (same section: 16 debug, 23 application).
pub const RESETTABLE_PCRS: [u8; 2] = [16, 23];

/// The hash bank that PCR values are compared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PcrBank {
    Sha256,
    Sha384,
}

/// Whether verdicts count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A node that fails is `failed`.
    Enforce,
    /// Verdicts are recorded and nothing is enforced. An opening: said everywhere.
    Monitor,
}

/// Whether a list of measurements may hold violations: files that changed while they were being measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Violations {
    /// One makes a node fail.
    Fail,
    /// They are not looked at. An opening.
    Ignore,
}

/// How strongly a node keeps programs from running that nobody signed for. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppControl {
    /// What the agent starts itself.
    Launcher,
    /// Every start, asked of the agent by fanotify.
    Fanotify,
    /// Every start, decided in the kernel.
    Kernel,
}

/// What IMA may have measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaRequirement {
    /// Every file measured must be in here; never empty.
    pub allow: Arc<DigestList>,
    /// No file measured may be in here, allowed or not.
    pub deny: Arc<DigestList>,
    pub violations: Violations,
}

/// What a group of nodes must measure. A node in several groups must pass every profile they name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub name: String,
    /// Tiers accepted, never empty.
    pub tiers: Vec<Tier>,
    pub bank: PcrBank,
    /// PCR index to the set of accepted values, each in hex, each set non-empty. Empty only where the one tier accepted is `software`.
    pub pcrs: BTreeMap<u8, Vec<String>>,
    /// TPM firmware versions refused (TPMS_ATTEST.firmwareVersion).
    pub firmware_deny: Vec<u64>,
    /// Whether Secure Boot must be on (or off), judged from the replayed event log.
    pub secure_boot: Option<bool>,
    pub ima: Option<ImaRequirement>,
    /// The least that the node's control of applications must be.
    pub app_control: Option<AppControl>,
    /// The PCR that the node measures into what it installed and ran: compared with the replay of its record, not with
    /// a value. Left out where there is none, so that profiles keep the hash that results name them by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps_pcr: Option<u8>,
    pub mode: Mode,
    /// Oldest pass that counts while the verifier is connected.
    pub fresh: Option<Seconds>,
    /// Oldest pass that counts while the verifier is cut off.
    pub offline: Option<Seconds>,
}

impl PcrBank {
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha384];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
        }
    }

    /// Length of a value, in bytes.
    pub fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

impl AppControl {
    pub const ALL: [Self; 3] = [Self::Launcher, Self::Fanotify, Self::Kernel];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launcher => "launcher",
            Self::Fanotify => "fanotify",
            Self::Kernel => "kernel",
        }
    }
}

impl Profile {
    /// Whether it compares anything that a TPM signs beyond its own firmware. What an agent says of itself does not count.
    pub fn compares(&self) -> bool {
        !self.pcrs.is_empty() || self.secure_boot.is_some() || self.ima.is_some()
    }

    /// SHA-256 over the profile's JSON: what an attestation result names.
    pub fn hash(&self) -> [u8; 32] {
        let json = serde_json::to_vec(self).expect("string keys and plain values always serialise");
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &json).as_ref());
        hash
    }
}
