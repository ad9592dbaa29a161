//! Bytes from a machine, made fit for a screen and a log.

use std::fmt::Write as _;

/// Most characters shown of one path.
const MAX_SHOWN: usize = 256;

/// Printable ASCII as it is; everything else, and the backslash, as `\xNN`. Cut after 256 bytes, with `…` at the end.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().min(MAX_SHOWN));
    for byte in bytes.iter().take(MAX_SHOWN) {
        match byte {
            b'\\' => text.push_str("\\x5c"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    if bytes.len() > MAX_SHOWN {
        text.push('…');
    }
    text
}
