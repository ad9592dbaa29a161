//! Text out of a log, made fit for people: bounded and printable. Nothing decides by it.

/// Most characters shown of one text of a log.
pub(crate) const MAX_TEXT_CHARS: usize = 240;

/// UTF-16LE, whole; `None` if it is not.
pub(crate) fn utf16(bytes: &[u8]) -> Option<String> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    char::decode_utf16(units(bytes))
        .collect::<Result<String, _>>()
        .ok()
}

/// Printable ASCII as it is, everything else escaped, at most [`MAX_TEXT_CHARS`] of it: what a log says never reaches a
/// terminal or a journal raw.
pub(crate) fn printable(chars: impl IntoIterator<Item = char>) -> String {
    let mut out = String::new();
    for char in chars {
        if out.len() >= MAX_TEXT_CHARS {
            out.push_str("...");
            break;
        }
        if char == ' ' || char.is_ascii_graphic() {
            out.push(char);
        } else {
            out.extend(char.escape_default());
        }
    }
    out
}

/// Bytes that should be ASCII, up to a zero at their end.
pub(crate) fn ascii(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    printable(bytes.iter().map(|byte| char::from(*byte)))
}

/// Bytes that should be UTF-16LE, up to a zero at their end.
pub(crate) fn wide(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(&[0, 0]).unwrap_or(bytes);
    printable(
        char::decode_utf16(units(bytes)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)),
    )
}

/// Whatever it is: ASCII or UTF-16LE where nearly all of it is printable, else hex.
pub(crate) fn guess(bytes: &[u8]) -> String {
    let text = bytes.strip_suffix(&[0]).unwrap_or(bytes).trim_ascii_end();
    let is_text = |byte: &u8| (0x20..0x7f).contains(byte) || matches!(byte, b'\n' | b'\t');
    if !text.is_empty() && text.iter().all(is_text) {
        return ascii(text);
    }
    let wide_text = bytes.strip_suffix(&[0, 0]).unwrap_or(bytes);
    let is_wide = wide_text.len() >= 4
        && wide_text.len().is_multiple_of(2)
        && units(wide_text).all(|unit| (0x20..0x7f).contains(&unit));
    if is_wide { wide(bytes) } else { hexed(bytes) }
}

/// Hex, with the length in bytes where it is cut.
pub(crate) fn hexed(bytes: &[u8]) -> String {
    const SHOWN: usize = 32;
    let shown: Vec<u8> = bytes.iter().take(SHOWN).copied().collect();
    match bytes.len() {
        0 => "empty".to_owned(),
        len if len > SHOWN => format!("{}... ({len} bytes)", hex::encode(shown)),
        _ => hex::encode(shown),
    }
}

fn units(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).map(|pair| match pair {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_the_length_is_bounded() {
        assert_eq!(ascii(b"a\x1b[2Jb\n\0"), "a\\u{1b}[2Jb\\n");
        assert_eq!(ascii(b"\xe2\x80\xae"), "\\u{e2}\\u{80}\\u{ae}");
        let wide_text: Vec<u8> = "\u{202e}x\r"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(wide(&wide_text), "\\u{202e}x\\r");
        assert!(ascii(&[b'x'; 100_000]).len() <= MAX_TEXT_CHARS + 10);
        assert!(ascii(&[0x1b; 100_000]).len() <= MAX_TEXT_CHARS + 10);
        assert!(hexed(&[1; 100_000]).len() < 100);
    }

    #[test]
    fn text_is_told_from_bytes() {
        assert_eq!(guess(b"ACPI DATA"), "ACPI DATA");
        assert_eq!(guess(b"sbat,1\nshim,2\n"), "sbat,1\\nshim,2");
        assert_eq!(guess(b"v\x001\x00.\x000\x00\x00\x00"), "v1.0");
        assert_eq!(guess(&[1, 2, 3]), "010203");
        assert_eq!(guess(&[]), "empty");
        assert_eq!(utf16(&[0]), None);
    }
}
