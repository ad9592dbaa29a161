//! Why evidence does not pass a profile: every reason with its stable code, and as a finding for people.

use edgeward_identity::Tier;

use super::finding::Finding;
use super::profile::{AppControl, Profile};
use super::{Logs, events};
use crate::app_log::BadLog;
use crate::boot_log::{BootLogRefused, SecureBootRefused};
use crate::ima::{FileFault, IMA_PCR, ImaRefused, RefusedFile};

/// One thing that is not as the profile says. The fault is the node's, or the profile's owner is behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("tier is not allowed: {0}")]
    Tier(Tier),
    #[error("quoted bank is not the profile's, or nothing is quoted")]
    Selection,
    #[error("pcr that the profile compares was not quoted: {0}")]
    NotQuoted(u8),
    #[error("pcr has a value that the profile does not know: {index} = {value}")]
    Pcr { index: u8, value: String },
    #[error("tpm firmware is refused: {0:#x}")]
    Firmware(u64),
    #[error("profile judges secure boot, and the boot log is missing")]
    BootLogMissing,
    #[error("boot log was judged against other pcr values than those quoted")]
    BootLogOther,
    #[error("{0}")]
    BootLog(BootLogRefused),
    #[error("secure boot is {}", on_or_off(*.0))]
    SecureBoot(bool),
    #[error("secure boot cannot be judged: {0}")]
    SecureBootUnknown(SecureBootRefused),
    #[error("profile judges what ran, and the ima list is missing")]
    ImaLogMissing,
    #[error("ima list was judged by another profile's lists")]
    ImaOtherPolicy,
    #[error("ima list: {0}")]
    Ima(ImaRefused),
    #[error("ima list does not replay to the quoted value of pcr 10: {0} entries")]
    ImaReplay(u64),
    #[error("file {} of the ima list: {}", fault_word(.0.fault), .0.path)]
    ImaFile(RefusedFile),
    #[error("profile judges which applications run, and no log of pcr {0} came")]
    AppsLogMissing(u8),
    #[error("log of applications: {0}")]
    Apps(BadLog),
    #[error("log of applications does not replay to the quoted value of pcr {0}: {1} records")]
    AppsReplay(u8, usize),
    #[error("control of applications is {} where at least {} is asked for", .found.map_or("none", AppControl::as_str), .least.as_str())]
    AppControl {
        found: Option<AppControl>,
        least: AppControl,
    },
}

