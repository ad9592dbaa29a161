//! Bytes to [`BootLog`] (PFP, 10.2.1 and 10.2.2).

use super::event::{EventType, Span};
use super::little::Little;
use super::refusal::BootLogRefused as Refused;
use super::{BootLog, Format, MAX_BOOT_LOG_BANKS, MAX_BOOT_LOG_BYTES, MAX_BOOT_LOG_EVENTS};
use crate::tpm::HashAlg;
use crate::tpm::pcr::PCR_COUNT;

const SPEC_ID_03: &[u8] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";
/// `PCRIndex` of informative events that belong to no PCR.
const NO_PCR: u32 = u32::MAX;
/// Longest digest in bytes of any algorithm that TPMs have.
const MAX_DIGEST_BYTES: usize = 64;
const SHA1_BANK: (u16, usize) = (HashAlg::Sha1.id(), HashAlg::Sha1.digest_len());

pub(super) fn parse(bytes: &[u8]) -> Result<BootLog, Refused> {
    if bytes.is_empty() {
        return Err(Refused::Empty);
    }
    if bytes.len() > MAX_BOOT_LOG_BYTES {
        return Err(Refused::TooLarge(bytes.len()));
    }
    let mut parser = Parser {
        bytes,
        at: 0,
        events: Vec::new(),
        banks: vec![SHA1_BANK],
        active: None,
        format: Format::Sha1,
    };
    parser.lone()?;
    parser.header()?;
    while parser.at < bytes.len() {
        if parser.events.len() >= MAX_BOOT_LOG_EVENTS {
            return Err(Refused::TooManyEvents);
        }
        match parser.format {
            Format::Sha1 => parser.lone()?,
            Format::CryptoAgile => parser.agile()?,
        }
    }
    let locality = locality(bytes, &parser.events)?;
    let banks = parser.active_banks();
    Ok(BootLog {
        bytes: bytes.to_vec(),
        events: parser.events,
        banks,
        format: parser.format,
        locality,
    })
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    events: Vec<Span>,
    banks: Vec<(u16, usize)>,
    /// Bit by bit, which of `banks` the first event has digests for.
    active: Option<u32>,
    format: Format,
}

