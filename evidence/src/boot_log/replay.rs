//! What the PCRs are worth if the log is true.

use std::collections::BTreeMap;

use super::BootLog;
use crate::tpm::HashAlg;

/// Longest PCR, in bytes.
const MAX_PCR_BYTES: usize = 64;

impl BootLog {
    /// The value of every PCR that the log extends, in one bank; empty where the log has no digests for it.
    pub fn replay(&self, bank: HashAlg) -> BTreeMap<u8, Vec<u8>> {
        self.replay_from(bank, self.locality)
    }

    /// As if the TPM had been started at `locality`.
    pub(super) fn replay_from(&self, bank: HashAlg, locality: u8) -> BTreeMap<u8, Vec<u8>> {
        let mut pcrs: BTreeMap<u8, [u8; MAX_PCR_BYTES]> = BTreeMap::new();
        let len = bank.digest_len();
        for event in self.events() {
            let (Some(pcr), Some(digest)) = (event.pcr(), event.digest(bank)) else {
                continue;
            };
            let value = pcrs
                .entry(pcr)
                .or_insert_with(|| reset_value(bank, pcr, locality));
            let mut context = ring::digest::Context::new(bank.ring());
            context.update(value.get(..len).unwrap_or_default());
            context.update(digest);
            for (to, from) in value.iter_mut().zip(context.finish().as_ref()) {
                *to = *from;
            }
        }
        pcrs.into_iter()
            .map(|(pcr, value)| (pcr, value.iter().take(len).copied().collect()))
            .collect()
    }

    /// What a PCR is worth before anything is extended: zeros, in PCR 0 with the startup locality as last byte, and ones
    /// in those of a dynamic launch (part 1, 16.2; PFP, 3.2.3).
    pub(super) fn reset_value(&self, bank: HashAlg, pcr: u8) -> Vec<u8> {
        let value = reset_value(bank, pcr, self.locality);
        value.iter().take(bank.digest_len()).copied().collect()
    }
}

fn reset_value(bank: HashAlg, pcr: u8, locality: u8) -> [u8; MAX_PCR_BYTES] {
    let mut value = match pcr {
        17..=22 => [0xff; MAX_PCR_BYTES],
        _ => [0; MAX_PCR_BYTES],
    };
    if pcr == 0
        && let Some(last) = value.get_mut(bank.digest_len() - 1)
    {
        *last = locality;
    }
    value
}
