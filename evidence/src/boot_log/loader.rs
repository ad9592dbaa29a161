//! What boot loaders measured: kernels, their initial RAM disks, command lines (GRUB: PCRs 8 and 9; systemd-boot and its
//! stub: 11 and 12; the kernel's own EFI stub: 9).

use std::collections::BTreeSet;

use super::event::{Event, EventType};
use super::little::Little;
use super::{BootLog, text};
use crate::tpm::HashAlg;

/// PCRs that boot loaders use.
pub(super) const LOADER_PCRS: [u8; 6] = [8, 9, 11, 12, 13, 14];
/// GRUB says what it measured, then the text that it measured.
const GRUB_PREFIXES: [(&[u8], Covered); 2] = [
    (b"kernel_cmdline: ", Covered::KernelCommandLine),
    (b"grub_cmd: ", Covered::Command),
];

/// One thing that a boot loader measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedFile {
    /// Its place in the log.
    pub event: usize,
    pub pcr: u8,
    /// In the bank judged: what the TPM saw.
    pub digest: Vec<u8>,
    pub covered: Covered,
    /// The text measured where `covered` says that the digest is of it; else a name for people only. Bounded and
    /// printable.
    pub text: String,
}

/// What the digest is a digest of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covered {
    /// Something that is not in the log: a file, most likely.
    Nothing,
    /// The command line of the kernel that was started.
    KernelCommandLine,
    /// A command of the boot loader, or another text.
    Command,
}

/// Only events of these PCRs: those that replay.
pub(super) fn read(log: &BootLog, bank: HashAlg, pcrs: &BTreeSet<u8>) -> Vec<LoadedFile> {
    log.events()
        .filter_map(|event| {
            let pcr = event.pcr()?;
            let is_loaders = pcrs.contains(&pcr);
            let is_of_type = matches!(event.kind(), EventType::IPL | EventType::EVENT_TAG);
            if !(is_loaders && is_of_type) {
                return None;
            }
            let (covered, text) = text_of(&event, bank);
            Some(LoadedFile {
                event: event.index(),
                pcr,
                digest: event.digest(bank)?.to_vec(),
                covered,
                text,
            })
        })
        .collect()
}

/// What the event says, and whether its digest says so, too.
pub(super) fn text_of(event: &Event<'_>, bank: HashAlg) -> (Covered, String) {
    let data = event.data();
    let without_zero = data.strip_suffix(&[0]).unwrap_or(data);
    for (prefix, covered) in GRUB_PREFIXES {
        if let Some(measured) = without_zero.strip_prefix(prefix)
            && event.covers(bank, measured)
        {
            return (covered, text::ascii(measured));
        }
    }
    if event.covers(bank, data)
        || (without_zero != data && event.covers(bank, without_zero))
        || narrow(data).is_some_and(|name| event.covers(bank, &name))
    {
        // systemd-stub measures command lines, and nothing else, into PCR 12.
        let covered = match (event.pcr(), event.kind()) {
            (Some(12), EventType::IPL) => Covered::KernelCommandLine,
            _ => Covered::Command,
        };
        return (covered, text::guess(data));
    }
    (Covered::Nothing, name(event))
}

/// ASCII in UTF-16 as ASCII: systemd-stub measures the one and logs the other for the names of its sections.
fn narrow(data: &[u8]) -> Option<Vec<u8>> {
    let high_bytes = data.iter().skip(1).step_by(2);
    let is_wide = data.len() > 2 && high_bytes.clone().all(|byte| *byte == 0);
    is_wide.then(|| data.iter().step_by(2).copied().collect())
}

/// The name that goes with a digest of something else.
fn name(event: &Event<'_>) -> String {
    let mut reader = Little::new(event.data());
    if event.kind() == EventType::EVENT_TAG {
        // `TCG_PCClientTaggedEvent`: an id, a size, a text.
        let tagged = reader
            .u32()
            .and_then(|_| reader.len_u32())
            .and_then(|size| reader.take(size));
        if let Some(tagged) = tagged {
            return text::guess(tagged);
        }
    }
    text::guess(event.data())
}
