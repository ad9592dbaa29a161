//! What people are shown: of one log, and between two.

use super::super::*;
use super::parse;
use crate::testing::BootLogBuilder;

const BANK: HashAlg = HashAlg::Sha256;

fn told(changes: &[Change]) -> Vec<(u8, ChangeKind, String, String)> {
    let text = |view: &Option<EventView>| {
        view.as_ref()
            .map(|view| view.text.clone())
            .unwrap_or_default()
    };
    changes
        .iter()
        .map(|change| {
            (
                change.pcr,
                change.kind,
                text(&change.before),
                text(&change.after),
            )
        })
        .collect()
}

fn boot(kernel: &str, extra: bool) -> BootLog {
    let mut log = BootLogBuilder::new(&[BANK]).grub_command("set default=0");
    if extra {
        log = log.grub_command("insmod gzio");
    }
    parse(
        &log.grub_command("boot")
            .grub_file("/vmlinuz", kernel)
            .grub_file("/initrd", "same"),
    )
}

#[test]
fn the_same_boot_has_no_changes() {
    assert_eq!(difference(&boot("1", false), &boot("1", false)), []);
    // What a log says about a digest is not evidence.
    let mut other = BootLogBuilder::typical(true);
    let same = parse(&other);
    other.events_mut()[1].data = b"another text".to_vec();
    assert_eq!(difference(&same, &parse(&other)), []);
}

#[test]
fn an_update_shows_as_the_events_that_it_changed() {
    use ChangeKind::{Added, Changed, Removed};
    let none = String::new;
    let (old, new) = (boot("1", false), boot("2", true));
    assert_eq!(
        told(&difference(&old, &new)),
        [
            (8, Added, none(), "insmod gzio".to_owned()),
            (9, Changed, "/vmlinuz".to_owned(), "/vmlinuz".to_owned()),
        ]
    );
    assert_eq!(
        told(&difference(&new, &old)),
        [
            (8, Removed, "insmod gzio".to_owned(), none()),
            (9, Changed, "/vmlinuz".to_owned(), "/vmlinuz".to_owned()),
        ]
    );
    let [change] = &difference_of(&old, &new, 9)[..] else {
        panic!("one change of PCR 9");
    };
    let digest = |content: &str| hex::encode(BANK.digest(&[content.as_bytes()]));
    assert_eq!(change.before.as_ref().unwrap().digest, digest("1"));
    assert_eq!(change.after.as_ref().unwrap().digest, digest("2"));
}

#[test]
fn every_event_of_two_strangers_is_told_once() {
    let one = parse(&BootLogBuilder::typical(true));
    let two = boot("x", true);
    let changes = difference(&one, &two);
    let extending = |log: &BootLog| log.events().filter(|event| event.pcr().is_some()).count();
    let sides = |pick: fn(&Change) -> bool| changes.iter().filter(|change| pick(change)).count();
    // Both begin with the same command.
    assert_eq!(sides(|change| change.before.is_some()), extending(&one) - 1);
    assert_eq!(sides(|change| change.after.is_some()), extending(&two) - 1);
    assert!(changes.is_sorted_by_key(|change| change.pcr));
}

#[test]
fn a_moved_event_is_told_as_gone_and_come() {
    let log = |first: &str, second: &str| {
        let log = BootLogBuilder::new(&[BANK]).grub_command("a");
        parse(
            &log.grub_command(first)
                .grub_command(second)
                .grub_command("z"),
        )
    };
    let kinds: Vec<_> = difference(&log("b", "c"), &log("c", "b"))
        .iter()
        .map(|change| change.kind)
        .collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    assert!(kinds.contains(&ChangeKind::Added) && kinds.contains(&ChangeKind::Removed));
}

#[test]
fn the_largest_logs_are_compared_in_bounded_time() {
    let many = |tag: &str| {
        let mut log = BootLogBuilder::new(&[]);
        for index in 0..MAX_BOOT_LOG_EVENTS - 1 {
            log = log.event(8, EventType::IPL, format!("{tag}{index}"));
        }
        parse(&log)
    };
    let (one, two) = (many("a"), many("b"));
    let started = std::time::Instant::now();
    assert_eq!(difference(&one, &two).len(), MAX_BOOT_LOG_EVENTS - 1);
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn logs_without_a_common_bank_differ_in_everything() {
    let one = parse(&BootLogBuilder::typical_in(&[HashAlg::Sha384], true));
    let two = parse(&BootLogBuilder::typical_in(&[HashAlg::Sha256], true));
    assert!(difference(&one, &two).len() >= one.events().len() - 1);
}

#[test]
fn descriptions_are_bounded_and_printable_whatever_the_log_says() {
    let evil: Vec<u8> = (0..=255).cycle().take(900).collect();
    let mut log = BootLogBuilder::new(&[BANK]);
    for kind in (0..0x20).chain(0x8000_0000..0x8000_0100) {
        for data in [&evil[..], &evil[..16], b"\x1b]0;x\x07\r\n", &[]] {
            log = log.event(3, EventType(kind), data);
        }
        let variable = crate::testing::boot_log::variable_data;
        let (global, name) = (super::super::variable::Guid::GLOBAL, "Boot\u{202e}0000");
        log = log.event(3, EventType(kind), variable(global, name, &evil));
    }
    let views = parse(&log).describe();
    assert_eq!(views.len(), parse(&log).events().len());
    for view in &views {
        assert!(view.text.len() < 1_600, "{}", view.text.len());
        let printable = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        assert!(printable(&view.text) && printable(&view.kind), "{view:?}");
    }
}

#[test]
fn descriptions_say_what_happened() {
    let log = parse(&BootLogBuilder::typical(true).startup_locality(3));
    let texts: Vec<String> = log
        .describe()
        .into_iter()
        .map(|view| format!("{} {}", view.kind, view.text))
        .collect();
    for wanted in [
        "EV_NO_ACTION header of the log",
        "EV_NO_ACTION TPM started at locality 3",
        "EV_S_CRTM_VERSION firmware 1.0",
        "EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot: on",
        "EV_EFI_VARIABLE_BOOT BootOrder: 0000,0001",
        "EV_SEPARATOR end of what the firmware measures",
        "EV_EFI_BOOT_SERVICES_APPLICATION \\EFI\\BOOT\\BOOTX64.EFI",
        "EV_IPL /vmlinuz-6.1 root=/dev/vda1 ro",
        "EV_EFI_ACTION Exit Boot Services Returned with Success",
    ] {
        assert!(
            texts.iter().any(|text| text == wanted),
            "{wanted}: {texts:#?}"
        );
    }
    let dbx = texts.iter().find(|text| text.contains("dbx:")).unwrap();
    assert!(
        dbx.contains("0 certificates, 2 hashes, 0 others; sha256 "),
        "{dbx}"
    );
}
