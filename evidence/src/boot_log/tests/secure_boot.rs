//! Secure Boot, told by logs that lie or leave out.

use super::super::signature_list::CERT_X509;
use super::super::variable::Guid;
use super::super::*;
use super::{judge_by, judge_true, place};
use crate::testing::BootLogBuilder;
use crate::testing::boot_log::{BuiltEvent, signature_list, variable_data};

const BANK: HashAlg = HashAlg::Sha256;
const DRIVER_CONFIG: EventType = EventType::EFI_VARIABLE_DRIVER_CONFIG;
const AUTHORITY: EventType = EventType::EFI_VARIABLE_AUTHORITY;

fn refusal(log: &BootLogBuilder) -> SecureBootRefused {
    let judged = judge_true(log).expect("the log is true");
    judged.secure_boot().expect_err("refused").clone()
}

fn code(log: &BootLogBuilder) -> &'static str {
    refusal(log).code()
}

fn variable_at(log: &mut BootLogBuilder, name: &str) -> usize {
    let wanted = [Guid::GLOBAL, Guid::IMAGE_SECURITY].map(|guid| variable_data(guid, name, &[]));
    place(log, |event| {
        let name_end = wanted[0].len();
        // GUID and name; the sizes between them differ.
        event.kind == DRIVER_CONFIG
            && wanted.iter().any(|start| {
                event.data.get(..24) == start.get(..24)
                    && event.data.get(32..name_end) == start.get(32..)
            })
    })
}

fn separator_of_7(log: &mut BootLogBuilder) -> usize {
    place(log, |event| {
        event.pcr == 7 && event.kind == EventType::SEPARATOR
    })
}

/// The typical boot with an event put before or after the separator of PCR 7.
fn with(event: BuiltEvent, after_separator: bool) -> BootLogBuilder {
    let mut log = BootLogBuilder::typical(true);
    let at = separator_of_7(&mut log) + usize::from(after_separator);
    log.events_mut().insert(at, event);
    log
}

#[test]
fn secure_boot_is_told_with_its_keys() {
    let judged = judge_true(&BootLogBuilder::typical(true)).unwrap();
    let state = judged.secure_boot().unwrap();
    assert!(state.is_on() && !state.dma_protection_disabled());
    assert_eq!((state.dbx().certificates, state.dbx().hashes), (0, 2));
    for store in [state.pk(), state.kek(), state.db()] {
        assert_eq!((store.certificates, store.hashes, store.others), (1, 0, 0));
    }
    let db = signature_list(CERT_X509, &[b"certificate of the vendor"]);
    assert_eq!(state.db().digest, crate::Digest::of(&db));
    let [authority] = state.authorities() else {
        panic!("one authority");
    };
    assert_eq!(
        (authority.guid, authority.variable.as_str()),
        (Guid::IMAGE_SECURITY, "db")
    );
    let off = judge_true(&BootLogBuilder::typical(false)).unwrap();
    assert!(!off.secure_boot().unwrap().is_on());
}

#[test]
fn without_pcr_7_in_the_quote_nothing_is_told() {
    let log = BootLogBuilder::typical(true);
    let judged = judge_by(&log, &log.quoted(BANK, &[0, 4, 5])).unwrap();
    assert_eq!(
        judged.secure_boot().unwrap_err().code(),
        "secure_boot_not_quoted"
    );
}

#[test]
fn an_event_of_an_unexpected_type_is_fatal() {
    for after in [false, true] {
        for kind in [
            EventType::EVENT_TAG,
            EventType::IPL,
            EventType::EFI_VARIABLE_BOOT,
            EventType::EFI_PLATFORM_FIRMWARE_BLOB,
            EventType::POST_CODE,
            EventType(0x9999),
        ] {
            let log = with(BuiltEvent::new(7, kind, "x"), after);
            assert_eq!(code(&log), "secure_boot_unexpected_event", "{kind} {after}");
        }
    }
    let late_action = with(BuiltEvent::new(7, EventType::EFI_ACTION, "x"), true);
    assert_eq!(code(&late_action), "secure_boot_unexpected_event");
}

#[test]
fn real_events_retyped_and_fakes_appended_are_refused() {
    // A machine without Secure Boot: its events are called something else, and what it lacks is extended later.
    let honest = BootLogBuilder::typical(false);
    let fakes = BootLogBuilder::new(&[BANK]).secure_boot_variables(true);
    for retyped in [
        EventType::EVENT_TAG,
        EventType::EFI_ACTION,
        AUTHORITY,
        EventType::EFI_SPDM_DEVICE_POLICY,
    ] {
        let mut log = honest.clone();
        let exit = place(&mut log, |event| {
            event.data.starts_with(b"Exit Boot Services Inv")
        });
        for event in log.events_mut() {
            if event.pcr == 7 && event.kind == DRIVER_CONFIG {
                event.kind = retyped;
            }
        }
        let mut tail = log.events_mut().split_off(exit);
        log.events_mut().append(fakes.clone().events_mut());
        log = log.authority("db", "certificate of the vendor");
        log.events_mut().append(&mut tail);
        let code = code(&log);
        assert!(
            matches!(
                code,
                "secure_boot_unexpected_event" | "secure_boot_variable_after_separator"
            ),
            "{retyped}: {code}"
        );
    }
}

