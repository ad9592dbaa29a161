//! The one reading of a request's path: what policy decides upon is what the service is sent.
//!
//! Services differ in what they make of a path: some decode it twice, some take `\` for `/`, some cut what follows a
//! `;`, some climb by `..`. A path that any of them could read otherwise is refused, not mended. What is left is
//! decoded once for the decision, and written anew from the decoded form for the service (RFC 3986 2, 3.3).

/// Longest path, in bytes as received.
pub const MAX_PATH_BYTES: usize = 8 * 1024;

/// A path with one reading.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CanonicalPath {
    decoded: String,
    encoded: String,
}

/// Why a path has no single reading. The client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadPath {
    #[error("path is longer than the limit in bytes: {MAX_PATH_BYTES}")]
    TooLong,
    #[error("path does not begin with /")]
    NotAbsolute,
    #[error("path has a character that must be percent-encoded")]
    RawCharacter,
    #[error("path has a % that is not followed by two hexadecimal digits")]
    Percent,
    #[error("path has an encoded character that services read differently")]
    Ambiguous,
    #[error("path is not utf-8 once decoded")]
    NotUtf8,
    #[error("path has a control character")]
    Control,
    #[error("path has an empty segment")]
    EmptySegment,
    #[error("path has a . or .. segment")]
    DotSegment,
}

impl BadPath {
    /// A stable word for records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "path-too-long",
            Self::NotAbsolute => "path-not-absolute",
            Self::RawCharacter => "path-character",
            Self::Percent => "path-percent",
            Self::Ambiguous => "path-ambiguous",
            Self::NotUtf8 => "path-not-utf8",
            Self::Control => "path-control",
            Self::EmptySegment => "path-empty-segment",
            Self::DotSegment => "path-dot-segment",
        }
    }
}

impl CanonicalPath {
    /// Reads the path of a request target, without its query. A last segment may be empty (`/a/`); no other may.
    pub fn read(raw: &str) -> Result<Self, BadPath> {
        if raw.len() > MAX_PATH_BYTES {
            return Err(BadPath::TooLong);
        }
        let relative = raw.strip_prefix('/').ok_or(BadPath::NotAbsolute)?;
        let decoded = decode(raw)?;
        if decoded.chars().any(char::is_control) {
            return Err(BadPath::Control);
        }
        // Decoding makes no new slash, so both have the same segments.
        let mut segments = decoded.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            match segment {
                "." | ".." => return Err(BadPath::DotSegment),
                "" if segments.peek().is_some() => return Err(BadPath::EmptySegment),
                _ => {}
            }
        }
        debug_assert_eq!(relative.split('/').count(), decoded.split('/').count() - 1);
        let encoded = encode(&decoded);
        Ok(Self { decoded, encoded })
    }

    /// What policy decides upon.
    pub fn decoded(&self) -> &str {
        &self.decoded
    }

    /// What the service is sent: decoded once, it is [`CanonicalPath::decoded`].
    pub fn encoded(&self) -> &str {
        &self.encoded
    }
}

fn decode(raw: &str) -> Result<String, BadPath> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let high = bytes.next().and_then(hex).ok_or(BadPath::Percent)?;
                let low = bytes.next().and_then(hex).ok_or(BadPath::Percent)?;
                encoded_byte(high << 4 | low)?
            }
            // Parameters of a segment: some services cut them off.
            b';' => return Err(BadPath::Ambiguous),
            byte if stays(byte) || byte == b'/' => byte,
            _ => return Err(BadPath::RawCharacter),
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).map_err(|_| BadPath::NotUtf8)
}

/// A byte that came percent-encoded.
fn encoded_byte(byte: u8) -> Result<u8, BadPath> {
    match byte {
        // A separator that is none, an escape of an escape, the end of the path, parameters.
        b'/' | b'\\' | b'%' | b'?' | b'#' | b';' => Err(BadPath::Ambiguous),
        0..=0x1f | 0x7f => Err(BadPath::Control),
        byte => Ok(byte),
    }
}

