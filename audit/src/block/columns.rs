//! What filters and charts ask of events, column by column.
//!
//! `format | length and frame of: number of rows, places, names, journals, columns`. Each name and each journal is kept
//! once and meant by its number; times are kept as steps from row to row, sequence numbers as steps from where the
//! journal would go on. So most columns are runs of equal bytes, which compress to nothing.

use edgeward_identity::Timestamp;

use super::bytes::Bytes;
use super::squeeze::unsqueeze;
use super::{BlockError, MAX_COLUMNS_BYTES, MAX_PART_EVENTS, Places};
use crate::event::{EventKind, Verdict};
use crate::query::Filter;
use crate::record::BootId;

mod asked;
mod encode;

use asked::Asked;
pub(super) use encode::ColumnsWriter;

const FORMAT: u8 = 1;
/// Most names of a part: of each row the keeper, the actor, the subject, the type, the rule and the serial number.
const MAX_NAMES: usize = MAX_PART_EVENTS * 6;
/// Longest name, in bytes: a SPIFFE ID.
const MAX_NAME_BYTES: usize = 2048;
/// The bit beside the verdict.
const CLAIMED: u8 = 4;

/// The columns of a part, row by row in the order of its leaves.
#[derive(Debug)]
pub struct Columns {
    names: Names,
    rows: Vec<Cells>,
}

/// One event, as far as filters and charts ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Which leaf of the block.
    pub place: u8,
    /// When the cloud stored it.
    pub received: Timestamp,
    /// When it happened, by the recorder's clock.
    pub time: Timestamp,
    /// Who keeps the journal.
    pub node: &'a str,
    pub boot: BootId,
    pub seq: u64,
    pub kind: EventKind,
    pub actor: &'a str,
    pub subject: Option<&'a str>,
    pub verdict: Verdict,
    pub rule: Option<&'a str>,
    /// Of the certificate whose issue the event tells.
    pub serial: Option<&'a str>,
    /// Whether the keeper may only claim it ([`crate::SealedRecord::is_claimed`]).
    pub claimed: bool,
}

/// A row by numbers of names.
#[derive(Clone, Copy, Debug)]
struct Cells {
    place: u8,
    received: u64,
    time: u64,
    node: usize,
    boot: BootId,
    seq: u64,
    kind: EventKind,
    actor: usize,
    subject: Option<usize>,
    verdict: Verdict,
    rule: Option<usize>,
    serial: Option<usize>,
    claimed: bool,
}

/// Every name once.
#[derive(Debug)]
struct Names {
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Columns {
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut bytes = Bytes(bytes);
        match bytes.byte()? {
            FORMAT => {}
            other => return Err(BlockError::Format(other)),
        }
        let plain = unsqueeze(bytes, MAX_COLUMNS_BYTES)?;
        let mut plain = Bytes(&plain);
        let count = plain.length(MAX_PART_EVENTS)?;
        let places = match count {
            MAX_PART_EVENTS => Places::ALL.iter().collect(),
            _ => plain.take(count)?.to_vec(),
        };
        if !places.is_sorted_by(|one, next| one < next) {
            return Err(BlockError::Places);
        }
        let names = Names::read(&mut plain)?;
        let rows = encode::read_rows(&mut plain, &places, &names)?;
        plain.end()?;
        Ok(Self { names, rows })
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.rows.iter().map(|cells| cells.named(&self.names))
    }

    /// The rows that are asked for, with their numbers in the part (as [`super::Bodies::record`] counts). The filter is
    /// translated once: this is the way to look through many blocks.
    pub fn asked<'a>(&'a self, filter: &Filter) -> impl Iterator<Item = (usize, Row<'a>)> {
        let asked = Asked::of(filter, &self.names);
        self.rows
            .iter()
            .enumerate()
            .filter(move |(_, cells)| asked.as_ref().is_some_and(|asked| asked.includes(cells)))
            .map(|(number, cells)| (number, cells.named(&self.names)))
    }
}

impl Cells {
    fn named<'a>(&self, names: &'a Names) -> Row<'a> {
        // Every number was checked when it was read.
        let name = |number: usize| names.get(number).unwrap_or_default();
        Row {
            place: self.place,
            received: Timestamp::from_millis(self.received),
            time: Timestamp::from_millis(self.time),
            node: name(self.node),
            boot: self.boot,
            seq: self.seq,
            kind: self.kind,
            actor: name(self.actor),
            subject: self.subject.map(name),
            verdict: self.verdict,
            rule: self.rule.map(name),
            serial: self.serial.map(name),
            claimed: self.claimed,
        }
    }
}

impl Names {
    fn read(bytes: &mut Bytes<'_>) -> Result<Self, BlockError> {
        let count = bytes.length(MAX_NAMES)?;
        let mut ends = Vec::with_capacity(count);
        let mut end = 0;
        for _ in 0..count {
            end += bytes.length(MAX_NAME_BYTES)?;
            ends.push(end);
        }
        let text = str::from_utf8(bytes.take(end)?).map_err(|_| BlockError::Utf8)?;
        if !ends.iter().all(|end| text.is_char_boundary(*end)) {
            return Err(BlockError::Utf8);
        }
        Ok(Self {
            text: text.to_owned(),
            ends,
        })
    }

    fn get(&self, number: usize) -> Option<&str> {
        let end = *self.ends.get(number)?;
        let start = match number.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start..end)
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    /// The number of a name; none if no row has it.
    fn find(&self, name: &str) -> Option<usize> {
        (0..self.len()).find(|number| self.get(*number) == Some(name))
    }
}
