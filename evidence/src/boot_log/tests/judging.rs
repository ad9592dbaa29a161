//! Logs that are not what the TPM measured, or that break the order of a boot.

use super::super::judge::{judge, judge_in};
use super::super::*;
use super::{ALL, judge_by, judge_true, parse, place};
use crate::testing::BootLogBuilder;
use crate::testing::boot_log::BuiltEvent;
use crate::tpm::PcrBank;

const BANK: HashAlg = HashAlg::Sha256;

fn refused(log: &BootLogBuilder, boot: &BootLogBuilder) -> BootLogRefused {
    judge_by(log, &boot.quoted(BANK, &ALL)).expect_err("refused")
}

fn code(log: &BootLogBuilder) -> &'static str {
    judge_true(log).expect_err("refused").code()
}

#[test]
fn a_log_of_another_boot_does_not_replay() {
    let (log, boot) = (
        BootLogBuilder::typical(true),
        BootLogBuilder::typical(false),
    );
    let BootLogRefused::ReplayMismatch {
        pcr,
        replayed,
        quoted,
    } = refused(&log, &boot)
    else {
        panic!("another reason");
    };
    assert_eq!(pcr, 7);
    assert_eq!(replayed, hex::encode(&log.pcrs(BANK)[7]));
    assert_eq!(quoted, hex::encode(&boot.pcrs(BANK)[7]));
}

#[test]
fn a_truncated_log_whose_prefix_was_true_once_does_not_replay() {
    let boot = BootLogBuilder::typical(true);
    for kept in 0..boot.clone().events_mut().len() {
        let mut log = boot.clone();
        log.events_mut().truncate(kept);
        let cut_in_firmware = boot.clone().events_mut()[kept..]
            .iter()
            .any(|event| event.pcr <= 7);
        assert!(cut_in_firmware, "the last event is of PCR 5");
        assert_eq!(
            refused(&log, &boot).code(),
            "boot_log_replay_mismatch",
            "{kept}"
        );
    }
}

#[test]
fn a_pcr_that_the_log_does_not_extend_must_be_as_after_reset() {
    let mut log = BootLogBuilder::typical(true);
    let mut boot = log.clone();
    log.events_mut().retain(|event| event.pcr != 6);
    assert_eq!(refused(&log, &boot).code(), "boot_log_replay_mismatch");
    boot.events_mut().retain(|event| event.pcr != 6);
    assert!(judge_true(&boot).is_ok());
}

#[test]
fn a_startup_locality_that_is_forged_or_missing_is_told_as_such() {
    let without = BootLogBuilder::typical(true);
    let with = |locality| without.clone().startup_locality(locality);
    for (log, boot, told, right) in [
        (with(3), without.clone(), 3, 0),
        (without.clone(), with(3), 0, 3),
        (with(4), with(3), 4, 3),
    ] {
        let refused = refused(&log, &boot);
        assert_eq!(refused, BootLogRefused::LocalityMismatch { told, right });
        assert_eq!(refused.code(), "boot_log_startup_locality_mismatch");
    }
    assert!(judge_true(&with(3)).is_ok());
    assert!(judge_true(&with(4)).is_ok());
}

#[test]
fn a_bank_that_the_log_has_no_digests_for_is_refused() {
    for banks in [&[][..], &[HashAlg::Sha384]] {
        let log = BootLogBuilder::typical_in(banks, true);
        assert_eq!(code(&log), "boot_log_bank_absent");
    }
    let log = BootLogBuilder::typical_in(&[HashAlg::Sha1, HashAlg::Sha384, HashAlg::Sha512], true);
    for (bank, alg) in [
        (PcrBank::Sha384, HashAlg::Sha384),
        (PcrBank::Sha512, HashAlg::Sha512),
    ] {
        let judged = judge(&parse(&log), bank, &log.quoted(alg, &ALL)).unwrap();
        assert_eq!(judged.bank(), alg);
    }
}

#[test]
fn values_of_another_bank_do_not_replay() {
    let log = BootLogBuilder::typical_in(&[HashAlg::Sha256, HashAlg::Sha384], true);
    let quoted = log.quoted(HashAlg::Sha384, &ALL);
    let refused = judge(&parse(&log), PcrBank::Sha256, &quoted).unwrap_err();
    assert_eq!(refused.code(), "boot_log_replay_mismatch");
}

#[test]
fn without_a_quoted_pcr_of_the_firmware_nothing_is_judged() {
    let log = BootLogBuilder::typical(true);
    for pcrs in [&[][..], &[8, 9, 14]] {
        let refused = judge_by(&log, &log.quoted(BANK, pcrs)).unwrap_err();
        assert_eq!(refused.code(), "boot_log_not_quoted");
    }
}

#[test]
fn a_second_separator_in_a_pcr_is_refused() {
    for pcr in 0..=7 {
        for value in [[0; 4], [0xff; 4]] {
            let mut log = BootLogBuilder::typical(true);
            let exit = place(&mut log, |event| {
                event.data.starts_with(b"Exit Boot Services Inv")
            });
            let second = BuiltEvent::new(pcr, EventType::SEPARATOR, value);
            log.events_mut().insert(exit, second);
            assert_eq!(code(&log), "boot_log_separator_twice", "{pcr}");
        }
    }
}

#[test]
fn a_separator_under_another_name_is_still_one() {
    for pcr in [4, 5, 7] {
        let mut log = BootLogBuilder::typical(true);
        let at = place(&mut log, |event| {
            event.pcr == pcr && event.kind == EventType::SEPARATOR
        });
        log.events_mut()[at].kind = EventType::EFI_ACTION;
        assert_eq!(code(&log), "boot_log_separator", "{pcr}");
    }
}

