//! What a node ran, as a log that its TPM vouches for. Pure: bytes in, records and a PCR value out.
//!
//! The form is TCG's Canonical Event Log in its binary encoding (CEL-TLV, version 1.0): each record holds its number, the
//! PCR, the digest that was extended, and the content that the digest is of.

mod record;
mod tlv;

pub use record::{App, Event, Happened};

use ring::digest::{SHA256, digest};

use tlv::{Reader, put};

/// Most records of one boot.
pub const MAX_RECORDS: usize = 4_097;
/// Largest content of one record, in bytes.
pub const MAX_CONTENT_BYTES: usize = 1024;
/// Largest log, in bytes.
pub const MAX_LOG_BYTES: usize = MAX_RECORDS * (MAX_CONTENT_BYTES + 96);

const RECORD_NUMBER: u8 = 0;
const PCR: u8 = 1;
const DIGESTS: u8 = 3;
/// Not one of TCG's: this content is ours.
const CONTENT: u8 = 0xe0;
const ALG_SHA256: u8 = 0x0b;

/// Value of a PCR in the bank of SHA-256.
pub type PcrValue = [u8; 32];

/// Records of one boot, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppLog {
    bytes: Vec<u8>,
    events: Vec<Event>,
}

/// How a log and its PCR stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Whole,
    /// The last record was written, and the machine died before it was extended.
    LastMissing(PcrValue),
    /// Somebody else extended the PCR, or changed the log.
    Broken,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLog {
    #[error("log is larger than the limit in bytes: {MAX_LOG_BYTES}")]
    TooLarge,
    #[error("log has more records than the limit: {MAX_RECORDS}")]
    TooMany,
    #[error("record is cut short or of another form: {0}")]
    Malformed(usize),
    #[error("record has another number than its place: {0}")]
    Number(usize),
    #[error("record is of another PCR: {0}")]
    OtherPcr(usize),
    #[error("digest is not of the content: {0}")]
    Digest(usize),
    #[error("content says nothing known: {0}")]
    Content(usize),
}

/// A record that is not written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    #[error("log is full")]
    Full,
    #[error("content is larger than the limit in bytes: {MAX_CONTENT_BYTES}")]
    TooLarge,
    #[error("PCR can be reset by programs, or does not exist: {0}")]
    Pcr(u32),
}

impl AppLog {
    /// Reads a whole log of this PCR. Every byte counts: nothing may follow the last record.
    pub fn parse(bytes: &[u8], pcr: u32) -> Result<Self, BadLog> {
        if bytes.len() > MAX_LOG_BYTES {
            return Err(BadLog::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let mut events = Vec::new();
        while !reader.is_empty() {
            if events.len() >= MAX_RECORDS {
                return Err(BadLog::TooMany);
            }
            events.push(read_record(&mut reader, events.len(), pcr)?);
        }
        Ok(Self {
            bytes: bytes.to_owned(),
            events,
        })
    }

    /// Adds a record and gives its bytes, which must be on disk before the digest is extended.
    pub fn append(&mut self, pcr: u32, event: &Event) -> Result<(Vec<u8>, PcrValue), NotWritten> {
        // 16 and 23 can be reset from the machine's own locality, 17 to 22 belong to dynamic launch.
        if pcr >= 16 {
            return Err(NotWritten::Pcr(pcr));
        }
        if self.events.len() >= MAX_RECORDS {
            return Err(NotWritten::Full);
        }
        let content = event.to_bytes();
        if content.len() > MAX_CONTENT_BYTES {
            return Err(NotWritten::TooLarge);
        }
        let value = hash(&[&content]);
        let mut record = Vec::new();
        put(
            &mut record,
            RECORD_NUMBER,
            &(self.events.len() as u64).to_be_bytes(),
        );
        put(&mut record, PCR, &pcr.to_be_bytes());
        let mut digests = Vec::new();
        put(&mut digests, ALG_SHA256, &value);
        put(&mut record, DIGESTS, &digests);
        put(&mut record, CONTENT, &content);
        self.bytes.extend_from_slice(&record);
        self.events.push(event.clone());
        Ok((record, value))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What the PCR holds after all records. `start` is its value before the first: what the boot log gives for it, as
    /// shim extends some of these PCRs, too.
    pub fn replay(&self, start: PcrValue) -> PcrValue {
        replay(&self.events, start)
    }

    /// Compares with what the TPM says, after a restart of whoever writes.
    pub fn standing(&self, start: PcrValue, now: &PcrValue) -> Standing {
        if self.replay(start) == *now {
            return Standing::Whole;
        }
        match self.events.split_last() {
            Some((last, before)) if replay(before, start) == *now => {
                Standing::LastMissing(hash(&[&last.to_bytes()]))
            }
            _ => Standing::Broken,
        }
    }
}

fn replay(events: &[Event], start: PcrValue) -> PcrValue {
    events.iter().fold(start, |value, event| {
        hash(&[&value, &hash(&[&event.to_bytes()])])
    })
}

fn read_record(reader: &mut Reader<'_>, number: usize, pcr: u32) -> Result<Event, BadLog> {
    let malformed = BadLog::Malformed(number);
    let mut field = |kind| reader.field(kind).ok_or(BadLog::Malformed(number));
    let told = field(RECORD_NUMBER)?;
    let of = field(PCR)?;
    let digests = field(DIGESTS)?;
    let content = field(CONTENT)?;
    if told != (number as u64).to_be_bytes() {
        return Err(BadLog::Number(number));
    }
    if of != pcr.to_be_bytes() {
        return Err(BadLog::OtherPcr(number));
    }
    let mut banks = Reader::new(digests);
    let value = banks.field(ALG_SHA256).ok_or(malformed)?;
    if !banks.is_empty() || value != hash(&[content]) {
        return Err(BadLog::Digest(number));
    }
    if content.len() > MAX_CONTENT_BYTES {
        return Err(BadLog::Content(number));
    }
    Event::from_bytes(content).ok_or(BadLog::Content(number))
}

fn hash(parts: &[&[u8]]) -> PcrValue {
    let whole = parts.concat();
    let mut value = [0; 32];
    value.copy_from_slice(digest(&SHA256, &whole).as_ref());
    value
}

#[cfg(test)]
mod tests;
