//! Malformed logs: each refused for its own reason, before anything is allocated for it.

use super::super::*;
use super::parse;
use crate::testing::BootLogBuilder;

/// Bytes of the header event: index, type, digest, size.
const LONE_PREFIX: usize = 4 + 4 + 20 + 4;

fn typical() -> Vec<u8> {
    BootLogBuilder::typical(true).build()
}

fn code(bytes: &[u8]) -> &'static str {
    BootLog::parse(bytes).expect_err("refused").code()
}

/// The second event of the log: right after the header.
fn second(log: &[u8]) -> usize {
    let size = u32::from_le_bytes(log[LONE_PREFIX - 4..LONE_PREFIX].try_into().unwrap());
    LONE_PREFIX + usize::try_from(size).unwrap()
}

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut log = typical();
    log[at..at + bytes.len()].copy_from_slice(bytes);
    log
}

#[test]
fn no_log_is_no_log() {
    assert_eq!(code(&[]), "boot_log_empty");
}

#[test]
fn a_log_above_the_cap_is_refused_before_it_is_read() {
    // Not one event of it would parse.
    let garbage = vec![0xff; MAX_BOOT_LOG_BYTES + 1];
    assert_eq!(code(&garbage), "boot_log_too_large");
    assert_ne!(code(&garbage[1..]), "boot_log_too_large");
}

#[test]
fn more_events_than_the_limit_are_refused() {
    let mut log = BootLogBuilder::new(&[]);
    for _ in 0..MAX_BOOT_LOG_EVENTS {
        log = log.event(1, EventType::EFI_ACTION, []);
    }
    assert_eq!(parse(&log).events().len(), MAX_BOOT_LOG_EVENTS);
    let one_more = log.event(1, EventType::EFI_ACTION, []);
    assert_eq!(code(&one_more.build()), "boot_log_too_many_events");
}

#[test]
fn an_event_of_any_size_is_refused_without_an_allocation() {
    let first = LONE_PREFIX - 4;
    assert_eq!(code(&patched(first, &[0xff; 4])), "boot_log_event_size");
    // Count, one algorithm, one SHA-256 digest.
    let size = second(&typical()) + 8 + 4 + 2 + 32;
    assert_eq!(code(&patched(size, &[0xff; 4])), "boot_log_event_size");
    let beyond = u32::try_from(MAX_BOOT_LOG_BYTES).unwrap();
    assert_eq!(
        code(&patched(size, &beyond.to_le_bytes())),
        "boot_log_truncated"
    );
}

#[test]
fn a_count_of_digests_that_cannot_be_is_refused() {
    let count = second(&typical()) + 8;
    for bad in [0, 2, 9, u32::MAX] {
        let log = patched(count, &bad.to_le_bytes());
        assert_eq!(code(&log), "boot_log_digest_count", "{bad}");
    }
}

#[test]
fn an_algorithm_that_is_not_in_the_header_is_refused() {
    let algorithm = second(&typical()) + 8 + 4;
    for bad in [HashAlg::Sha1.id(), HashAlg::Sha384.id(), 0, 0xffff] {
        let log = patched(algorithm, &bad.to_le_bytes());
        assert_eq!(code(&log), "boot_log_algorithm", "{bad:#x}");
    }
}

#[test]
fn a_digest_of_one_bank_given_twice_is_refused() {
    let log = BootLogBuilder::typical_in(&[HashAlg::Sha1, HashAlg::Sha256], true);
    let mut bytes = log.build();
    let second_algorithm = second(&bytes) + 8 + 4 + 2 + 20;
    bytes[second_algorithm..second_algorithm + 2]
        .copy_from_slice(&HashAlg::Sha1.id().to_le_bytes());
    assert_eq!(code(&bytes), "boot_log_algorithm");
}

#[test]
fn an_event_without_a_digest_that_others_have_is_refused() {
    // Two banks in the header; the second event has one digest, the third both.
    let both = BootLogBuilder::new(&[HashAlg::Sha1, HashAlg::Sha256]).event(
        4,
        EventType::SEPARATOR,
        [0; 4],
    );
    let both = both.build();
    let one = BootLogBuilder::new(&[HashAlg::Sha256]).event(4, EventType::SEPARATOR, [0; 4]);
    let one = one.build();
    let (header, event_of_both) = both.split_at(second(&both));
    let event_of_one = &one[second(&one)..];
    for (first, then) in [(event_of_one, event_of_both), (event_of_both, event_of_one)] {
        let log = [header, first, then].concat();
        assert_eq!(code(&log), "boot_log_digest_count");
    }
    // A bank that no event has a digest for is none.
    let log = BootLog::parse(&[header, event_of_one, event_of_one].concat()).unwrap();
    assert_eq!(log.banks().collect::<Vec<_>>(), [HashAlg::Sha256]);
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    let banks = LONE_PREFIX + 16 + 8;
    for (what, at, bytes) in [
        ("no bank", banks, 0_u32.to_le_bytes()),
        ("any number of banks", banks, u32::MAX.to_le_bytes()),
        ("nine banks", banks, 9_u32.to_le_bytes()),
        ("more banks than bytes", banks, 2_u32.to_le_bytes()),
        // Algorithm and size of the first bank.
        ("sha-256 of 20 bytes", banks + 4, [0x0b, 0, 20, 0]),
        ("unknown algorithm of no bytes", banks + 4, [0x12, 0, 0, 0]),
        ("unknown algorithm of 65 bytes", banks + 4, [0x12, 0, 65, 0]),
    ] {
        assert_eq!(code(&patched(at, &bytes)), "boot_log_header", "{what}");
    }
    let twice = BootLogBuilder::typical_in(&[HashAlg::Sha256, HashAlg::Sha256], true);
    assert_eq!(code(&twice.build()), "boot_log_header");
}

