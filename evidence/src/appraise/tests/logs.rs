//! Profiles that judge logs, and what people are told.

use std::sync::Arc;

use super::*;
use crate::boot_log::{BootLog, judge};
use crate::ima::{ImaPolicy, ListedFile, Violations, parse_binary};
use crate::testing::boot_log::BootLogBuilder;
use crate::testing::ima::ImaList;
use crate::tpm::HashAlg;

const FILE: [u8; 32] = [0xf1; 32];
const ALL: [u8; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

/// A machine that booted by a log and measured by a list.
struct Machine {
    tpm: SoftwareTpm,
    boot: Vec<u8>,
    ima: ImaList,
}

impl Machine {
    fn new(secure_boot: bool) -> Self {
        let builder = BootLogBuilder::typical(secure_boot);
        let mut ima = ImaList::new();
        ima.add("/bin/a", HashAlg::Sha256, &FILE);
        let mut machine = Self {
            tpm: SoftwareTpm::new(),
            boot: builder.build(),
            ima,
        };
        for (pcr, value) in machine
            .tpm
            .pcrs
            .iter_mut()
            .zip(builder.pcrs(HashAlg::Sha256))
        {
            pcr.copy_from_slice(&value);
        }
        machine
    }

    fn evidence(&mut self) -> VerifiedEvidence {
        self.evidence_over(&ALL)
    }

    fn evidence_over(&mut self, pcrs: &[u8]) -> VerifiedEvidence {
        self.tpm.pcrs[10] = self.ima.pcr;
        let boot_key = *SoftwareKey::generate().unwrap().public_key();
        self.tpm
            .evidence(&node(), &boot_key, Tier::Virtual, &sha256_selection(pcrs))
    }

    fn boot_log(&self) -> BootLog {
        BootLog::parse(&self.boot).unwrap()
    }

    fn judged(&mut self) -> JudgedBoot {
        let evidence = self.evidence();
        let values = evidence.tpm().unwrap().pcr_values();
        judge(&self.boot_log(), PcrBank::Sha256, values).unwrap()
    }

    fn followed(&self, policy: &ImaPolicy) -> ImaVerdict {
        let entries = parse_binary(&self.ima.bytes).unwrap();
        ImaVerdict::new(PcrBank::Sha256, policy)
            .follow(0, &entries, &self.ima.pcr, policy)
            .unwrap()
    }
}

fn ima_policy() -> Arc<ImaPolicy> {
    let file = ListedFile {
        hash: HashAlg::Sha256,
        digest: &FILE,
        path: None,
    };
    Arc::new(ImaPolicy::new([file], [], Violations::Fail).unwrap())
}

/// Secure Boot and IMA; no PCR by value.
fn strict() -> ProfileFields {
    ProfileFields {
        pcr: BTreeMap::new(),
        secure_boot: Some(true),
        ima: Some(ima_policy()),
        ..fields()
    }
}

pub(super) fn codes_of(appraisal: &Appraisal) -> Vec<&'static str> {
    let codes: Vec<_> = appraisal.reasons().iter().map(Mismatch::code).collect();
    let told: Vec<_> = appraisal
        .findings()
        .iter()
        .map(|found| found.code.as_str())
        .collect();
    assert_eq!(codes, told);
    for finding in appraisal.findings() {
        assert!(finding.advice.ends_with('.'), "{finding:?}");
        assert!(!finding.found.is_empty(), "{finding:?}");
    }
    codes
}

/// Test 43: a log that was not sent is not a log that is right.
#[test]
fn a_profile_that_judges_logs_fails_without_them() {
    let mut machine = Machine::new(true);
    let profile = Profile::new(strict()).unwrap();
    let evidence = machine.evidence();
    let appraisal = appraise(&evidence, &profile, &Logs::default());
    assert_eq!(
        codes_of(&appraisal),
        ["boot_log_missing", "ima_log_missing"]
    );
    assert_eq!(appraisal.state(), AttestationState::Failed);
}

