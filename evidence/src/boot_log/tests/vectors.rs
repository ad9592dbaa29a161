//! Logs of real machines.

use std::collections::BTreeMap;

use super::super::judge::judge_in;
use super::super::*;
use crate::vectors::read;

const FOLDER: &str = "uefi-eventlogs";

type Pcrs = BTreeMap<String, BTreeMap<u8, String>>;

#[derive(serde::Deserialize)]
struct Expected {
    #[serde(default)]
    parse: Option<String>,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    events: usize,
    #[serde(default)]
    pcrs: Pcrs,
    #[serde(default)]
    efi_boot_app_digests: BTreeMap<String, Vec<String>>,
}

fn expected() -> Option<BTreeMap<String, Expected>> {
    let file = read(&format!("{FOLDER}/expected-pcrs.json"))?;
    Some(serde_json::from_slice(&file).unwrap())
}

fn bytes(name: &str) -> Option<Vec<u8>> {
    let bytes = read(&format!("{FOLDER}/{name}"))?;
    if !name.ends_with(".b64") {
        return Some(bytes);
    }
    use base64::Engine as _;
    let text: Vec<u8> = bytes
        .into_iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    Some(
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap(),
    )
}

fn bank(name: &str) -> HashAlg {
    HashAlg::ALL
        .into_iter()
        .find(|alg| alg.name() == name)
        .unwrap()
}

fn hexed(pcrs: &BTreeMap<u8, Vec<u8>>) -> BTreeMap<u8, String> {
    pcrs.iter()
        .map(|(pcr, value)| (*pcr, hex::encode(value)))
        .collect()
}

#[test]
fn every_real_log_replays_to_its_pcrs_in_every_bank() {
    let Some(expected) = expected() else {
        return;
    };
    assert_eq!(expected.len(), 22);
    for (name, expected) in expected {
        let log = BootLog::parse(&bytes(&name).unwrap());
        if expected.parse.as_deref() == Some("fails") {
            assert_eq!(log, Err(BootLogRefused::Empty), "{name}");
            continue;
        }
        let log = log.unwrap_or_else(|refused| panic!("{name}: {refused}"));
        let format = match log.format() {
            Format::Sha1 => "sha1-only",
            Format::CryptoAgile => "crypto-agile",
        };
        assert_eq!(Some(format), expected.format.as_deref(), "{name}");
        assert_eq!(log.events().len(), expected.events, "{name}");
        for alg in HashAlg::ALL {
            let replayed = hexed(&log.replay(alg));
            let told = expected.pcrs.get(alg.name()).cloned().unwrap_or_default();
            assert_eq!(replayed, told, "{name} {}", alg.name());
        }
    }
}

/// Judges a log against the PCR values that it replays to itself.
fn judge_itself(name: &str, bank: HashAlg) -> Option<JudgedBoot> {
    let log = BootLog::parse(&bytes(name)?).unwrap();
    Some(
        judge_in(&log, bank, &log.replay(bank))
            .unwrap_or_else(|refused| panic!("{name}: {refused}")),
    )
}

#[test]
fn boot_applications_are_those_that_are_known() {
    let Some(expected) = expected() else {
        return;
    };
    for (name, expected) in expected {
        for (alg, digests) in expected.efi_boot_app_digests {
            let file = bytes(&name).unwrap();
            let log = BootLog::parse(&file).unwrap();
            if name == "go-tpm-tools/gdc-host.bin" {
                // The digests told for it are of another log: none of them occurs in this one.
                for digest in digests {
                    let digest = hex::decode(digest).unwrap();
                    assert!(!file.windows(digest.len()).any(|part| part == digest));
                }
                continue;
            }
            let bank = bank(&alg);
            let found: Vec<String> = log
                .events()
                .filter(|event| event.kind() == EventType::EFI_BOOT_SERVICES_APPLICATION)
                .map(|event| hex::encode(event.digest(bank).unwrap()))
                .collect();
            assert_eq!(found, digests, "{name} {alg}");
            let judged = judge_itself(&name, bank).unwrap();
            match judged.path() {
                Ok(path) => {
                    let applications = path.applications().iter();
                    let found: Vec<String> =
                        applications.map(|one| hex::encode(&one.digest)).collect();
                    assert_eq!(found, digests, "{name} {alg}");
                }
                // It does not say when the firmware handed over.
                Err(refused) => {
                    assert_eq!(refused.code(), "boot_path_no_exit");
                    assert_eq!(name, "go-tpm-tools/debian-10.bin");
                }
            }
        }
    }
}

