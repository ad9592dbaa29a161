//! What was started: told only where nothing can hide.

use super::super::loader::Covered;
use super::super::*;
use super::{judge_by, judge_true, parse, place};
use crate::testing::BootLogBuilder;
use crate::testing::boot_log::BuiltEvent;

const BANK: HashAlg = HashAlg::Sha256;
const APPLICATION: EventType = EventType::EFI_BOOT_SERVICES_APPLICATION;

fn code(log: &BootLogBuilder) -> &'static str {
    let judged = judge_true(log).expect("the log is true");
    judged.path().expect_err("refused").code()
}

#[test]
fn an_image_under_another_type_hides_nothing() {
    for kind in [
        EventType::IPL,
        EventType::EVENT_TAG,
        EventType::COMPACT_HASH,
        EventType::EFI_PLATFORM_FIRMWARE_BLOB,
        EventType(0x77),
    ] {
        let mut log = BootLogBuilder::typical(true);
        let at = place(&mut log, |event| event.kind == APPLICATION);
        log.events_mut()[at].kind = kind;
        assert_eq!(code(&log), "boot_path_unexpected_event", "{kind}");
    }
    for kind in [
        EventType::EFI_ACTION,
        EventType::ACTION,
        EventType::OMIT_BOOT_DEVICE_EVENTS,
    ] {
        let mut log = BootLogBuilder::typical(true);
        let at = place(&mut log, |event| event.kind == APPLICATION);
        log.events_mut()[at].kind = kind;
        assert_eq!(code(&log), "boot_path_not_covered", "{kind}");
    }
}

#[test]
fn a_boot_that_the_firmware_does_not_end_is_not_told() {
    let mut log = BootLogBuilder::typical(true);
    log.events_mut().pop();
    assert_eq!(code(&log), "boot_path_no_exit");
    // In another PCR, of another type, or of a digest of something else it is no end.
    let text = "Exit Boot Services Returned with Success";
    for event in [
        BuiltEvent::new(4, EventType::EFI_ACTION, text),
        BuiltEvent::new(5, EventType::ACTION, text),
        BuiltEvent::over(5, EventType::EFI_ACTION, text, "x"),
    ] {
        let mut forged = log.clone();
        forged.events_mut().push(event);
        assert_eq!(code(&forged), "boot_path_no_exit");
    }
}

#[test]
fn a_boot_without_a_separator_or_outside_the_quote_is_not_told() {
    let mut log = BootLogBuilder::typical(true);
    let at = place(&mut log, |event| {
        event.pcr == 4 && event.kind == EventType::SEPARATOR
    });
    log.events_mut().remove(at);
    assert_eq!(code(&log), "boot_path_no_separator");
    let log = BootLogBuilder::typical(true);
    for pcrs in [&[0, 4, 7], &[0, 5, 7]] {
        let judged = judge_by(&log, &log.quoted(BANK, pcrs)).unwrap();
        assert_eq!(judged.path().unwrap_err().code(), "boot_path_not_quoted");
    }
}

#[test]
fn applications_are_told_by_their_digests() {
    let log = BootLogBuilder::typical(true);
    let judged = judge_true(&log).unwrap();
    let [application] = judged.path().unwrap().applications() else {
        panic!("one application");
    };
    assert_eq!(application.digest, BANK.digest(&[b"boot loader 1"]));
    assert_eq!(application.path, "\\EFI\\BOOT\\BOOTX64.EFI");
    assert_eq!(application.pcr, 4);
}

#[test]
fn only_a_text_that_was_measured_is_told_as_such() {
    let log = BootLogBuilder::typical(true);
    let loaded = judge_true(&log).unwrap().loaded(&parse(&log));
    let told: Vec<_> = loaded
        .iter()
        .map(|one| (one.pcr, one.covered, one.text.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (8, Covered::Command, "set default=0"),
            (9, Covered::Nothing, "/vmlinuz-6.1"),
            (
                8,
                Covered::KernelCommandLine,
                "/vmlinuz-6.1 root=/dev/vda1 ro"
            ),
            (9, Covered::Nothing, "/initrd.img-6.1"),
        ]
    );
    let mut log = BootLogBuilder::typical(true);
    let at = place(&mut log, |event| event.data.starts_with(b"kernel_cmdline"));
    log.events_mut()[at].data = b"kernel_cmdline: /vmlinuz-6.1 init=/bin/sh\0".to_vec();
    let judged = judge_true(&log).unwrap();
    assert!(
        judged
            .loaded(&parse(&log))
            .iter()
            .all(|one| one.covered != Covered::KernelCommandLine)
    );
}

#[test]
fn what_systemd_stub_and_the_kernel_measure_is_told() {
    let wide = |text: &str| -> Vec<u8> {
        text.encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect()
    };
    let tagged = |text: &[u8]| {
        let mut data = 0x8f3b_22ec_u32.to_le_bytes().to_vec();
        data.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        data.extend(text);
        data
    };
    let log = BootLogBuilder::new(&[BANK])
        .event(4, EventType::SEPARATOR, [0; 4])
        .event_over(11, EventType::IPL, wide(".linux"), ".linux\0")
        .event_over(11, EventType::IPL, wide(".linux"), "the kernel")
        .event(12, EventType::IPL, wide("quiet ro"))
        .event_over(
            9,
            EventType::EVENT_TAG,
            tagged(b"Linux initrd\0"),
            "the ram disk",
        );
    let loaded = judge_true(&log).unwrap().loaded(&parse(&log));
    let told: Vec<_> = loaded
        .iter()
        .map(|one| (one.covered, one.text.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Covered::Command, ".linux"),
            (Covered::Nothing, ".linux"),
            (Covered::KernelCommandLine, "quiet ro"),
            (Covered::Nothing, "Linux initrd"),
        ]
    );
}

#[test]
fn another_log_than_the_one_judged_tells_nothing() {
    let log = BootLogBuilder::typical(true);
    let judged = judge_true(&log).unwrap();
    let other = BootLogBuilder::typical(true).grub_file("/evil", "a file that was not measured");
    let told = judged.loaded(&parse(&other));
    assert!(told.iter().all(|one| one.pcr == 8), "{told:?}");
    assert_eq!(judged.loaded(&parse(&BootLogBuilder::new(&[BANK]))), []);
}

#[test]
fn more_images_than_the_limit_are_not_told() {
    let mut log = BootLogBuilder::typical(true);
    let at = place(&mut log, |event| event.kind == APPLICATION);
    let image = log.events_mut()[at].clone();
    for _ in 1..super::super::path::MAX_APPLICATIONS {
        log.events_mut().insert(at, image.clone());
    }
    assert!(judge_true(&log).unwrap().path().is_ok());
    log.events_mut().insert(at, image);
    assert_eq!(code(&log), "boot_path_too_many");
}