fn encode(decoded: &str) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    let mut encoded = String::with_capacity(decoded.len());
    for byte in decoded.bytes() {
        if stays(byte) || byte == b'/' {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', digit(byte >> 4), digit(byte & 0x0f)]);
        }
    }
    encoded
}

/// `pchar` of RFC 3986 3.3 that stands for itself; `;` is not among them, see [`decode`].
fn stays(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_read_differently_is_refused() {
        let cases = [
            ("", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("a/b", BadPath::NotAbsolute),
            ("http://h/a", BadPath::NotAbsolute),
            ("//", BadPath::EmptySegment),
            ("//a", BadPath::EmptySegment),
            ("/a//b", BadPath::EmptySegment),
            ("/a//", BadPath::EmptySegment),
            ("/.", BadPath::DotSegment),
            ("/..", BadPath::DotSegment),
            ("/a/../b", BadPath::DotSegment),
            ("/a/./b", BadPath::DotSegment),
            ("/a/%2e%2e/b", BadPath::DotSegment),
            ("/a/%2E./b", BadPath::DotSegment),
            ("/a/.%2e", BadPath::DotSegment),
            ("/a%2fb", BadPath::Ambiguous),
            ("/a%2Fb", BadPath::Ambiguous),
            ("/a%5cb", BadPath::Ambiguous),
            ("/a\\b", BadPath::RawCharacter),
            ("/a%252fb", BadPath::Ambiguous),
            ("/a%2561", BadPath::Ambiguous),
            ("/a%3fb", BadPath::Ambiguous),
            ("/a%23b", BadPath::Ambiguous),
            ("/a;b", BadPath::Ambiguous),
            ("/a;/b", BadPath::Ambiguous),
            ("/..;/a", BadPath::Ambiguous),
            ("/a%3Bb", BadPath::Ambiguous),
            ("/a%00", BadPath::Control),
            ("/a%0d%0ab", BadPath::Control),
            ("/a%7f", BadPath::Control),
            ("/a%c2%85", BadPath::Control),
            ("/%", BadPath::Percent),
            ("/%4", BadPath::Percent),
            ("/%zz", BadPath::Percent),
            ("/%+1", BadPath::Percent),
            ("/%u0061", BadPath::Percent),
            ("/%c0%ae", BadPath::NotUtf8),
            ("/%c0%af", BadPath::NotUtf8),
            ("/%ff", BadPath::NotUtf8),
            ("/a b", BadPath::RawCharacter),
            ("/a\tb", BadPath::RawCharacter),
            ("/a?b", BadPath::RawCharacter),
            ("/a#b", BadPath::RawCharacter),
            ("/ä", BadPath::RawCharacter),
            ("/a\"b", BadPath::RawCharacter),
        ];
        for (raw, bad) in cases {
            assert_eq!(CanonicalPath::read(raw), Err(bad), "{raw}");
        }
        let long = format!("/{}", "a".repeat(MAX_PATH_BYTES));
        assert_eq!(CanonicalPath::read(&long), Err(BadPath::TooLong));
    }

    #[test]
    fn what_is_left_is_decoded_once_and_written_in_one_way() {
        let cases = [
            ("/", "/", "/"),
            ("/a/", "/a/", "/a/"),
            ("/%61/b", "/a/b", "/a/b"),
            ("/a%20b", "/a b", "/a%20b"),
            ("/%c3%a4", "/ä", "/%C3%A4"),
            ("/...", "/...", "/..."),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/a%2Bb+c", "/a+b+c", "/a+b+c"),
            ("/p.S/M:x@y", "/p.S/M:x@y", "/p.S/M:x@y"),
            ("/%7Bx%7d", "/{x}", "/%7Bx%7D"),
        ];
        for (raw, decoded, encoded) in cases {
            let path = CanonicalPath::read(raw).unwrap();
            assert_eq!(
                (path.decoded(), path.encoded()),
                (decoded, encoded),
                "{raw}"
            );
            let again = CanonicalPath::read(path.encoded()).unwrap();
            assert_eq!(again, path);
        }
    }
}
