//! One event: which PCR, of which type, with which digests and data.

use std::fmt;

use super::BootLog;
use super::little::Little;
use crate::tpm::HashAlg;

/// Types of events (PFP, 10.4.1) that anything here looks at; others keep their number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(pub u32);

/// One event of a [`BootLog`].
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    index: usize,
    span: Span,
    log: &'a BootLog,
}

/// Where an event lies in the log's bytes; all checked by the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) pcr: u32,
    pub(super) kind: EventType,
    /// A lone SHA-1 digest instead of a list: all of a SHA-1 log, and the header of the other.
    pub(super) lone: bool,
    pub(super) digests: (usize, usize),
    pub(super) data: (usize, usize),
}

impl EventType {
    pub const PREBOOT_CERT: Self = Self(0x0);
    pub const POST_CODE: Self = Self(0x1);
    pub const NO_ACTION: Self = Self(0x3);
    pub const SEPARATOR: Self = Self(0x4);
    pub const ACTION: Self = Self(0x5);
    pub const EVENT_TAG: Self = Self(0x6);
    pub const S_CRTM_CONTENTS: Self = Self(0x7);
    pub const S_CRTM_VERSION: Self = Self(0x8);
    pub const CPU_MICROCODE: Self = Self(0x9);
    pub const PLATFORM_CONFIG_FLAGS: Self = Self(0xa);
    pub const TABLE_OF_DEVICES: Self = Self(0xb);
    pub const COMPACT_HASH: Self = Self(0xc);
    pub const IPL: Self = Self(0xd);
    pub const IPL_PARTITION_DATA: Self = Self(0xe);
    pub const NONHOST_CODE: Self = Self(0xf);
    pub const NONHOST_CONFIG: Self = Self(0x10);
    pub const NONHOST_INFO: Self = Self(0x11);
    pub const OMIT_BOOT_DEVICE_EVENTS: Self = Self(0x12);
    pub const EFI_VARIABLE_DRIVER_CONFIG: Self = Self(0x8000_0001);
    pub const EFI_VARIABLE_BOOT: Self = Self(0x8000_0002);
    pub const EFI_BOOT_SERVICES_APPLICATION: Self = Self(0x8000_0003);
    pub const EFI_BOOT_SERVICES_DRIVER: Self = Self(0x8000_0004);
    pub const EFI_RUNTIME_SERVICES_DRIVER: Self = Self(0x8000_0005);
    pub const EFI_GPT_EVENT: Self = Self(0x8000_0006);
    pub const EFI_ACTION: Self = Self(0x8000_0007);
    pub const EFI_PLATFORM_FIRMWARE_BLOB: Self = Self(0x8000_0008);
    pub const EFI_HANDOFF_TABLES: Self = Self(0x8000_0009);
    pub const EFI_PLATFORM_FIRMWARE_BLOB2: Self = Self(0x8000_000a);
    pub const EFI_HANDOFF_TABLES2: Self = Self(0x8000_000b);
    pub const EFI_VARIABLE_BOOT2: Self = Self(0x8000_000c);
    pub const EFI_GPT_EVENT2: Self = Self(0x8000_000d);
    pub const EFI_HCRTM_EVENT: Self = Self(0x8000_0010);
    pub const EFI_VARIABLE_AUTHORITY: Self = Self(0x8000_00e0);
    pub const EFI_SPDM_FIRMWARE_BLOB: Self = Self(0x8000_00e1);
    pub const EFI_SPDM_FIRMWARE_CONFIG: Self = Self(0x8000_00e2);
    pub const EFI_SPDM_DEVICE_POLICY: Self = Self(0x8000_00e3);
    pub const EFI_SPDM_DEVICE_AUTHORITY: Self = Self(0x8000_00e4);

