mod apps;
mod logs;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::testing::{self, SoftwareTpm, sha256_selection};
use crate::tpm::PcrBank;
use edgeward_identity::{Kind, Signer, SoftwareKey, SpiffeId, Tier, TrustDomain};

/// Verified evidence of a TPM, over PCRs 0 and 7.
pub(crate) fn tpm_evidence(tpm: &mut SoftwareTpm, tier: Tier) -> VerifiedEvidence {
    let boot_key = *SoftwareKey::generate().unwrap().public_key();
    tpm.evidence(&node(), &boot_key, tier, &sha256_selection(&[0, 7]))
}

pub(crate) fn software_evidence() -> VerifiedEvidence {
    let [svid, boot] = [(); 2].map(|()| SoftwareKey::generate().unwrap());
    testing::software_evidence(&node(), boot.public_key(), &svid)
}

fn node() -> SpiffeId {
    let trust_domain = TrustDomain::new("plant.example").unwrap();
    SpiffeId::new(&trust_domain, Kind::Node, "gw-1").unwrap()
}

/// What a [`SoftwareTpm`] passes.
pub(crate) fn fields() -> ProfileFields {
    ProfileFields {
        name: "gateway".into(),
        tiers: BTreeSet::from([Tier::Hardware, Tier::Virtual]),
        bank: PcrBank::Sha256,
        pcr: BTreeMap::from([
            (0, BTreeSet::from([hex::encode([0; 32])])),
            (
                7,
                BTreeSet::from([
                    "sha256:".to_owned() + &hex::encode([7; 32]),
                    hex::encode([9; 32]),
                ]),
            ),
        ]),
        firmware_deny: BTreeSet::from([1]),
        secure_boot: None,
        ima: None,
        app_control: None,
        apps_pcr: None,
        mode: Mode::Enforce,
    }
}

fn codes(fields: ProfileFields, tpm: &mut SoftwareTpm, tier: Tier) -> Vec<&'static str> {
    let appraisal = appraise(
        &tpm_evidence(tpm, tier),
        &Profile::new(fields).unwrap(),
        &Logs::default(),
    );
    assert_eq!(appraisal.matched(), appraisal.reasons().is_empty());
    appraisal.reasons().iter().map(Mismatch::code).collect()
}

/// Test 60.
#[test]
fn a_profile_that_compares_nothing_cannot_be_made() {
    type BreakIt = fn(&mut ProfileFields);
    let broken: [(BreakIt, BadProfile); 15] = [
        (|fields| fields.pcr.clear(), BadProfile::ComparesNothing),
        (
            // The agent's own word is no evidence.
            |fields| {
                fields.pcr.clear();
                fields.app_control = Some(AppControl::Kernel);
            },
            BadProfile::ComparesNothing,
        ),
        (
            // Whatever replays there says nothing about the machine below.
            |fields| {
                fields.pcr.clear();
                fields.apps_pcr = Some(14);
            },
            BadProfile::ComparesNothing,
        ),
        (|fields| fields.apps_pcr = Some(7), BadProfile::AppsPcr(7)),
        (|fields| fields.apps_pcr = Some(16), BadProfile::AppsPcr(16)),
        (
            |fields| {
                fields
                    .pcr
                    .insert(14, BTreeSet::from([hex::encode([0; 32])]));
                fields.apps_pcr = Some(14);
            },
            BadProfile::AppsPcrCompared(14),
        ),
        (
            |fields| {
                fields.bank = PcrBank::Sha384;
                fields.pcr = BTreeMap::from([(0, BTreeSet::from([hex::encode([0; 48])]))]);
                fields.apps_pcr = Some(14);
            },
            BadProfile::AppsBank,
        ),
        (|fields| fields.tiers.clear(), BadProfile::NoTier),
        (
            |fields| {
                fields.tiers.insert(Tier::Software);
            },
            BadProfile::TierSoftware,
        ),
        (
            |fields| fields.pcr.entry(7).or_default().clear(),
            BadProfile::NoDigest(7),
        ),
        (|fields| fields.name.clear(), BadProfile::Name),
        (
            |fields| {
                fields
                    .pcr
                    .insert(16, BTreeSet::from([hex::encode([0; 32])]));
            },
            BadProfile::Pcr(16),
        ),
        (
            |fields| {
                fields
                    .pcr
                    .insert(24, BTreeSet::from([hex::encode([0; 32])]));
            },
            BadProfile::Pcr(24),
        ),
        (
            |fields| {
                fields.pcr.insert(1, BTreeSet::from(["00".into()]));
            },
            BadProfile::Digest {
                pcr: 1,
                text: "00".into(),
            },
        ),
        (
            |fields| {
                let many = (0..2000_u32).map(|n| format!("{n:064x}")).collect();
                fields.pcr.insert(1, many);
            },
            BadProfile::TooManyDigests(1),
        ),
    ];
    for (break_it, expected) in broken {
        let mut fields = fields();
        break_it(&mut fields);
        assert_eq!(Profile::new(fields), Err(expected));
    }
}

