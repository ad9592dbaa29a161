//! What is known of a node from its last authentic evidence, so that it need not be sent or judged again. In memory
//! only: after a restart of the cloud everything is asked for once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_evidence::app_log::AppState;
use edgeward_evidence::boot_log::judge::FIRMWARE_PCRS;
use edgeward_evidence::boot_log::{BootLogRefused, JudgedBoot, SecureBoot};
use edgeward_evidence::ima::{IMA_PCR, ImaVerdict};
use edgeward_evidence::tpm::ClockInfo;
use edgeward_evidence::verify::TpmFacts;
use edgeward_evidence::{Digest, Nonce};
use edgeward_identity::PublicKey;
use edgeward_wire::v1;

use super::Measured;
use super::judge::{Beside, Case};

/// Judged facts of one boot of a node, under one set of profiles.
#[derive(Clone, Debug)]
pub struct Known {
    /// [`Measured::identity`].
    pub(super) identity: Digest,
    pub(super) boot_key: PublicKey,
    pub(super) reset_count: u32,
    pub(super) restart_count: u32,
    pub(super) pcr_digest: Digest,
    pub(super) pcr_values: BTreeMap<u8, Vec<u8>>,
    pub(super) boot: Option<KnownBoot>,
    pub(super) ima: Option<KnownIma>,
    pub(super) apps: Option<AppState>,
}

/// A boot log that was judged.
#[derive(Clone, Debug)]
pub(super) struct KnownBoot {
    pub(super) hash: Digest,
    pub(super) judged: Result<Arc<JudgedBoot>, BootLogRefused>,
}

/// An IMA list as far as it was followed.
#[derive(Clone, Debug)]
pub struct KnownIma {
    /// One for each list of files that it is judged by; all as far as each other.
    pub(super) verdicts: Vec<ImaVerdict>,
    /// Length of the entries followed, in bytes.
    pub(super) bytes: usize,
    /// The last of these, which no answer has brought to its end yet.
    pub(super) unkept: Vec<u8>,
}

/// A challenge as it was sent: what an answer may leave out.
#[derive(Clone, Debug)]
pub struct Asked {
    pub nonce: Nonce,
    /// What the challenge named as known.
    pub(super) known: Option<Arc<Known>>,
    pub(super) boot: bool,
    pub(super) ima: bool,
    /// The PCR whose log of applications is asked for.
    pub(super) apps: Option<u8>,
    /// Parts of an IMA list that came in answer to earlier challenges.
    pub(super) progress: Option<KnownIma>,
}

impl Known {
    pub(crate) fn is_bound_to(&self, boot_key: &PublicKey) -> bool {
        self.boot_key == *boot_key
    }

    /// After authentic evidence, whatever the profiles make of it: what a TPM has signed is so until the next boot.
    pub(super) fn after(case: &Case, facts: &TpmFacts, beside: &Beside) -> Self {
        let followed = match &beside.ima {
            Some(Ok(known)) if known.reached(facts.pcr_values()) => Some(known.clone()),
            // A list that does not lead to the quoted value is to be sent anew, from its beginning.
            Some(Ok(_) | Err(_)) | None => None,
        };
        let reached = |apps: &&AppState| {
            let pcr = u8::try_from(apps.pcr()).ok();
            let quoted = pcr.and_then(|pcr| facts.pcr_values().get(&pcr));
            quoted.is_some_and(|quoted| apps.reached(quoted))
        };
        let apps = beside.apps.as_ref().and_then(|apps| apps.as_ref().ok());
        Self {
            identity: case.measured.identity,
            boot_key: case.boot_key,
            reset_count: facts.reset_count(),
            restart_count: facts.restart_count(),
            pcr_digest: *facts.pcr_digest(),
            pcr_values: facts.pcr_values().clone(),
            boot: beside.boot.clone(),
            ima: followed,
            apps: apps.filter(reached).cloned(),
        }
    }

    /// Whether it still says something about a node that must measure this and holds this boot key.
    pub fn holds(&self, measured: &Measured, boot_key: &PublicKey) -> bool {
        self.identity == measured.identity && self.boot_key == *boot_key
    }

    pub fn boot_log(&self) -> Option<Digest> {
        self.boot.as_ref().map(|boot| boot.hash)
    }

