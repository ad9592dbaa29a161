//! What a node must measure: the profiles of its groups as one, and what its TPM is therefore asked for.

use std::collections::BTreeSet;

use edgeward_evidence::appraise::{BadProfile, Mode, Profile, ProfileFields};
use edgeward_evidence::tpm::{PcrBank, PcrSelection};
use edgeward_identity::Tier;
use edgeward_policy as policy;
use edgeward_policy::profile::MAX_STATED;
use edgeward_policy::{CompiledPolicy, Labels, ProfileLabel, StatedProfiles};

/// What is quoted where nothing is compared: firmware, boot loader and Secure Boot policy (TCG PC Client PFP, 2.3.4).
const DEFAULT_PCRS: [u8; 4] = [0, 2, 4, 7];

/// What a node with certain labels must measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// `None`: nothing makes it `trusted`.
    pub profile: Option<Profile>,
    pub selection: PcrSelection,
    /// Whether it may do without a TPM.
    pub software: bool,
}

/// Why the profiles of a node's groups make no sense together. The fault is the policy's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmeasurable {
    #[error("profiles of one node use different pcr banks: {0}")]
    Banks(String),
    #[error("one node has more profiles than a result may name, {MAX_STATED}: {0}")]
    TooMany(String),
    #[error("profiles of one node have no tier in common: {0}")]
    Tiers(String),
    #[error("profiles of one node accept no common value of a pcr: {0}")]
    Values(u8),
    #[error("profile: {0}")]
    Profile(#[from] BadProfile),
}

impl Unmeasurable {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        "profile_contradiction"
    }
}

/// Every profile counts: a value must be right in each that names its PCR. Profiles in mode `monitor` are compared only
/// where none enforces, since what they say must have no consequences.
pub fn measured(
    policy: Option<&CompiledPolicy>,
    labels: &Labels,
) -> Result<Measured, Unmeasurable> {
    let Some(policy) = policy else {
        return Ok(Measured {
            profile: None,
            selection: default_selection(),
            software: false,
        });
    };
    let profiles = policy.profiles_for(labels);
    let enforced: Vec<&policy::Profile> = profiles
        .iter()
        .copied()
        .filter(|profile| profile.mode == policy::Mode::Enforce)
        .collect();
    let (chosen, mode) = match enforced.is_empty() {
        true => (profiles, Mode::Monitor),
        false => (enforced, Mode::Enforce),
    };
    let software = policy.accepts_software(labels);
    let with_pcrs = chosen.iter().any(|profile| !profile.pcrs.is_empty());
    if !with_pcrs {
        return Ok(Measured {
            profile: None,
            selection: default_selection(),
            software,
        });
    }
    let profile = Profile::new(merge(&chosen, mode)?)?;
    Ok(Measured {
        selection: profile.selection().clone(),
        profile: Some(profile),
        software,
    })
}

fn merge(profiles: &[&policy::Profile], mode: Mode) -> Result<ProfileFields, Unmeasurable> {
    let names: Vec<&str> = profiles
        .iter()
        .map(|profile| profile.name.as_str())
        .collect();
    let name = names.join("+");
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
    let labels: Vec<ProfileLabel> = profiles.iter().map(|profile| profile.label()).collect();
    let mut fields = ProfileFields {
        // What rules ask for by `profile`: cut off, it would be none.
        name: StatedProfiles::text(&labels).ok_or(Unmeasurable::TooMany(name))?,
        tiers,
        bank: match bank {
            policy::PcrBank::Sha256 => PcrBank::Sha256,
            policy::PcrBank::Sha384 => PcrBank::Sha384,
        },
        pcr: std::collections::BTreeMap::new(),
        firmware_deny: BTreeSet::new(),
        secure_boot: None,
        ima: None,
        app_control: None,
        mode,
    };
    for profile in profiles {
        fields
            .firmware_deny
            .extend(profile.firmware_deny.iter().copied());
        for (index, values) in &profile.pcrs {
            let values: BTreeSet<String> = values
                .iter()
                .map(|value| value.to_ascii_lowercase())
                .collect();
            let common = match fields.pcr.get(index) {
                None => values,
                Some(before) => before.intersection(&values).cloned().collect(),
            };
            if common.is_empty() {
                return Err(Unmeasurable::Values(*index));
            }
            fields.pcr.insert(*index, common);
        }
    }
    Ok(fields)
}

