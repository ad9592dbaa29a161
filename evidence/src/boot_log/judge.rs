//! What of a log is true: the only maker of [`JudgedBoot`].

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Event, EventType};
use super::loader::{self, LOADER_PCRS, LoadedFile};
use super::path::{self, BootPath};
use super::refusal::{BootLogRefused, BootPathRefused, SecureBootRefused};
use super::secure_boot::{self, SecureBoot};
use super::{BootLog, text};
use crate::tpm::{HashAlg, PcrBank};

/// PCRs that only the firmware and what it starts extend, before the operating system runs: there the log must say
/// all of it. Others are extended later by programs that write no such log.
pub const FIRMWARE_PCRS: std::ops::RangeInclusive<u8> = 0..=7;
/// Extended by Linux IMA, which keeps a list of its own.
const IMA_PCR: u8 = 10;

/// The separators that firmware may measure (PFP, 10.4.1): it goes on to boot.
const SEPARATORS: [[u8; 4]; 2] = [[0; 4], [0xff; 4]];
const EXIT_SUCCEEDED: &[u8] = b"Exit Boot Services Returned with Success";

/// A log that replays to PCR values which a TPM signed, and what it says where its digests cover it.
///
/// Secure Boot and the boot path are results of their own: a log may be true and still not tell them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedBoot {
    bank: HashAlg,
    /// What the firmware's PCRs were when it was judged.
    values: BTreeMap<u8, Vec<u8>>,
    replayed: BTreeSet<u8>,
    extended_after_log: BTreeSet<u8>,
    firmware: Option<String>,
    secure_boot: Result<SecureBoot, SecureBootRefused>,
    path: Result<BootPath, BootPathRefused>,
    /// What the log gives for PCRs beyond the firmware's, whoever went on with them.
    left: BTreeMap<u8, Vec<u8>>,
    /// Values of PCRs that boot loaders extend and that replayed.
    loader_values: BTreeMap<u8, Vec<u8>>,
}

/// Replays the log against quoted PCR values of one bank, and reads it.
///
/// Every quoted PCR of [`FIRMWARE_PCRS`] must replay exactly. Another one that the log extends, too, but that has gone
/// on since is told in [`JudgedBoot::extended_after_log`], and nothing is read from its events.
pub fn judge(
    log: &BootLog,
    bank: PcrBank,
    quoted: &BTreeMap<u8, Vec<u8>>,
) -> Result<JudgedBoot, BootLogRefused> {
    judge_in(log, bank.hash(), quoted)
}

pub(super) fn judge_in(
    log: &BootLog,
    bank: HashAlg,
    quoted: &BTreeMap<u8, Vec<u8>>,
) -> Result<JudgedBoot, BootLogRefused> {
    let (replayed, extended_after_log) = compare(log, bank, quoted)?;
    check_order(log, bank, &replayed)?;
    let of = |pcr: u8| replayed.contains(&pcr);
    let firmware_pcrs = quoted.iter().filter(|(pcr, _)| FIRMWARE_PCRS.contains(pcr));
    Ok(JudgedBoot {
        bank,
        values: firmware_pcrs
            .map(|(pcr, value)| (*pcr, value.clone()))
            .collect(),
        firmware: of(0).then(|| firmware(log, bank)).flatten(),
        secure_boot: if of(7) {
            secure_boot::read(log, bank)
        } else {
            Err(SecureBootRefused::NotQuoted)
        },
        path: if of(4) && of(5) {
            path::read(log, bank)
        } else {
            Err(BootPathRefused::NotQuoted)
        },
        loader_values: quoted
            .iter()
            .filter(|(pcr, _)| LOADER_PCRS.contains(pcr) && replayed.contains(pcr))
            .map(|(pcr, value)| (*pcr, value.clone()))
            .collect(),
        left: log
            .replay(bank)
            .into_iter()
            .filter(|(pcr, _)| !FIRMWARE_PCRS.contains(pcr))
            .collect(),
        replayed,
        extended_after_log,
    })
}

impl JudgedBoot {
    /// The bank in which all was compared.
    pub fn bank(&self) -> HashAlg {
        self.bank
    }

    /// Whether what was judged holds for these quoted values, too: the firmware's PCRs have not changed since.
    pub fn is_of(&self, bank: PcrBank, quoted: &BTreeMap<u8, Vec<u8>>) -> bool {
        bank.hash() == self.bank
            && self
                .values
                .iter()
                .all(|(pcr, value)| quoted.get(pcr) == Some(value))
    }

    /// Quoted PCRs whose value is exactly what the log says.
    pub fn replayed(&self) -> &BTreeSet<u8> {
        &self.replayed
    }

    /// Quoted PCRs beyond the firmware's that the log extends, but not to the quoted value: programs went on.
    pub fn extended_after_log(&self) -> &BTreeSet<u8> {
        &self.extended_after_log
    }

    /// What the log says that the boot left in a PCR, with which programs may have gone on since. Nothing vouches for it
    /// by itself: whoever goes on from here must come to the quoted value. `None`: the log does not extend it.
    pub fn left(&self, pcr: u8) -> Option<&[u8]> {
        self.left.get(&pcr).map(Vec::as_slice)
    }

