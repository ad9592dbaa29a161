//! The numbers of the kernel's functions and the places of its fields, in its own description of its types (BTF). Every
//! byte is looked at within bounds.

const MAGIC: u16 = 0xeb9f;
/// Of a type's own record, before what its kind adds.
const RECORD_BYTES: usize = 12;
const FIELD_BYTES: usize = 12;
const STRUCTURE: u32 = 4;
const UNION: u32 = 5;
const FUNCTION: u32 = 12;
/// Most records of one description.
const MAX_TYPES: usize = 4_000_000;
/// Deepest nesting of parts without a name.
const MAX_DEPTH: usize = 8;

/// A description that does not read, or in which something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTypes {
    #[error("description of the kernel's types is torn or of another version")]
    Malformed,
    #[error("kernel has no function {0}: it is too old, or built without what is needed")]
    NoFunction(&'static str),
    #[error("kernel has no field {0}.{1} where it can be read")]
    NoField(&'static str, &'static str),
}

/// A description that was read once.
#[derive(Debug)]
pub struct Types<'a> {
    texts: &'a [u8],
    records: Vec<Record<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Record<'a> {
    name: u32,
    kind: u32,
    /// Fields tell where they are in another way.
    has_bits: bool,
    /// What its kind adds.
    rest: &'a [u8],
}

impl<'a> Types<'a> {
    pub fn read(description: &'a [u8]) -> Result<Self, BadTypes> {
        let header = |at: usize| word(description, at).map(|word| word as usize);
        let magic = description
            .first_chunk()
            .map(|bytes| u16::from_ne_bytes(*bytes));
        if magic != Some(MAGIC) {
            return Err(BadTypes::Malformed);
        }
        let [start, types, types_length, texts, texts_length] = [4, 8, 12, 16, 20].map(header);
        let part = |at: Option<usize>, length: Option<usize>| {
            let from = start?.checked_add(at?)?;
            description.get(from..from.checked_add(length?)?)
        };
        let mut left = part(types, types_length).ok_or(BadTypes::Malformed)?;
        let texts = part(texts, texts_length).ok_or(BadTypes::Malformed)?;
        let mut records = Vec::new();
        while !left.is_empty() {
            let (record, rest) = Record::read(left).ok_or(BadTypes::Malformed)?;
            if records.len() >= MAX_TYPES {
                return Err(BadTypes::Malformed);
            }
            records.push(record);
            left = rest;
        }
        Ok(Self { texts, records })
    }

    /// The number of a function.
    pub fn function(&self, wanted: &'static str) -> Result<u32, BadTypes> {
        let is_it =
            |record: &Record<'_>| record.kind == FUNCTION && self.is_named(record.name, wanted);
        let at = self.records.iter().position(is_it);
        // Number 0 is no type.
        at.and_then(|at| u32::try_from(at + 1).ok())
            .ok_or(BadTypes::NoFunction(wanted))
    }