#[test]
fn until_logs_follow_an_enrolled_node_is_stale_and_nothing_better() {
    let mut machine = Machine::new(true);
    let profile = Profile::new(strict()).unwrap();
    let evidence = machine.evidence();
    let logs = Logs {
        pending: true,
        ..Logs::default()
    };
    let appraisal = appraise(&evidence, &profile, &logs);
    assert!(appraisal.matched() && appraisal.is_pending());
    assert_eq!(appraisal.state(), AttestationState::Stale);
    // What needs no log is compared at once.
    let mut wrong = strict();
    wrong.pcr = BTreeMap::from([(4, BTreeSet::from([hex::encode([4; 32])]))]);
    let appraisal = appraise(&evidence, &Profile::new(wrong).unwrap(), &logs);
    assert_eq!(codes_of(&appraisal), ["profile_pcr_value"]);
    assert_eq!(appraisal.state(), AttestationState::Failed);
    // One that only watches keeps nobody waiting.
    let watching = ProfileFields {
        mode: Mode::Monitor,
        ..strict()
    };
    let appraisal = appraise(&evidence, &Profile::new(watching).unwrap(), &logs);
    assert_eq!(appraisal.state(), AttestationState::Trusted);
    // A profile that needs no log waits for none.
    let right = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let appraisal = appraise(&right, &Profile::new(fields()).unwrap(), &logs);
    assert_eq!(appraisal.state(), AttestationState::Trusted);
}

#[test]
fn secure_boot_is_judged_from_the_log_and_only_of_this_boot() {
    let mut off = Machine::new(false);
    let mut on = Machine::new(true);
    let mut fields = strict();
    fields.ima = None;
    let profile = Profile::new(fields.clone()).unwrap();
    let (evidence, judged) = (off.evidence(), off.judged());
    let log = off.boot_log();
    let logs = Logs {
        boot: Some(Ok(&judged)),
        boot_log: Some(&log),
        ..Logs::default()
    };
    let appraisal = appraise(&evidence, &profile, &logs);
    assert_eq!(codes_of(&appraisal), ["profile_secure_boot"]);
    let finding = &appraisal.findings()[0];
    assert_eq!((finding.pcr, finding.found.as_str()), (Some(7), "off"));
    assert_eq!(finding.expected, ["on"]);
    // A verdict about another boot says nothing about this one.
    let of_other = on.judged();
    let logs = Logs {
        boot: Some(Ok(&of_other)),
        ..Logs::default()
    };
    assert_eq!(
        codes_of(&appraise(&evidence, &profile, &logs)),
        ["boot_log_other_boot"]
    );
    let evidence = on.evidence();
    let appraisal = appraise(&evidence, &profile, &logs);
    assert_eq!(appraisal.state(), AttestationState::Trusted);
    fields.secure_boot = Some(false);
    let profile = Profile::new(fields).unwrap();
    assert_eq!(
        codes_of(&appraise(&evidence, &profile, &logs)),
        ["profile_secure_boot"]
    );
}

/// Test 46 as people see it: with the code of the log's own judge.
#[test]
fn a_boot_log_that_was_refused_fails_where_it_counts_and_is_told_where_not() {
    let mut machine = Machine::new(true);
    let evidence = machine.evidence();
    let other = BootLog::parse(&Machine::new(false).boot).unwrap();
    let values = evidence.tpm().unwrap().pcr_values();
    let refused = judge(&other, PcrBank::Sha256, values).unwrap_err();
    let logs = Logs {
        boot: Some(Err(&refused)),
        ..Logs::default()
    };
    let mut wants = strict();
    wants.ima = None;
    let appraisal = appraise(&evidence, &Profile::new(wants).unwrap(), &logs);
    assert_eq!(codes_of(&appraisal), [refused.code()]);
    let value = hex::encode(&values[&7]);
    let mut indifferent = fields();
    indifferent.pcr = BTreeMap::from([(7, BTreeSet::from([value]))]);
    let appraisal = appraise(&evidence, &Profile::new(indifferent).unwrap(), &logs);
    assert_eq!(appraisal.state(), AttestationState::Trusted);
    assert_eq!(appraisal.notices()[0].code, refused.code());
}

