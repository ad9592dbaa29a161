mod token;

use std::time::Duration;

use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::{Kind, SignedObject, SoftwareKey};

use super::*;
use crate::app_log::{App, AppLog, AppState, Event, Happened};
use crate::appraise::tests::{fields, software_evidence, tpm_evidence};
use crate::appraise::{
    EVIDENCE_PCRS, Logs, Mode, Profile, ProfileFields, appraise, appraise_without_profile,
};
use crate::testing::{SoftwareTpm, sha256_selection};

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

pub(crate) fn node(name: &str) -> SpiffeId {
    SpiffeId::new(&domain(), Kind::Node, name).unwrap()
}

/// A results key and the key set that names it.
pub(crate) fn keys() -> (SoftwareKey, KeySet) {
    let root = SoftwareKey::generate().unwrap();
    let results = SoftwareKey::generate().unwrap();
    let header = Header {
        purpose: Purpose::Keys,
        trust_domain: domain(),
        audience: EVERYBODY.into(),
        number: 1,
        issued: NOW,
        expires: NOW.plus(Duration::from_secs(3600)),
    };
    let list = [PurposeKey {
        purpose: Purpose::Results,
        key: *results.public_key(),
        not_after: NOW.plus(Duration::from_secs(3600)),
    }];
    let object = SignedObject::sign_json(&root, header, &list).unwrap();
    let set = KeySet::open(&object, &[*root.public_key()], &domain(), 0, NOW).unwrap();
    (results, set)
}

fn result_of(evidence: &VerifiedEvidence) -> AttestationResult {
    let appraisal = appraise(evidence, &Profile::new(fields()).unwrap(), &Logs::default());
    AttestationResult::new(evidence, &appraisal, &context(&node("gw-1"))).unwrap()
}

fn context(spiffe_id: &SpiffeId) -> ResultContext<'_> {
    ResultContext {
        spiffe_id,
        issued: NOW,
        deny_number: 5,
    }
}

pub(crate) fn signed(result: &AttestationResult, key: &SoftwareKey) -> Vec<u8> {
    let expires = NOW.plus(Duration::from_secs(600));
    result.sign(key, 9, expires).unwrap()
}

#[test]
fn no_result_is_made_of_failed_other_or_foreign_evidence() {
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let other = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let profile = Profile::new(fields()).unwrap();
    let made = |evidence: &VerifiedEvidence, appraisal: &Appraisal, name: &str| {
        AttestationResult::new(evidence, appraisal, &context(&node(name)))
    };
    let appraisal = appraise(&other, &profile, &Logs::default());
    let refused = made(&evidence, &appraisal, "gw-1");
    assert_eq!(refused.unwrap_err().code(), "result_other_evidence");
    let appraisal = appraise(&evidence, &profile, &Logs::default());
    let refused = made(&evidence, &appraisal, "gw-2");
    assert_eq!(refused.unwrap_err().code(), "result_other_node");
    let listed = tpm_evidence(&mut SoftwareTpm::new(), Tier::Listed);
    let refused = made(
        &listed,
        &appraise(&listed, &profile, &Logs::default()),
        "gw-1",
    );
    assert_eq!(refused.unwrap_err().code(), "result_appraisal_failed");
}

#[test]
fn a_result_about_another_identity_or_key_is_refused() {
    let (key, set) = keys();
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let bytes = signed(&result_of(&evidence), &key);
    let spki = evidence.svid_key().spki_hash();
    let domain = domain();
    let (id, other_id) = (node("gw-1"), node("gw-2"));
    let other_spki = SoftwareKey::generate().unwrap().public_key().spki_hash();
    let good = ResultExpect {
        trust_domain: &domain,
        spiffe_id: &id,
        svid_spki: &spki,
        least_number: 9,
        now: NOW,
    };
    let code = |expect: ResultExpect<'_>| check_result(&bytes, &set, &expect).unwrap_err().code();
    let spiffe_id = &other_id;
    assert_eq!(
        code(ResultExpect { spiffe_id, ..good }),
        "result_other_identity"
    );
    let svid_spki = &other_spki;
    assert_eq!(code(ResultExpect { svid_spki, ..good }), "result_other_key");
    assert_eq!(
        code(ResultExpect {
            least_number: 10,
            ..good
        }),
        "signed_rollback"
    );
    let now = NOW.plus(Duration::from_secs(600));
    assert_eq!(code(ResultExpect { now, ..good }), "signed_expired");
    let (_, stranger) = keys();
    assert_eq!(
        check_result(&bytes, &stranger, &good).unwrap_err().code(),
        "signed_key"
    );
    let huge = vec![0; MAX_RESULT_BYTES + 1];
    assert_eq!(
        check_result(&huge, &set, &good).unwrap_err().code(),
        "result_too_large"
    );
    for index in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[index] ^= 1;
        assert!(check_result(&altered, &set, &good).is_err(), "byte {index}");
    }
    assert!(check_result(&bytes, &set, &good).is_ok());
}

