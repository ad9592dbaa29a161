//! Secure Boot, read from PCR 7 (PFP, 3.3.4.8).
//!
//! The log is the attacker's to write, its digests are not. So every event in PCR 7 must be of a type that belongs
//! there and have a digest that covers what is read; a machine that booted without Secure Boot measured `SecureBoot = 0`
//! before anything could run, and that event cannot be called another.

use std::collections::BTreeSet;

use super::BootLog;
use super::event::{Event, EventType};
use super::refusal::SecureBootRefused as Refused;
use super::signature_list::{self, SignatureKind};
use super::text;
use super::variable::{EfiVariable, Guid};
use crate::digest::Digest;
use crate::tpm::HashAlg;

/// Most authorities told of one boot. Real ones have one to four.
pub const MAX_AUTHORITIES: usize = 64;

const DEBUGGER: &[u8] = b"UEFI Debug Mode";
const NO_DMA_PROTECTION: &[u8] = b"DMA Protection Disabled";

/// What PCR 7 says, completely covered by its digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureBoot {
    on: bool,
    dma_protection_disabled: bool,
    pk: SignatureDatabase,
    kek: SignatureDatabase,
    db: SignatureDatabase,
    dbx: SignatureDatabase,
    authorities: Vec<Authority>,
}

/// One of the four key stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureDatabase {
    /// SHA-256 of the variable's value.
    pub digest: Digest,
    pub certificates: usize,
    /// SHA-256 digests of images.
    pub hashes: usize,
    /// Of other types.
    pub others: usize,
}

/// By what an image was allowed to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Its place in the log.
    pub event: usize,
    pub guid: Guid,
    /// The variable it stands in: `db`, or one of shim's. Bounded and printable.
    pub variable: String,
    /// SHA-256 of the entry.
    pub digest: Digest,
}

impl SecureBoot {
    /// Whether firmware refused to start what no authority signed.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The firmware said that devices could write to memory during the boot.
    pub fn dma_protection_disabled(&self) -> bool {
        self.dma_protection_disabled
    }

    pub fn pk(&self) -> &SignatureDatabase {
        &self.pk
    }

    pub fn kek(&self) -> &SignatureDatabase {
        &self.kek
    }

    pub fn db(&self) -> &SignatureDatabase {
        &self.db
    }

    pub fn dbx(&self) -> &SignatureDatabase {
        &self.dbx
    }

    /// In the order in which they were used.
    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }
}

impl SignatureDatabase {
    fn parse(value: &[u8]) -> Option<Self> {
        let signatures = signature_list::parse(value).ok()?;
        let count = |wanted: fn(SignatureKind) -> bool| {
            signatures.iter().filter(|one| wanted(one.kind)).count()
        };
        Some(Self {
            digest: Digest::of(value),
            certificates: count(|kind| kind == SignatureKind::X509),
            hashes: count(|kind| kind == SignatureKind::Sha256),
            others: count(|kind| matches!(kind, SignatureKind::Other(_))),
        })
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.certificates == 0 && self.hashes == 0 && self.others == 0
    }
}

/// The caller has compared PCR 7 with its quoted value, and its separator.
pub(super) fn read(log: &BootLog, bank: HashAlg) -> Result<SecureBoot, Refused> {
    let mut reading = Reading::default();
    for event in log.events().filter(|event| event.pcr() == Some(7)) {
        reading.event(&event, bank)?;
    }
    reading.end()
}

#[derive(Default)]
struct Reading {
    separated: bool,
    dma_protection_disabled: bool,
    seen: BTreeSet<(Guid, String)>,
    on: Option<bool>,
    pk: Option<SignatureDatabase>,
    kek: Option<SignatureDatabase>,
    db: Option<SignatureDatabase>,
    dbx: Option<SignatureDatabase>,
    authorities: Vec<Authority>,
}

impl Reading {
    fn event(&mut self, event: &Event<'_>, bank: HashAlg) -> Result<(), Refused> {
        match event.kind() {
            EventType::SEPARATOR => {
                self.separated = true;
                Ok(())
            }
            EventType::EFI_VARIABLE_DRIVER_CONFIG => self.variable(event, bank),
            EventType::EFI_VARIABLE_AUTHORITY => self.authority(event, bank),
            EventType::EFI_ACTION if !self.separated => self.action(event, bank),
            EventType::EFI_SPDM_DEVICE_POLICY | EventType::EFI_SPDM_DEVICE_AUTHORITY
                if !self.separated =>
            {
                device(event, bank)
            }
            kind => Err(Refused::UnexpectedEvent {
                event: event.index(),
                kind,
            }),
        }
    }

