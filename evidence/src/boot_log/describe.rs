//! Events as people read them. Nothing decides by these texts: they are as true as the log.

use serde::{Deserialize, Serialize};

use super::event::{Event, EventType};
use super::little::Little;
use super::loader::{self, Covered};
use super::signature_list::{self, SignatureKind};
use super::variable::{EfiVariable, Guid};
use super::{BootLog, device_path, text};
use crate::tpm::HashAlg;

/// Most certificates of a database shown by name.
const MAX_NAMES: usize = 4;

/// One event, fit for a screen: every text is bounded and printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventView {
    /// Its place in the log, from 0.
    pub index: usize,
    /// `None` for an event that extends nothing.
    pub pcr: Option<u8>,
    /// As the specification calls it: `EV_SEPARATOR`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which bank `digest` is of: SHA-256 where the log has it.
    pub bank: String,
    /// In hex; empty for an event that extends nothing.
    pub digest: String,
    /// Whether the digest covers what `text` is read from.
    pub covered: bool,
    pub text: String,
}

impl BootLog {
    /// All events, in the order of the log.
    pub fn describe(&self) -> Vec<EventView> {
        let bank = self.shown_bank();
        self.events().map(|event| event.describe(bank)).collect()
    }
}

impl Event<'_> {
    /// This event with its digest of one bank.
    pub fn describe(&self, bank: HashAlg) -> EventView {
        let pcr = self.pcr();
        let (covered, text) = text_of(self, bank);
        let digest = pcr.and_then(|_| self.digest(bank));
        EventView {
            index: self.index(),
            pcr,
            kind: self.kind().to_string(),
            bank: bank.name().to_owned(),
            digest: digest.map(hex::encode).unwrap_or_default(),
            covered,
            text,
        }
    }
}

fn text_of(event: &Event<'_>, bank: HashAlg) -> (bool, String) {
    let data = event.data();
    let whole = || event.covers(bank, data);
    match event.kind() {
        EventType::NO_ACTION => (false, no_action(data)),
        EventType::SEPARATOR => (whole(), separator(data)),
        EventType::EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EFI_VARIABLE_BOOT
        | EventType::EFI_VARIABLE_BOOT2
        | EventType::EFI_VARIABLE_AUTHORITY
        | EventType::EFI_SPDM_DEVICE_POLICY
        | EventType::EFI_SPDM_DEVICE_AUTHORITY => variable(event, bank),
        EventType::EFI_BOOT_SERVICES_APPLICATION
        | EventType::EFI_BOOT_SERVICES_DRIVER
        | EventType::EFI_RUNTIME_SERVICES_DRIVER => (false, device_path::of_image(data)),
        EventType::EFI_PLATFORM_FIRMWARE_BLOB | EventType::POST_CODE if data.len() == 16 => {
            (false, blob(data).unwrap_or_else(|| text::guess(data)))
        }
        EventType::EFI_GPT_EVENT => (whole(), gpt(data).unwrap_or_else(|| text::hexed(data))),
        EventType::IPL | EventType::EVENT_TAG => {
            let (covered, text) = loader::text_of(event, bank);
            (covered != Covered::Nothing, text)
        }
        _ => (whole(), text::guess(data)),
    }
}

fn no_action(data: &[u8]) -> String {
    match data.strip_prefix(b"StartupLocality\0") {
        Some([locality]) => format!("TPM started at locality {locality}"),
        _ if data.starts_with(b"Spec ID Event") => "header of the log".to_owned(),
        _ => text::guess(data),
    }
}

fn separator(data: &[u8]) -> String {
    match data {
        [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff] => "end of what the firmware measures".to_owned(),
        [1, 0, 0, 0] => "the firmware reports an error".to_owned(),
        other => text::guess(other),
    }
}

fn variable(event: &Event<'_>, bank: HashAlg) -> (bool, String) {
    let data = event.data();
    let Some(variable) = EfiVariable::parse(data) else {
        return (false, text::hexed(data));
    };
    // Older firmware measures the value alone (PFP, 3.3.4.2).
    let covered = event.covers(bank, data) || event.covers(bank, variable.value);
    let name = text::printable(variable.name.chars());
    (covered, format!("{name}: {}", value(&variable)))
}