#[test]
fn a_result_that_contradicts_itself_is_refused_whoever_signed_it() {
    let (key, set) = keys();
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let good = result_of(&evidence);
    let code = |result: &AttestationResult| {
        check_result(
            &signed(result, &key),
            &set,
            &ResultExpect {
                trust_domain: &domain(),
                spiffe_id: &node("gw-1"),
                svid_spki: &evidence.svid_key().spki_hash(),
                least_number: 0,
                now: NOW,
            },
        )
        .map_err(|refused| refused.code())
    };
    let mut software = good.clone();
    software.tier = Tier::Software;
    assert_eq!(code(&software).unwrap_err(), "result_inconsistent");
    let mut without_tpm = software;
    without_tpm.tpm = None;
    assert_eq!(code(&without_tpm).unwrap_err(), "result_inconsistent");
    let mut without_profile = good.clone();
    without_profile.profile = None;
    assert_eq!(code(&without_profile).unwrap_err(), "result_inconsistent");
    for state in [
        AttestationState::Failed,
        AttestationState::Vouched,
        AttestationState::Stale,
    ] {
        let other = AttestationResult {
            state,
            ..good.clone()
        };
        assert_eq!(code(&other).unwrap_err(), "result_inconsistent", "{state}");
    }
    assert!(code(&good).is_ok());
}

#[test]
fn a_checked_result_says_what_the_evidence_said() {
    let (key, set) = keys();
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let bytes = signed(&result_of(&evidence), &key);
    assert!(bytes.len() <= 1450, "a result is small: {}", bytes.len());
    let checked = check_result(
        &bytes,
        &set,
        &ResultExpect {
            trust_domain: &domain(),
            spiffe_id: &node("gw-1"),
            svid_spki: &evidence.svid_key().spki_hash(),
            least_number: 0,
            now: NOW,
        },
    )
    .unwrap();
    let (result, tpm) = (checked.result(), checked.tpm().unwrap());
    let facts = evidence.tpm().unwrap();
    assert_eq!(checked.number(), 9);
    assert_eq!(result.state(), AttestationState::Trusted);
    assert_eq!(result.tier(), Tier::Virtual);
    assert_eq!(result.boot_key(), evidence.boot_key());
    assert_eq!(result.deny_number(), 5);
    assert_eq!(result.issued(), NOW);
    assert_eq!(result.profile().unwrap().name, "gateway");
    assert_eq!(tpm.ak().name(), facts.ak_name());
    assert_eq!(tpm.pcr_digest(), facts.pcr_digest());
    assert_eq!(tpm.reset_count(), facts.reset_count());
}

/// What nothing proves is absent, which is not the same as nothing running.
#[test]
fn a_result_says_what_runs_only_where_a_log_proved_it() {
    let (key, set) = keys();
    let mut tpm = SoftwareTpm::new();
    let mut log = AppLog::default();
    let app = App {
        publisher: "acme".to_owned(),
        name: "collector".to_owned(),
        version: "2.3.1".to_owned(),
        digest: "ab".repeat(32),
    };
    let started = Event {
        happened: Happened::Started(app),
        level: "fanotify".to_owned(),
    };
    let before = tpm.pcrs[14];
    log.append(14, &started).unwrap();
    tpm.pcrs[14] = log.replay(before);
    let boot_key = *SoftwareKey::generate().unwrap().public_key();
    let selection = sha256_selection(&EVIDENCE_PCRS);
    let evidence = tpm.evidence(&node("gw-1"), &boot_key, Tier::Virtual, &selection);
    let state = AppState::new(14, before)
        .follow(0, log.bytes(), &tpm.pcrs[14])
        .unwrap();
    let profile = |apps_pcr| {
        Profile::new(ProfileFields {
            apps_pcr,
            ..fields()
        })
        .unwrap()
    };
    let logs = Logs {
        apps: Some(Ok(&state)),
        ..Logs::default()
    };
    let said = |profile: &Profile| {
        let appraisal = appraise(&evidence, profile, &logs);
        let result =
            AttestationResult::new(&evidence, &appraisal, &context(&node("gw-1"))).unwrap();
        let bytes = signed(&result, &key);
        let checked = check_result(
            &bytes,
            &set,
            &ResultExpect {
                trust_domain: &domain(),
                spiffe_id: &node("gw-1"),
                svid_spki: &evidence.svid_key().spki_hash(),
                least_number: 0,
                now: NOW,
            },
        )
        .unwrap();
        let claims = token::payload_of(&bytes).unwrap();
        (
            checked.result().runs().cloned(),
            claims["edgeward.runs"].clone(),
        )
    };
    let (runs, claim) = said(&profile(Some(14)));
    assert_eq!(runs.unwrap()["acme/collector"], "2.3.1");
    assert_eq!(claim, serde_json::json!({ "acme/collector": "2.3.1" }));
    let (runs, claim) = said(&profile(None));
    assert_eq!((runs, claim), (None, serde_json::Value::Null));
}