#[test]
fn a_separator_that_reports_an_error_or_is_none_is_refused() {
    for (what, data, measured) in [
        ("an error", vec![1, 0, 0, 0], vec![1, 0, 0, 0]),
        ("another value", b"WBCL".to_vec(), b"WBCL".to_vec()),
        ("no value", vec![], vec![]),
        (
            "a digest of something else",
            vec![0; 4],
            b"anything".to_vec(),
        ),
        ("data that was not measured", b"x".to_vec(), vec![0; 4]),
    ] {
        let mut log = BootLogBuilder::typical(true);
        let at = place(&mut log, |event| {
            event.pcr == 2 && event.kind == EventType::SEPARATOR
        });
        log.events_mut()[at] = BuiltEvent::over(2, EventType::SEPARATOR, data, measured);
        assert_eq!(code(&log), "boot_log_separator", "{what}");
    }
}

#[test]
fn an_event_after_the_firmware_handed_over_is_refused() {
    for pcr in 0..=7 {
        let log = BootLogBuilder::typical(true).event(pcr, EventType::EFI_ACTION, "late");
        assert_eq!(code(&log), "boot_log_event_after_exit", "{pcr}");
    }
    // What comes later belongs into other PCRs, and what extends nothing does no harm.
    let log = BootLogBuilder::typical(true)
        .event(11, EventType::IPL, "phase")
        .event(0, EventType::NO_ACTION, "note");
    assert!(judge_true(&log).is_ok());
}

#[test]
fn a_failed_hand_over_may_be_tried_again() {
    let mut log = BootLogBuilder::typical(true);
    let exit = place(&mut log, |event| {
        event.data.starts_with(b"Exit Boot Services Inv")
    });
    let failed = b"Exit Boot Services Returned with Failure";
    let first = log.events_mut()[exit].clone();
    log.events_mut()
        .insert(exit, BuiltEvent::new(5, EventType::EFI_ACTION, *failed));
    log.events_mut().insert(exit, first);
    assert!(judge_true(&log).unwrap().path().is_ok());
}

#[test]
fn pcrs_that_programs_extended_after_the_log_are_told_and_not_read() {
    let log = BootLogBuilder::typical(true).event(11, EventType::IPL, "stub");
    let boot = log
        .clone()
        .event(8, EventType::IPL, "by a program")
        .event(10, EventType::IPL, "by ima")
        .event(11, EventType::IPL, "by systemd")
        .event(12, EventType::IPL, "not in the log at all");
    let pcrs = [&ALL[..], &[10]].concat();
    let judged = judge_by(&log, &boot.quoted(BANK, &pcrs)).unwrap();
    let told: Vec<u8> = judged.extended_after_log().iter().copied().collect();
    assert_eq!(told, [8, 11]);
    let replayed: Vec<u8> = judged.replayed().iter().copied().collect();
    assert_eq!(replayed, [0, 1, 2, 3, 4, 5, 6, 7, 9]);
    let parsed = parse(&log);
    assert!(judged.loaded(&parsed).iter().all(|one| one.pcr == 9));
    assert_eq!(judge_true(&log).unwrap().loaded(&parsed).len(), 5);
}

#[test]
fn the_version_of_the_firmware_is_told_only_if_its_digest_covers_it() {
    let mut log = BootLogBuilder::typical(true);
    assert_eq!(judge_true(&log).unwrap().firmware(), Some("firmware 1.0"));
    let at = place(&mut log, |event| event.kind == EventType::S_CRTM_VERSION);
    log.events_mut()[at].data = b"a newer one".to_vec();
    assert_eq!(judge_true(&log).unwrap().firmware(), None);
    let without = log.quoted(BANK, &[4, 7]);
    assert_eq!(judge_by(&log, &without).unwrap().firmware(), None);
}

#[test]
fn sha1_alone_is_never_judged_from_outside() {
    // The banks that can be asked for have no SHA-1; within the crate old vectors are judged.
    let log = BootLogBuilder::typical_in(&[], true);
    assert!(
        judge_in(
            &parse(&log),
            HashAlg::Sha1,
            &log.quoted(HashAlg::Sha1, &ALL)
        )
        .is_ok()
    );
    assert!(PcrBank::from_id(HashAlg::Sha1.id()).is_err());
}

#[test]
fn every_refusal_of_a_log_has_a_code_of_its_own() {
    let (event, pcr) = (1, 7);
    let text = String::new;
    let all = [
        BootLogRefused::Empty,
        BootLogRefused::TooLarge(1),
        BootLogRefused::TooManyEvents,
        BootLogRefused::Truncated { event },
        BootLogRefused::Header,
        BootLogRefused::EventSize { event, size: 1 },
        BootLogRefused::DigestCount { event, count: 0 },
        BootLogRefused::Algorithm { event, id: 4 },
        BootLogRefused::PcrIndex { event, pcr: 99 },
        BootLogRefused::StartupLocality { event },
        BootLogRefused::BankAbsent(BANK),
        BootLogRefused::NothingQuoted,
        BootLogRefused::LocalityMismatch { told: 0, right: 3 },
        BootLogRefused::ReplayMismatch {
            pcr,
            replayed: text(),
            quoted: text(),
        },
        BootLogRefused::SecondSeparator { event, pcr },
        BootLogRefused::Separator { event, pcr },
        BootLogRefused::AfterExit { event, pcr },
    ];
    let codes: std::collections::BTreeSet<_> = all.iter().map(BootLogRefused::code).collect();
    assert_eq!(codes.len(), all.len());
    assert!(codes.iter().all(|code| code.starts_with("boot_log_")));
}