fn value(variable: &EfiVariable<'_>) -> String {
    let bytes = variable.value;
    match (variable.guid, variable.name.as_str()) {
        (Guid::GLOBAL, "SecureBoot") => match bytes {
            [0] => "off".to_owned(),
            [1] => "on".to_owned(),
            other => text::hexed(other),
        },
        (Guid::GLOBAL, "BootOrder") => order(bytes),
        (Guid::GLOBAL, name) if name.starts_with("Boot") => {
            load_option(bytes).unwrap_or_else(|| text::hexed(bytes))
        }
        _ => certificate(bytes)
            .or_else(|| signatures(bytes))
            .unwrap_or_else(|| text::guess(bytes)),
    }
}

fn order(bytes: &[u8]) -> String {
    let mut reader = Little::new(bytes);
    let mut numbers = Vec::new();
    while let Some(number) = reader.u16() {
        numbers.push(format!("{number:04X}"));
    }
    text::printable(numbers.join(",").chars())
}

/// `EFI_LOAD_OPTION` (UEFI, 3.1.3): description, then path.
fn load_option(bytes: &[u8]) -> Option<String> {
    let mut reader = Little::new(bytes);
    reader.u32()?;
    let path_bytes = usize::from(reader.u16()?);
    let rest = reader.rest();
    let mut units = rest.chunks_exact(2);
    let end = units.position(|unit| unit == [0, 0])? * 2;
    let (description, rest) = rest.split_at_checked(end)?;
    let mut reader = Little::new(rest);
    reader.u16()?;
    let path = reader.take(path_bytes)?;
    Some(format!(
        "{} at {}",
        text::wide(description),
        device_path::to_text(path)
    ))
}

/// What stands in a database: kinds, digest of it all, and by name the first certificates.
fn signatures(bytes: &[u8]) -> Option<String> {
    let all = signature_list::parse(bytes).ok()?;
    let of = |kind| all.iter().filter(move |one| one.kind == kind);
    let names: Vec<String> = of(SignatureKind::X509)
        .filter_map(|one| subject(one.data))
        .take(MAX_NAMES)
        .collect();
    let named = match names.is_empty() {
        true => String::new(),
        false => format!(" ({})", names.join("; ")),
    };
    Some(format!(
        "{} certificates{named}, {} hashes, {} others; sha256 {}",
        of(SignatureKind::X509).count(),
        of(SignatureKind::Sha256).count(),
        all.iter()
            .filter(|one| matches!(one.kind, SignatureKind::Other(_)))
            .count(),
        crate::Digest::of(bytes)
    ))
}

/// An entry of a database: a certificate, after its owner's GUID or alone.
fn certificate(bytes: &[u8]) -> Option<String> {
    let after_owner = bytes.get(16..)?;
    let name = subject(after_owner).or_else(|| subject(bytes))?;
    Some(format!("certificate of {name}"))
}

/// The subject of a DER certificate, for people: whether it holds is not looked at.
fn subject(der: &[u8]) -> Option<String> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = text::printable(certificate.subject().to_string().chars());
    (rest.is_empty() && !name.is_empty()).then_some(name)
}

/// `UEFI_PLATFORM_FIRMWARE_BLOB`: where it lies and how large it is.
fn blob(data: &[u8]) -> Option<String> {
    let mut reader = Little::new(data);
    let (base, size) = (reader.u64()?, reader.u64()?);
    Some(format!("{size} bytes of firmware at {base:#x}"))
}

/// `UEFI_GPT_DATA`: the disk's GUID stands at 56 in its header.
fn gpt(data: &[u8]) -> Option<String> {
    let mut reader = Little::new(data);
    if reader.take(8)? != b"EFI PART" {
        return None;
    }
    reader.take(56 - 8)?;
    let disk = Guid(reader.array()?);
    reader.take(92 - 72)?;
    Some(format!("disk {disk}, {} partitions", reader.u64()?))
}
