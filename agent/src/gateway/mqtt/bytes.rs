//! The data types of MQTT (MQTT 5.0, section 1.5), read from the front of a slice and written to the end of a vector.

/// Longest topic or filter, in bytes: far above what anybody uses, far below what the format can say.
pub const MAX_TOPIC_BYTES: usize = 4 * 1024;

/// Bytes that are not MQTT; a stable word for what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// What is still to be read of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// That nothing is left.
    pub fn end(self) -> Result<(), Malformed> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Malformed("length")),
        }
    }

    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed("length"))?;
        self.0 = rest;
        Ok(bytes)
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed("length"))?;
        self.0 = rest;
        Ok(*byte)
    }

    pub fn word(&mut self) -> Result<u16, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed("length"))?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    /// A packet identifier: never 0 (section 2.2.1).
    pub fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.word()? {
            0 => Err(Malformed("packet-id")),
            id => Ok(id),
        }
    }

    /// Binary data (section 1.5.6).
    pub fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.word()?;
        self.bytes(usize::from(length))
    }

    /// A UTF-8 string without U+0000 (section 1.5.4). Surrogates and overlong forms are no UTF-8 to begin with. Control
    /// characters, which the standard would rather not see, are refused: they forge lines in the logs of brokers.
    pub fn string(&mut self) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Malformed("utf-8"))?;
        match text.chars().any(char::is_control) {
            true => Err(Malformed("control-character")),
            false => Ok(text),
        }
    }

    /// A string without regard to control characters: reasons and what users put beside their messages.
    pub fn free_text(&mut self) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Malformed("utf-8"))?;
        match text.contains('\0') {
            true => Err(Malformed("utf-8")),
            false => Ok(text),
        }
    }

    /// A name that is published to: no wildcards, not empty (section 4.7).
    pub fn topic_name(&mut self) -> Result<&'a str, Malformed> {
        let topic = self.string()?;
        match topic.is_empty() || topic.contains(['+', '#']) || topic.len() > MAX_TOPIC_BYTES {
            true => Err(Malformed("topic")),
            false => Ok(topic),
        }
    }

    /// A variable byte integer (section 1.5.5): the shortest form only.
    pub fn variable(&mut self) -> Result<u32, Malformed> {
        match variable(self.0)? {
            None => Err(Malformed("length")),
            Some((value, taken)) => {
                self.bytes(taken)?;
                Ok(value)
            }
        }
    }
}

/// A variable byte integer at the start, and how many bytes it takes. `None`: more are needed.
pub fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = index == 0 || *byte != 0;
            return match shortest {
                true => Ok(Some((value, index + 1))),
                false => Err(Malformed("length")),
            };
        }
    }
    match bytes.len() < 4 {
        true => Ok(None),
        false => Err(Malformed("length")),
    }
}

/// Appends a variable byte integer. What it cannot say is cut off; nothing that long is ever written here.
pub fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    for _ in 0..4 {
        let byte = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        out.push(if value > 0 { byte | 0x80 } else { byte });
        if value == 0 {
            return;
        }
    }
}

/// Appends a string or binary data of up to 65,535 bytes.
///
/// # Errors
/// If it is longer.
pub fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Malformed> {
    let length = u16::try_from(bytes.len()).map_err(|_| Malformed("length"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_integer_is_refused_if_too_long_or_not_the_shortest() {
        for bytes in [
            &[0x80, 0x80, 0x80, 0x80][..],
            &[0x80, 0],
            &[0xff, 0xff, 0xff, 0xff, 1],
            &[0x81, 0x80, 0],
        ] {
            assert_eq!(variable(bytes), Err(Malformed("length")), "{bytes:?}");
        }
        for cut in [&[][..], &[0x80], &[0xff, 0xff, 0xff]] {
            assert_eq!(variable(cut), Ok(None), "{cut:?}");
        }
    }

    #[test]
    fn a_variable_integer_reads_as_it_was_written() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            268_435_455,
        ] {
            let mut bytes = Vec::new();
            put_variable(&mut bytes, value);
            assert_eq!(
                variable(&bytes),
                Ok(Some((u32::try_from(value).unwrap(), bytes.len())))
            );
        }
    }

    #[test]
    fn strings_that_are_no_plain_utf_8_are_refused() {
        for bytes in [
            // A surrogate, an overlong slash, U+0000, a line feed, U+0085, and one that is cut.
            &[0, 3, 0xed, 0xa0, 0x80][..],
            &[0, 2, 0xc0, 0xaf],
            &[0, 1, 0],
            &[0, 1, b'\n'],
            &[0, 2, 0xc2, 0x85],
            &[0, 2, b'a'],
            &[0],
        ] {
            assert!(Reader::new(bytes).string().is_err(), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[0, 2, 0xc3, 0xa9]).string(), Ok("é"));
    }

    #[test]
    fn a_topic_name_has_no_wildcards_and_some_length() {
        let long = "a".repeat(MAX_TOPIC_BYTES + 1);
        for topic in ["", "a/+", "#", "a#", long.as_str()] {
            let mut bytes = Vec::new();
            put_binary(&mut bytes, topic.as_bytes()).unwrap();
            assert!(Reader::new(&bytes).topic_name().is_err());
        }
    }
}