#[test]
fn secure_boot_of_real_machines_is_judged_as_it_was() {
    for (name, bank, verdict) in [
        (
            "go-eventlog/coreos_36_shielded_vm_no_secure_boot_eventlog",
            HashAlg::Sha256,
            "off",
        ),
        (
            "go-eventlog/crypto_agile_eventlog",
            HashAlg::Sha256,
            "secure_boot_value",
        ),
        (
            "go-eventlog/ebs_event_missing_eventlog",
            HashAlg::Sha1,
            "off",
        ),
        ("go-eventlog/option_rom_eventlog", HashAlg::Sha1, "on"),
        (
            "go-tpm-tools/arch-linux-workstation.bin",
            HashAlg::Sha256,
            "secure_boot_value",
        ),
        ("go-tpm-tools/cos-85-amd-sev.bin", HashAlg::Sha384, "on"),
        ("go-tpm-tools/debian-10.bin", HashAlg::Sha1, "on"),
        ("go-tpm-tools/gdc-host.bin", HashAlg::Sha256, "off"),
        ("go-tpm-tools/glinux-alex.bin", HashAlg::Sha256, "off"),
        (
            "go-tpm-tools/ubuntu-2104-no-secure-boot.bin",
            HashAlg::Sha384,
            "off",
        ),
        ("keylime/binary_bios_measurements", HashAlg::Sha256, "off"),
        (
            "keylime/binary_bios_measurements-secureboot",
            HashAlg::Sha256,
            "on",
        ),
        ("keylime/mb_log.b64", HashAlg::Sha256, "on"),
        (
            "tpm2-tools/event-arch-linux.bin",
            HashAlg::Sha256,
            "secure_boot_value",
        ),
        ("tpm2-tools/event-bootorder.bin", HashAlg::Sha256, "off"),
        (
            "tpm2-tools/event-uefi-sha1-log.bin",
            HashAlg::Sha1,
            "secure_boot_value",
        ),
        (
            "tpm2-tools/event-uefivar.bin",
            HashAlg::Sha256,
            "secure_boot_no_separator",
        ),
    ] {
        let Some(judged) = judge_itself(name, bank) else {
            return;
        };
        let found = match judged.secure_boot() {
            Ok(state) if state.is_on() => "on",
            Ok(_) => "off",
            Err(refused) => refused.code(),
        };
        assert_eq!(found, verdict, "{name}: {:?}", judged.secure_boot());
    }
}

#[test]
fn a_log_that_lacks_an_event_is_refused_by_the_real_value() {
    let Some(file) = read(&format!("{FOLDER}/expected-pcrs.json")) else {
        return;
    };
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let name = "go-eventlog/ebs_event_missing_eventlog";
    let log = BootLog::parse(&bytes(name).unwrap()).unwrap();
    let mut quoted = log.replay(HashAlg::Sha1);
    assert!(judge_in(&log, HashAlg::Sha1, &quoted).is_ok());
    let real = hex::decode(file[name]["tpm_pcr5_sha1"].as_str().unwrap()).unwrap();
    quoted.insert(5, real);
    let refused = judge_in(&log, HashAlg::Sha1, &quoted).unwrap_err();
    assert!(
        matches!(refused, BootLogRefused::ReplayMismatch { pcr: 5, .. }),
        "{refused}"
    );
}

#[test]
fn logs_of_known_particulars_have_them() {
    let parse = |name: &str| Some(BootLog::parse(&bytes(name)?).unwrap());
    let Some(lone) = parse("go-eventlog/short_no_action_eventlog") else {
        return;
    };
    assert_eq!((lone.events().len(), lone.startup_locality()), (1, 3));
    for name in [
        "go-tpm-tools/gdc-host.bin",
        "go-tpm-tools/glinux-alex.bin",
        "keylime/binary_bios_measurements",
    ] {
        assert_eq!(parse(name).unwrap().startup_locality(), 3, "{name}");
    }
    let vendor = parse("tpm2-tools/specid-vendordata.bin").unwrap();
    let header = vendor.events().next().unwrap();
    assert!(header.data().ends_with(&[4, 0xde, 0xad, 0xbe, 0xef]));
    assert_eq!(vendor.banks().count(), 2);
    // The version of the firmware is not what was measured.
    let judged = judge_itself("go-tpm-tools/gdc-host.bin", HashAlg::Sha256).unwrap();
    assert_eq!(judged.firmware(), None);
    assert!(judged.secure_boot().unwrap().dma_protection_disabled());
    let judged = judge_itself("go-tpm-tools/cos-85-amd-sev.bin", HashAlg::Sha256).unwrap();
    assert_eq!(judged.firmware(), Some("GCE Virtual Firmware v1"));
    // Of these two only one image differs; the last event of both does not measure what it says.
    let (one, two) = (
        parse("go-tpm-tools/arch-linux-workstation.bin").unwrap(),
        parse("tpm2-tools/event-arch-linux.bin").unwrap(),
    );
    let changes: Vec<(u8, ChangeKind)> = difference(&one, &two)
        .iter()
        .map(|change| (change.pcr, change.kind))
        .collect();
    assert_eq!(changes, [(4, ChangeKind::Changed)]);
    for log in [one, two] {
        assert!(!log.describe().last().unwrap().covered);
    }
}

