//! Profiles: what a group of machines must measure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_identity::Tier;
use serde::{Deserialize, Serialize};

use crate::app_log::is_apps_pcr;
use crate::digest::Digest;
use crate::ima::{IMA_PCR, ImaPolicy};
use crate::tpm::{PcrBank, PcrSelection};

/// Longest name of a profile, in bytes: room for eight of a policy's, each with a piece of its hash.
pub const MAX_PROFILE_NAME_BYTES: usize = 648;
/// Most digests accepted for one PCR: old and new values side by side, not a catalogue.
pub const MAX_DIGESTS_PER_PCR: usize = 1024;
/// What is quoted of every machine, whatever is compared, so that all of it can be recorded, compared and explained:
/// the firmware's PCRs 0 to 7, boot loaders' and programs' 8, 9, 11 to 14 (TCG PC Client PFP, 2.3.4; UAPI registry).
pub const EVIDENCE_PCRS: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];
/// What a result states where the profile compares no PCR: firmware, its drivers, boot loader, Secure Boot policy.
pub const STATED_BY_DEFAULT: [u8; 4] = [0, 2, 4, 7];
/// Where Secure Boot is measured.
const SECURE_BOOT_PCR: u8 = 7;

/// A profile as written. [`Profile::new`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileFields {
    pub name: String,
    /// Tiers that may pass; no `software`.
    pub tiers: BTreeSet<Tier>,
    pub bank: PcrBank,
    /// For each PCR the values that are right, in hex, of the bank's length.
    pub pcr: BTreeMap<u8, BTreeSet<String>>,
    /// TPM firmware versions refused.
    pub firmware_deny: BTreeSet<u64>,
    /// Whether Secure Boot must be on, or off. Judged from the firmware's event log.
    pub secure_boot: Option<bool>,
    /// What may have run.
    pub ima: Option<Arc<ImaPolicy>>,
    /// The least that the node's control of applications must be. The agent's own word: nothing a TPM signs, but where
    /// `apps_pcr` is named no more than what was measured there.
    pub app_control: Option<AppControl>,
    /// Where the agent measures what it runs. What stands there must be what its log replays to; no value is compared.
    pub apps_pcr: Option<u8>,
    pub mode: Mode,
}

/// Whether a profile's verdict has consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Enforce,
    /// Verdicts are recorded and shown; nothing is enforced.
    Monitor,
}

/// How strongly a node keeps programs from running that nobody signed for. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AppControl {
    /// What the agent starts itself.
    Launcher,
    /// Every start, asked of the agent by fanotify.
    Fanotify,
    /// Every start, decided in the kernel.
    Kernel,
}

/// A profile that compares something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    fields: ProfileFields,
    pcr: BTreeMap<u8, BTreeSet<Vec<u8>>>,
    selection: PcrSelection,
    stated: PcrSelection,
    hash: Digest,
}

/// Why a profile is no profile. The fault is the operator's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProfile {
    #[error("profile's name is empty or longer than the limit in bytes: {MAX_PROFILE_NAME_BYTES}")]
    Name,
    #[error("profile allows no tier")]
    NoTier,
    #[error("profile allows tier software, which has nothing to compare")]
    TierSoftware,
    #[error("profile compares nothing that a tpm signs: no pcr, secure boot or ima list")]
    ComparesNothing,
    #[error("profile accepts no value of a pcr: {0}")]
    NoDigest(u8),
    #[error("profile accepts more values of a pcr than the limit of {MAX_DIGESTS_PER_PCR}: {0}")]
    TooManyDigests(u8),
    #[error("there is no such pcr, or it can be reset at will (16 and 23): {0}")]
    Pcr(u8),
    #[error("applications cannot be measured in this pcr: {0}")]
    AppsPcr(u8),
    #[error("a pcr in which applications are measured has no value to compare: {0}")]
    AppsPcrCompared(u8),
    #[error("applications are measured in the bank of sha-256 alone")]
    AppsBank,
    #[error("value of a pcr is not hex of the bank's length: {pcr}: {text:?}")]
    Digest { pcr: u8, text: String },
}

impl Profile {
    pub fn new(fields: ProfileFields) -> Result<Self, BadProfile> {
        if fields.name.is_empty() || fields.name.len() > MAX_PROFILE_NAME_BYTES {
            return Err(BadProfile::Name);
        }
        if fields.tiers.is_empty() {
            return Err(BadProfile::NoTier);
        }
        if fields.tiers.contains(&Tier::Software) {
            return Err(BadProfile::TierSoftware);
        }
        let pcr = fields
            .pcr
            .iter()
            .map(|(index, digests)| Ok((*index, parse_digests(*index, digests, fields.bank)?)))
            .collect::<Result<BTreeMap<_, _>, BadProfile>>()?;
        if pcr.is_empty() && fields.secure_boot.is_none() && fields.ima.is_none() {
            return Err(BadProfile::ComparesNothing);
        }
        check_apps_pcr(&fields)?;
        let selection = select(fields.bank, quoted_pcrs(&fields))?;
        let stated = select(fields.bank, stated_pcrs(&fields))?;
        let hash = hash_of(&fields, &pcr);
        Ok(Self {
            fields,
            pcr,
            selection,
            stated,
            hash,
        })
    }

    pub fn name(&self) -> &str {
        &self.fields.name
    }

    pub fn tiers(&self) -> &BTreeSet<Tier> {
        &self.fields.tiers
    }

    pub fn bank(&self) -> PcrBank {
        self.fields.bank
    }

    pub fn mode(&self) -> Mode {
        self.fields.mode
    }

