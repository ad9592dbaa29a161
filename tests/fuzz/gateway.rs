//! Targets for what the gateway reads itself: paths of requests, the kernel's neighbour table.

use edgeward_agent::gateway::neighbours;
use edgeward_policy::l7::http::CanonicalPath;

/// What is taken has one reading: decoded once, what the service is sent is what was decided upon, and nothing in it
/// climbs, hides a separator, or can be decoded again.
pub fn path(bytes: &[u8]) {
    let Ok(raw) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(path) = CanonicalPath::read(raw) else {
        return;
    };
    let (decoded, encoded) = (path.decoded(), path.encoded());
    assert!(decoded.starts_with('/') && encoded.is_ascii());
    assert_eq!(decode_once(encoded), decoded.as_bytes());
    assert_eq!(decode_once(raw), decoded.as_bytes());
    assert_eq!(CanonicalPath::read(encoded), Ok(path.clone()));
    assert!(!decoded.contains(['\\', '%', ';', '?', '#', '\0']));
    let segments: Vec<&str> = decoded.split('/').skip(1).collect();
    assert!(!segments.iter().any(|segment| [".", ".."].contains(segment)));
    let empty = segments
        .iter()
        .rev()
        .skip(1)
        .any(|segment| segment.is_empty());
    assert!(!empty, "{decoded:?}");
}

/// As a plain service would.
fn decode_once(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        let hex = |digit: Option<u8>| char::from(digit.unwrap()).to_digit(16).unwrap() as u8;
        decoded.push(match byte {
            b'%' => hex(bytes.next()) << 4 | hex(bytes.next()),
            other => other,
        });
    }
    decoded
}

pub fn paths() -> Vec<Vec<u8>> {
    [
        "/",
        "/a/b/",
        "/%61/%c3%a4",
        "/a/../b",
        "/a%2fb",
        "/a;b//c",
        "/%252e",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub fn neighbour_table(bytes: &[u8]) {
    let (found, _) = neighbours::read(bytes);
    assert!(found.len() <= bytes.len() / 28);
}

/// An answer with one entry: 192.0.2.1 is at 02:00:00:00:00:01 on device 3.
pub fn neighbour_tables() -> Vec<Vec<u8>> {
    let mut message = vec![48, 0, 0, 0, 28, 0, 2, 0, 1, 0, 0, 0, 1, 0, 0, 0];
    message.extend([2, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0]);
    message.extend([8, 0, 1, 0, 192, 0, 2, 1]);
    message.extend([10, 0, 2, 0, 2, 0, 0, 0, 0, 1, 0, 0]);
    vec![message]
}
