//! Rows to bytes, and back.

use std::collections::HashMap;

use edgeward_identity::Timestamp;

use super::{CLAIMED, Cells, FORMAT, MAX_NAME_BYTES, Names};
use crate::block::bytes::{Bytes, put_length, put_step};
use crate::block::squeeze::put_squeezed;
use crate::block::{BlockError, MAX_COLUMNS_BYTES, MAX_PART_EVENTS};
use crate::event::{EventKind, Verdict};
use crate::query::{ISSUING_KINDS, SERIAL};
use crate::record::{BootId, SealedRecord};

/// Collects rows.
#[derive(Debug, Default)]
pub(in crate::block) struct ColumnsWriter {
    places: Vec<u8>,
    names: HashMap<String, usize>,
    lengths: Vec<u8>,
    text: String,
    journals: HashMap<(BootId, usize), Journal>,
    journal_bytes: Vec<u8>,
    last: (u64, u64),
    received: Vec<u8>,
    time: Vec<u8>,
    journal: Vec<u8>,
    seq: Vec<u8>,
    kind: Vec<u8>,
    actor: Vec<u8>,
    subject: Vec<u8>,
    verdict: Vec<u8>,
    rule: Vec<u8>,
    serial: Vec<u8>,
}

/// One journal of a part.
#[derive(Clone, Copy, Debug)]
struct Journal {
    number: usize,
    node: usize,
    boot: BootId,
    /// The sequence number that is due.
    next: u64,
}

impl ColumnsWriter {
    /// Adds a row; its place must be behind the last one.
    pub(in crate::block) fn push(
        &mut self,
        place: u8,
        received: Timestamp,
        sealed: &SealedRecord,
    ) -> Result<(), BlockError> {
        if self.places.last().is_some_and(|last| *last >= place) {
            return Err(BlockError::Places);
        }
        self.places.push(place);
        let (record, event) = (sealed.record(), sealed.event());
        let (received, time) = (received.millis(), event.time.millis());
        put_step(&mut self.received, self.last.0, received);
        put_step(&mut self.time, self.last.1, time);
        self.last = (received, time);

        let node = self.name(&record.node.to_string())?;
        let known = self.journals.len();
        let journal = self.journals.entry((record.boot, node)).or_insert_with(|| {
            put_length(&mut self.journal_bytes, node);
            self.journal_bytes.extend_from_slice(record.boot.as_bytes());
            Journal {
                number: known,
                node,
                boot: record.boot,
                next: 0,
            }
        });
        put_length(&mut self.journal, journal.number);
        put_step(&mut self.seq, journal.next, record.seq);
        journal.next = record.seq.wrapping_add(1);

        let kind = self.name(event.kind.name())?;
        put_length(&mut self.kind, kind);
        let actor = self.name(&event.actor.to_string())?;
        put_length(&mut self.actor, actor);
        let subject = event.subject.as_ref().map(ToString::to_string);
        let subject = self.optional(subject.as_deref())?;
        put_length(&mut self.subject, subject);
        self.verdict.push(flags(event.verdict, sealed.is_claimed()));
        let rule = self.optional(event.rule.as_ref().map(|rule| rule.as_str()))?;
        put_length(&mut self.rule, rule);
        let issues = ISSUING_KINDS.contains(&event.kind);
        let serial = self.optional(event.detail.get(SERIAL).filter(|_| issues))?;
        put_length(&mut self.serial, serial);
        Ok(())
    }

    pub(in crate::block) fn finish(self) -> Result<Vec<u8>, BlockError> {
        let mut plain = Vec::new();
        put_length(&mut plain, self.places.len());
        if self.places.len() < MAX_PART_EVENTS {
            plain.extend_from_slice(&self.places);
        }
        put_length(&mut plain, self.names.len());
        plain.extend_from_slice(&self.lengths);
        plain.extend_from_slice(self.text.as_bytes());
        put_length(&mut plain, self.journals.len());
        let columns = [
            self.journal_bytes,
            self.received,
            self.time,
            self.journal,
            self.seq,
            self.kind,
            self.actor,
            self.subject,
            self.verdict,
            self.rule,
            self.serial,
        ];
        columns
            .iter()
            .for_each(|column| plain.extend_from_slice(column));
        if plain.len() > MAX_COLUMNS_BYTES {
            return Err(BlockError::TooLarge(MAX_COLUMNS_BYTES));
        }
        let mut bytes = vec![FORMAT];
        put_squeezed(&mut bytes, &plain)?;
        Ok(bytes)
    }

