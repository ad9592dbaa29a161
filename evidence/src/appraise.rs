//! Profiles: what a group of machines must measure, and how verified evidence is compared with it.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::{AttestationState, Tier};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::tpm::{PcrBank, PcrSelection};
use crate::verify::{TpmFacts, VerifiedEvidence};

/// Longest name of a profile, in bytes.
pub const MAX_PROFILE_NAME_BYTES: usize = 128;
/// Most digests accepted for one PCR: old and new values side by side, not a catalogue.
pub const MAX_DIGESTS_PER_PCR: usize = 1024;

/// A profile as written. [`Profile::new`] checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileFields {
    pub name: String,
    /// Tiers that may pass; no `software`.
    pub tiers: BTreeSet<Tier>,
    pub bank: PcrBank,
    /// For each PCR the values that are right, in hex, of the bank's length.
    pub pcr: BTreeMap<u8, BTreeSet<String>>,
    /// TPM firmware versions refused.
    #[serde(default)]
    pub firmware_deny: BTreeSet<u64>,
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

/// A profile that compares something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ProfileFields", into = "ProfileFields")]
pub struct Profile {
    fields: ProfileFields,
    pcr: BTreeMap<u8, BTreeSet<Vec<u8>>>,
    selection: PcrSelection,
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
    #[error("profile compares no pcr")]
    ComparesNothing,
    #[error("profile accepts no value of a pcr: {0}")]
    NoDigest(u8),
    #[error("profile accepts more values of a pcr than the limit of {MAX_DIGESTS_PER_PCR}: {0}")]
    TooManyDigests(u8),
    #[error("there is no such pcr, or it can be reset at will (16 and 23): {0}")]
    Pcr(u8),
    #[error("value of a pcr is not hex of the bank's length: {pcr}: {text:?}")]
    Digest { pcr: u8, text: String },
}

/// Why evidence does not pass a profile. The fault is the node's, or the profile's owner is behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("tier is not allowed: {0}")]
    Tier(Tier),
    #[error("quoted pcrs are not the profile's")]
    Selection,
    #[error("pcr has a value that the profile does not know: {index} = {value}")]
    Pcr { index: u8, value: String },
    #[error("tpm firmware is refused: {0:#x}")]
    Firmware(u64),
}

/// What comparing one piece of evidence with a profile gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appraisal {
    about: Digest,
    profile: Option<ProfileRef>,
    reasons: Vec<Mismatch>,
}

/// Which profile was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileRef {
    pub name: String,
    pub hash: Digest,
    pub mode: Mode,
}

/// Compares all that the profile names; every mismatch is a reason.
pub fn appraise(evidence: &VerifiedEvidence, profile: &Profile) -> Appraisal {
    let mut reasons = Vec::new();
    if !profile.fields.tiers.contains(&evidence.tier()) {
        reasons.push(Mismatch::Tier(evidence.tier()));
    }
    match evidence.tpm() {
        Some(facts) => compare(facts, profile, &mut reasons),
        None => reasons.push(Mismatch::Selection),
    }
    Appraisal {
        about: *evidence.qualifying_data(),
        profile: Some(profile.reference()),
        reasons,
    }
}

/// For groups without a profile: nothing is compared, so nothing can come of it but state `none`.
pub fn appraise_without_profile(evidence: &VerifiedEvidence) -> Appraisal {
    Appraisal {
        about: *evidence.qualifying_data(),
        profile: None,
        reasons: Vec::new(),
    }
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
        let selection = PcrSelection::new(fields.bank, pcr.keys().copied())
            .map_err(|_| BadProfile::ComparesNothing)?;
        let hash = hash_of(&fields, &pcr);
        Ok(Self {
            fields,
            pcr,
            selection,
            hash,
        })
    }

    pub fn name(&self) -> &str {
        &self.fields.name
    }

    pub fn tiers(&self) -> &BTreeSet<Tier> {
        &self.fields.tiers
    }

    pub fn mode(&self) -> Mode {
        self.fields.mode
    }

    /// What to ask a TPM for.
    pub fn selection(&self) -> &PcrSelection {
        &self.selection
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

impl Appraisal {
    /// Whether every comparison held. In mode `monitor` a mismatch has no consequences: see [`Appraisal::state`].
    pub fn matched(&self) -> bool {
        self.reasons.is_empty()
    }

    pub fn reasons(&self) -> &[Mismatch] {
        &self.reasons
    }

    /// What the evidence makes of its node.
    pub fn state(&self) -> AttestationState {
        match &self.profile {
            None => AttestationState::None,
            Some(profile) if profile.mode == Mode::Enforce && !self.matched() => {
                AttestationState::Failed
            }
            Some(_) => AttestationState::Trusted,
        }
    }

    pub fn profile(&self) -> Option<&ProfileRef> {
        self.profile.as_ref()
    }

    /// The qualifying data of the evidence compared.
    pub(crate) fn about(&self) -> &Digest {
        &self.about
    }
}

impl Mismatch {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tier(_) => "profile_tier",
            Self::Selection => "profile_pcr_selection",
            Self::Pcr { .. } => "profile_pcr_value",
            Self::Firmware(_) => "profile_firmware",
        }
    }
}

impl TryFrom<ProfileFields> for Profile {
    type Error = BadProfile;

    fn try_from(fields: ProfileFields) -> Result<Self, Self::Error> {
        Self::new(fields)
    }
}

impl From<Profile> for ProfileFields {
    fn from(profile: Profile) -> Self {
        profile.fields
    }
}

fn compare(facts: &TpmFacts, profile: &Profile, reasons: &mut Vec<Mismatch>) {
    if facts.selection() != &profile.selection {
        reasons.push(Mismatch::Selection);
    }
    for (index, accepted) in &profile.pcr {
        match facts.pcr_values().get(index) {
            Some(value) if accepted.contains(value) => {}
            Some(value) => reasons.push(Mismatch::Pcr {
                index: *index,
                value: hex::encode(value),
            }),
            None => reasons.push(Mismatch::Pcr {
                index: *index,
                value: "not quoted".into(),
            }),
        }
    }
    if profile.fields.firmware_deny.contains(&facts.firmware()) {
        reasons.push(Mismatch::Firmware(facts.firmware()));
    }
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
        "edgeward-profile-v1",
        fields.name,
        fields.tiers,
        fields.bank,
        pcr,
        fields.firmware_deny,
        fields.mode,
    ]);
    Digest::of(canonical.to_string().as_bytes())
}

#[cfg(test)]
pub(crate) mod tests;
