//! Boot logs a second on one core: read, replayed and judged against quoted PCRs.
//!
//! `cargo run --release -p edgeward-evidence --features testing --example boot_log_rate [LOG...]`
//!
//! Without arguments a made log of 100 kB in the banks SHA-1 and SHA-256, with a dbx of 23 kB and GRUB's commands, as
//! machines with Linux have it. With arguments real logs, judged against their own replay.
#![expect(clippy::print_stdout, reason = "prints its figures")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use edgeward_evidence::boot_log::signature_list::{CERT_SHA256, CERT_X509};
use edgeward_evidence::boot_log::variable::Guid;
use edgeward_evidence::boot_log::{BootLog, EventType, difference, judge};
use edgeward_evidence::testing::BootLogBuilder;
use edgeward_evidence::testing::boot_log::{signature_list, variable_data};
use edgeward_evidence::tpm::{HashAlg, PcrBank};

/// How long each figure is measured.
const EACH: Duration = Duration::from_secs(2);
/// Size of the made log, in bytes.
const BYTES: usize = 100_000;
/// PCRs that a node is asked for.
const PCRS: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];

fn main() {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        let log = made();
        let quoted = log.quoted(HashAlg::Sha256, &PCRS);
        rate("made", &log.build(), PcrBank::Sha256, &quoted);
    }
    for file in files {
        let bytes = std::fs::read(&file).expect("a file");
        let log = BootLog::parse(&bytes).expect("a boot log");
        let quoted = log.replay(HashAlg::Sha256);
        rate(&file, &bytes, PcrBank::Sha256, &quoted);
    }
}

fn rate(name: &str, bytes: &[u8], bank: PcrBank, quoted: &BTreeMap<u8, Vec<u8>>) {
    let log = BootLog::parse(bytes).expect("a boot log");
    let judged = judge(&log, bank, quoted).expect("a true log");
    let on = judged.secure_boot().map(|state| state.is_on());
    println!(
        "{name}: {} bytes, {} events, secure boot {on:?}",
        bytes.len(),
        log.events().len()
    );
    measure("read, replayed and judged", || {
        let log = BootLog::parse(bytes).expect("a boot log");
        judge(&log, bank, quoted).expect("a true log");
    });
    measure("read", || drop(BootLog::parse(bytes).expect("a boot log")));
    measure("replayed", || drop(log.replay(bank.hash())));
    measure("described", || drop(log.describe()));
    measure("compared with itself", || drop(difference(&log, &log)));
}

fn made() -> BootLogBuilder {
    let banks = [HashAlg::Sha1, HashAlg::Sha256];
    let mut log = BootLogBuilder::typical_in(&banks, true);
    let hashes = vec![[7_u8; 32]; 480];
    let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
    let certificate = [3; 1_500];
    let stores = [
        ("dbx", signature_list(CERT_SHA256, &hashes)),
        (
            "db",
            signature_list(CERT_X509, &[certificate.as_slice(); 4]),
        ),
    ];
    for (name, lists) in stores {
        let data = variable_data(Guid::IMAGE_SECURITY, name, &lists);
        let start = variable_data(Guid::IMAGE_SECURITY, name, &[]);
        for event in log.events_mut() {
            let is_it = event.kind == EventType::EFI_VARIABLE_DRIVER_CONFIG
                && event.data.get(..24) == start.get(..24)
                && event.data.get(32..start.len()) == start.get(32..);
            if is_it {
                event.data.clone_from(&data);
                event.measured.clone_from(&data);
            }
        }
    }
    let all = log.events_mut();
    let exit = all.split_off(all.len() - 2);
    let mut number = 0;
    while log.build().len() < BYTES {
        log = log
            .grub_command(&format!(
                "menuentry {number} --class gnu-linux --unrestricted"
            ))
            .grub_file(
                &format!("(hd0,gpt1)/boot/grub/x86_64-efi/{number}.mod"),
                "module",
            );
        number += 1;
    }
    log.events_mut().extend(exit);
    log
}

fn measure(what: &str, mut once: impl FnMut()) {
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < EACH {
        once();
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    println!("  {what}: {rate:.0} a second on one core");
}