#[test]
fn data_that_its_digest_does_not_cover_is_never_used() {
    // The machine measured 0; the log says 1.
    let mut log = BootLogBuilder::typical(false);
    let at = variable_at(&mut log, "SecureBoot");
    log.events_mut()[at].data = variable_data(Guid::GLOBAL, "SecureBoot", &[1]);
    assert_eq!(
        refusal(&log),
        SecureBootRefused::NotCovered { event: at + 1 }
    );
    for name in ["PK", "KEK", "db", "dbx"] {
        let mut log = BootLogBuilder::typical(true);
        let at = variable_at(&mut log, name);
        let last = log.events_mut()[at].data.len() - 1;
        log.events_mut()[at].data[last] ^= 1;
        assert_eq!(code(&log), "secure_boot_not_covered", "{name}");
    }
    let mut log = BootLogBuilder::typical(true);
    let at = place(&mut log, |event| event.kind == AUTHORITY);
    log.events_mut()[at].data[60] ^= 1;
    assert_eq!(code(&log), "secure_boot_not_covered");
    let action = BuiltEvent::over(
        7,
        EventType::EFI_ACTION,
        "DMA Protection Enabled",
        "something else",
    );
    assert_eq!(code(&with(action, false)), "secure_boot_not_covered");
}

#[test]
fn a_variable_after_the_separator_is_refused() {
    for name in ["SecureBoot", "PK", "anything"] {
        let data = variable_data(Guid::GLOBAL, name, &[1]);
        let log = with(BuiltEvent::new(7, DRIVER_CONFIG, data), true);
        assert_eq!(code(&log), "secure_boot_variable_after_separator", "{name}");
    }
}

#[test]
fn a_variable_measured_twice_is_refused() {
    for (guid, name) in [
        (Guid::GLOBAL, "SecureBoot"),
        (Guid::GLOBAL, "PK"),
        (Guid::IMAGE_SECURITY, "dbx"),
    ] {
        let data = variable_data(guid, name, &[1]);
        let log = with(BuiltEvent::new(7, DRIVER_CONFIG, data), false);
        assert_eq!(code(&log), "secure_boot_variable_twice", "{name}");
    }
}

#[test]
fn a_variable_of_another_vendor_is_not_the_one_wanted() {
    let mut log = BootLogBuilder::typical(true);
    let at = variable_at(&mut log, "SecureBoot");
    let foreign = variable_data(Guid([9; 16]), "SecureBoot", &[1]);
    log.events_mut()[at] = BuiltEvent::new(7, DRIVER_CONFIG, foreign);
    assert_eq!(refusal(&log), SecureBootRefused::Absent("SecureBoot"));
    let mut log = BootLogBuilder::typical(true);
    let at = place(&mut log, |event| event.kind == AUTHORITY);
    let foreign = variable_data(Guid([9; 16]), "db", b"certificate");
    log.events_mut()[at] = BuiltEvent::new(7, AUTHORITY, foreign);
    assert_eq!(code(&log), "secure_boot_no_authority");
}

#[test]
fn a_variable_that_is_none_is_refused() {
    for kind in [DRIVER_CONFIG, AUTHORITY, EventType::EFI_SPDM_DEVICE_POLICY] {
        let log = with(BuiltEvent::new(7, kind, "UEFI Debug Mode"), false);
        assert_eq!(code(&log), "secure_boot_variable", "{kind}");
    }
    let mut longer = variable_data(Guid::GLOBAL, "more", &[1]);
    longer.push(0);
    let log = with(BuiltEvent::new(7, DRIVER_CONFIG, longer), false);
    assert_eq!(code(&log), "secure_boot_variable");
}

#[test]
fn signature_lists_that_do_not_add_up_are_refused() {
    for (name, guid) in [
        ("PK", Guid::GLOBAL),
        ("KEK", Guid::GLOBAL),
        ("db", Guid::IMAGE_SECURITY),
        ("dbx", Guid::IMAGE_SECURITY),
    ] {
        let mut lists = signature_list(CERT_X509, &[b"certificate"]);
        // Size of the header within the list: it would shift every signature.
        lists[20] = 1;
        let mut log = BootLogBuilder::typical(true);
        let at = variable_at(&mut log, name);
        let data = variable_data(guid, name, &lists);
        log.events_mut()[at] = BuiltEvent::new(7, DRIVER_CONFIG, data);
        assert_eq!(code(&log), "secure_boot_signature_lists", "{name}");
    }
}

#[test]
fn secure_boot_of_another_value_than_0_or_1_is_refused() {
    for value in [&[][..], &[2], &[1, 0], &[0xff]] {
        let mut log = BootLogBuilder::typical(true);
        let at = variable_at(&mut log, "SecureBoot");
        let data = variable_data(Guid::GLOBAL, "SecureBoot", value);
        log.events_mut()[at] = BuiltEvent::new(7, DRIVER_CONFIG, data);
        assert_eq!(code(&log), "secure_boot_value", "{value:?}");
    }
}

