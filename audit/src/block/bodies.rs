//! The records' own bytes.
//!
//! `format | length and bytes of what stands apart | length and frame of the rest`; the rest is `number of records |
//! form, way back, length of each text | all texts`. See [`super::form`] for what stands apart. The way back says how
//! many records before this one that stands whose hash it names, where that one is in the part.

use std::collections::HashMap;

use super::bytes::{Bytes, put_length};
use super::form::{Form, put_together, take_apart};
use super::squeeze::{put_squeezed, unsqueeze};
use super::{BlockError, MAX_BODIES_BYTES, MAX_PART_EVENTS};
use crate::digest::Digest;
use crate::record::{MAX_RECORD_BYTES, SealedRecord, record_hash};

const FORMAT: u8 = 1;
/// Most bytes that stand apart: a salt and a hash of each record.
const MAX_APART_BYTES: usize = MAX_PART_EVENTS * 48;
/// Most bytes of the rest: the texts, and three short numbers of each.
const MAX_REST_BYTES: usize = MAX_BODIES_BYTES + MAX_PART_EVENTS * 8;

/// The records of a part, in the order of their leaves.
#[derive(Debug)]
pub struct Bodies {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// Collects records of a part.
#[derive(Debug, Default)]
pub(super) struct BodiesWriter {
    heads: Vec<u8>,
    texts: Vec<u8>,
    apart: Vec<u8>,
    /// Where the record of each hash stands.
    numbers: HashMap<Digest, usize>,
    count: usize,
}

/// How one record is kept.
struct Head {
    form: Form,
    /// The number of the record whose hash it names.
    named: Option<usize>,
    text: usize,
}

impl BodiesWriter {
    pub(super) fn push(&mut self, sealed: &SealedRecord) {
        let named = self.numbers.get(&sealed.record().prev).copied();
        let pieces = take_apart(sealed, named.is_some());
        self.heads.push(pieces.form.to_byte());
        if let (true, Some(named)) = (pieces.form.has_prev_known(), named) {
            put_length(&mut self.heads, self.count - named);
        }
        put_length(&mut self.heads, pieces.text.len());
        self.texts.extend_from_slice(&pieces.text);
        self.apart.extend_from_slice(&pieces.apart);
        self.numbers.insert(sealed.hash(), self.count);
        self.count += 1;
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, BlockError> {
        let mut rest = Vec::with_capacity(self.heads.len() + self.texts.len() + 2);
        put_length(&mut rest, self.count);
        rest.extend_from_slice(&self.heads);
        rest.extend_from_slice(&self.texts);
        let mut bytes = vec![FORMAT];
        put_length(&mut bytes, self.apart.len());
        bytes.extend_from_slice(&self.apart);
        put_squeezed(&mut bytes, &rest)?;
        Ok(bytes)
    }
}

impl Bodies {
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut bytes = Bytes(bytes);
        match bytes.byte()? {
            FORMAT => {}
            other => return Err(BlockError::Format(other)),
        }
        let apart = bytes.length(MAX_APART_BYTES)?;
        let mut apart = Bytes(bytes.take(apart)?);
        let rest = unsqueeze(bytes, MAX_REST_BYTES)?;
        let mut rest = Bytes(&rest);
        let count = rest.length(MAX_PART_EVENTS)?;
        let heads = (0..count)
            .map(|number| Head::read(&mut rest, number))
            .collect::<Result<Vec<_>, _>>()?;
        let bodies = Self::read(&heads, &mut rest, &mut apart)?;
        rest.end()?;
        apart.end()?;
        Ok(bodies)
    }

    fn read(
        heads: &[Head],
        rest: &mut Bytes<'_>,
        apart: &mut Bytes<'_>,
    ) -> Result<Self, BlockError> {
        let mut bodies = Self {
            // At most the limit: each record is, and there are so many.
            bytes: Vec::with_capacity(heads.iter().map(Head::whole).sum()),
            ends: Vec::with_capacity(heads.len()),
        };
        // Only of those that others name.
        let mut hashes: Vec<Option<Digest>> = vec![None; heads.len()];
        for head in heads {
            if let Some(wanted) = head.named
                && let Some(hash @ None) = hashes.get_mut(wanted)
            {
                *hash = bodies.record(wanted).map(record_hash);
            }
            let salt = match head.form.has_salt_apart() {
                true => Some(apart.array()?),
                false => None,
            };
            let prev = match (head.form.has_prev_apart(), head.named) {
                (true, _) => Some(Digest::from_bytes(apart.array()?)),
                (false, Some(named)) => hashes.get(named).copied().flatten(),
                (false, None) => None,
            };
            let text = rest.take(head.text)?;
            let whole = put_together(head.form, text, salt.as_ref(), prev.as_ref());
            bodies
                .bytes
                .extend_from_slice(&whole.ok_or(BlockError::Name)?);
            bodies.ends.push(bodies.bytes.len());
        }
        Ok(bodies)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of the record with this number in the part.
    pub fn record(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)?;
        let start = match number.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..end)
    }
}

impl Head {
    fn read(bytes: &mut Bytes<'_>, number: usize) -> Result<Self, BlockError> {
        let form = Form::from_byte(bytes.byte()?).ok_or(BlockError::Range)?;
        let named = match form.has_prev_known() {
            true => match bytes.length(number)? {
                0 => return Err(BlockError::Range),
                back => Some(number - back),
            },
            false => None,
        };
        let text = bytes.length(MAX_RECORD_BYTES)?;
        let head = Self { form, named, text };
        match head.whole() <= MAX_RECORD_BYTES {
            true => Ok(head),
            false => Err(BlockError::Range),
        }
    }

    fn whole(&self) -> usize {
        self.form.whole_bytes(self.text)
    }
}