    /// What must be right, for each PCR: values of the bank's length.
    pub fn pcr(&self) -> &BTreeMap<u8, BTreeSet<Vec<u8>>> {
        &self.pcr
    }

    pub fn firmware_deny(&self) -> &BTreeSet<u64> {
        &self.fields.firmware_deny
    }

    pub fn secure_boot(&self) -> Option<bool> {
        self.fields.secure_boot
    }

    pub fn ima(&self) -> Option<&Arc<ImaPolicy>> {
        self.fields.ima.as_ref()
    }

    pub fn app_control(&self) -> Option<AppControl> {
        self.fields.app_control
    }

    pub fn apps_pcr(&self) -> Option<u8> {
        self.fields.apps_pcr
    }

    /// Whether it cannot be judged without logs.
    pub fn wants_logs(&self) -> bool {
        self.fields.secure_boot.is_some()
            || self.fields.ima.is_some()
            || self.fields.apps_pcr.is_some()
    }

    /// What to ask a TPM for: all that is compared, and [`EVIDENCE_PCRS`].
    pub fn selection(&self) -> &PcrSelection {
        &self.selection
    }

    /// What a result names, and a boot without the cloud must equal: only what is compared, and never what goes on
    /// changing while the machine runs (PCR 10, and where applications are measured).
    pub fn stated(&self) -> &PcrSelection {
        &self.stated
    }

    /// SHA-256 over everything the profile says.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    pub fn reference(&self) -> ProfileRef {
        ProfileRef {
            name: self.fields.name.clone(),
            hash: self.hash,
            mode: self.fields.mode,
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

    /// What an agent says; `None` for anything else, the empty text among it.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

/// Which profile was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileRef {
    pub name: String,
    pub hash: Digest,
    pub mode: Mode,
}

/// What to ask a TPM for where nothing is compared.
pub fn evidence_selection(bank: PcrBank) -> PcrSelection {
    PcrSelection::new(bank, EVIDENCE_PCRS).expect("PCRs below 24, and not none")
}

fn quoted_pcrs(fields: &ProfileFields) -> impl Iterator<Item = u8> + '_ {
    let ima = fields.ima.is_some().then_some(IMA_PCR);
    EVIDENCE_PCRS
        .into_iter()
        .chain(fields.pcr.keys().copied())
        .chain(ima)
        .chain(fields.apps_pcr)
}

fn check_apps_pcr(fields: &ProfileFields) -> Result<(), BadProfile> {
    let Some(pcr) = fields.apps_pcr else {
        return Ok(());
    };
    if !is_apps_pcr(u32::from(pcr)) {
        return Err(BadProfile::AppsPcr(pcr));
    }
    if fields.pcr.contains_key(&pcr) {
        return Err(BadProfile::AppsPcrCompared(pcr));
    }
    match fields.bank {
        PcrBank::Sha256 => Ok(()),
        PcrBank::Sha384 | PcrBank::Sha512 => Err(BadProfile::AppsBank),
    }
}

fn stated_pcrs(fields: &ProfileFields) -> BTreeSet<u8> {
    let secure_boot = fields.secure_boot.map(|_| SECURE_BOOT_PCR);
    let mut pcrs: BTreeSet<u8> = fields.pcr.keys().copied().chain(secure_boot).collect();
    pcrs.remove(&IMA_PCR);
    if pcrs.is_empty() {
        pcrs.extend(STATED_BY_DEFAULT);
    }
    pcrs
}

fn select(bank: PcrBank, pcrs: impl IntoIterator<Item = u8>) -> Result<PcrSelection, BadProfile> {
    PcrSelection::new(bank, pcrs).map_err(|_| BadProfile::ComparesNothing)
}

fn parse_digests(
    pcr: u8,
    digests: &BTreeSet<String>,
    bank: PcrBank,
) -> Result<BTreeSet<Vec<u8>>, BadProfile> {
    // 16 (debug) and 23 (application) can be reset by anybody who may use the TPM.
    if pcr >= crate::tpm::pcr::PCR_COUNT || pcr == 16 || pcr == 23 {
        return Err(BadProfile::Pcr(pcr));
    }
    if digests.is_empty() {
        return Err(BadProfile::NoDigest(pcr));
    }
    if digests.len() > MAX_DIGESTS_PER_PCR {
        return Err(BadProfile::TooManyDigests(pcr));
    }
    let prefix = match bank {
        PcrBank::Sha256 => "sha256:",
        PcrBank::Sha384 => "sha384:",
        PcrBank::Sha512 => "sha512:",
    };
    digests
        .iter()
        .map(|text| {
            let digits = text.strip_prefix(prefix).unwrap_or(text);
            hex::decode(digits)
                .ok()
                .filter(|digest| digest.len() == bank.hash().digest_len())
                .ok_or_else(|| BadProfile::Digest {
                    pcr,
                    text: text.chars().take(200).collect(),
                })
        })
        .collect()
}

/// Over values, not over how they were written: `sha256:AB` and `ab` are one profile.
fn hash_of(fields: &ProfileFields, pcr: &BTreeMap<u8, BTreeSet<Vec<u8>>>) -> Digest {
    let pcr: BTreeMap<u8, Vec<String>> = pcr
        .iter()
        .map(|(index, digests)| (*index, digests.iter().map(hex::encode).collect()))
        .collect();
    let canonical = serde_json::json!([
        "edgeward-profile-v3",
        fields.name,
        fields.tiers,
        fields.bank,
        pcr,
        fields.firmware_deny,
        fields.mode,
        fields.secure_boot,
        fields.ima.as_ref().map(|policy| policy.hash()),
        fields.app_control.map(AppControl::as_str),
        fields.apps_pcr,
    ]);
    Digest::of(canonical.to_string().as_bytes())
}
