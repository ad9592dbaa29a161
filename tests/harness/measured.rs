//! Measured boot on machines without firmware: a TPM is extended as an event log or an IMA list says, and the same
//! bytes are served as the kernel's files.
//!
//! Development machines have no live IMA and no UEFI below their software TPMs. What is real here is the TPM: it hashes
//! by itself, so a log whose replay is wrong does not match its quotes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use edgeward_evidence::boot_log::{BootLog, EventType};
use edgeward_evidence::ima::{IMA_PCR, parse_binary};
use edgeward_evidence::tpm::HashAlg;

use crate::agent::Node;
use crate::eventually::eventually;

/// One file that the kernel measures.
#[derive(Clone, Copy, Debug)]
pub struct MeasuredFile<'a> {
    pub path: &'a str,
    /// SHA-256 of its content; all zeros is a violation, whatever the content.
    pub digest: [u8; 32],
    pub violation: bool,
}

impl<'a> MeasuredFile<'a> {
    /// A file whose digest is this byte over and over.
    pub fn new(path: &'a str, digest: u8) -> Self {
        Self {
            path,
            digest: [digest; 32],
            violation: false,
        }
    }
}

impl Node {
    /// Where the agent finds the firmware's event log.
    pub fn boot_log_path(&self) -> PathBuf {
        self.folder().join("boot_log")
    }

    /// Where it finds the IMA list.
    pub fn ima_path(&self) -> PathBuf {
        self.folder().join("ima_list")
    }

    /// The firmware boots what the log says: into the TPM, and into the file. The TPM must have been reset before.
    pub fn boot_by(&self, log: &[u8]) -> anyhow::Result<()> {
        self.extend_by(log)?;
        std::fs::write(self.boot_log_path(), log)?;
        match std::fs::remove_file(self.ima_path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Extends the TPM by a log, and writes no file.
    pub fn extend_by(&self, log: &[u8]) -> anyhow::Result<()> {
        let log = BootLog::parse(log).context("the log of a boot")?;
        let extends: Vec<String> = log
            .events()
            .filter(|event| event.kind() != EventType::NO_ACTION)
            .filter_map(|event| {
                let digest = event.digest(HashAlg::Sha256)?;
                Some(format!("{}:sha256={}", event.pcr()?, hex(digest)))
            })
            .collect();
        anyhow::ensure!(!extends.is_empty(), "no event of the log is for SHA-256");
        self.tpm.extend_all(&extends)
    }

    /// A reboot with another log: power cut, start at the log's locality, boot.
    pub fn reboot_by(&mut self, log: &[u8]) -> anyhow::Result<()> {
        let locality = BootLog::parse(log)
            .context("the log of a boot")?
            .startup_locality();
        self.power_off()?;
        self.tpm.power_on_at(locality)?;
        self.boot_by(log)
    }

    /// The kernel measures files, one after the other: list first, PCR then, as it does.
    pub fn measure(&self, files: &[MeasuredFile<'_>]) -> anyhow::Result<()> {
        let mut list = std::fs::read(self.ima_path()).unwrap_or_default();
        let new: Vec<u8> = files.iter().flat_map(entry).collect();
        list.extend(&new);
        std::fs::write(self.ima_path(), list)?;
        self.extend_ima(&new)
    }

    /// Extends the TPM by a list in the kernel's binary form.
    pub fn extend_ima(&self, list: &[u8]) -> anyhow::Result<()> {
        let entries = parse_binary(list).context("an ima list")?;
        let extends: Vec<String> = entries
            .iter()
            .map(|entry| {
                let digest = if entry.is_violation() {
                    vec![0xff; 32]
                } else {
                    HashAlg::Sha256.digest(&[entry.data()])
                };
                format!("{IMA_PCR}:sha256={}", hex(&digest))
            })
            .collect();
        self.tpm.extend_all(&extends)
    }

    /// Waits until the agent's own status satisfies this.
    pub fn await_status(
        &self,
        what: &str,
        deadline: Duration,
        holds: impl Fn(&serde_json::Value) -> bool,
    ) -> anyhow::Result<serde_json::Value> {
        eventually(what, deadline, || {
            let status = self.status()?;
            anyhow::ensure!(holds(&status), "{status:#}");
            Ok(status)
        })
    }
}

/// One entry of template `ima-ng`.
fn entry(file: &MeasuredFile<'_>) -> Vec<u8> {
    let digest = if file.violation { [0; 32] } else { file.digest };
    let mut data = Vec::new();
    for field in [
        [b"sha256:\0".as_slice(), &digest].concat(),
        [file.path.as_bytes(), &[0]].concat(),
    ] {
        put_sized(&mut data, &field);
    }
    let template = if file.violation {
        vec![0; HashAlg::Sha1.digest_len()]
    } else {
        HashAlg::Sha1.digest(&[&data])
    };
    let mut entry = u32::from(IMA_PCR).to_le_bytes().to_vec();
    entry.extend(template);
    put_sized(&mut entry, b"ima-ng");
    put_sized(&mut entry, &data);
    entry
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend(size.to_le_bytes());
    out.extend(bytes);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
