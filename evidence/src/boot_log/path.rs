//! What the firmware started, read from PCR 4, and that it handed over, read from PCR 5 (PFP, 3.3.4.5).

use super::BootLog;
use super::device_path;
use super::event::{Event, EventType};
use super::judge::is_exit;
use super::refusal::BootPathRefused as Refused;
use crate::tpm::HashAlg;

/// Most images told of one boot. Real ones have two to five.
pub(super) const MAX_APPLICATIONS: usize = 64;

/// What the firmware started until it handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPath {
    applications: Vec<Application>,
}

/// An image that the firmware loaded: boot loader, or a kernel that is an EFI image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its place in the log.
    pub event: usize,
    pub pcr: u8,
    /// Authenticode digest of the image in the bank judged: what the TPM saw.
    pub digest: Vec<u8>,
    /// Where the log says that it came from. No digest covers it: for people only; bounded and printable.
    pub path: String,
}

impl BootPath {
    /// In the order in which they were loaded. A false log can add to them (what came later, or an action called an
    /// image), never take one away: lists of what is allowed hold, lists of what is denied hold, order and count do not.
    pub fn applications(&self) -> &[Application] {
        &self.applications
    }
}

/// The caller has compared PCRs 4 and 5 with their quoted values, and their separators.
pub(super) fn read(log: &BootLog, bank: HashAlg) -> Result<BootPath, Refused> {
    let mut applications = Vec::new();
    let mut separated = false;
    for event in log.events().filter(|event| event.pcr() == Some(4)) {
        match event.kind() {
            EventType::SEPARATOR => separated = true,
            EventType::EFI_ACTION | EventType::ACTION | EventType::OMIT_BOOT_DEVICE_EVENTS => {
                if !event.covers(bank, event.data()) {
                    return Err(Refused::NotCovered {
                        event: event.index(),
                    });
                }
            }
            EventType::EFI_BOOT_SERVICES_APPLICATION
            | EventType::EFI_BOOT_SERVICES_DRIVER
            | EventType::EFI_RUNTIME_SERVICES_DRIVER => {
                if applications.len() >= MAX_APPLICATIONS {
                    return Err(Refused::TooMany);
                }
                applications.push(application(&event, bank));
            }
            // Another type could hide an image from this list.
            kind => {
                return Err(Refused::UnexpectedEvent {
                    event: event.index(),
                    kind,
                });
            }
        }
    }
    if !separated {
        return Err(Refused::NoSeparator);
    }
    if !log.events().any(|event| is_exit(&event, bank)) {
        return Err(Refused::NoExit);
    }
    Ok(BootPath { applications })
}

fn application(event: &Event<'_>, bank: HashAlg) -> Application {
    Application {
        event: event.index(),
        pcr: 4,
        digest: event.digest(bank).unwrap_or_default().to_vec(),
        path: device_path::of_image(event.data()),
    }
}
