//! The machine's measurement logs: what the firmware and the kernel say they extended into the PCRs.
//!
//! They are read when the cloud asks, whole or as far as it does not know them, and sent as they are: the agent judges
//! nothing. The kernel's files say nothing of their size and nothing of a change, so they are read to a cap, each time.
//! A log that cannot be read is told by a stable code and spoils nothing else in the answer.

use std::io::Read;
use std::path::{Path, PathBuf};

use edgeward_evidence::BootLog;
use edgeward_evidence::boot_log::MAX_BOOT_LOG_BYTES;
use edgeward_evidence::tpm::PcrBank;
use edgeward_wire::v1;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

mod ima;

/// The PCR that IMA extends unless its policy says otherwise.
pub const IMA_PCR: u32 = 10;
/// Longest path of a log, in bytes (`PATH_MAX`): it goes into every answer that brings the log.
pub const MAX_PATH_BYTES: usize = 4096;

/// Where the logs are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogPaths {
    /// The firmware's event log, in binary.
    pub boot: PathBuf,
    /// The IMA measurement list, in binary.
    pub ima: PathBuf,
}

/// Reads the logs, and remembers how far the IMA list was replayed.
#[derive(Debug)]
pub struct LogReader {
    paths: LogPaths,
    replayed: Mutex<ima::Replayed>,
    /// What was last said of the boot log and of the IMA list: the cloud asks again every minute.
    said: Mutex<[Option<&'static str>; 2]>,
}

/// Which log, as an index.
const BOOT: usize = 0;
const IMA: usize = 1;

/// PCR 10 as a quote says it: up to there the list is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedIma {
    pub bank: PcrBank,
    pub value: Vec<u8>,
}

/// Why a log is not in the answer.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("there is no such file")]
    Absent,
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    #[error("it is no file")]
    NoFile,
    #[error("it is empty")]
    Empty,
    #[error("it is larger than the limit in bytes: {0}")]
    TooLarge(u64),
    #[error("entry {0} is none that the kernel writes")]
    Malformed(u64),
}

impl Missing {
    /// Stable code, for the cloud.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Absent => "log_absent",
            Self::Unreadable(_) | Self::NoFile => "log_unreadable",
            Self::Empty => "log_empty",
            Self::TooLarge(_) => "log_too_large",
            Self::Malformed(_) => "log_malformed",
        }
    }
}

impl Default for LogPaths {
    fn default() -> Self {
        Self {
            boot: PathBuf::from("/sys/kernel/security/tpm0/binary_bios_measurements"),
            ima: PathBuf::from("/sys/kernel/security/ima/binary_runtime_measurements"),
        }
    }
}

impl LogReader {
    pub fn new(paths: LogPaths) -> Self {
        Self {
            paths,
            replayed: Mutex::default(),
            said: Mutex::default(),
        }
    }

    /// What a challenge asks for. Blocks on files: not for async threads. The quote comes first, so that the IMA list
    /// holds all that the quoted PCR covers.
    pub fn read(&self, wanted: &v1::LogsWanted, quoted: Option<&QuotedIma>) -> v1::Logs {
        v1::Logs {
            boot: wanted.boot.then(|| self.boot(&wanted.boot_known)).flatten(),
            ima: wanted.ima.then(|| self.ima(wanted.ima_known, quoted)),
            // Not a log of the machine: the agent keeps it.
            apps: None,
        }
    }

    /// What the firmware's log says that the boot left in a PCR, in the bank of SHA-256; none where it says nothing.
    /// Blocks on files.
    pub fn left(&self, pcr: u8) -> Option<[u8; 32]> {
        let log = read_whole(&self.paths.boot, MAX_BOOT_LOG_BYTES).ok()?;
        let log = BootLog::parse(&log).ok()?;
        let values = log.replay(PcrBank::Sha256.hash());
        values.get(&pcr)?.as_slice().try_into().ok()
    }

    /// None: it is the one that is known.
    fn boot(&self, known: &[u8]) -> Option<v1::BootLog> {
        let path = &self.paths.boot;
        let read = read_whole(path, MAX_BOOT_LOG_BYTES);
        let missing = self.missing(BOOT, path, read.as_ref().err());
        let log = read.unwrap_or_default();
        if missing.is_empty() && digest(&SHA256, &log).as_ref() == known {
            return None;
        }
        Some(v1::BootLog {
            path: path.display().to_string(),
            log,
            missing,
        })
    }

    fn ima(&self, known: u64, quoted: Option<&QuotedIma>) -> v1::ImaPart {
        let path = &self.paths.ima;
        let mut part = v1::ImaPart {
            path: path.display().to_string(),
            first: known,
            ..Default::default()
        };
        let read =
            open(path).and_then(|mut file| self.replayed.lock().part(&mut file, known, quoted));
        part.missing = self.missing(IMA, path, read.as_ref().err());
        if let Ok(read) = read {
            part.first = read.first;
            part.entries = read.entries;
            part.more = read.more;
        }
        part
    }

    /// The code of what is missing, told once to whoever reads our log; empty where nothing is.
    fn missing(&self, log: usize, path: &Path, missing: Option<&Missing>) -> String {
        let code = missing.map(Missing::code);
        let mut said = self.said.lock();
        if let Some(said) = said.get_mut(log).filter(|said| **said != code) {
            *said = code;
            if let Some(missing) = missing {
                tracing::warn!(path = %path.display(), %missing, "a measurement log cannot be sent to the cloud");
            }
        }
        code.unwrap_or_default().to_owned()
    }
}

/// A whole file within a limit in bytes.
fn read_whole(path: &Path, limit: usize) -> Result<Vec<u8>, Missing> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(Missing::Unreadable)?;
    match u64::try_from(bytes.len()).unwrap_or(u64::MAX) {
        0 => Err(Missing::Empty),
        length if length > limit => Err(Missing::TooLarge(limit)),
        _ => Ok(bytes),
    }
}

/// Opens a file and nothing else: a pipe would wait for its writer.
fn open(path: &Path) -> Result<std::fs::File, Missing> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Missing::Absent,
        _ => Missing::Unreadable(error),
    };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Missing::NoFile);
    }
    std::fs::File::open(path).map_err(failed)
}

#[cfg(test)]
mod tests;