/// Tests 56 and 57 as people see them.
#[test]
fn an_ima_list_must_reach_the_quote_and_hold_allowed_files_only() {
    let mut machine = Machine::new(true);
    let mut fields = strict();
    fields.secure_boot = None;
    let profile = Profile::new(fields).unwrap();
    let policy = ima_policy();
    let before = machine.followed(&policy);
    let evidence = machine.evidence();
    let with = |verdict: &ImaVerdict, evidence: &VerifiedEvidence| {
        let logs = Logs {
            ima: Some(Ok(verdict)),
            ..Logs::default()
        };
        appraise(evidence, &profile, &logs)
    };
    assert_eq!(with(&before, &evidence).state(), AttestationState::Trusted);
    machine.ima.add("/tmp/\x1b[31mx", HashAlg::Sha256, &[9; 32]);
    let evidence = machine.evidence();
    // The list as it was before.
    assert_eq!(codes_of(&with(&before, &evidence)), ["ima_replay_mismatch"]);
    let appraisal = with(&machine.followed(&policy), &evidence);
    assert_eq!(codes_of(&appraisal), ["ima_file_not_allowed"]);
    let finding = &appraisal.findings()[0];
    assert_eq!(finding.event, "ima entry 2: /tmp/\\x1b[31mx");
    assert!(
        finding
            .found
            .ends_with(&format!("sha256:{}", hex::encode([9; 32])))
    );
    // No list at all, on a machine whose PCR 10 was never extended.
    let empty = ImaVerdict::new(PcrBank::Sha256, &policy);
    machine.ima = ImaList::default();
    assert_eq!(
        codes_of(&with(&empty, &machine.evidence())),
        ["ima_replay_mismatch"]
    );
    // Judged by other lists.
    let file = ListedFile {
        hash: HashAlg::Sha256,
        digest: &[9; 32],
        path: None,
    };
    let lax = ImaPolicy::new([file], [], Violations::Ignore).unwrap();
    let other = ImaVerdict::new(PcrBank::Sha256, &lax);
    assert_eq!(
        codes_of(&with(&other, &machine.evidence())),
        ["ima_other_policy"]
    );
    // Refused before it could be judged.
    let refused = parse_binary(&[0; 3]).unwrap_err();
    let logs = Logs {
        ima: Some(Err(&refused)),
        ..Logs::default()
    };
    let appraisal = appraise(&machine.evidence(), &profile, &logs);
    assert_eq!(codes_of(&appraisal), ["ima_truncated"]);
    // PCR 10 was not quoted.
    let evidence = machine.evidence_over(&[0, 2, 4, 7]);
    assert_eq!(
        codes_of(&with(&before, &evidence)),
        ["profile_pcr_not_quoted"]
    );
}

/// Test 59, for what is not compared by value.
#[test]
fn what_a_result_would_state_must_have_been_quoted() {
    let mut machine = Machine::new(true);
    let mut fields = strict();
    fields.ima = None;
    let profile = Profile::new(fields).unwrap();
    let judged = machine.judged();
    let logs = Logs {
        boot: Some(Ok(&judged)),
        ..Logs::default()
    };
    let evidence = machine.evidence_over(&[0, 1, 2, 3, 4, 5, 6]);
    let found = codes_of(&appraise(&evidence, &profile, &logs));
    assert_eq!(found, ["profile_pcr_not_quoted", "boot_log_other_boot"]);
}

#[test]
fn the_stated_selection_is_what_is_compared_and_never_what_goes_on_changing() {
    let stated = |fields: ProfileFields| {
        let profile = Profile::new(fields).unwrap();
        assert!(!profile.stated().contains(10));
        profile.stated().indexes().collect::<Vec<_>>()
    };
    let quoted = |fields: ProfileFields| {
        Profile::new(fields)
            .unwrap()
            .selection()
            .indexes()
            .collect::<Vec<_>>()
    };
    assert_eq!(stated(strict()), [7]);
    assert_eq!(quoted(strict()), ALL);
    let mut only_ima = strict();
    only_ima.secure_boot = None;
    assert_eq!(stated(only_ima.clone()), STATED_BY_DEFAULT);
    let any = BTreeSet::from([hex::encode([1; 32])]);
    only_ima.pcr = BTreeMap::from([(10, any.clone()), (20, any)]);
    assert_eq!(stated(only_ima.clone()), [20]);
    assert!(quoted(only_ima).contains(&20));
    assert_eq!(stated(fields()), [0, 7]);
    assert_eq!(quoted(fields()), EVIDENCE_PCRS);
}

#[test]
fn control_of_applications_must_be_at_least_what_is_asked_for() {
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let mut fields = fields();
    fields.app_control = Some(AppControl::Fanotify);
    let profile = Profile::new(fields).unwrap();
    let codes = |said: &str| {
        let logs = Logs {
            app_control: AppControl::from_word(said),
            ..Logs::default()
        };
        codes_of(&appraise(&evidence, &profile, &logs))
    };
    for said in ["", "launcher", "Fanotify", "kernel "] {
        assert_eq!(codes(said), ["profile_app_control"], "{said}");
    }
    for said in ["fanotify", "kernel"] {
        assert!(codes(said).is_empty(), "{said}");
    }
}

