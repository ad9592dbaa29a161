//! The numbers of the kernel's functions in its own description of its types (BTF). Every byte is looked at within bounds.

const MAGIC: u16 = 0xeb9f;
/// Of a type's own record, before what its kind adds.
const RECORD_BYTES: usize = 12;
const FUNCTION: u32 = 12;

/// A description that does not read, or in which something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNames {
    #[error("description of the kernel's types is torn or of another version")]
    Malformed,
    #[error("kernel has no such function: it is built without programs that decide")]
    Missing,
}

/// The number of a function.
pub fn function(names: &[u8], wanted: &str) -> Result<u32, BadNames> {
    let header = |at: usize| word(names, at).map(|word| word as usize);
    let magic = names.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    if magic != Some(MAGIC) {
        return Err(BadNames::Malformed);
    }
    let [start, types, types_length, texts, texts_length] = [4, 8, 12, 16, 20].map(header);
    let part = |at: Option<usize>, length: Option<usize>| {
        let from = start?.checked_add(at?)?;
        names.get(from..from.checked_add(length?)?)
    };
    let types = part(types, types_length).ok_or(BadNames::Malformed)?;
    let texts = part(texts, texts_length).ok_or(BadNames::Malformed)?;
    let mut at = 0;
    // Number 0 is no type.
    let mut number = 1;
    while at < types.len() {
        let (name, info) = word(types, at)
            .zip(word(types, at + 4))
            .ok_or(BadNames::Malformed)?;
        let (kind, count) = (info >> 24 & 31, info as usize & 0xffff);
        if kind == FUNCTION && is_named(texts, name, wanted) {
            return Ok(number);
        }
        at += RECORD_BYTES + added(kind, count).ok_or(BadNames::Malformed)?;
        number += 1;
    }
    Err(BadNames::Missing)
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

fn is_named(texts: &[u8], name: u32, wanted: &str) -> bool {
    let text = texts.get(name as usize..).unwrap_or_default();
    text.strip_prefix(wanted.as_bytes())
        .is_some_and(|rest| rest.first() == Some(&0))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    four.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An integer, a function `a`, a structure of one field, a function `ab`.
    fn names() -> Vec<u8> {
        let texts = b"\0a\0ab\0";
        let mut types = Vec::new();
        let record = |name: u32, kind: u32, count: u32| [name, kind << 24 | count, 4];
        for words in [
            record(0, 1, 0).to_vec(),
            vec![0],
            record(1, 12, 0).to_vec(),
            record(0, 4, 1).to_vec(),
            vec![0, 0, 0],
            record(3, 12, 0).to_vec(),
        ] {
            types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        let mut names = MAGIC.to_ne_bytes().to_vec();
        names.extend([1, 0]);
        let (types_length, texts_length) = (types.len() as u32, texts.len() as u32);
        for word in [24, 0, types_length, types_length, texts_length] {
            names.extend(word.to_ne_bytes());
        }
        names.extend(types);
        names.extend(texts);
        names
    }

    #[test]
    fn a_torn_description_names_nothing_and_nobody_reads_beyond_it() {
        let whole = names();
        for length in 0..whole.len() {
            assert_eq!(
                function(&whole[..length], "ab"),
                Err(BadNames::Malformed),
                "{length}"
            );
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] = 0xff;
            // Whatever comes of it, it ends.
            let _found: Result<u32, BadNames> = function(&changed, "ab");
        }
    }

    #[test]
    fn a_function_is_found_by_its_whole_name() {
        assert_eq!(function(&names(), "a"), Ok(2));
        assert_eq!(function(&names(), "ab"), Ok(4));
        assert_eq!(function(&names(), "b"), Err(BadNames::Missing));
        assert_eq!(function(&names(), "abc"), Err(BadNames::Missing));
    }
}
