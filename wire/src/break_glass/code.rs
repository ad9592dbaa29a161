//! The code that opens a sealed grant: 128 random bits, printed once, typed by people in a hurry.
//!
//! Written as seven groups of four characters of Crockford's Base32: 128 bits, then the first 12 bits of SHA-256 over
//! `"edgeward-break-glass-code-v1\0"` and them, which tell a mistyped code from one that belongs to another file. They
//! protect nothing. Case, spaces and dashes do not matter; `O` is read as `0`, `I` and `L` as `1`.

use edgeward_identity::Secret;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

/// Bytes of the code.
pub const CODE_BYTES: usize = 16;
/// Longest text that is looked at, in bytes.
pub const MAX_CODE_TEXT_BYTES: usize = 128;

const LABEL: &[u8] = b"edgeward-break-glass-code-v1\0";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a code, dashes left out: 140 bits.
const CHARACTERS: usize = 28;
const GROUP: usize = 4;

/// A code. Its `Debug` shows nothing.
#[derive(Clone, Debug)]
pub struct Code(Secret<[u8; CODE_BYTES]>);

/// The text is not a code: mistyped, or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the code was mistyped: it has seven groups of four letters and digits")]
pub struct Mistyped;

impl Code {
    pub fn new(bytes: Secret<[u8; CODE_BYTES]>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; CODE_BYTES] {
        self.0.expose()
    }

    /// As it is printed, once.
    pub fn encode(&self) -> Secret<String> {
        let bytes = with_checksum(self.bytes());
        let mut text = String::with_capacity(CHARACTERS + CHARACTERS / GROUP);
        for index in 0..CHARACTERS {
            if index > 0 && index % GROUP == 0 {
                text.push('-');
            }
            let character = ALPHABET.get(usize::from(five_bits(&*bytes, index)));
            text.push(char::from(character.copied().unwrap_or(b'0')));
        }
        Secret::new(text)
    }

    pub fn parse(text: &str) -> Result<Self, Mistyped> {
        if text.len() > MAX_CODE_TEXT_BYTES {
            return Err(Mistyped);
        }
        let mut values = Zeroizing::new([0_u8; CHARACTERS]);
        let mut read = 0;
        for byte in text
            .bytes()
            .filter(|byte| !matches!(byte, b'-' | b' ' | b'\t' | b'\r' | b'\n'))
        {
            *values.get_mut(read).ok_or(Mistyped)? = value_of(byte).ok_or(Mistyped)?;
            read += 1;
        }
        if read != CHARACTERS {
            return Err(Mistyped);
        }
        let mut all = Zeroizing::new([0_u8; CODE_BYTES + 2]);
        for (index, value) in values.iter().enumerate() {
            for bit in 0..5 {
                let position = index * 5 + bit;
                if let Some(byte) = all.get_mut(position / 8)
                    && value & (0x10 >> bit) != 0
                {
                    *byte |= 0x80 >> (position % 8);
                }
            }
        }
        let (code, _) = all.split_first_chunk::<CODE_BYTES>().ok_or(Mistyped)?;
        match *with_checksum(code) == *all {
            true => Ok(Self(Secret::new(*code))),
            false => Err(Mistyped),
        }
    }
}

/// The code and the 12 bits of its checksum; the last four bits are zero.
fn with_checksum(code: &[u8; CODE_BYTES]) -> Zeroizing<[u8; CODE_BYTES + 2]> {
    let mut context = Context::new(&SHA256);
    context.update(LABEL);
    context.update(code);
    let digest = context.finish();
    let mut all = Zeroizing::new([0; CODE_BYTES + 2]);
    for (to, from) in all.iter_mut().zip(code.iter().chain(digest.as_ref())) {
        *to = *from;
    }
    if let Some(last) = all.last_mut() {
        *last &= 0xf0;
    }
    all
}

fn five_bits(bytes: &[u8], index: usize) -> u8 {
    (0..5).fold(0, |value, bit| {
        let position = index * 5 + bit;
        let byte = bytes.get(position / 8).copied().unwrap_or_default();
        value << 1 | (byte >> (7 - position % 8) & 1)
    })
}

fn value_of(byte: u8) -> Option<u8> {
    let byte = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    let position = ALPHABET.iter().position(|known| *known == byte)?;
    u8::try_from(position).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(fill: u8) -> Code {
        Code::new(Secret::new([fill; CODE_BYTES]))
    }

    #[test]
    fn a_code_with_one_wrong_character_is_mistyped() {
        let text = code(0xa7).encode().expose().clone();
        for index in (0..text.len()).filter(|index| index % 5 != 4) {
            let mut wrong = text.clone().into_bytes();
            wrong[index] = if wrong[index] == b'7' { b'8' } else { b'7' };
            let wrong = String::from_utf8(wrong).unwrap();
            if wrong != text {
                assert!(Code::parse(&wrong).is_err(), "{wrong}");
            }
        }
        for bad in [
            "",
            "0000",
            text.get(..text.len() - 1).unwrap(),
            &format!("{text}0"),
            &"0".repeat(500),
            "ü",
        ] {
            assert!(Code::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        for fill in [0, 1, 0x5a, 0xff] {
            let text = code(fill).encode().expose().clone();
            assert_eq!(text.len(), 34);
            for typed in [
                text.clone(),
                text.to_lowercase(),
                text.replace('-', " "),
                format!("  {}\n", text.replace('-', "")),
                text.replace('0', "o").replace('1', "l"),
            ] {
                assert_eq!(Code::parse(&typed).unwrap().bytes(), &[fill; 16]);
            }
        }
    }
}