#[test]
fn a_monitoring_profile_beside_the_enforced_one_is_told_and_has_no_consequences() {
    let mut tpm = SoftwareTpm::new();
    let evidence = tpm_evidence(&mut tpm, Tier::Virtual);
    let enforced = Profile::new(fields()).unwrap();
    let mut next = fields();
    next.name = "next".into();
    next.mode = Mode::Monitor;
    next.pcr = BTreeMap::from([(7, BTreeSet::from([hex::encode([8; 32])]))]);
    let monitor = appraise(
        &evidence,
        &Profile::new(next.clone()).unwrap(),
        &Logs::default(),
    );
    let appraisal = appraise(&evidence, &enforced, &Logs::default()).beside(&monitor);
    assert_eq!(appraisal.state(), AttestationState::Trusted);
    assert!(appraisal.matched());
    assert_eq!(appraisal.would_fail(), ["profile_pcr_value"]);
    assert_eq!(appraisal.monitored()[0].profile.name, "next");
    assert_eq!(appraisal.monitored()[0].findings[0].pcr, Some(7));
    // One that matches says nothing, and one of other evidence is not taken.
    let same = appraise(&evidence, &enforced, &Logs::default());
    assert!(
        appraise(&evidence, &enforced, &Logs::default())
            .beside(&same)
            .monitored()
            .is_empty()
    );
    let other = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let foreign = appraise(&other, &Profile::new(next).unwrap(), &Logs::default());
    assert!(same.beside(&foreign).would_fail().is_empty());
}

/// Test 45.
#[test]
fn firmware_that_changed_is_told_and_refused_only_where_the_profile_says_so() {
    let mut tpm = SoftwareTpm::new();
    let evidence = tpm_evidence(&mut tpm, Tier::Virtual);
    let profile = Profile::new(fields()).unwrap();
    let notices = |before: u64| {
        let logs = Logs {
            firmware_before: Some(before),
            ..Logs::default()
        };
        let appraisal = appraise(&evidence, &profile, &logs);
        assert!(appraisal.matched());
        appraisal.notices().to_vec()
    };
    assert!(notices(tpm.firmware).is_empty());
    let changed = notices(0x10);
    assert_eq!(changed[0].code, "firmware_changed");
    assert_eq!(changed[0].expected, ["0x10"]);
}

/// Test 44: a TPM that lost time in a power cut passes, and says so.
#[test]
fn an_unsafe_clock_is_told() {
    let mut tpm = SoftwareTpm::new();
    tpm.reboot(false);
    let evidence = tpm_evidence(&mut tpm, Tier::Virtual);
    let appraisal = appraise(
        &evidence,
        &Profile::new(fields()).unwrap(),
        &Logs::default(),
    );
    assert_eq!(appraisal.state(), AttestationState::Trusted);
    assert_eq!(appraisal.notices()[0].code, "clock_unsafe");
}

#[test]
fn a_wrong_value_is_explained_by_the_events_that_changed() {
    let mut machine = Machine::new(true);
    let before = machine.boot_log();
    let good = machine.evidence();
    let value = hex::encode(&good.tpm().unwrap().pcr_values()[&4]);
    let mut fields = fields();
    fields.pcr = BTreeMap::from([(4, BTreeSet::from([value.clone()]))]);
    let profile = Profile::new(fields).unwrap();
    let mut builder = BootLogBuilder::typical(true);
    let kind = crate::boot_log::EventType::EFI_BOOT_SERVICES_APPLICATION;
    let changed = builder
        .events_mut()
        .iter_mut()
        .rfind(|event| event.kind == kind)
        .unwrap();
    changed.measured = b"another boot loader".to_vec();
    machine.boot = builder.build();
    for (pcr, value) in machine
        .tpm
        .pcrs
        .iter_mut()
        .zip(builder.pcrs(HashAlg::Sha256))
    {
        pcr.copy_from_slice(&value);
    }
    let evidence = machine.evidence();
    let log = machine.boot_log();
    let with = |passed: Option<&BootLog>| {
        let logs = Logs {
            boot_log: Some(&log),
            boot_log_passed: passed,
            ..Logs::default()
        };
        let appraisal = appraise(&evidence, &profile, &logs);
        assert_eq!(codes_of(&appraisal), ["profile_pcr_value"]);
        appraisal.findings()[0].clone()
    };
    let finding = with(Some(&before));
    assert_eq!(finding.pcr, Some(4));
    assert_eq!(finding.expected, [value]);
    assert!(
        finding.event.contains("EV_EFI_BOOT_SERVICES_APPLICATION"),
        "{finding:?}"
    );
    assert_eq!(
        finding.event.matches("boot event").count(),
        1,
        "{finding:?}"
    );
    // Without the log that passed, the last events of the PCR.
    assert!(with(None).event.contains("boot event"));
}