    /// The name in the specification.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::PREBOOT_CERT => "EV_PREBOOT_CERT",
            Self::POST_CODE => "EV_POST_CODE",
            Self::NO_ACTION => "EV_NO_ACTION",
            Self::SEPARATOR => "EV_SEPARATOR",
            Self::ACTION => "EV_ACTION",
            Self::EVENT_TAG => "EV_EVENT_TAG",
            Self::S_CRTM_CONTENTS => "EV_S_CRTM_CONTENTS",
            Self::S_CRTM_VERSION => "EV_S_CRTM_VERSION",
            Self::CPU_MICROCODE => "EV_CPU_MICROCODE",
            Self::PLATFORM_CONFIG_FLAGS => "EV_PLATFORM_CONFIG_FLAGS",
            Self::TABLE_OF_DEVICES => "EV_TABLE_OF_DEVICES",
            Self::COMPACT_HASH => "EV_COMPACT_HASH",
            Self::IPL => "EV_IPL",
            Self::IPL_PARTITION_DATA => "EV_IPL_PARTITION_DATA",
            Self::NONHOST_CODE => "EV_NONHOST_CODE",
            Self::NONHOST_CONFIG => "EV_NONHOST_CONFIG",
            Self::NONHOST_INFO => "EV_NONHOST_INFO",
            Self::OMIT_BOOT_DEVICE_EVENTS => "EV_OMIT_BOOT_DEVICE_EVENTS",
            Self::EFI_VARIABLE_DRIVER_CONFIG => "EV_EFI_VARIABLE_DRIVER_CONFIG",
            Self::EFI_VARIABLE_BOOT => "EV_EFI_VARIABLE_BOOT",
            Self::EFI_BOOT_SERVICES_APPLICATION => "EV_EFI_BOOT_SERVICES_APPLICATION",
            Self::EFI_BOOT_SERVICES_DRIVER => "EV_EFI_BOOT_SERVICES_DRIVER",
            Self::EFI_RUNTIME_SERVICES_DRIVER => "EV_EFI_RUNTIME_SERVICES_DRIVER",
            Self::EFI_GPT_EVENT => "EV_EFI_GPT_EVENT",
            Self::EFI_ACTION => "EV_EFI_ACTION",
            Self::EFI_PLATFORM_FIRMWARE_BLOB => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
            Self::EFI_HANDOFF_TABLES => "EV_EFI_HANDOFF_TABLES",
            Self::EFI_PLATFORM_FIRMWARE_BLOB2 => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
            Self::EFI_HANDOFF_TABLES2 => "EV_EFI_HANDOFF_TABLES2",
            Self::EFI_VARIABLE_BOOT2 => "EV_EFI_VARIABLE_BOOT2",
            Self::EFI_GPT_EVENT2 => "EV_EFI_GPT_EVENT2",
            Self::EFI_HCRTM_EVENT => "EV_EFI_HCRTM_EVENT",
            Self::EFI_VARIABLE_AUTHORITY => "EV_EFI_VARIABLE_AUTHORITY",
            Self::EFI_SPDM_FIRMWARE_BLOB => "EV_EFI_SPDM_FIRMWARE_BLOB",
            Self::EFI_SPDM_FIRMWARE_CONFIG => "EV_EFI_SPDM_FIRMWARE_CONFIG",
            Self::EFI_SPDM_DEVICE_POLICY => "EV_EFI_SPDM_DEVICE_POLICY",
            Self::EFI_SPDM_DEVICE_AUTHORITY => "EV_EFI_SPDM_DEVICE_AUTHORITY",
            _ => return None,
        })
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {:#010x}", self.0),
        }
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a> Event<'a> {
    pub(super) fn new(log: &'a BootLog, index: usize, span: Span) -> Self {
        Self { index, span, log }
    }

    /// Its place in the log, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The PCR it extends; `None` for one that extends nothing (`EV_NO_ACTION`).
    pub fn pcr(&self) -> Option<u8> {
        if self.span.kind == EventType::NO_ACTION {
            return None;
        }
        u8::try_from(self.span.pcr).ok()
    }

    pub fn kind(&self) -> EventType {
        self.span.kind
    }

    /// What the node says was measured. Believed only as far as the digest covers it: see [`Event::covers`].
    pub fn data(&self) -> &'a [u8] {
        self.part(self.span.data)
    }

    /// The digest that was extended into the PCR of this bank.
    pub fn digest(&self, bank: HashAlg) -> Option<&'a [u8]> {
        let digests = self.part(self.span.digests);
        if self.span.lone {
            return (bank == HashAlg::Sha1).then_some(digests);
        }
        let mut reader = Little::new(digests);
        while let Some(id) = reader.u16() {
            let digest = reader.take(self.log.digest_len(id)?)?;
            if id == bank.id() {
                return Some(digest);
            }
        }
        None
    }

    /// Whether the digest of this bank is the digest of `bytes`: only then did the TPM see them.
    pub fn covers(&self, bank: HashAlg, bytes: &[u8]) -> bool {
        self.digest(bank)
            .is_some_and(|digest| digest == ring::digest::digest(bank.ring(), bytes).as_ref())
    }

    pub(super) fn log(&self) -> &'a BootLog {
        self.log
    }

    fn part(&self, (from, to): (usize, usize)) -> &'a [u8] {
        self.log.bytes.get(from..to).unwrap_or_default()
    }
}