#[test]
fn a_driver_from_an_option_rom_and_its_authorities_are_told() {
    let name = "go-eventlog/option_rom_eventlog";
    let Some(judged) = judge_itself(name, HashAlg::Sha1) else {
        return;
    };
    let state = judged.secure_boot().unwrap();
    assert_eq!(state.authorities().len(), 2);
    assert!(
        state
            .authorities()
            .iter()
            .all(|authority| authority.variable == "db")
    );
    let log = BootLog::parse(&bytes(name).unwrap()).unwrap();
    let views = log.describe();
    let authorities: Vec<&str> = views
        .iter()
        .filter(|view| view.kind == "EV_EFI_VARIABLE_AUTHORITY")
        .map(|view| view.text.as_str())
        .collect();
    let names = [
        "Microsoft Corporation UEFI CA 2011",
        "Microsoft Windows Production PCA 2011",
    ];
    for (text, name) in authorities.iter().zip(names) {
        assert!(
            text.starts_with("db: certificate of ") && text.contains(name),
            "{text}"
        );
    }
    let drivers: Vec<String> = views
        .into_iter()
        .filter(|view| view.kind == "EV_EFI_BOOT_SERVICES_DRIVER")
        .map(|view| view.text)
        .collect();
    assert!(
        matches!(&drivers[..], [path] if path.contains("Pci(")),
        "{drivers:?}"
    );
}

#[test]
fn kernels_and_command_lines_of_real_machines_are_told() {
    let name = "go-tpm-tools/gdc-host.bin";
    let Some(judged) = judge_itself(name, HashAlg::Sha256) else {
        return;
    };
    let loaded = judged.loaded(&BootLog::parse(&bytes(name).unwrap()).unwrap());
    let lines: Vec<&str> = loaded
        .iter()
        .filter(|one| one.covered == super::super::loader::Covered::KernelCommandLine)
        .map(|one| one.text.as_str())
        .collect();
    assert!(
        matches!(&lines[..], [line] if line.starts_with("/vmlinuz-6.9.0-rc7+ root=")),
        "{lines:?}"
    );
    let mut files = loaded.iter().filter(|one| one.pcr == 9);
    assert!(files.any(|one| one.text == "Linux initrd"));
}

/// `Field: value` of every event in tpm2-tools' text, in order; what follows `pcrs:` is no event.
fn fields(text: &str, field: &str) -> Vec<String> {
    let events = text.split("\npcrs:").next().unwrap();
    events
        .lines()
        .map(|line| line.trim_start_matches([' ', '-']))
        .filter_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
        .map(|value| value.trim_matches('"').to_owned())
        .collect()
}

#[test]
fn events_are_those_that_tpm2_tools_reads() {
    let mut compared = 0;
    for name in [
        "event-arch-linux",
        "event-bootorder",
        "event-uefiaction",
        "event-uefiservices",
        "event-uefivar",
    ] {
        let Some(text) = read(&format!("{FOLDER}/tpm2-tools/event-raw/{name}.bin.yaml")) else {
            return;
        };
        let text = String::from_utf8(text).unwrap();
        let log = BootLog::parse(&bytes(&format!("tpm2-tools/{name}.bin")).unwrap()).unwrap();
        let kinds: Vec<String> = log.events().map(|event| event.kind().to_string()).collect();
        assert_eq!(kinds, fields(&text, "EventType"), "{name}");
        let sizes: Vec<String> = log
            .events()
            .map(|event| event.data().len().to_string())
            .collect();
        assert_eq!(sizes, fields(&text, "EventSize"), "{name}");
        let digests: Vec<String> = log
            .events()
            .skip(1)
            .flat_map(|event| {
                log.banks()
                    .map(move |bank| hex::encode(event.digest(bank).unwrap()))
            })
            .collect();
        // The first is the header's.
        assert_eq!(digests, fields(&text, "Digest")[1..], "{name}");
        compared += kinds.len();
    }
    assert!(compared > 130);
}