    /// Where a field begins in a structure, in bytes.
    pub fn field(&self, structure: &'static str, wanted: &'static str) -> Result<i16, BadTypes> {
        let is_it = |record: &&Record<'_>| {
            record.kind == STRUCTURE && self.is_named(record.name, structure)
        };
        let found = self
            .records
            .iter()
            .filter(is_it)
            .find_map(|record| self.within(record, wanted, MAX_DEPTH));
        found
            .filter(|bits| bits % 8 == 0)
            .and_then(|bits| i16::try_from(bits / 8).ok())
            .ok_or(BadTypes::NoField(structure, wanted))
    }

    /// In bits.
    fn within(&self, record: &Record<'_>, wanted: &str, left: usize) -> Option<u32> {
        let left = left.checked_sub(1)?;
        for field in record.rest.chunks_exact(FIELD_BYTES) {
            let (name, number, place) = (word(field, 0)?, word(field, 4)?, word(field, 8)?);
            let (size, place) = match record.has_bits {
                true => (place >> 24, place & 0x00ff_ffff),
                false => (0, place),
            };
            if name == 0 {
                let part = self.records.get((number as usize).checked_sub(1)?)?;
                let is_part = matches!(part.kind, STRUCTURE | UNION);
                if let Some(inner) = is_part.then(|| self.within(part, wanted, left)).flatten() {
                    return place.checked_add(inner);
                }
            } else if size == 0 && self.is_named(name, wanted) {
                return Some(place);
            }
        }
        None
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let text = self.texts.get(name as usize..).unwrap_or_default();
        text.strip_prefix(wanted.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

impl<'a> Record<'a> {
    /// And what follows it.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (name, info) = (word(bytes, 0)?, word(bytes, 4)?);
        let (kind, count) = (info >> 24 & 31, info as usize & 0xffff);
        let ends = RECORD_BYTES.checked_add(added(kind, count)?)?;
        let record = Self {
            name,
            kind,
            has_bits: info >> 31 == 1,
            rest: bytes.get(RECORD_BYTES..ends)?,
        };
        Some((record, bytes.get(ends..)?))
    }
}

/// Bytes that a kind adds to a record.
fn added(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        2 | 7..=12 | 16 | 18 => 0,
        1 | 14 | 17 => 4,
        3 => 12,
        6 | 13 => 8 * count,
        4 | 5 | 15 | 19 => 12 * count,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    four.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An integer, a function `a`, a structure `s` of a part without a name and a field `ab`, a function `ab`, and the
    /// part: a union of `x`.
    fn description() -> Vec<u8> {
        let texts = b"\0a\0ab\0s\0x\0";
        let mut types = Vec::new();
        let record = |name: u32, kind: u32, count: u32| [name, kind << 24 | count, 4];
        for words in [
            record(0, 1, 0).to_vec(),
            vec![0],
            record(1, 12, 0).to_vec(),
            record(6, 4, 2).to_vec(),
            vec![0, 5, 64],
            vec![3, 1, 128],
            record(3, 12, 0).to_vec(),
            record(0, 5, 1).to_vec(),
            vec![8, 1, 16],
        ] {
            types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        let mut description = MAGIC.to_ne_bytes().to_vec();
        description.extend([1, 0]);
        let (types_length, texts_length) = (types.len() as u32, texts.len() as u32);
        for word in [24, 0, types_length, types_length, texts_length] {
            description.extend(word.to_ne_bytes());
        }
        description.extend(types);
        description.extend(texts);
        description
    }

    #[test]
    fn a_torn_description_names_nothing_and_nobody_reads_beyond_it() {
        let whole = description();
        for length in 0..whole.len() {
            let read = Types::read(&whole[..length]);
            assert_eq!(read.err(), Some(BadTypes::Malformed), "{length}");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = byte;
                // Whatever comes of it, it ends.
                if let Ok(types) = Types::read(&changed) {
                    let _found = (types.function("ab"), types.field("s", "x"));
                }
            }
        }
    }

    #[test]
    fn a_function_is_found_by_its_whole_name() {
        let description = description();
        let types = Types::read(&description).unwrap();
        assert_eq!(types.function("a"), Ok(2));
        assert_eq!(types.function("ab"), Ok(4));
        assert_eq!(types.function("b"), Err(BadTypes::NoFunction("b")));
        assert_eq!(types.function("abc"), Err(BadTypes::NoFunction("abc")));
    }

    #[test]
    fn a_field_is_found_also_in_a_part_without_a_name() {
        let description = description();
        let types = Types::read(&description).unwrap();
        assert_eq!(types.field("s", "ab"), Ok(16));
        assert_eq!(types.field("s", "x"), Ok(10));
        assert_eq!(types.field("s", "y"), Err(BadTypes::NoField("s", "y")));
        // A function is no structure.
        assert_eq!(types.field("a", "x"), Err(BadTypes::NoField("a", "x")));
    }

    #[test]
    fn a_part_that_contains_itself_ends() {
        let mut description = description();
        let own = description
            .windows(4)
            .position(|four| four == 5_u32.to_ne_bytes());
        // The part's number becomes that of the structure itself.
        let at = own.unwrap();
        description[at..at + 4].copy_from_slice(&3_u32.to_ne_bytes());
        let types = Types::read(&description).unwrap();
        assert!(types.field("s", "x").is_err());
    }
}
