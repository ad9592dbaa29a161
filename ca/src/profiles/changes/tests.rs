use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_evidence::testing::BootLogBuilder;
use edgeward_evidence::testing::ima::ImaList;
use edgeward_evidence::tpm::HashAlg;
use edgeward_identity::Timestamp;

use super::*;

fn view(log: Option<&BootLogBuilder>, pcrs: &[(u8, &str)]) -> EvidenceView {
    EvidenceView {
        taken: Timestamp::from_secs(1_800_000_000).into(),
        code: None,
        tier: "virtual".to_owned(),
        bank: "sha256".to_owned(),
        pcrs: pcrs
            .iter()
            .map(|(pcr, value)| (*pcr, value.repeat(32)))
            .collect(),
        firmware: "0x1".to_owned(),
        secure_boot: None,
        findings: Vec::new(),
        boot_log: log.map(|log| STANDARD.encode(log.build())),
        ima: None,
    }
}

fn of(passed: Option<EvidenceView>, latest: Option<EvidenceView>) -> NodeEvidence {
    NodeEvidence {
        node: "gw-3".to_owned(),
        latest,
        passed,
    }
}

#[test]
fn without_evidence_there_is_nothing_to_tell() {
    assert!(changes(&of(None, None)).is_none());
    let only = changes(&of(None, Some(view(None, &[(0, "aa")])))).unwrap();
    assert!(only.is_empty() && only.before.is_none());
    assert!(only.notes[0].contains("ever passed"), "{:?}", only.notes);
}

#[test]
fn logs_that_are_missing_or_broken_and_other_banks_are_said_to_be() {
    let mut broken = view(None, &[]);
    broken.boot_log = Some(STANDARD.encode([1, 2, 3]));
    let log = BootLogBuilder::typical(true);
    let told = changes(&of(Some(view(Some(&log), &[])), Some(broken))).unwrap();
    assert!(told.notes[0].contains("cannot be read"), "{:?}", told.notes);
    let mut other = view(None, &[(0, "bb")]);
    other.bank = "sha384".to_owned();
    let told = changes(&of(Some(view(None, &[(0, "aa")])), Some(other))).unwrap();
    assert!(told.pcrs.is_empty());
    assert!(
        told.notes[0].contains("different banks"),
        "{:?}",
        told.notes
    );
    assert!(told.notes[1].contains("missing"), "{:?}", told.notes);
}

#[test]
fn values_events_and_terms_that_changed_are_told_and_the_rest_is_not() {
    let before = BootLogBuilder::typical(true);
    let after = BootLogBuilder::typical(true).application("\\EFI\\debian\\grubx64.efi", "new grub");
    let mut latest = view(Some(&after), &[(0, "aa"), (4, "cc"), (7, "dd"), (10, "ee")]);
    latest.firmware = "0x2".to_owned();
    latest.secure_boot = Some(false);
    latest.code = Some("profile_pcr_value".to_owned());
    let mut passed = view(
        Some(&before),
        &[(0, "aa"), (4, "bb"), (10, "ff"), (9, "99")],
    );
    passed.secure_boot = Some(true);
    let told = changes(&of(Some(passed), Some(latest))).unwrap();
    let pcrs: Vec<(u8, bool, bool)> = told
        .pcrs
        .iter()
        .map(|change| (change.pcr, change.before.is_some(), change.after.is_some()))
        .collect();
    assert_eq!(pcrs, [(4, true, true), (7, false, true), (9, true, false)]);
    assert_eq!(
        told.others,
        ["TPM firmware: 0x1 -> 0x2", "Secure Boot: on -> off"]
    );
    assert_eq!(told.events.len(), 1, "{:?}", told.events);
    let line = line_of(&told.events[0]);
    assert!(
        line.starts_with("+ PCR 4 event ") && line.contains("grubx64.efi"),
        "{line}"
    );
    assert_eq!(told.code.as_deref(), Some("profile_pcr_value"));
}

#[test]
fn new_files_are_named_once_and_counted() {
    let list = |names: &[&str]| {
        let mut list = ImaList::new();
        for name in names {
            list.add(*name, HashAlg::Sha256, &[1; 32]);
        }
        Some(STANDARD.encode(list.bytes))
    };
    let (mut passed, mut latest) = (view(None, &[]), view(None, &[]));
    passed.ima = list(&["/a"]);
    latest.ima = list(&["/a", "/b\n", "/b\n", "/c"]);
    let told = changes(&of(Some(passed), Some(latest))).unwrap();
    assert_eq!(told.files.count, 2);
    assert!(told.files.first[1].ends_with(" /c"), "{:?}", told.files);
    assert!(!told.files.first[0].contains('\n'), "{:?}", told.files);
}
