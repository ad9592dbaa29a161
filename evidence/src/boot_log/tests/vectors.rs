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
