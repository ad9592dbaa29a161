//! What a node must measure: the profiles of its groups as one, and what its TPM is therefore asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_evidence::Digest;
use edgeward_evidence::appraise::{
    AppControl, BadProfile, MAX_PROFILE_NAME_BYTES, Mode, Profile, ProfileFields,
    evidence_selection,
};
use edgeward_evidence::ima::ImaPolicy;
use edgeward_evidence::tpm::{PcrBank, PcrSelection};
use edgeward_identity::Tier;
use edgeward_policy as policy;
use edgeward_policy::{CompiledPolicy, Labels};
use parking_lot::Mutex;

mod lists;

pub(super) use lists::BadList;
use lists::Lists;

/// What a node with certain labels must measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// All enforcing profiles as one; where there are none, all that monitor. `None`: nothing makes it `trusted`.
    pub profile: Option<Profile>,
    /// Profiles that monitor beside enforcing ones: judged, recorded, of no consequence.
    pub monitors: Vec<Profile>,
    pub selection: PcrSelection,
    /// Whether it may do without a TPM.
    pub software: bool,
    /// Over everything above: where it differs, nothing that was judged before counts.
    pub identity: Digest,
}

/// Why the profiles of a node's groups make no sense together. The fault is the policy's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmeasurable {
    #[error("profiles of one node use different pcr banks: {0}")]
    Banks(String),
    #[error("profiles of one node have no tier in common: {0}")]
    Tiers(String),
    #[error("profiles of one node accept no common value of a pcr: {0}")]
    Values(u8),
    #[error("profiles of one node want secure boot on and off: {0}")]
    SecureBoot(String),
    #[error("profiles of one node measure applications in different pcrs: {0}")]
    AppsPcr(String),
    #[error("profiles of one node accept no common file: {0}")]
    Files(String),
    #[error("profile: {0}")]
    Profile(#[from] BadProfile),
    #[error("profile's list of files: {0}")]
    List(#[from] BadList),
}

/// What the policy in force means for each set of profiles: made once and shared, since lists may be long.
#[derive(Debug, Default)]
pub struct Measures {
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    policy: Option<Arc<CompiledPolicy>>,
    by_profiles: BTreeMap<Vec<String>, Result<Arc<Measured>, Unmeasurable>>,
    lists: Lists,
}

impl Unmeasurable {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        "profile_contradiction"
    }
}

impl Measures {
    /// Every enforcing profile counts: a value must be right in each that names its PCR. What profiles in mode `monitor`
    /// say has no consequences.
    pub fn of(
        &self,
        policy: Option<&Arc<CompiledPolicy>>,
        labels: &Labels,
    ) -> Result<Arc<Measured>, Unmeasurable> {
        let Some(policy) = policy else {
            return Ok(Arc::new(Measured::nothing(false)));
        };
        let profiles = policy.profiles_for(labels);
        let names: Vec<String> = profiles
            .iter()
            .map(|profile| profile.name.clone())
            .collect();
        let mut made = self.made.lock();
        let made = &mut *made;
        if !made
            .policy
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, policy))
        {
            made.policy = Some(policy.clone());
            made.by_profiles.clear();
            made.lists.forget_unused();
        }
        made.by_profiles
            .entry(names)
            .or_insert_with(|| {
                let software = policy.accepts_software(labels);
                make(&profiles, software, &mut made.lists).map(Arc::new)
            })
            .clone()
    }
}

impl Measured {
    /// Where there is no profile, or no sense in those there are.
    pub fn nothing(software: bool) -> Self {
        let selection = evidence_selection(PcrBank::Sha256);
        Self {
            identity: identity_of(None, &[], &selection),
            profile: None,
            monitors: Vec::new(),
            selection,
            software,
        }
    }

    /// The profile in force and those beside it.
    pub fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.profile.iter().chain(&self.monitors)
    }

    /// Where the node measures its applications. One that monitors beside an enforcing profile and names another PCR is
    /// not served: a node keeps one log.
    pub fn apps_pcr(&self) -> Option<u8> {
        self.profiles().find_map(Profile::apps_pcr)
    }

    /// Lists of files that the IMA list is judged by, each once.
    pub fn ima(&self) -> Vec<&Arc<ImaPolicy>> {
        let mut policies: Vec<&Arc<ImaPolicy>> = Vec::new();
        for policy in self.profiles().filter_map(Profile::ima) {
            if policies.iter().all(|known| known.hash() != policy.hash()) {
                policies.push(policy);
            }
        }
        policies
    }
}

fn make(
    profiles: &[&policy::Profile],
    software: bool,
    lists: &mut Lists,
) -> Result<Measured, Unmeasurable> {
    let (enforcing, watching): (Vec<&policy::Profile>, Vec<_>) = profiles
        .iter()
        .copied()
        .partition(|profile| profile.mode == policy::Mode::Enforce);
    let watching: Vec<_> = watching
        .into_iter()
        .filter(|profile| profile.compares())
        .collect();
    let (profile, monitors) = if enforcing.iter().any(|profile| profile.compares()) {
        let profile = Profile::new(merge(&enforcing, Mode::Enforce, lists)?)?;
        (Some(profile), each(&watching, lists)?)
    } else if enforcing.is_empty() {
        watched(&watching, lists)?
    } else {
        // One that enforces and compares nothing (tier software): what monitors must not make its node `trusted`.
        (None, Vec::new())
    };
    let Some(profile) = profile else {
        return Ok(Measured::nothing(software));
    };
    let bank = profile.bank();
    let pcrs: BTreeSet<u8> = std::iter::once(&profile)
        .chain(&monitors)
        .filter(|profile| profile.bank() == bank)
        .flat_map(|profile| profile.selection().indexes())
        .collect();
    let selection = PcrSelection::new(bank, pcrs).map_err(|_| BadProfile::ComparesNothing)?;
    Ok(Measured {
        identity: identity_of(Some(&profile), &monitors, &selection),
        profile: Some(profile),
        monitors,
        selection,
        software,
    })
}