impl Mismatch {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tier(_) => "profile_tier",
            Self::Selection => "profile_pcr_selection",
            Self::NotQuoted(_) => "profile_pcr_not_quoted",
            Self::Pcr { .. } => "profile_pcr_value",
            Self::Firmware(_) => "profile_firmware",
            Self::BootLogMissing => "boot_log_missing",
            Self::BootLogOther => "boot_log_other_boot",
            Self::BootLog(refused) => refused.code(),
            Self::SecureBoot(_) => "profile_secure_boot",
            Self::SecureBootUnknown(refused) => refused.code(),
            Self::ImaLogMissing => "ima_log_missing",
            Self::ImaOtherPolicy => "ima_other_policy",
            Self::Ima(refused) => refused.code(),
            Self::ImaReplay(_) => "ima_replay_mismatch",
            Self::ImaFile(file) => match file.fault {
                FileFault::NotAllowed => "ima_file_not_allowed",
                FileFault::OtherPath => "ima_file_other_path",
                FileFault::Denied => "ima_file_denied",
                FileFault::Violation => "ima_violation",
            },
            Self::AppsLogMissing(_) => "apps_log_missing",
            Self::Apps(refused) => refused.code(),
            Self::AppsReplay(..) => "apps_log_replay",
            Self::AppControl { .. } => "profile_app_control",
        }
    }

    /// Whether the TPM itself signed what does not match: a quoted value, or a log that replays to quoted values. What is
    /// missing, or is only the agent's word, is no fact about the machine.
    pub const fn is_quoted(&self) -> bool {
        match self {
            Self::Pcr { .. } | Self::Firmware(_) | Self::SecureBoot(_) | Self::ImaFile(_) => true,
            Self::Tier(_)
            | Self::Selection
            | Self::NotQuoted(_)
            | Self::BootLogMissing
            | Self::BootLogOther
            | Self::BootLog(_)
            | Self::SecureBootUnknown(_)
            | Self::ImaLogMissing
            | Self::ImaOtherPolicy
            | Self::Ima(_)
            | Self::ImaReplay(_)
            | Self::AppsLogMissing(_)
            | Self::Apps(_)
            | Self::AppsReplay(..)
            | Self::AppControl { .. } => false,
        }
    }

    /// The same for people.
    pub(super) fn finding(&self, profile: &Profile, logs: &Logs<'_>) -> Finding {
        let finding = Finding::new(self.code(), self.found(), self.advice());
        match self {
            Self::Tier(_) => finding.expected(profile.tiers().iter().map(Tier::to_string)),
            Self::Selection => finding,
            Self::NotQuoted(index) => finding.at(*index).expected(values(profile, *index)),
            Self::Pcr { index, .. } => finding
                .at(*index)
                .event(events::of_pcr(logs, *index))
                .expected(values(profile, *index)),
            Self::Firmware(_) => finding.expected([format!(
                "none of: {}",
                join(
                    profile
                        .firmware_deny()
                        .iter()
                        .map(|version| format!("{version:#x}"))
                )
            )]),
            Self::BootLogMissing | Self::BootLogOther => finding,
            Self::BootLog(BootLogRefused::ReplayMismatch { pcr, quoted, .. }) => {
                finding.at(*pcr).expected([quoted.clone()])
            }
            Self::BootLog(_) => finding,
            Self::SecureBoot(found) => finding
                .at(7)
                .event(events::of_pcr(logs, 7))
                .expected([on_or_off(!found).to_owned()]),
            Self::SecureBootUnknown(refused) => finding.at(7).event(
                refused
                    .event()
                    .map_or_else(String::new, |index| events::by_index(logs, index)),
            ),
            Self::ImaLogMissing | Self::ImaOtherPolicy | Self::Ima(_) | Self::ImaReplay(_) => {
                finding.at(IMA_PCR)
            }
            Self::ImaFile(file) => finding
                .at(IMA_PCR)
                .event(format!("ima entry {}: {}", file.entry, file.path)),
            Self::AppsLogMissing(pcr) | Self::AppsReplay(pcr, _) => finding.at(*pcr),
            Self::Apps(_) => finding,
            Self::AppControl { least, .. } => {
                finding.expected([format!("at least {}", least.as_str())])
            }
        }
    }

    fn found(&self) -> String {
        match self {
            Self::Tier(tier) => tier.to_string(),
            Self::Selection | Self::NotQuoted(_) => "not quoted".to_owned(),
            Self::Pcr { value, .. } => value.clone(),
            Self::Firmware(version) => format!("{version:#x}"),
            Self::BootLog(BootLogRefused::ReplayMismatch { replayed, .. }) => replayed.clone(),
            Self::SecureBoot(found) => on_or_off(*found).to_owned(),
            Self::ImaFile(file) => format!("{} {}", fault_word(file.fault), file.digest),
            Self::AppControl { found, .. } => found.map_or("none", AppControl::as_str).to_owned(),
            other => other.to_string(),
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Tier(_) => {
                "Allow the tier in the profile, or give the node a TPM of an accepted tier."
            }
            Self::Selection | Self::NotQuoted(_) => {
                "Update the agent and activate the profile's PCR bank in the TPM."
            }
            Self::Pcr { .. } => {
                "If the change was planned, run `edgeward profile propose` and add the value; if not, take the node out and look at it."
            }
            Self::Firmware(_) => "Update the TPM's firmware to a version that is not refused.",
            Self::BootLogMissing => {
                "Let the agent read the firmware's event log (`boot` under `[logs]` in agent.toml, /sys/kernel/security/tpm0/binary_bios_measurements)."
            }
            Self::BootLogOther | Self::BootLog(_) => {
                "Treat the log as forged until shown otherwise; a firmware that writes wrong logs needs an update, or a profile without `secure_boot`."
            }
            Self::SecureBoot(true) => {
                "Turn Secure Boot off, or correct `secure_boot` in the profile."
            }
            Self::SecureBoot(false) => "Turn Secure Boot on in the firmware's setup and reboot.",
            Self::SecureBootUnknown(_) => {
                "Update the firmware, or compare PCR 7 in the profile in place of `secure_boot`."
            }
            Self::ImaLogMissing => {
                "Turn IMA on with a policy that measures, and let the agent read its list (`ima` under `[logs]` in agent.toml)."
            }
            Self::ImaOtherPolicy | Self::Ima(_) | Self::ImaReplay(_) => {
                "Reboot the node; if it happens again, take the node out and look at it: its list is not what its TPM measured."
            }
            Self::ImaFile(file) => match file.fault {
                FileFault::NotAllowed | FileFault::OtherPath => {
                    "If the file belongs there, add it to the profile's allow list; if not, remove it and reboot the node."
                }
                FileFault::Denied => {
                    "Replace the file by a version that is not denied, and reboot the node."
                }
                FileFault::Violation => {
                    "Find out what wrote to the file while it was in use, and reboot the node."
                }
            },
            Self::AppsLogMissing(_) => {
                "Update the agent: this version does not measure the applications that it runs."
            }
            Self::Apps(_) | Self::AppsReplay(..) => {
                "Reboot the node; if it happens again, see what else extends the PCR (docs/apps-measured.md), or take the node out and look at it."
            }
            Self::AppControl { .. } => "Raise the control of applications on the node.",
        }
    }
}

fn values(profile: &Profile, index: u8) -> impl Iterator<Item = String> + '_ {
    profile
        .pcr()
        .get(&index)
        .into_iter()
        .flatten()
        .map(hex::encode)
}

fn join(words: impl Iterator<Item = String>) -> String {
    words
        .take(super::finding::MAX_EXPECTED)
        .collect::<Vec<_>>()
        .join(", ")
}

fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn fault_word(fault: FileFault) -> &'static str {
    match fault {
        FileFault::NotAllowed => "not allowed",
        FileFault::OtherPath => "allowed elsewhere only",
        FileFault::Denied => "denied",
        FileFault::Violation => "changed while it was measured",
    }
}
