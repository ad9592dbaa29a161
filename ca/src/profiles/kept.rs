//! The kept evidence of a node as it is shown, and as commands work with it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_evidence::BootLog;
use edgeward_evidence::boot_log::BootLogRefused;
use edgeward_evidence::tpm::PcrBank;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::evidence::{EvidenceRow, KeptFinding};
use crate::when::When;

/// What is kept of a node's evidence.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeEvidence {
    pub node: String,
    /// The newest that was authentic, passed or not.
    pub latest: Option<EvidenceView>,
    /// The newest that passed.
    pub passed: Option<EvidenceView>,
}

/// One piece of evidence.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EvidenceView {
    /// When it came. Evidence that says the same as the one before does not count as new.
    pub taken: When,
    /// Reason code, where it did not pass.
    pub code: Option<String>,
    /// How the TPM's identity is rooted: hardware, listed, virtual.
    pub tier: String,
    /// sha256, sha384 or sha512.
    pub bank: String,
    /// Quoted values: index to hex.
    #[schema(value_type = BTreeMap<String, String>)]
    pub pcrs: BTreeMap<u8, String>,
    /// Of the TPM: 0x and 16 hex digits.
    pub firmware: String,
    /// Whether Secure Boot is on, judged from the boot log; absent: no log said so.
    pub secure_boot: Option<bool>,
    pub findings: Vec<FindingView>,
    /// The firmware's event log in base64; only with `logs=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_log: Option<String>,
    /// The IMA list in the kernel's binary form, in base64; only with `logs=true`, and where it is at most 2 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<String>,
}

/// One thing that is not as a profile says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindingView {
    /// Stable reason code.
    pub code: String,
    pub pcr: Option<u8>,
    /// Which event of which log; may be empty.
    pub event: String,
    pub found: String,
    /// What would have been right; may be empty.
    pub expected: Vec<String>,
    /// What to do about it.
    pub advice: String,
    /// Since when this node has had it.
    pub since: When,
    /// True: recorded only, since its profile monitors.
    pub monitored: bool,
}

impl EvidenceView {
    pub fn of(row: EvidenceRow, logs: bool) -> Self {
        let encoded = |log: Option<Vec<u8>>| log.filter(|_| logs).map(|log| STANDARD.encode(log));
        Self {
            taken: row.taken.into(),
            code: row.code,
            tier: row.tier.to_string(),
            bank: bank_word(row.bank).to_owned(),
            pcrs: row.pcrs,
            firmware: format!("{:#018x}", row.firmware),
            secure_boot: row.secure_boot,
            findings: row.findings.into_iter().map(Into::into).collect(),
            boot_log: encoded(row.boot_log),
            ima: encoded(row.ima),
        }
    }

    /// `None` without one; a log that does not parse was kept as it came.
    pub fn parsed_boot_log(&self) -> Option<Result<BootLog, BootLogRefused>> {
        let bytes = STANDARD.decode(self.boot_log.as_ref()?).ok()?;
        Some(BootLog::parse(&bytes))
    }

    pub fn ima_bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.ima.as_ref()?).ok()
    }

    /// What it is refused for beyond values and files that its profile does not know: then these may be a forger's.
    pub fn doubt(&self) -> Option<&str> {
        // Notices about clocks say nothing about what was measured.
        let about_measurements = self
            .findings
            .iter()
            .filter(|finding| !(finding.monitored && finding.code.starts_with("clock_")));
        let found = about_measurements.map(|finding| finding.code.as_str());
        let mut codes = self.code.as_deref().into_iter().chain(found);
        codes.find(|code| {
            let unknown = ["log_pending", "ima_file_not_allowed", "ima_file_other_path"];
            !code.starts_with("profile_") && !unknown.contains(code)
        })
    }
}

impl From<KeptFinding> for FindingView {
    fn from(kept: KeptFinding) -> Self {
        Self {
            code: kept.code,
            pcr: kept.pcr,
            event: kept.event,
            found: kept.found,
            expected: kept.expected,
            advice: kept.advice,
            since: kept.since.into(),
            monitored: kept.monitored,
        }
    }
}

fn bank_word(bank: PcrBank) -> &'static str {
    match bank {
        PcrBank::Sha256 => "sha256",
        PcrBank::Sha384 => "sha384",
        PcrBank::Sha512 => "sha512",
    }
}
