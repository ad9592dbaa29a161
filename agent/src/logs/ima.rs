//! The IMA list in the kernel's binary form, walked entry by entry and cut where a quote stands.
//!
//! The kernel adds an entry to the list before it extends the PCR, and goes on while the TPM quotes. So the list is
//! read after the quote and cut to the entries whose replay gives the quoted PCR 10. Where no cut does, everything is
//! sent: what that means is the cloud's to judge.

use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};

use edgeward_evidence::ima::{MAX_IMA_LIST_BYTES, MAX_IMA_PART_BYTES};
use edgeward_evidence::tpm::PcrBank;
use ring::digest::{Algorithm, Context, SHA256, SHA384, SHA512};

use super::{IMA_PCR, Missing, QuotedIma};

/// Longest name of a template (`TCG_EVENT_NAME_LEN_MAX`), in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Most bytes of template data in one entry that are walked over: more than the cloud takes, so that it is the one to
/// refuse it, by name.
const MAX_DATA_BYTES: usize = 64 << 10;
/// PCR, SHA-1 template digest, length of the name.
const HEADER_BYTES: usize = 4 + SHA1_BYTES + 4;
const SHA1_BYTES: usize = 20;
/// The one template whose data has no length in front.
const OLD_TEMPLATE: &[u8] = b"ima";
/// Most positions remembered: the newest, and those that a cloud that refused an answer still stands at.
const MAX_MARKS: usize = 4;

/// Where the list was cut before, so that an unchanged list is not replayed again.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    marks: Vec<Mark>,
}

/// What one answer takes of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) entries: Vec<u8>,
    pub(super) more: bool,
}

/// A place between two entries.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    bank: PcrBank,
    entries: u64,
    /// In bytes from the start of the list.
    offset: u64,
    /// What PCR 10 is after these entries.
    pcr: Vec<u8>,
}

/// Why a walk ended.
enum Ended {
    /// The replay stands at the quoted value.
    AtQuote,
    /// The next entry would exceed the answer.
    Full,
    /// No entry is left.
    List,
}

impl Replayed {
    /// The entries from number `known` on, up to the quote.
    pub(super) fn part(
        &mut self,
        list: &mut (impl Read + Seek),
        known: u64,
        quoted: Option<&QuotedIma>,
    ) -> Result<Part, Missing> {
        let bank = quoted.map_or(PcrBank::Sha256, |quoted| quoted.bank);
        let begin = self
            .marks
            .iter()
            .filter(|mark| mark.bank == bank && mark.entries <= known)
            .max_by_key(|mark| mark.entries)
            .cloned();
        if let Some(begin) = begin {
            let mut walk = Walk::from(begin, known, quoted);
            // A list that was replaced does not go on where the old one was left: from the start then.
            if let Ok(ended @ (Ended::AtQuote | Ended::Full)) = walk.run(list) {
                return Ok(self.taken(walk, &ended));
            }
        }
        self.marks.clear();
        let mut walk = Walk::from(Mark::start(bank), known, quoted);
        let ended = walk.run(list)?;
        Ok(self.taken(walk, &ended))
    }

    fn taken(&mut self, walk: Walk<'_>, ended: &Ended) -> Part {
        let part = Part {
            // A list with fewer entries than are known says so.
            first: walk.known.min(walk.at.entries),
            entries: walk.taken,
            more: matches!(ended, Ended::Full),
        };
        if !matches!(ended, Ended::List) && !self.marks.contains(&walk.at) {
            if self.marks.len() >= MAX_MARKS {
                self.marks.remove(0);
            }
            self.marks.push(walk.at);
        }
        part
    }
}

impl Mark {
    fn start(bank: PcrBank) -> Self {
        Self {
            bank,
            entries: 0,
            offset: 0,
            pcr: vec![0; algorithm(bank).output_len()],
        }
    }

    fn extend(&mut self, digest: &[u8]) {
        let mut context = Context::new(algorithm(self.bank));
        context.update(&self.pcr);
        context.update(digest);
        self.pcr = context.finish().as_ref().to_vec();
    }
}