    /// The firmware's version, where its digest covers it; bounded and printable.
    pub fn firmware(&self) -> Option<&str> {
        self.firmware.as_deref()
    }

    /// Secure Boot: on or off, with its keys; or why that cannot be told.
    pub fn secure_boot(&self) -> Result<&SecureBoot, &SecureBootRefused> {
        self.secure_boot.as_ref()
    }

    /// What the firmware started, in order; or why that cannot be told.
    pub fn path(&self) -> Result<&BootPath, &BootPathRefused> {
        self.path.as_ref()
    }

    /// Files and command lines that boot loaders measured, read from the log that was judged: nothing is read of a PCR
    /// that another log replays otherwise. Not kept, since there are hundreds for every node.
    pub fn loaded(&self, log: &BootLog) -> Vec<LoadedFile> {
        let values = log.replay(self.bank);
        let true_in_log: BTreeSet<u8> = self
            .loader_values
            .iter()
            .filter(|(pcr, value)| values.get(pcr) == Some(value))
            .map(|(pcr, _)| *pcr)
            .collect();
        loader::read(log, self.bank, &true_in_log)
    }
}

type Compared = (BTreeSet<u8>, BTreeSet<u8>);

fn compare(
    log: &BootLog,
    bank: HashAlg,
    quoted: &BTreeMap<u8, Vec<u8>>,
) -> Result<Compared, BootLogRefused> {
    if !log.banks().any(|known| known == bank) {
        return Err(BootLogRefused::BankAbsent(bank));
    }
    if !quoted.keys().any(|pcr| FIRMWARE_PCRS.contains(pcr)) {
        return Err(BootLogRefused::NothingQuoted);
    }
    let values = log.replay(bank);
    let (mut replayed, mut extended_after_log) = (BTreeSet::new(), BTreeSet::new());
    for (pcr, quoted) in quoted {
        let told = values.get(pcr);
        if told == Some(quoted) {
            replayed.insert(*pcr);
        } else if FIRMWARE_PCRS.contains(pcr) {
            let value = told.cloned().unwrap_or_else(|| log.reset_value(bank, *pcr));
            if value != *quoted {
                return Err(mismatch(log, bank, *pcr, &value, quoted));
            }
            replayed.insert(*pcr);
        } else if told.is_some() && *pcr != IMA_PCR {
            extended_after_log.insert(*pcr);
        }
    }
    Ok((replayed, extended_after_log))
}

/// A PCR 0 that is right but for its start has a cause of its own.
fn mismatch(log: &BootLog, bank: HashAlg, pcr: u8, value: &[u8], quoted: &[u8]) -> BootLogRefused {
    let told = log.startup_locality();
    if pcr == 0 {
        let right = [0, 3, 4].into_iter().find(|other| {
            let replay = log.replay_from(bank, *other);
            replay.get(&0).is_some_and(|value| value == quoted)
        });
        if let Some(right) = right {
            return BootLogRefused::LocalityMismatch { told, right };
        }
    }
    BootLogRefused::ReplayMismatch {
        pcr,
        replayed: hex::encode(value),
        quoted: hex::encode(quoted),
    }
}

/// One separator a PCR, one that says what it should, and nothing after the firmware handed over. An event whose digest
/// is a separator's is one, whatever the log calls it.
fn check_order(
    log: &BootLog,
    bank: HashAlg,
    replayed: &BTreeSet<u8>,
) -> Result<(), BootLogRefused> {
    let separators = SEPARATORS.map(|value| bank.digest(&[&value]));
    let mut separated = BTreeSet::new();
    let mut exited = false;
    for event in log.events() {
        let Some(pcr) = event.pcr().filter(|pcr| FIRMWARE_PCRS.contains(pcr)) else {
            continue;
        };
        if !replayed.contains(&pcr) {
            continue;
        }
        let index = event.index();
        if exited {
            return Err(BootLogRefused::AfterExit { event: index, pcr });
        }
        let is_separator = separators.iter().any(|of| event.digest(bank) == Some(of));
        let is_called_one = event.kind() == EventType::SEPARATOR;
        // Elsewhere a measured variable of four zero bytes has that digest.
        if is_called_one || (is_separator && matches!(pcr, 4 | 5 | 7)) {
            let says_so = SEPARATORS.iter().any(|value| event.data() == value);
            if !(is_called_one && is_separator && says_so) {
                return Err(BootLogRefused::Separator { event: index, pcr });
            }
            if !separated.insert(pcr) {
                return Err(BootLogRefused::SecondSeparator { event: index, pcr });
            }
        }
        exited = exited || is_exit(&event, bank);
    }
    Ok(())
}

/// Whether this event says that the operating system has taken over.
pub(super) fn is_exit(event: &Event<'_>, bank: HashAlg) -> bool {
    event.pcr() == Some(5)
        && event.kind() == EventType::EFI_ACTION
        && event.data() == EXIT_SUCCEEDED
        && event.covers(bank, EXIT_SUCCEEDED)
}

fn firmware(log: &BootLog, bank: HashAlg) -> Option<String> {
    log.events()
        .find(|event| event.pcr() == Some(0) && event.kind() == EventType::S_CRTM_VERSION)
        .filter(|event| event.covers(bank, event.data()))
        .map(|event| text::guess(event.data()))
}