#[test]
fn vendor_data_of_another_length_than_the_header_says_is_refused() {
    let vendor_size = second(&typical()) - 1;
    // One byte of vendor data that the event's size leaves out: taken from what follows, which then is no event.
    assert!(BootLog::parse(&patched(vendor_size, &[1])).is_err());
    let mut log = typical();
    log[LONE_PREFIX - 4] += 1;
    log.insert(vendor_size + 1, 0xee);
    // Within the event's size, but not told.
    assert_eq!(code(&log), "boot_log_header");
    log[vendor_size] = 1;
    assert!(BootLog::parse(&log).is_ok());
    let cut = &patched(vendor_size, &[9])[..=vendor_size];
    assert_eq!(code(cut), "boot_log_truncated");
}

#[test]
fn a_bank_of_an_unknown_algorithm_is_skipped_by_its_length() {
    // SM3-256 instead of SHA-256: of the same length.
    let mut log = typical();
    let mut at = 0;
    while let Some(found) = log[at..].windows(4).position(|part| part == [1, 0, 0, 0]) {
        at += found + 4;
        if log[at..at + 2] == HashAlg::Sha256.id().to_le_bytes() {
            log[at..at + 2].copy_from_slice(&0x12_u16.to_le_bytes());
        }
    }
    let parsed = BootLog::parse(&log).unwrap();
    assert_eq!(parsed.banks().count(), 0);
    assert!(parsed.replay(HashAlg::Sha256).is_empty());
}

#[test]
fn a_pcr_that_there_is_not_is_refused() {
    for pcr in [24, 0xff, 0x100, u32::MAX] {
        let log = BootLogBuilder::new(&[HashAlg::Sha256]).event(pcr, EventType::EFI_ACTION, "x");
        assert_eq!(code(&log.build()), "boot_log_pcr_index", "{pcr}");
    }
    // Informative events belong to no PCR.
    let log = BootLogBuilder::new(&[HashAlg::Sha256]).event(u32::MAX, EventType::NO_ACTION, "x");
    assert_eq!(parse(&log).events().last().unwrap().pcr(), None);
}

#[test]
fn a_startup_locality_that_cannot_be_is_refused() {
    let locality = |value: &[u8]| [b"StartupLocality\0", value].concat();
    let start = || BootLogBuilder::new(&[HashAlg::Sha256]);
    let no_action = EventType::NO_ACTION;
    for (what, log) in [
        ("locality 1", start().event(0, no_action, locality(&[1]))),
        (
            "locality 255",
            start().event(0, no_action, locality(&[255])),
        ),
        ("no locality", start().event(0, no_action, locality(&[]))),
        (
            "bytes after it",
            start().event(0, no_action, locality(&[3, 0])),
        ),
        ("another pcr", start().event(1, no_action, locality(&[3]))),
        (
            "twice",
            start()
                .event(0, no_action, locality(&[3]))
                .event(0, no_action, locality(&[3])),
        ),
        (
            "after pcr 0 was extended",
            start()
                .event(0, EventType::S_CRTM_VERSION, "1")
                .event(0, no_action, locality(&[3])),
        ),
    ] {
        assert_eq!(code(&log.build()), "boot_log_startup_locality", "{what}");
    }
    let log = start()
        .event(4, EventType::SEPARATOR, [0; 4])
        .event(0, no_action, locality(&[4]));
    assert_eq!(parse(&log).startup_locality(), 4);
}

#[test]
fn a_log_cut_off_anywhere_is_refused_or_another_log() {
    let bytes = typical();
    let whole = BootLog::parse(&bytes).unwrap().replay(HashAlg::Sha256);
    let mut cut_between_events = 0;
    for cut in 0..bytes.len() {
        match BootLog::parse(&bytes[..cut]) {
            Err(refused) => assert!(
                matches!(
                    refused.code(),
                    "boot_log_empty" | "boot_log_truncated" | "boot_log_header"
                ),
                "{cut}: {refused}"
            ),
            Ok(log) => {
                cut_between_events += 1;
                assert_ne!(log.replay(HashAlg::Sha256), whole, "{cut}");
            }
        }
    }
    assert_eq!(
        cut_between_events,
        BootLog::parse(&bytes).unwrap().events().len() - 1
    );
}

#[test]
fn sha1_logs_are_read_with_or_without_a_header() {
    let without = BootLogBuilder::typical_in(&[], true);
    let log = parse(&without);
    assert_eq!(log.format(), Format::Sha1);
    assert_eq!(
        log.replay(HashAlg::Sha1).get(&7),
        Some(&without.pcrs(HashAlg::Sha1)[7])
    );
    let mut with = without;
    let old_header = b"Spec ID Event02\0 of an older specification";
    with.events_mut().insert(
        0,
        crate::testing::boot_log::BuiltEvent::new(0, EventType::NO_ACTION, *old_header),
    );
    let log = parse(&with);
    assert_eq!((log.format(), log.startup_locality()), (Format::Sha1, 0));
    assert_eq!(
        log.replay(HashAlg::Sha1).get(&7),
        Some(&with.pcrs(HashAlg::Sha1)[7])
    );
}