/// Where nothing enforces: all as one, or, where they contradict each other, one in front and the others beside it,
/// since even a contradiction must have no consequences.
fn watched(
    profiles: &[&policy::Profile],
    lists: &mut Lists,
) -> Result<(Option<Profile>, Vec<Profile>), Unmeasurable> {
    if profiles.is_empty() {
        return Ok((None, Vec::new()));
    }
    let together =
        merge(profiles, Mode::Monitor, lists).and_then(|fields| Ok(Profile::new(fields)?));
    if let Ok(together) = together {
        return Ok((Some(together), Vec::new()));
    }
    let mut apart = each(profiles, lists)?;
    let first = apart.remove(0);
    Ok((Some(first), apart))
}

fn each(profiles: &[&policy::Profile], lists: &mut Lists) -> Result<Vec<Profile>, Unmeasurable> {
    profiles
        .iter()
        .map(|profile| {
            let fields = merge(std::slice::from_ref(profile), Mode::Monitor, lists)?;
            Ok(Profile::new(fields)?)
        })
        .collect()
}

fn merge(
    profiles: &[&policy::Profile],
    mode: Mode,
    lists: &mut Lists,
) -> Result<ProfileFields, Unmeasurable> {
    // As results name them: rules ask for these labels.
    let labels: Vec<String> = profiles
        .iter()
        .map(|profile| profile.label().as_str().to_owned())
        .collect();
    let name = labels.join("+");
    let mut banks = profiles.iter().map(|profile| profile.bank);
    let bank = banks.next().unwrap_or(policy::PcrBank::Sha256);
    if banks.any(|other| other != bank) {
        return Err(Unmeasurable::Banks(name));
    }
    let tiers: BTreeSet<Tier> = Tier::ALL
        .into_iter()
        .filter(|tier| *tier != Tier::Software)
        .filter(|tier| profiles.iter().all(|profile| profile.tiers.contains(tier)))
        .collect();
    if tiers.is_empty() {
        return Err(Unmeasurable::Tiers(name));
    }
    let wanted: BTreeSet<bool> = profiles
        .iter()
        .filter_map(|profile| profile.secure_boot)
        .collect();
    if wanted.len() > 1 {
        return Err(Unmeasurable::SecureBoot(name));
    }
    let apps: BTreeSet<u8> = profiles
        .iter()
        .filter_map(|profile| profile.apps_pcr)
        .collect();
    if apps.len() > 1 {
        return Err(Unmeasurable::AppsPcr(name));
    }
    Ok(ProfileFields {
        ima: lists.merge(profiles, &name)?,
        // A longer name is cut, and then names no profile to any rule: the hash tells profiles apart.
        name: name.chars().take(MAX_PROFILE_NAME_BYTES).collect(),
        tiers,
        bank: match bank {
            policy::PcrBank::Sha256 => PcrBank::Sha256,
            policy::PcrBank::Sha384 => PcrBank::Sha384,
        },
        pcr: merge_pcrs(profiles)?,
        firmware_deny: profiles
            .iter()
            .flat_map(|profile| profile.firmware_deny.iter().copied())
            .collect(),
        secure_boot: wanted.first().copied(),
        app_control: profiles
            .iter()
            .filter_map(|profile| profile.app_control)
            .max()
            .map(level),
        apps_pcr: apps.first().copied(),
        mode,
    })
}

fn merge_pcrs(
    profiles: &[&policy::Profile],
) -> Result<BTreeMap<u8, BTreeSet<String>>, Unmeasurable> {
    let mut pcr: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
    for (index, values) in profiles.iter().flat_map(|profile| &profile.pcrs) {
        let values: BTreeSet<String> = values
            .iter()
            .map(|value| value.to_ascii_lowercase())
            .collect();
        let common = match pcr.get(index) {
            None => values,
            Some(before) => before.intersection(&values).cloned().collect(),
        };
        if common.is_empty() {
            return Err(Unmeasurable::Values(*index));
        }
        pcr.insert(*index, common);
    }
    Ok(pcr)
}

fn level(level: policy::AppControl) -> AppControl {
    match level {
        policy::AppControl::Launcher => AppControl::Launcher,
        policy::AppControl::Fanotify => AppControl::Fanotify,
        policy::AppControl::Kernel => AppControl::Kernel,
    }
}

fn identity_of(
    profile: Option<&Profile>,
    monitors: &[Profile],
    selection: &PcrSelection,
) -> Digest {
    let hashes: Vec<Digest> = monitors.iter().map(Profile::hash).collect();
    let text = serde_json::json!([
        "edgeward-measured-v1",
        profile.map(Profile::hash),
        hashes,
        selection
    ]);
    Digest::of(text.to_string().as_bytes())
}

#[cfg(test)]
mod tests;