    /// As the boot log says; `None` where it does not.
    pub fn secure_boot(&self) -> Option<bool> {
        let judged = self.boot.as_ref()?.judged().ok()?;
        judged.secure_boot().ok().map(SecureBoot::is_on)
    }

    pub fn ima_bytes(&self) -> Option<usize> {
        self.ima.as_ref().map(|ima| ima.bytes)
    }

    /// How many records of the log of applications were followed.
    pub fn app_records(&self) -> u64 {
        let records = self.apps.as_ref().map_or(0, AppState::records);
        u64::try_from(records).unwrap_or(u64::MAX)
    }

    /// Whether the same was compared.
    pub fn is_under_the_profiles_of(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Whether the machine has booted since.
    pub(super) fn is_of_boot(&self, clock: ClockInfo) -> bool {
        self.reset_count == clock.reset_count && self.restart_count == clock.restart_count
    }

    /// Whether a boot log that was refused would be refused again: nothing that it is compared with has changed.
    pub(super) fn same_firmware_values(&self, quoted: &BTreeMap<u8, Vec<u8>>) -> bool {
        FIRMWARE_PCRS
            .clone()
            .all(|pcr| self.pcr_values.get(&pcr) == quoted.get(&pcr))
    }
}

impl KnownBoot {
    pub(super) fn judged(&self) -> Result<&JudgedBoot, &BootLogRefused> {
        self.judged.as_deref()
    }
}

impl KnownIma {
    pub(super) fn verdict_by(&self, policy: &Digest) -> Option<&ImaVerdict> {
        self.verdicts
            .iter()
            .find(|verdict| verdict.policy() == policy)
    }

    pub(super) fn entries(&self) -> u64 {
        self.verdicts.first().map_or(0, ImaVerdict::known)
    }

    /// Whether the list ends where the quote says.
    pub(super) fn reached(&self, quoted: &BTreeMap<u8, Vec<u8>>) -> bool {
        let Some(quoted) = quoted.get(&IMA_PCR) else {
            return false;
        };
        !self.verdicts.is_empty() && self.verdicts.iter().all(|verdict| verdict.reached(quoted))
    }
}

impl Asked {
    /// What to ask a node for. `known` must hold ([`Known::holds`]); a node without a TPM has no logs that anything vouches for.
    pub fn new(
        nonce: Nonce,
        measured: &Measured,
        known: Option<Arc<Known>>,
        progress: Option<KnownIma>,
        tpm: bool,
    ) -> Self {
        Self {
            nonce,
            known,
            // Asked of every machine, also where nothing needs it: people record, compare and explain with it.
            boot: tpm,
            ima: tpm && !measured.ima().is_empty(),
            apps: measured.apps_pcr().filter(|_| tpm),
            progress,
        }
    }

    /// Whether a whole log is expected, and not just what is new.
    pub fn is_heavy(&self) -> bool {
        let known = self.known.as_deref();
        (self.boot && known.is_none_or(|known| known.boot.is_none()))
            || (self.ima && known.is_none_or(|known| known.ima.is_none()))
    }

    pub fn logs_to_wire(&self) -> Option<v1::LogsWanted> {
        let known = self.known.as_deref();
        let boot = known.and_then(|known| known.boot.as_ref());
        (self.boot || self.ima || self.apps.is_some()).then(|| v1::LogsWanted {
            boot: self.boot,
            boot_known: boot
                .map(|boot| boot.hash.as_bytes().to_vec())
                .unwrap_or_default(),
            ima: self.ima,
            ima_known: self.ima_known(),
            apps_pcr_plus_one: self.apps.map_or(0, |pcr| u32::from(pcr) + 1),
            apps_known: known.map_or(0, Known::app_records),
        })
    }

    /// SHA-256 of the values that need not be sent.
    pub fn pcrs_to_wire(&self) -> Vec<u8> {
        self.known
            .as_ref()
            .map(|known| known.pcr_digest.as_bytes().to_vec())
            .unwrap_or_default()
    }

    /// Entries of the IMA list that were followed.
    pub(super) fn ima_known(&self) -> u64 {
        let known = self.known.as_ref().and_then(|known| known.ima.as_ref());
        self.progress
            .as_ref()
            .or(known)
            .map_or(0, KnownIma::entries)
    }

    pub fn nonce_is(&self, nonce: &[u8]) -> bool {
        self.nonce.as_bytes().as_slice() == nonce
    }
}
