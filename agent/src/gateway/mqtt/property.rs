//! Properties of MQTT 5 (section 2.2.2): read in full, kept as bytes where they only pass.

use super::bytes::{Malformed, Reader, put_variable};

pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub const AUTHENTICATION_METHOD: u8 = 0x15;
pub const AUTHENTICATION_DATA: u8 = 0x16;
pub const SERVER_REFERENCE: u8 = 0x1c;
pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub const TOPIC_ALIAS: u8 = 0x23;
pub const USER_PROPERTY: u8 = 0x26;
pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// The properties of one packet, well-formed each.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a>(&'a [u8]);

/// One property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property<'a> {
    pub id: u8,
    pub value: Value<'a>,
    /// Identifier and value, as they stood.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    /// Name and value of a user property.
    Pair,
}

/// How a value is written.
enum Form {
    Byte,
    Word,
    Four,
    Variable,
    Text,
    Binary,
    Pair,
}

impl<'a> Properties<'a> {
    pub const NONE: Properties<'static> = Properties(&[]);

    /// Reads the length and checks every property behind it: known ones only, and none but user properties and
    /// subscription identifiers twice.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = reader.variable()?;
        let length = usize::try_from(length).map_err(|_| Malformed("length"))?;
        let bytes = reader.bytes(length)?;
        let mut inner = Reader::new(bytes);
        let mut seen = 0_u64;
        while !inner.is_empty() {
            let property = next(&mut inner)?;
            let bit = 1_u64.checked_shl(u32::from(property.id)).unwrap_or(0);
            let may_repeat = matches!(property.id, USER_PROPERTY | SUBSCRIPTION_IDENTIFIER);
            if seen & bit != 0 && !may_repeat {
                return Err(Malformed("property"));
            }
            seen |= bit;
        }
        Ok(Self(bytes))
    }

    pub fn iter(self) -> impl Iterator<Item = Property<'a>> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || match reader.is_empty() {
            true => None,
            // Checked when they were read.
            false => next(&mut reader).ok(),
        })
    }

    pub fn find(self, id: u8) -> Option<Value<'a>> {
        let mut found = self.iter().filter(|property| property.id == id);
        found.next().map(|property| property.value)
    }

    pub fn number(self, id: u8) -> Option<u32> {
        match self.find(id) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// Appends them without some, and with others behind.
    pub fn put(self, out: &mut Vec<u8>, without: &[u8], more: &[u8]) {
        let kept = self
            .iter()
            .filter(|property| !without.contains(&property.id));
        let length: usize = kept.map(|property| property.bytes.len()).sum();
        put_variable(out, length + more.len());
        for property in self
            .iter()
            .filter(|property| !without.contains(&property.id))
        {
            out.extend_from_slice(property.bytes);
        }
        out.extend_from_slice(more);
    }
}

fn next<'a>(reader: &mut Reader<'a>) -> Result<Property<'a>, Malformed> {
    let start = reader.rest();
    // Identifiers are variable byte integers; every known one takes a single byte.
    let id = reader.byte()?;
    let value = match form(id).ok_or(Malformed("property"))? {
        Form::Byte => Value::Number(u32::from(reader.byte()?)),
        Form::Word => Value::Number(u32::from(reader.word()?)),
        Form::Four => {
            let (high, low) = (reader.word()?, reader.word()?);
            Value::Number(u32::from(high) << 16 | u32::from(low))
        }
        Form::Variable => Value::Number(reader.variable()?),
        Form::Text => Value::Text(reader.free_text()?),
        Form::Binary => Value::Binary(reader.binary()?),
        Form::Pair => {
            reader.free_text()?;
            reader.free_text()?;
            Value::Pair
        }
    };
    let taken = start.len() - reader.rest().len();
    let bytes = start.get(..taken).unwrap_or_default();
    Ok(Property { id, value, bytes })
}

/// Table 2-4 of the standard.
fn form(id: u8) -> Option<Form> {
    Some(match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => Form::Byte,
        0x13 | 0x21 | 0x22 | 0x23 => Form::Word,
        0x02 | 0x11 | 0x18 | 0x27 => Form::Four,
        0x0b => Form::Variable,
        0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => Form::Text,
        0x09 | 0x16 => Form::Binary,
        0x26 => Form::Pair,
        _ => return None,
    })
}

/// A property whose value is a word.
pub fn word(id: u8, value: u16) -> [u8; 3] {
    let [high, low] = value.to_be_bytes();
    [id, high, low]
}

/// A property whose value takes four bytes.
pub fn four(id: u8, value: u32) -> [u8; 5] {
    let [a, b, c, d] = value.to_be_bytes();
    [id, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Properties<'_>, Malformed> {
        Properties::read(&mut Reader::new(bytes))
    }

    #[test]
    fn unknown_cut_and_repeated_properties_are_refused() {
        for bytes in [
            &[1, 0x00][..],
            &[2, 0x04, 0],
            &[1, 0x7f],
            &[2, 0x23, 0],
            &[5, 0x23, 0, 1],
            &[6, 0x23, 0, 1, 0x23, 0, 1],
            &[4, 0x26, 0, 1, b'a'],
            &[4, 0x1f, 0, 1, 0xff],
            &[2, 0x0b, 0x80],
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn properties_are_found_left_out_and_added() {
        let bytes = [13, 0x23, 0, 7, 0x26, 0, 1, b'a', 0, 1, b'b', 0x01, 1, 0x0b];
        // One byte short, then with a subscription identifier.
        assert!(read(&bytes[..13]).is_err());
        let bytes = [&bytes[..], &[5]].concat();
        let bytes = [&[14], &bytes[1..]].concat();
        let properties = read(&bytes).unwrap();
        assert_eq!(properties.number(TOPIC_ALIAS), Some(7));
        assert_eq!(properties.number(MAXIMUM_PACKET_SIZE), None);
        let mut out = Vec::new();
        properties.put(&mut out, &[TOPIC_ALIAS], &word(TOPIC_ALIAS_MAXIMUM, 9));
        assert_eq!(
            out,
            [
                14, 0x26, 0, 1, b'a', 0, 1, b'b', 0x01, 1, 0x0b, 5, 0x22, 0, 9
            ]
        );
    }
}