    fn name(&mut self, name: &str) -> Result<usize, BlockError> {
        if let Some(number) = self.names.get(name) {
            return Ok(*number);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(BlockError::TooLarge(MAX_NAME_BYTES));
        }
        let number = self.names.len();
        put_length(&mut self.lengths, name.len());
        self.text.push_str(name);
        self.names.insert(name.to_owned(), number);
        Ok(number)
    }

    /// One more than the number of the name; 0 for none.
    fn optional(&mut self, name: Option<&str>) -> Result<usize, BlockError> {
        name.map_or(Ok(0), |name| Ok(self.name(name)? + 1))
    }
}

/// Reads the rows at `places`, and the journals they are of.
pub(super) fn read_rows(
    bytes: &mut Bytes<'_>,
    places: &[u8],
    names: &Names,
) -> Result<Vec<Cells>, BlockError> {
    let count = places.len();
    let mut journals = Vec::new();
    for number in 0..bytes.length(count)? {
        journals.push(Journal {
            number,
            node: name_of(bytes, names)?,
            boot: BootId::from_bytes(bytes.array()?),
            next: 0,
        });
    }
    let received = steps(bytes, count)?;
    let time = steps(bytes, count)?;
    let journal = column(count, || {
        let number = bytes.length(journals.len())?;
        journals.get(number).copied().ok_or(BlockError::Range)
    })?;
    let mut seqs = Vec::with_capacity(count);
    for journal in &journal {
        let journal = journals.get_mut(journal.number).ok_or(BlockError::Range)?;
        let seq = bytes.step(journal.next)?;
        journal.next = seq.wrapping_add(1);
        seqs.push(seq);
    }
    let kinds = column(count, || {
        let number = name_of(bytes, names)?;
        // What a newer version wrote is to this one what its record is.
        let kind = names.get(number).and_then(|name| name.parse().ok());
        Ok(kind.unwrap_or(EventKind::EventUnknown))
    })?;
    let actors = column(count, || name_of(bytes, names))?;
    let subjects = column(count, || optional_name_of(bytes, names))?;
    let verdicts = column(count, || verdict_of(bytes.byte()?))?;
    let rules = column(count, || optional_name_of(bytes, names))?;
    let serials = column(count, || optional_name_of(bytes, names))?;
    let mut rows = Vec::with_capacity(count);
    let numbers = places.iter().zip(received).zip(time).zip(journal).zip(seqs);
    let ids = kinds.into_iter().zip(actors).zip(subjects);
    let rest = verdicts.into_iter().zip(rules).zip(serials);
    for ((numbers, ids), rest) in numbers.zip(ids).zip(rest) {
        let ((((place, received), time), journal), seq) = numbers;
        let ((kind, actor), subject) = ids;
        let (((verdict, claimed), rule), serial) = rest;
        rows.push(Cells {
            place: *place,
            received,
            time,
            node: journal.node,
            boot: journal.boot,
            seq,
            kind,
            actor,
            subject,
            verdict,
            rule,
            serial,
            claimed,
        });
    }
    Ok(rows)
}

fn column<T>(
    count: usize,
    mut read: impl FnMut() -> Result<T, BlockError>,
) -> Result<Vec<T>, BlockError> {
    (0..count).map(|_| read()).collect()
}

fn steps(bytes: &mut Bytes<'_>, count: usize) -> Result<Vec<u64>, BlockError> {
    let mut last = 0;
    column(count, || {
        last = bytes.step(last)?;
        Ok(last)
    })
}

fn name_of(bytes: &mut Bytes<'_>, names: &Names) -> Result<usize, BlockError> {
    let number = bytes.length(names.len())?;
    match number < names.len() {
        true => Ok(number),
        false => Err(BlockError::Range),
    }
}

fn optional_name_of(bytes: &mut Bytes<'_>, names: &Names) -> Result<Option<usize>, BlockError> {
    Ok(bytes.length(names.len())?.checked_sub(1))
}

fn flags(verdict: Verdict, claimed: bool) -> u8 {
    let verdict = match verdict {
        Verdict::Allow => 0,
        Verdict::Deny => 1,
        Verdict::None => 2,
    };
    verdict | if claimed { CLAIMED } else { 0 }
}

fn verdict_of(flags: u8) -> Result<(Verdict, bool), BlockError> {
    let verdict = match flags & !CLAIMED {
        0 => Verdict::Allow,
        1 => Verdict::Deny,
        2 => Verdict::None,
        _ => return Err(BlockError::Range),
    };
    Ok((verdict, flags & CLAIMED != 0))
}