#[test]
fn secure_boot_on_without_its_keys_or_an_authority_is_refused() {
    for name in ["SecureBoot", "PK", "KEK", "db", "dbx"] {
        let mut log = BootLogBuilder::typical(true);
        let at = variable_at(&mut log, name);
        log.events_mut().remove(at);
        assert_eq!(code(&log), "secure_boot_variable_absent", "{name}");
    }
    for (name, guid) in [
        ("PK", Guid::GLOBAL),
        ("KEK", Guid::GLOBAL),
        ("db", Guid::IMAGE_SECURITY),
    ] {
        let mut log = BootLogBuilder::typical(true);
        let at = variable_at(&mut log, name);
        let data = variable_data(guid, name, &[]);
        log.events_mut()[at] = BuiltEvent::new(7, DRIVER_CONFIG, data);
        assert_eq!(code(&log), "secure_boot_variable_absent", "empty {name}");
    }
    let mut log = BootLogBuilder::typical(true);
    log.events_mut().retain(|event| event.kind != AUTHORITY);
    assert_eq!(code(&log), "secure_boot_no_authority");
    // Shim's own databases are not the firmware's.
    let log = log_with_authority_of("Shim");
    assert_eq!(code(&log), "secure_boot_no_authority");
}

fn log_with_authority_of(database: &str) -> BootLogBuilder {
    let mut log = BootLogBuilder::typical(true);
    let at = place(&mut log, |event| event.kind == AUTHORITY);
    let data = variable_data(Guid::IMAGE_SECURITY, database, b"certificate");
    log.events_mut()[at] = BuiltEvent::new(7, AUTHORITY, data);
    log
}

#[test]
fn secure_boot_off_needs_neither_keys_nor_authority() {
    let mut log = BootLogBuilder::typical(false);
    for name in ["PK", "KEK", "db", "dbx"] {
        let at = variable_at(&mut log, name);
        log.events_mut().remove(at);
    }
    let judged = judge_true(&log).unwrap();
    assert!(!judged.secure_boot().unwrap().is_on());
}

#[test]
fn without_a_separator_secure_boot_is_not_told() {
    let mut log = BootLogBuilder::typical(true);
    let at = separator_of_7(&mut log);
    log.events_mut().remove(at);
    assert_eq!(code(&log), "secure_boot_no_separator");
}

#[test]
fn a_debugger_is_fatal_and_missing_dma_protection_is_told() {
    let action = |text: &str| with(BuiltEvent::new(7, EventType::EFI_ACTION, text), false);
    assert_eq!(code(&action("UEFI Debug Mode")), "secure_boot_debugger");
    let judged = judge_true(&action("DMA Protection Disabled")).unwrap();
    assert!(judged.secure_boot().unwrap().dma_protection_disabled());
}

#[test]
fn shims_byte_beyond_what_it_measured_is_forgiven_once() {
    let data = variable_data(Guid::IMAGE_SECURITY, "Shim", b"certificate");
    for (trailing, verdict) in [(1, true), (2, false)] {
        let longer = [data.as_slice(), &vec![0xaf; trailing]].concat();
        let event = BuiltEvent::over(7, AUTHORITY, longer, data.clone());
        let judged = judge_true(&with(event, true)).unwrap();
        assert_eq!(judged.secure_boot().is_ok(), verdict, "{trailing}");
    }
}

#[test]
fn more_authorities_than_the_limit_are_refused() {
    let mut log = BootLogBuilder::typical(true);
    let at = place(&mut log, |event| event.kind == AUTHORITY);
    let authority = log.events_mut()[at].clone();
    for _ in 1..super::super::secure_boot::MAX_AUTHORITIES {
        log.events_mut().insert(at, authority.clone());
    }
    assert!(judge_true(&log).unwrap().secure_boot().is_ok());
    log.events_mut().insert(at, authority);
    assert_eq!(code(&log), "secure_boot_too_many_authorities");
}

#[test]
fn every_refusal_has_a_code_of_its_own() {
    let event = 1;
    let name = String::new;
    let kind = EventType::IPL;
    let all = [
        SecureBootRefused::NotQuoted,
        SecureBootRefused::UnexpectedEvent { event, kind },
        SecureBootRefused::NotCovered { event },
        SecureBootRefused::Variable { event },
        SecureBootRefused::AfterSeparator {
            event,
            name: name(),
        },
        SecureBootRefused::Twice {
            event,
            name: name(),
        },
        SecureBootRefused::SignatureLists {
            event,
            name: name(),
        },
        SecureBootRefused::Value { event },
        SecureBootRefused::Absent("PK"),
        SecureBootRefused::NoAuthority,
        SecureBootRefused::TooManyAuthorities,
        SecureBootRefused::NoSeparator,
        SecureBootRefused::Debugger { event },
    ];
    let codes: std::collections::BTreeSet<_> = all.iter().map(SecureBootRefused::code).collect();
    assert_eq!(codes.len(), all.len());
    assert!(codes.iter().all(|code| code.starts_with("secure_boot_")));
}
