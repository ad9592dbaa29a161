//! Why a log, or what would be read from it, was refused: every reason with its stable code. The fault is the node's
//! or its firmware's.

use super::event::EventType;
use crate::tpm::HashAlg;

/// The log is not acceptable: it does not parse, or it is not what the TPM measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootLogRefused {
    #[error("boot log is empty")]
    Empty,
    #[error("boot log is larger than its limit in bytes: {0} > {limit}", limit = super::MAX_BOOT_LOG_BYTES)]
    TooLarge(usize),
    #[error("boot log has more events than its limit: {limit}", limit = super::MAX_BOOT_LOG_EVENTS)]
    TooManyEvents,
    #[error("boot log is cut off in event: {event}")]
    Truncated { event: usize },
    #[error("boot log's header (spec id event) is malformed")]
    Header,
    #[error("size of event {event} is beyond any limit: {size:#x}")]
    EventSize { event: usize, size: u32 },
    #[error(
        "event {event} has no digest, more than the header has banks, or for other banks than the first event: {count}"
    )]
    DigestCount { event: usize, count: u32 },
    #[error(
        "event {event} has a digest of an algorithm that is not in the header, or twice: {id:#06x}"
    )]
    Algorithm { event: usize, id: u16 },
    #[error("event {event} names a pcr that there is not: {pcr}")]
    PcrIndex { event: usize, pcr: u32 },
    #[error(
        "event {event} tells a startup locality that cannot be: not 0, 3 or 4, twice, or too late"
    )]
    StartupLocality { event: usize },
    #[error("boot log has no digests for the bank that was quoted: {}", .0.name())]
    BankAbsent(HashAlg),
    #[error("none of the pcrs that the firmware extends was quoted")]
    NothingQuoted,
    #[error(
        "startup locality in the log is not that of the boot: pcr 0 replays from {right}, the log says {told}"
    )]
    LocalityMismatch { told: u8, right: u8 },
    #[error(
        "boot log does not replay to the quoted value of pcr {pcr}: {replayed} instead of {quoted}"
    )]
    ReplayMismatch {
        pcr: u8,
        replayed: String,
        quoted: String,
    },
    #[error("event {event} is a second separator in pcr {pcr}")]
    SecondSeparator { event: usize, pcr: u8 },
    #[error("event {event} is a separator of pcr {pcr} that reports an error or is none")]
    Separator { event: usize, pcr: u8 },
    #[error("event {event} extends pcr {pcr} after the firmware handed over")]
    AfterExit { event: usize, pcr: u8 },
}

/// Secure Boot cannot be judged, although the log is what the TPM measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecureBootRefused {
    #[error("pcr 7 was not quoted")]
    NotQuoted,
    #[error("event {event} has no place in pcr 7: {kind}")]
    UnexpectedEvent { event: usize, kind: EventType },
    #[error("digest of event {event} does not cover its data")]
    NotCovered { event: usize },
    #[error("event {event} is not an efi variable")]
    Variable { event: usize },
    #[error("variable is measured after the separator, in event {event}: {name}")]
    AfterSeparator { event: usize, name: String },
    #[error("variable is measured twice, again in event {event}: {name}")]
    Twice { event: usize, name: String },
    #[error("variable has no signature lists, in event {event}: {name}")]
    SignatureLists { event: usize, name: String },
    #[error("variable SecureBoot is neither 0 nor 1, in event {event}")]
    Value { event: usize },
    #[error("variable is not measured, or empty: {0}")]
    Absent(&'static str),
    #[error("secure boot is on, but no authority was measured")]
    NoAuthority,
    #[error("more authorities were measured than the limit: {limit}", limit = super::secure_boot::MAX_AUTHORITIES)]
    TooManyAuthorities,
    #[error("pcr 7 has no separator")]
    NoSeparator,
    #[error("firmware was open to a debugger: event {event}")]
    Debugger { event: usize },
}

/// What was booted cannot be told, although the log is what the TPM measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootPathRefused {
    #[error("pcr 4 or 5 was not quoted")]
    NotQuoted,
    #[error("event {event} has no place in pcr 4: {kind}")]
    UnexpectedEvent { event: usize, kind: EventType },
    #[error("digest of event {event} does not cover its data")]
    NotCovered { event: usize },
    #[error("more images were started than the limit: {limit}", limit = super::path::MAX_APPLICATIONS)]
    TooMany,
    #[error("pcr 4 has no separator")]
    NoSeparator,
    #[error("firmware did not measure that it handed over (exit boot services)")]
    NoExit,
}

impl BootLogRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "boot_log_empty",
            Self::TooLarge(_) => "boot_log_too_large",
            Self::TooManyEvents => "boot_log_too_many_events",
            Self::Truncated { .. } => "boot_log_truncated",
            Self::Header => "boot_log_header",
            Self::EventSize { .. } => "boot_log_event_size",
            Self::DigestCount { .. } => "boot_log_digest_count",
            Self::Algorithm { .. } => "boot_log_algorithm",
            Self::PcrIndex { .. } => "boot_log_pcr_index",
            Self::StartupLocality { .. } => "boot_log_startup_locality",
            Self::BankAbsent(_) => "boot_log_bank_absent",
            Self::NothingQuoted => "boot_log_not_quoted",
            Self::LocalityMismatch { .. } => "boot_log_startup_locality_mismatch",
            Self::ReplayMismatch { .. } => "boot_log_replay_mismatch",
            Self::SecondSeparator { .. } => "boot_log_separator_twice",
            Self::Separator { .. } => "boot_log_separator",
            Self::AfterExit { .. } => "boot_log_event_after_exit",
        }
    }
}

impl SecureBootRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotQuoted => "secure_boot_not_quoted",
            Self::UnexpectedEvent { .. } => "secure_boot_unexpected_event",
            Self::NotCovered { .. } => "secure_boot_not_covered",
            Self::Variable { .. } => "secure_boot_variable",
            Self::AfterSeparator { .. } => "secure_boot_variable_after_separator",
            Self::Twice { .. } => "secure_boot_variable_twice",
            Self::SignatureLists { .. } => "secure_boot_signature_lists",
            Self::Value { .. } => "secure_boot_value",
            Self::Absent(_) => "secure_boot_variable_absent",
            Self::NoAuthority => "secure_boot_no_authority",
            Self::TooManyAuthorities => "secure_boot_too_many_authorities",
            Self::NoSeparator => "secure_boot_no_separator",
            Self::Debugger { .. } => "secure_boot_debugger",
        }
    }

    /// The event it is about, where it is one.
    pub fn event(&self) -> Option<usize> {
        match self {
            Self::UnexpectedEvent { event, .. }
            | Self::NotCovered { event }
            | Self::Variable { event }
            | Self::AfterSeparator { event, .. }
            | Self::Twice { event, .. }
            | Self::SignatureLists { event, .. }
            | Self::Value { event }
            | Self::Debugger { event } => Some(*event),
            Self::NotQuoted
            | Self::Absent(_)
            | Self::NoAuthority
            | Self::TooManyAuthorities
            | Self::NoSeparator => None,
        }
    }
}

impl BootPathRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotQuoted => "boot_path_not_quoted",
            Self::UnexpectedEvent { .. } => "boot_path_unexpected_event",
            Self::NotCovered { .. } => "boot_path_not_covered",
            Self::TooMany => "boot_path_too_many",
            Self::NoSeparator => "boot_path_no_separator",
            Self::NoExit => "boot_path_no_exit",
        }
    }
}