/// Test 14.
#[test]
fn a_virtual_tpm_fails_a_profile_for_hardware() {
    let mut fields = fields();
    fields.tiers = BTreeSet::from([Tier::Hardware]);
    let failed = codes(fields, &mut SoftwareTpm::new(), Tier::Virtual);
    assert_eq!(failed, ["profile_tier"]);
}

#[test]
fn a_pcr_with_an_unknown_value_fails() {
    let mut tpm = SoftwareTpm::new();
    tpm.pcrs[7] = [8; 32];
    assert_eq!(
        codes(fields(), &mut tpm, Tier::Virtual),
        ["profile_pcr_value"]
    );
    tpm.pcrs[7] = [9; 32];
    assert!(codes(fields(), &mut tpm, Tier::Virtual).is_empty());
}

/// Test 59.
#[test]
fn a_profile_whose_pcrs_were_not_quoted_fails() {
    let mut fields = fields();
    fields.pcr.insert(4, BTreeSet::from([hex::encode([4; 32])]));
    let failed = codes(fields, &mut SoftwareTpm::new(), Tier::Virtual);
    assert_eq!(failed, ["profile_pcr_not_quoted"]);
}

/// Test 45.
#[test]
fn a_refused_firmware_fails() {
    let mut tpm = SoftwareTpm::new();
    tpm.firmware = 1;
    assert_eq!(
        codes(fields(), &mut tpm, Tier::Virtual),
        ["profile_firmware"]
    );
}

#[test]
fn software_evidence_fails_every_profile_and_proves_nothing_without_one() {
    let evidence = software_evidence();
    let appraisal = appraise(
        &evidence,
        &Profile::new(fields()).unwrap(),
        &Logs::default(),
    );
    assert_eq!(appraisal.state(), AttestationState::Failed);
    assert_eq!(
        appraise_without_profile(&evidence, &Logs::default()).state(),
        AttestationState::None
    );
}

#[test]
fn a_mismatch_has_no_consequences_in_mode_monitor_but_is_told() {
    let mut tpm = SoftwareTpm::new();
    let evidence = tpm_evidence(&mut tpm, Tier::Listed);
    let enforced = appraise(
        &evidence,
        &Profile::new(fields()).unwrap(),
        &Logs::default(),
    );
    assert_eq!(enforced.state(), AttestationState::Failed);
    let mode = Mode::Monitor;
    let monitored = appraise(
        &evidence,
        &Profile::new(ProfileFields { mode, ..fields() }).unwrap(),
        &Logs::default(),
    );
    assert_eq!(monitored.state(), AttestationState::Trusted);
    assert!(!monitored.matched());
    assert_eq!(monitored.reasons(), [Mismatch::Tier(Tier::Listed)]);
}

#[test]
fn evidence_that_matches_is_trusted() {
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let appraisal = appraise(
        &evidence,
        &Profile::new(fields()).unwrap(),
        &Logs::default(),
    );
    assert_eq!(appraisal.state(), AttestationState::Trusted);
    assert!(appraisal.matched());
}

#[test]
fn a_profiles_hash_is_over_what_it_says_and_not_how() {
    let profile = Profile::new(fields()).unwrap();
    let mut same = fields();
    same.pcr = fields()
        .pcr
        .into_iter()
        .map(|(pcr, digests)| {
            let written_otherwise = digests
                .iter()
                .map(|text| text.trim_start_matches("sha256:").to_uppercase())
                .collect();
            (pcr, written_otherwise)
        })
        .collect();
    assert_eq!(Profile::new(same).unwrap().hash(), profile.hash());
    let mut other = fields();
    other.firmware_deny.insert(2);
    assert_ne!(Profile::new(other).unwrap().hash(), profile.hash());
}
