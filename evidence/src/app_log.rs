//! What a node ran, as a log that its TPM vouches for. Pure: bytes in, records and a PCR value out.
//!
//! The form is TCG's Canonical Event Log in its binary encoding (CEL-TLV, version 1.0): each record holds its number, the
//! PCR, the digest that was extended, and the content that the digest is of.

mod record;
mod state;
mod tlv;

pub use record::{App, Event, Happened};
pub use state::{AppState, Runs, is_runs};

use ring::digest::{SHA256, digest};

use tlv::{Reader, put};

/// Most records of one boot, the one that says that there are no more among them: so many that all of them fit into one
/// answer beside the other logs.
pub const MAX_RECORDS: usize = 1_025;
/// Largest content of one record, in bytes.
pub const MAX_CONTENT_BYTES: usize = 512;
/// Bytes of a record around its content: five types and lengths, number, PCR, the algorithm's type and length, digest.
const AROUND_CONTENT_BYTES: usize = 69;
/// Largest log, in bytes.
pub const MAX_LOG_BYTES: usize = MAX_RECORDS * (MAX_CONTENT_BYTES + AROUND_CONTENT_BYTES);

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

/// Why bytes are no log. The fault is the node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    #[error("content says nothing that could be read again")]
    Content,
    #[error("PCR is not one for applications: {0}")]
    Pcr(u32),
}

/// Whether applications may be measured there. 0 to 7 are the firmware's, 10 is IMA's; 16 and 23 can be reset from the
/// machine's own locality, and 17 to 22 belong to dynamic launch.
pub fn is_apps_pcr(pcr: u32) -> bool {
    matches!(pcr, 8 | 9 | 11..=15)
}

impl BadLog {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge | Self::TooMany => "apps_log_too_large",
            Self::OtherPcr(_) => "apps_log_other_pcr",
            Self::Malformed(_) | Self::Number(_) | Self::Digest(_) | Self::Content(_) => {
                "apps_log_malformed"
            }
        }
    }
}

impl AppLog {
    /// Reads a whole log of this PCR. Every byte counts: nothing may follow the last record.
    pub fn parse(bytes: &[u8], pcr: u32) -> Result<Self, BadLog> {
        Ok(Self {
            events: read_records(bytes, 0, pcr)?,
            bytes: bytes.to_owned(),
        })
    }

    /// The bytes of the records from number `first` on, up to the one after which the PCR has the value `at`. Where it
    /// never has, all of them: what that means is for whoever reads them to say.
    pub fn part(&self, first: usize, start: PcrValue, at: &PcrValue) -> &[u8] {
        let mut value = start;
        let mut end = self.events.len();
        for (number, event) in self.events.iter().enumerate() {
            if value == *at {
                end = number;
                break;
            }
            value = extended(&value, event);
        }
        let [from, to] = [first.min(end), end].map(|number| self.offset(number));
        self.bytes.get(from..to).unwrap_or_default()
    }

    /// Where a record begins.
    fn offset(&self, number: usize) -> usize {
        let before = self.events.iter().take(number);
        before
            .map(|event| AROUND_CONTENT_BYTES + event.to_bytes().len())
            .sum()
    }

    /// The whole records at the beginning: whoever wrote the rest was cut off.
    pub fn salvage(bytes: &[u8], pcr: u32) -> Self {
        let mut reader = Reader::new(bytes);
        let mut log = Self::default();
        while log.events.len() < MAX_RECORDS
            && let Ok(event) = read_record(&mut reader, log.events.len(), pcr)
        {
            let length = AROUND_CONTENT_BYTES + event.to_bytes().len();
            let record = bytes.iter().skip(log.bytes.len()).take(length);
            log.bytes.extend(record);
            log.events.push(event);
        }
        log
    }

    /// Adds a record and gives its bytes, which must be on disk before the digest is extended.
    pub fn append(&mut self, pcr: u32, event: &Event) -> Result<(Vec<u8>, PcrValue), NotWritten> {
        if !is_apps_pcr(pcr) {
            return Err(NotWritten::Pcr(pcr));
        }
        if self.events.len() >= MAX_RECORDS {
            return Err(NotWritten::Full);
        }
        let content = event.to_bytes();
        if content.len() > MAX_CONTENT_BYTES {
            return Err(NotWritten::TooLarge);
        }
        if Event::from_bytes(&content).is_none() {
            return Err(NotWritten::Content);
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
    events
        .iter()
        .fold(start, |value, event| extended(&value, event))
}

fn extended(value: &PcrValue, event: &Event) -> PcrValue {
    hash(&[value, &hash(&[&event.to_bytes()])])
}

/// All records in these bytes, the first of which has this number.
fn read_records(bytes: &[u8], first: usize, pcr: u32) -> Result<Vec<Event>, BadLog> {
    if bytes.len() > MAX_LOG_BYTES {
        return Err(BadLog::TooLarge);
    }
    let mut reader = Reader::new(bytes);
    let mut events = Vec::new();
    while !reader.is_empty() {
        let number = first.saturating_add(events.len());
        if number >= MAX_RECORDS {
            return Err(BadLog::TooMany);
        }
        events.push(read_record(&mut reader, number, pcr)?);
    }
    Ok(events)
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