    fn action(&mut self, event: &Event<'_>, bank: HashAlg) -> Result<(), Refused> {
        covered(event, bank)?;
        if event.data() == DEBUGGER {
            return Err(Refused::Debugger {
                event: event.index(),
            });
        }
        self.dma_protection_disabled |= event.data() == NO_DMA_PROTECTION;
        Ok(())
    }

    fn variable(&mut self, event: &Event<'_>, bank: HashAlg) -> Result<(), Refused> {
        covered(event, bank)?;
        let index = event.index();
        let variable = EfiVariable::parse(event.data())
            .filter(|variable| variable.trailing == 0)
            .ok_or(Refused::Variable { event: index })?;
        let name = || text::printable(variable.name.chars());
        if self.separated {
            return Err(Refused::AfterSeparator {
                event: index,
                name: name(),
            });
        }
        if !self.seen.insert((variable.guid, variable.name.clone())) {
            return Err(Refused::Twice {
                event: index,
                name: name(),
            });
        }
        let store = match (variable.guid, variable.name.as_str()) {
            (Guid::GLOBAL, "SecureBoot") => {
                self.on = Some(match variable.value {
                    [0] => false,
                    [1] => true,
                    _ => return Err(Refused::Value { event: index }),
                });
                return Ok(());
            }
            (Guid::GLOBAL, "PK") => &mut self.pk,
            (Guid::GLOBAL, "KEK") => &mut self.kek,
            (Guid::IMAGE_SECURITY, "db") => &mut self.db,
            (Guid::IMAGE_SECURITY, "dbx") => &mut self.dbx,
            _ => return Ok(()),
        };
        let database = SignatureDatabase::parse(variable.value);
        *store = Some(database.ok_or_else(|| Refused::SignatureLists {
            event: index,
            name: name(),
        })?);
        Ok(())
    }

    fn authority(&mut self, event: &Event<'_>, bank: HashAlg) -> Result<(), Refused> {
        let (data, index) = (event.data(), event.index());
        let refused = Refused::NotCovered { event: index };
        // Shim before 15.5 writes bytes after the value, and measures all but the last of them.
        let without_last = data.split_last().map(|(_, rest)| rest).unwrap_or_default();
        let measured = [data, without_last]
            .into_iter()
            .find(|part| event.covers(bank, part))
            .ok_or(refused)?;
        let variable = EfiVariable::parse(measured).ok_or(Refused::Variable { event: index })?;
        if self.authorities.len() >= MAX_AUTHORITIES {
            return Err(Refused::TooManyAuthorities);
        }
        self.authorities.push(Authority {
            event: index,
            guid: variable.guid,
            variable: text::printable(variable.name.chars()),
            digest: Digest::of(variable.value),
        });
        Ok(())
    }

    fn end(self) -> Result<SecureBoot, Refused> {
        let on = self.on.ok_or(Refused::Absent("SecureBoot"))?;
        if !self.separated {
            return Err(Refused::NoSeparator);
        }
        let store = |found: Option<SignatureDatabase>, name, may_be_empty| match found {
            Some(store) if may_be_empty || !store.is_empty() => Ok(store),
            // A machine without Secure Boot may have none.
            Some(store) if !on => Ok(store),
            None if !on => Ok(SignatureDatabase::none()),
            _ => Err(Refused::Absent(name)),
        };
        let by_firmware = |authority: &Authority| {
            authority.guid == Guid::IMAGE_SECURITY && authority.variable == "db"
        };
        let read = SecureBoot {
            on,
            dma_protection_disabled: self.dma_protection_disabled,
            pk: store(self.pk, "PK", false)?,
            kek: store(self.kek, "KEK", false)?,
            db: store(self.db, "db", false)?,
            dbx: store(self.dbx, "dbx", true)?,
            authorities: self.authorities,
        };
        if on && !read.authorities.iter().any(by_firmware) {
            return Err(Refused::NoAuthority);
        }
        Ok(read)
    }
}

impl SignatureDatabase {
    fn none() -> Self {
        Self {
            digest: Digest::of(&[]),
            certificates: 0,
            hashes: 0,
            others: 0,
        }
    }
}

/// Which devices may speak (PFP 1.06): nothing is read from it, but it must be a variable, so that no action hides behind
/// that type.
fn device(event: &Event<'_>, bank: HashAlg) -> Result<(), Refused> {
    covered(event, bank)?;
    match EfiVariable::parse(event.data()) {
        Some(_) => Ok(()),
        None => Err(Refused::Variable {
            event: event.index(),
        }),
    }
}

fn covered(event: &Event<'_>, bank: HashAlg) -> Result<(), Refused> {
    if event.covers(bank, event.data()) {
        return Ok(());
    }
    Err(Refused::NotCovered {
        event: event.index(),
    })
}
