//! What a peer's evidence says, once checked: the attestation result and, after a boot that the cloud has not seen,
//! the boot statement. [`judge`] is the only maker of [`PeerClaims`].

use std::sync::Arc;

use edgeward_evidence::app_log::Runs;
use edgeward_evidence::boot_statement::{BootRefused, BootStatement};
use edgeward_evidence::result::{ResultExpect, ResultRefused, check_result};
use edgeward_identity::{AttestationState, KeySet, PublicKey, Tier, Timestamp, VerifiedPeer};
use ring::digest;

/// What the cloud said of the peer, and which boot key speaks for it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerClaims {
    state: AttestationState,
    tier: Tier,
    boot_key: PublicKey,
    passed: Timestamp,
    deny_number: u64,
    profile: Option<String>,
    runs: Option<Arc<Runs>>,
    digest: [u8; 32],
    floor: Floor,
    by_boot_statement: bool,
}

/// What a peer must not fall behind: numbers of what was accepted from its key before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Number of the newest result.
    pub result: u64,
    /// TPM reset count of the newest boot.
    pub boot: u32,
}

/// Why a peer's evidence is not believed. The peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsRefused {
    #[error("{0}")]
    Result(#[from] ResultRefused),
    #[error("state of attestation: {0}")]
    State(AttestationState),
    #[error("result is of an earlier boot: reset count {now} < {known}")]
    ResultOfEarlierBoot { now: u32, known: u32 },
    #[error("{0}")]
    Statement(#[from] BootRefused),
    #[error("boot statement is of an earlier boot: reset count {now} < {known}")]
    EarlierBoot { now: u32, known: u32 },
}

impl ClaimsRefused {
    /// Whether the boot statement is at fault, not the result.
    pub fn is_of_statement(&self) -> bool {
        matches!(self, Self::Statement(_) | Self::EarlierBoot { .. })
    }
}

/// Checks what a peer presented, against the leaf that signed its handshake. The age is for the lease to judge.
pub fn judge(
    result: &[u8],
    boot_statement: Option<&[u8]>,
    peer: &VerifiedPeer,
    keys: &KeySet,
    floor: Floor,
    now: Timestamp,
) -> Result<PeerClaims, ClaimsRefused> {
    let spki = peer.spki_hash();
    let expect = ResultExpect {
        trust_domain: peer.id().trust_domain(),
        spiffe_id: peer.id(),
        svid_spki: &spki,
        least_number: floor.result,
        now,
    };
    let checked = check_result(result, keys, &expect)?;
    let said = checked.result();
    match said.state() {
        AttestationState::Trusted | AttestationState::None => {}
        state
        @ (AttestationState::Stale | AttestationState::Failed | AttestationState::Vouched) => {
            return Err(ClaimsRefused::State(state));
        }
    }
    let result_boot = checked.tpm().map_or(0, |tpm| tpm.reset_count());
    let (boot_key, boot) = match boot_statement {
        None if result_boot < floor.boot => {
            return Err(ClaimsRefused::ResultOfEarlierBoot {
                now: result_boot,
                known: floor.boot,
            });
        }
        None => (*said.boot_key(), result_boot),
        Some(statement) => {
            let stated = BootStatement::parse(statement)?.check(&checked, peer.key())?;
            if stated.reset_count() < floor.boot {
                return Err(ClaimsRefused::EarlierBoot {
                    now: stated.reset_count(),
                    known: floor.boot,
                });
            }
            (*stated.boot_key(), stated.reset_count())
        }
    };
    Ok(PeerClaims {
        state: said.state(),
        tier: said.tier(),
        boot_key,
        passed: said.issued(),
        deny_number: said.deny_number(),
        profile: said.profile().map(|profile| profile.name.clone()),
        // What the boot before ran says nothing of this one.
        runs: match boot_statement {
            Some(_) => None,
            None => said.runs().cloned().map(Arc::new),
        },
        digest: sha256(result),
        floor: Floor {
            result: checked.number(),
            boot,
        },
        by_boot_statement: boot_statement.is_some(),
    })
}

impl PeerClaims {
    pub fn state(&self) -> AttestationState {
        self.state
    }

    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The key of the peer's present boot: from the boot statement where there is one.
    pub fn boot_key(&self) -> &PublicKey {
        &self.boot_key
    }

    /// When the peer's evidence passed.
    pub fn passed(&self) -> Timestamp {
        self.passed
    }

    /// Number of the deny-list that was in force then.
    pub fn deny_number(&self) -> u64 {
        self.deny_number
    }

    /// Name of the profile that was met.
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// What the peer is proven to run, by `publisher/name` and version. `None`: nothing proves what.
    pub fn runs(&self) -> Option<&Arc<Runs>> {
        self.runs.as_ref()
    }

    /// SHA-256 of the signed result: how the audit log names it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What later claims of this key must not fall behind.
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// The peer's present boot is known by its own statement only.
    pub fn by_boot_statement(&self) -> bool {
        self.by_boot_statement
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
