//! The firmware's event log (TCG PC Client Platform Firmware Profile, chapters 9 and 10): what was extended into which
//! PCR before the operating system ran, as the node tells it.
//!
//! A log proves nothing by itself. [`judge()`] is the only maker of [`JudgedBoot`]: it replays the log, compares it with
//! PCR values that a TPM signed, and then reads only events whose digest covers what is read. [`BootLog::describe`]
//! and [`difference()`] are for people and decide nothing.
//!
//! Nothing is allocated by a size in the log: it is kept as the bytes that came, and events are ranges in them.

pub mod describe;
mod device_path;
pub mod difference;
pub mod event;
pub mod judge;
mod little;
mod loader;
mod parse;
mod path;
pub mod refusal;
mod replay;
pub mod secure_boot;
pub mod signature_list;
mod text;
pub mod variable;

use crate::tpm::HashAlg;

pub use describe::EventView;
pub use difference::{Change, ChangeKind, difference, difference_of};
pub use event::{Event, EventType};
pub use judge::{JudgedBoot, judge};
pub use loader::{Covered, LoadedFile};
pub use path::{Application, BootPath};
pub use refusal::{BootLogRefused, BootPathRefused, SecureBootRefused};
pub use secure_boot::{Authority, SecureBoot, SignatureDatabase};

/// Largest log read, in bytes. Real ones have 15 to 100 kB.
pub const MAX_BOOT_LOG_BYTES: usize = 1 << 20;
/// Most events in one log. Real ones have 20 to 300.
pub const MAX_BOOT_LOG_EVENTS: usize = 8192;
/// Most PCR banks that a log may have digests for.
pub const MAX_BOOT_LOG_BANKS: usize = 8;

/// Banks in the order in which people are shown them.
const SHOWN_FIRST: [HashAlg; 4] = [
    HashAlg::Sha256,
    HashAlg::Sha384,
    HashAlg::Sha512,
    HashAlg::Sha1,
];

/// A log that parses. Nothing in it is judged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootLog {
    bytes: Vec<u8>,
    events: Vec<event::Span>,
    /// `TPM_ALG_ID` and digest length of every bank that all events have a digest for, known or not.
    banks: Vec<(u16, usize)>,
    format: Format,
    locality: u8,
}

/// How events are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `TCG_PCR_EVENT`: one SHA-1 digest each.
    Sha1,
    /// `TCG_PCR_EVENT2` after a `Spec ID Event03`: one digest each for every bank.
    CryptoAgile,
}

impl BootLog {
    /// Reads a log as the kernel shows it (`binary_bios_measurements`), to the last byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, BootLogRefused> {
        parse::parse(bytes)
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// In the order of the log, the header included.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event<'_>> + Clone {
        self.events
            .iter()
            .enumerate()
            .map(|(index, span)| Event::new(self, index, *span))
    }

    /// Banks of known algorithms that the log has digests for.
    pub fn banks(&self) -> impl Iterator<Item = HashAlg> + '_ {
        self.banks
            .iter()
            .filter_map(|(id, _)| HashAlg::from_id(*id).ok())
    }

    /// The bank that people are shown: SHA-256 where there is one.
    pub fn shown_bank(&self) -> HashAlg {
        SHOWN_FIRST
            .into_iter()
            .find(|shown| self.banks().any(|bank| bank == *shown))
            .unwrap_or(HashAlg::Sha1)
    }

    /// The locality at which the TPM was started (0 where the log does not say): the last byte of PCR 0 at reset.
    pub fn startup_locality(&self) -> u8 {
        self.locality
    }

    /// Digest length of a bank in the header, in bytes.
    fn digest_len(&self, id: u16) -> Option<usize> {
        self.banks
            .iter()
            .find(|(bank, _)| *bank == id)
            .map(|(_, len)| *len)
    }

    /// The log as it came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
