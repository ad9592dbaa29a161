//! Replay: from entries to the value that PCR 10 must have.

use super::{BOOT_AGGREGATE, ImaEntry, ImaRefused, MAX_IMA_LIST_BYTES};
use crate::tpm::{HashAlg, PcrBank};

/// What is written around an entry's template data in the list, in bytes: for the bound on the whole list.
const AROUND_DATA_BYTES: u64 = 39;

/// How far a node's list was replayed. An honest list only ever grows from here, until the machine reboots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaState {
    bank: PcrBank,
    entries: u64,
    bytes: u64,
    violations: u64,
    pcr: Vec<u8>,
}

impl ImaState {
    /// Before the first entry after a boot.
    pub fn new(bank: PcrBank) -> Self {
        Self {
            bank,
            entries: 0,
            bytes: 0,
            violations: 0,
            pcr: vec![0; bank.hash().digest_len()],
        }
    }

    pub fn bank(&self) -> PcrBank {
        self.bank
    }

    /// How many entries were replayed.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many of them are violations.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// The value of PCR 10 after them.
    pub fn pcr(&self) -> &[u8] {
        &self.pcr
    }

    /// Whether PCR 10, as quoted, is what these entries give.
    pub fn matches(&self, quoted: &[u8]) -> bool {
        self.pcr == quoted
    }

    /// Replays all of `entries`.
    pub fn extend(&mut self, entries: &[ImaEntry<'_>]) -> Result<(), ImaRefused> {
        entries.iter().try_for_each(|entry| self.step(entry))
    }

    pub(super) fn step(&mut self, entry: &ImaEntry<'_>) -> Result<(), ImaRefused> {
        if self.entries == 0 && entry.path() != BOOT_AGGREGATE {
            return Err(ImaRefused::FirstEntry);
        }
        let length = u64::try_from(entry.data().len()).unwrap_or(u64::MAX);
        let bytes = self
            .bytes
            .saturating_add(length)
            .saturating_add(AROUND_DATA_BYTES);
        if bytes > MAX_IMA_LIST_BYTES {
            return Err(ImaRefused::ListTooLarge);
        }
        extend(self.bank.hash(), &mut self.pcr, entry);
        self.bytes = bytes;
        self.entries += 1;
        self.violations += u64::from(entry.is_violation());
        Ok(())
    }
}

/// The value of PCR 10 in a bank of this algorithm after a whole list: for vectors and tools, SHA-1 included.
pub fn replay(entries: &[ImaEntry<'_>], hash: HashAlg) -> Vec<u8> {
    let mut pcr = vec![0; hash.digest_len()];
    for entry in entries {
        extend(hash, &mut pcr, entry);
    }
    pcr
}

/// A violation's digest is unknown: the kernel extends ones in its place.
fn extend(hash: HashAlg, pcr: &mut [u8], entry: &ImaEntry<'_>) {
    const ONES: [u8; 64] = [0xff; 64];
    let mut context = ring::digest::Context::new(hash.ring());
    context.update(pcr);
    match entry.is_violation() {
        true => context.update(ONES.get(..hash.digest_len()).unwrap_or(&ONES)),
        false => context.update(ring::digest::digest(hash.ring(), entry.data()).as_ref()),
    }
    pcr.copy_from_slice(context.finish().as_ref());
}