fn default_selection() -> PcrSelection {
    PcrSelection::new(PcrBank::Sha256, DEFAULT_PCRS).expect("four PCRs of a bank every TPM has")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn profile(name: &str, pcrs: &[(u8, &[&str])]) -> policy::Profile {
        policy::Profile {
            name: name.to_owned(),
            tiers: vec![Tier::Hardware, Tier::Virtual],
            bank: policy::PcrBank::Sha256,
            pcrs: pcrs
                .iter()
                .map(|(index, values)| {
                    (
                        *index,
                        values.iter().map(|value| value.repeat(32)).collect(),
                    )
                })
                .collect::<BTreeMap<_, _>>(),
            firmware_deny: vec![],
            secure_boot: None,
            ima: None,
            app_control: None,
            mode: policy::Mode::Enforce,
            fresh: None,
            offline: None,
        }
    }

    #[test]
    fn profiles_that_contradict_each_other_are_refused() {
        let one = profile("one", &[(7, &["aa"])]);
        let value = profile("two", &[(7, &["bb"])]);
        assert_eq!(
            merge(&[&one, &value], Mode::Enforce),
            Err(Unmeasurable::Values(7))
        );
        let mut bank = profile("two", &[(7, &["aa"])]);
        bank.bank = policy::PcrBank::Sha384;
        assert!(matches!(
            merge(&[&one, &bank], Mode::Enforce),
            Err(Unmeasurable::Banks(_))
        ));
        let mut tier = profile("two", &[(7, &["aa"])]);
        tier.tiers = vec![Tier::Listed];
        assert!(matches!(
            merge(&[&one, &tier], Mode::Enforce),
            Err(Unmeasurable::Tiers(_))
        ));
    }

    #[test]
    fn more_profiles_than_a_result_can_name_are_refused_and_none_is_left_out() {
        let profiles: Vec<_> = (0..=MAX_STATED)
            .map(|index| profile(&format!("p{index}"), &[(7, &["aa"])]))
            .collect();
        let all: Vec<&policy::Profile> = profiles.iter().collect();
        assert!(matches!(
            merge(&all, Mode::Enforce),
            Err(Unmeasurable::TooMany(_))
        ));
        assert!(merge(&all[..MAX_STATED], Mode::Enforce).is_ok());
    }

    #[test]
    fn a_node_in_two_groups_must_pass_both_profiles() {
        let one = profile("one", &[(0, &["aa"]), (7, &["aa", "bb"])]);
        let two = profile("two", &[(4, &["cc"]), (7, &["BB", "cc"])]);
        let merged = merge(&[&one, &two], Mode::Enforce).unwrap();
        assert_eq!(policy::profile::shown(&merged.name), "one+two");
        let stated = format!("{}+{}", one.label(), two.label());
        assert_eq!(merged.name, stated);
        assert_eq!(merged.pcr.keys().copied().collect::<Vec<_>>(), [0, 4, 7]);
        assert_eq!(merged.pcr[&7], BTreeSet::from(["bb".repeat(32)]));
    }

    #[test]
    fn without_a_policy_nothing_is_compared_and_a_tpm_is_needed() {
        let measured = measured(None, &Labels::new()).unwrap();
        assert_eq!(measured.profile, None);
        assert!(!measured.software);
        assert_eq!(
            measured.selection.indexes().collect::<Vec<_>>(),
            DEFAULT_PCRS
        );
    }
}