#[test]
fn logs_beside_real_quotes_replay_to_what_was_quoted() {
    for (name, secure_boot, missing) in [
        (
            "windows_gcp_shielded_vm",
            Ok(true),
            "boot_path_no_separator",
        ),
        ("linux_tpm12", Err("secure_boot_not_covered"), ""),
    ] {
        let Some(file) = read(&format!("tpm-quotes/go-eventlog/{name}.json")) else {
            return;
        };
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let decode = crate::vectors::base64;
        let log = BootLog::parse(&decode(&file["Log"]["Raw"])).unwrap();
        let quoted: BTreeMap<u8, Vec<u8>> = file["Log"]["PCRs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pcr| {
                let index = pcr["Index"].as_u64().unwrap();
                (u8::try_from(index).unwrap(), decode(&pcr["Digest"]))
            })
            .collect();
        assert_eq!(quoted.len(), 24);
        let judged = judge_in(&log, HashAlg::Sha1, &quoted).unwrap();
        assert!(
            (0..=7).all(|pcr| judged.replayed().contains(&pcr)),
            "{name}"
        );
        assert_eq!(judged.extended_after_log().len(), 0, "{name}");
        let told = judged.secure_boot().map(SecureBoot::is_on);
        assert_eq!(told.map_err(SecureBootRefused::code), secure_boot, "{name}");
        let path = judged.path().err().map(BootPathRefused::code);
        assert_eq!(path.unwrap_or_default(), missing, "{name}");
        for pcr in 0..=7 {
            let mut other = quoted.clone();
            other.get_mut(&pcr).unwrap()[0] ^= 1;
            let refused = judge_in(&log, HashAlg::Sha1, &other).unwrap_err();
            assert_eq!(refused.code(), "boot_log_replay_mismatch");
        }
    }
}

#[test]
fn the_log_beside_the_quotes_of_a_cloud_machine_replays_to_them() {
    use crate::vectors::{field, protobuf};
    let Some(file) = read("tpm-quotes/go-tpm-tools/gce-cos-85-no-nonce.pb") else {
        return;
    };
    let fields = protobuf(&file);
    let log = BootLog::parse(field(&fields, 3)).unwrap();
    let quotes: Vec<_> = fields.iter().filter(|(number, _)| *number == 2).collect();
    let banks = [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384];
    for ((_, quote), bank) in quotes.into_iter().zip(banks) {
        let parts = protobuf(quote);
        let pcrs = protobuf(field(&parts, 3));
        // Entries of a map: number (left out where it is 0), value.
        let quoted: BTreeMap<u8, Vec<u8>> = pcrs
            .iter()
            .map(|(_, entry)| {
                let pcr = if entry[0] == 0x08 { entry[1] } else { 0 };
                (pcr, field(&protobuf(entry), 2).to_vec())
            })
            .collect();
        assert_eq!((quoted.len(), quoted[&0].len()), (24, bank.digest_len()));
        let judged = judge_in(&log, bank, &quoted).unwrap();
        assert!((0..=9).all(|pcr| judged.replayed().contains(&pcr)));
        assert!(judged.secure_boot().unwrap().is_on());
        assert!(judged.path().is_ok());
    }
}

#[test]
fn no_real_log_cut_or_altered_anywhere_is_read_as_the_same() {
    let Some(expected) = expected() else {
        return;
    };
    for name in expected.keys() {
        let file = bytes(name).unwrap();
        let Ok(log) = BootLog::parse(&file) else {
            continue;
        };
        let bank = log.shown_bank();
        let truth = log.replay(bank);
        let Ok(before) = judge_in(&log, bank, &truth) else {
            assert!(truth.keys().all(|pcr| *pcr > 7), "{name}");
            continue;
        };
        let stride = (file.len() / 150).max(1);
        for at in (0..file.len()).step_by(stride) {
            if let Ok(cut) = BootLog::parse(&file[..at]) {
                assert!(cut.replay(bank) != truth || truth.is_empty(), "{name} {at}");
            }
            let mut altered = file.clone();
            altered[at] ^= 0xff;
            if let Ok(altered) = BootLog::parse(&altered) {
                // Refused, or nothing else is believed than before.
                let told = judge_in(&altered, bank, &truth).ok();
                let state = told.as_ref().and_then(|told| told.secure_boot().ok());
                assert!(
                    state.is_none() || state == before.secure_boot().ok(),
                    "{name} {at}"
                );
                // Whatever it says now, nothing of it panics.
                let _ = judge_in(&altered, bank, &altered.replay(bank));
                drop(altered.describe());
            }
        }
    }
}