/// One go through the list.
struct Walk<'a> {
    at: Mark,
    known: u64,
    quoted: Option<&'a QuotedIma>,
    taken: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn from(at: Mark, known: u64, quoted: Option<&'a QuotedIma>) -> Self {
        Self {
            at,
            known,
            quoted,
            taken: Vec::new(),
        }
    }

    fn run(&mut self, list: &mut (impl Read + Seek)) -> Result<Ended, Missing> {
        list.seek(SeekFrom::Start(self.at.offset))
            .map_err(Missing::Unreadable)?;
        let mut list = BufReader::with_capacity(64 << 10, list);
        let mut entry = Entry::default();
        loop {
            let takes = self.at.entries >= self.known;
            if takes
                && self
                    .quoted
                    .is_some_and(|quoted| quoted.value == self.at.pcr)
            {
                return Ok(Ended::AtQuote);
            }
            if !entry.read(&mut list, self.at.entries)? {
                return Ok(Ended::List);
            }
            let length = u64::try_from(entry.bytes.len()).unwrap_or(u64::MAX);
            if self.at.offset.saturating_add(length) > MAX_IMA_LIST_BYTES {
                return Err(Missing::TooLarge(MAX_IMA_LIST_BYTES));
            }
            if takes {
                if self.taken.len() + entry.bytes.len() > MAX_IMA_PART_BYTES {
                    return Ok(Ended::Full);
                }
                self.taken.extend_from_slice(&entry.bytes);
            }
            self.at.offset += length;
            self.at.entries += 1;
            if entry.pcr == IMA_PCR {
                self.at.extend(&entry.digest(self.at.bank));
            }
        }
    }
}

/// One entry: its bytes, and what of them is needed to replay it.
#[derive(Debug, Default)]
struct Entry {
    bytes: Vec<u8>,
    pcr: u32,
    violation: bool,
    /// Where the template data begins.
    data: usize,
}

impl Entry {
    /// Whether there was another one; what the kernel has not written to its end yet is none.
    fn read(&mut self, list: &mut impl Read, number: u64) -> Result<bool, Missing> {
        self.bytes.clear();
        let Some(header) = self.take::<HEADER_BYTES>(list)? else {
            return Ok(false);
        };
        let (pcr, rest) = header
            .split_first_chunk::<4>()
            .ok_or(Missing::Malformed(number))?;
        let (digest, name) = rest
            .split_first_chunk::<SHA1_BYTES>()
            .ok_or(Missing::Malformed(number))?;
        self.pcr = u32::from_le_bytes(*pcr);
        self.violation = digest.iter().all(|byte| *byte == 0);
        let name = size(name, MAX_NAME_BYTES).ok_or(Missing::Malformed(number))?;
        if !self.append(list, name)? {
            return Ok(false);
        }
        if self.bytes.get(HEADER_BYTES..) == Some(OLD_TEMPLATE) {
            return Err(Missing::Malformed(number));
        }
        let Some(length) = self.take::<4>(list)? else {
            return Ok(false);
        };
        let length = size(&length, MAX_DATA_BYTES).ok_or(Missing::Malformed(number))?;
        self.data = self.bytes.len();
        self.append(list, length)
    }

    /// What is extended: the digest of the template data, or all ones for a violation.
    fn digest(&self, bank: PcrBank) -> Vec<u8> {
        let algorithm = algorithm(bank);
        if self.violation {
            return vec![0xff; algorithm.output_len()];
        }
        let data = self.bytes.get(self.data..).unwrap_or_default();
        ring::digest::digest(algorithm, data).as_ref().to_vec()
    }

    fn take<const N: usize>(&mut self, list: &mut impl Read) -> Result<Option<[u8; N]>, Missing> {
        let mut taken = [0; N];
        if !full(list, &mut taken)? {
            return Ok(None);
        }
        self.bytes.extend_from_slice(&taken);
        Ok(Some(taken))
    }

    /// `length` is within its limit.
    fn append(&mut self, list: &mut impl Read, length: usize) -> Result<bool, Missing> {
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        full(list, self.bytes.get_mut(start..).unwrap_or_default())
    }
}

/// Whether the buffer could be filled.
fn full(list: &mut impl Read, buffer: &mut [u8]) -> Result<bool, Missing> {
    match list.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Missing::Unreadable(error)),
    }
}

/// A length field, if it is within its limit. The kernel writes its own byte order: little-endian on all we run on.
fn size(field: &[u8], limit: usize) -> Option<usize> {
    let field = field.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*field))
        .ok()
        .filter(|size| *size <= limit)
}

fn algorithm(bank: PcrBank) -> &'static Algorithm {
    match bank {
        PcrBank::Sha256 => &SHA256,
        PcrBank::Sha384 => &SHA384,
        PcrBank::Sha512 => &SHA512,
    }
}