impl Parser<'_> {
    /// `TCG_PCR_EVENT`: index, type, SHA-1 digest, size, data.
    fn lone(&mut self) -> Result<(), Refused> {
        let (pcr, kind) = self.prefix()?;
        let digests = self.skip(HashAlg::Sha1.digest_len())?;
        self.data(pcr, kind, digests, true)
    }

    /// `TCG_PCR_EVENT2`: index, type, count of digests, digests, size, data.
    ///
    /// There is firmware whose header names banks that are not active, so an event may have fewer digests than the header
    /// has banks; but all events have them for the same banks, or one could be left out of the replay of a bank.
    fn agile(&mut self) -> Result<(), Refused> {
        let event = self.events.len();
        let (pcr, kind) = self.prefix()?;
        let count = self.u32()?;
        let bounded = usize::try_from(count).unwrap_or(usize::MAX);
        if bounded == 0 || bounded > self.banks.len() {
            return Err(Refused::DigestCount { event, count });
        }
        let from = self.at;
        let mut seen = 0_u32;
        for _ in 0..bounded {
            let id = self.u16()?;
            let mut places = (0_u32..).zip(&self.banks);
            let found = places.find(|(place, (bank, _))| *bank == id && seen & (1 << place) == 0);
            let Some((place, (_, len))) = found else {
                return Err(Refused::Algorithm { event, id });
            };
            seen |= 1 << place;
            let len = *len;
            self.skip(len)?;
        }
        if *self.active.get_or_insert(seen) != seen {
            return Err(Refused::DigestCount { event, count });
        }
        self.data(pcr, kind, (from, self.at), false)
    }

    /// Banks that every event has a digest for; all of the header's if there is no event.
    fn active_banks(&self) -> Vec<(u16, usize)> {
        let active = self.active.unwrap_or(u32::MAX);
        (0_u32..)
            .zip(&self.banks)
            .filter(|(place, _)| active & (1 << place) != 0)
            .map(|(_, bank)| *bank)
            .collect()
    }

    fn prefix(&mut self) -> Result<(u32, EventType), Refused> {
        let (pcr, kind) = (self.u32()?, EventType(self.u32()?));
        let extends_nothing = kind == EventType::NO_ACTION && pcr == NO_PCR;
        if pcr >= u32::from(PCR_COUNT) && !extends_nothing {
            return Err(Refused::PcrIndex {
                event: self.events.len(),
                pcr,
            });
        }
        Ok((pcr, kind))
    }

    fn data(
        &mut self,
        pcr: u32,
        kind: EventType,
        digests: (usize, usize),
        lone: bool,
    ) -> Result<(), Refused> {
        let size = self.u32()?;
        let bounded = usize::try_from(size)
            .ok()
            .filter(|size| *size <= MAX_BOOT_LOG_BYTES);
        let Some(bounded) = bounded else {
            return Err(Refused::EventSize {
                event: self.events.len(),
                size,
            });
        };
        let data = self.skip(bounded)?;
        self.events.push(Span {
            pcr,
            kind,
            lone,
            digests,
            data,
        });
        Ok(())
    }

    /// A `TCG_EfiSpecIdEvent` in the first event says which banks follow (PFP, 10.4.5.1); anything else there is the
    /// first event of a SHA-1 log.
    fn header(&mut self) -> Result<(), Refused> {
        let Some(first) = self.events.first_mut() else {
            return Err(Refused::Empty);
        };
        let data = self
            .bytes
            .get(first.data.0..first.data.1)
            .unwrap_or_default();
        if first.kind != EventType::NO_ACTION || !data.starts_with(SPEC_ID_03) {
            return Ok(());
        }
        let (banks, vendor_bytes_left) = spec_id(data).ok_or(Refused::Header)?;
        // There is firmware that leaves the vendor's bytes out of the event's size.
        if vendor_bytes_left > 0 {
            let to = first.data.1 + vendor_bytes_left;
            if to > self.bytes.len() {
                return Err(Refused::Truncated { event: 0 });
            }
            first.data.1 = to;
            self.at = to;
        }
        self.banks = banks;
        self.format = Format::CryptoAgile;
        Ok(())
    }

    fn skip(&mut self, count: usize) -> Result<(usize, usize), Refused> {
        let from = self.at;
        let to = from
            .checked_add(count)
            .filter(|to| *to <= self.bytes.len())
            .ok_or_else(|| self.truncated())?;
        self.at = to;
        Ok((from, to))
    }

    fn u16(&mut self) -> Result<u16, Refused> {
        let mut reader = self.reader();
        let value = reader.u16().ok_or_else(|| self.truncated())?;
        self.at += 2;
        Ok(value)
    }

    fn u32(&mut self) -> Result<u32, Refused> {
        let mut reader = self.reader();
        let value = reader.u32().ok_or_else(|| self.truncated())?;
        self.at += 4;
        Ok(value)
    }

    fn reader(&self) -> Little<'_> {
        Little::new(self.bytes.get(self.at..).unwrap_or_default())
    }

    fn truncated(&self) -> Refused {
        Refused::Truncated {
            event: self.events.len(),
        }
    }
}

/// The banks of a `TCG_EfiSpecIdEvent`, and how many of the vendor's bytes lie beyond the event's size: all or none.
fn spec_id(data: &[u8]) -> Option<(Vec<(u16, usize)>, usize)> {
    let mut reader = Little::new(data);
    reader.take(SPEC_ID_03.len())?;
    // Platform class, version minor, major, errata, size of UINTN.
    reader.take(4 + 1 + 1 + 1 + 1)?;
    let count = usize::try_from(reader.u32()?).ok()?;
    if count == 0 || count > MAX_BOOT_LOG_BANKS {
        return None;
    }
    let mut banks: Vec<(u16, usize)> = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, len) = (reader.u16()?, usize::from(reader.u16()?));
        let fits = HashAlg::from_id(id).map_or((1..=MAX_DIGEST_BYTES).contains(&len), |known| {
            known.digest_len() == len
        });
        if !fits || banks.iter().any(|(other, _)| *other == id) {
            return None;
        }
        banks.push((id, len));
    }
    let vendor = usize::from(reader.u8()?);
    if reader.len() == vendor {
        return Some((banks, 0));
    }
    reader.is_empty().then_some((banks, vendor))
}

/// The locality of `TPM2_Startup`, which the firmware tells before it extends PCR 0 (PFP, 10.4.5.3).
fn locality(bytes: &[u8], events: &[Span]) -> Result<u8, Refused> {
    let mut found = None;
    let mut extended = false;
    for (event, span) in events.iter().enumerate() {
        if span.kind != EventType::NO_ACTION {
            extended |= span.pcr == 0;
            continue;
        }
        let data = bytes.get(span.data.0..span.data.1).unwrap_or_default();
        let Some(value) = data.strip_prefix(STARTUP_LOCALITY) else {
            continue;
        };
        match value {
            // 3: an earlier stage started the TPM; 4: a hardware root of trust measured first.
            [locality @ (0 | 3 | 4)] if span.pcr == 0 && !extended && found.is_none() => {
                found = Some(*locality);
            }
            _ => return Err(Refused::StartupLocality { event }),
        }
    }
    Ok(found.unwrap_or(0))
}