#[test]
fn without_a_tpm_or_a_profile_the_state_is_none() {
    let software = software_evidence();
    let made = |evidence: &VerifiedEvidence| {
        let appraisal = appraise_without_profile(evidence, &Logs::default());
        AttestationResult::new(evidence, &appraisal, &context(&node("gw-1"))).unwrap()
    };
    assert_eq!(made(&software).state(), AttestationState::None);
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    assert_eq!(made(&evidence).state(), AttestationState::None);
    // A profile that only watches does not make a machine without a TPM trusted.
    let mode = Mode::Monitor;
    let profile = Profile::new(ProfileFields { mode, ..fields() }).unwrap();
    let appraisal = appraise(&software, &profile, &Logs::default());
    let result = AttestationResult::new(&software, &appraisal, &context(&node("gw-1"))).unwrap();
    assert_eq!(result.state(), AttestationState::None);
    assert_eq!(
        result.would_fail(),
        ["profile_tier", "profile_pcr_selection"]
    );
}

#[test]
fn until_logs_follow_a_result_says_stale_and_why() {
    let (key, set) = keys();
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let secure_boot = Some(true);
    let profile = Profile::new(ProfileFields {
        secure_boot,
        ..fields()
    })
    .unwrap();
    let logs = Logs {
        pending: true,
        ..Logs::default()
    };
    let appraisal = appraise(&evidence, &profile, &logs);
    let result = AttestationResult::new(&evidence, &appraisal, &context(&node("gw-1"))).unwrap();
    let checked = check_result(
        &signed(&result, &key),
        &set,
        &ResultExpect {
            trust_domain: &domain(),
            spiffe_id: &node("gw-1"),
            svid_spki: &evidence.svid_key().spki_hash(),
            least_number: 0,
            now: NOW,
        },
    )
    .unwrap();
    assert_eq!(checked.result().state(), AttestationState::Stale);
    assert_eq!(checked.result().code(), Some("log_pending"));
    assert_eq!(*checked.result(), result);
}

/// What a boot without the cloud must equal is what is compared, however much was quoted.
#[test]
fn a_result_states_what_its_profile_compares_out_of_all_that_was_quoted() {
    let mut tpm = SoftwareTpm::new();
    let boot_key = *SoftwareKey::generate().unwrap().public_key();
    let quoted = sha256_selection(&[0, 1, 2, 3, 4, 5, 6, 7, 10]);
    let evidence = tpm.evidence(&node("gw-1"), &boot_key, Tier::Virtual, &quoted);
    let stated = |appraisal: &Appraisal| {
        let result = AttestationResult::new(&evidence, appraisal, &context(&node("gw-1"))).unwrap();
        let tpm = result.tpm.unwrap();
        (tpm.pcr_selection, tpm.pcr_digest)
    };
    let expected = |pcrs: &[u8]| {
        let selection = sha256_selection(pcrs);
        let (digest, _) = selection.digest_of(&tpm.pcr_values(&selection)).unwrap();
        (selection, digest)
    };
    let profile = Profile::new(fields()).unwrap();
    let compared = appraise(&evidence, &profile, &Logs::default());
    assert_eq!(stated(&compared), expected(&[0, 7]));
    let nothing = appraise_without_profile(&evidence, &Logs::default());
    assert_eq!(stated(&nothing), expected(&[0, 2, 4, 7]));
}

#[test]
fn a_monitoring_profile_that_would_fail_is_named_and_the_ear_warns() {
    let (key, _) = keys();
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let next = Profile::new(ProfileFields {
        mode: Mode::Monitor,
        tiers: std::collections::BTreeSet::from([Tier::Hardware]),
        ..fields()
    })
    .unwrap();
    let profile = Profile::new(fields()).unwrap();
    let monitor = appraise(&evidence, &next, &Logs::default());
    let appraisal = appraise(&evidence, &profile, &Logs::default()).beside(&monitor);
    let result = AttestationResult::new(&evidence, &appraisal, &context(&node("gw-1"))).unwrap();
    assert_eq!(result.state(), AttestationState::Trusted);
    assert_eq!(result.would_fail(), ["profile_tier"]);
    let claims = token::payload_of(&signed(&result, &key)).unwrap();
    assert_eq!(claims["submods"]["node"]["ear_status"], "warning");
}
