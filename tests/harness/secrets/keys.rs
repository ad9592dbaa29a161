//! What of a key file is secret. Public halves lie beside private ones in most forms, and may be anywhere.

use super::forms;

/// Shortest private part, in bytes: half of that of Ed25519.
const MIN_PART_BYTES: usize = 16;
/// Shortest number of an RSA key that is private: of a key of 1024 bits a prime.
const MIN_NUMBER_BYTES: usize = 60;
/// Deepest nesting of DER that is looked into.
const MAX_DEPTH: usize = 8;

/// The secret parts of a file in a place for keys: of private keys in PEM, of private keys in DER wherever they lie in it; if
/// `is_whole`, of a small file without any structure all of it. None for certificates, public keys and lists.
pub(super) fn of_file(bytes: &[u8], is_whole: bool) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    if text.contains("-----BEGIN ") {
        return in_pem(text)
            .iter()
            .flat_map(|der| private_parts(der))
            .collect();
    }
    let parts = private_parts(bytes);
    if !parts.is_empty() || !is_whole {
        return parts;
    }
    let sealing = of_a_site(text);
    if !sealing.is_empty() {
        return sealing;
    }
    match std::str::from_utf8(bytes) {
        // Words: a secret of its own, of which the surrounding white space is no part.
        Ok(text) if is_secret_text(text.trim()) => vec![text.trim().as_bytes().to_vec()],
        Ok(_) => Vec::new(),
        Err(_) if (MIN_PART_BYTES..=256).contains(&bytes.len()) => vec![bytes.to_vec()],
        Err(_) => Vec::new(),
    }
}

/// The key in a file of the sites' keys: a line of hex among others.
fn of_a_site(text: &str) -> Vec<Vec<u8>> {
    let keys = text.lines().filter_map(|line| line.strip_prefix("key "));
    keys.filter_map(|key| hex::decode(key).ok())
        .filter(|key| key.len() >= MIN_PART_BYTES)
        .collect()
}

/// One word that is neither the public key of a log, a document nor a list.
fn is_secret_text(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_graphic() && !matches!(b, b'{' | b'[' | b'+' | b'"');
    (MIN_PART_BYTES..=1024).contains(&text.len()) && text.bytes().all(is_word)
}

/// The bodies of private keys. What a TPM has sealed is none.
fn in_pem(text: &str) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
        let (begin, end) = (
            format!("-----BEGIN {label}-----"),
            format!("-----END {label}-----"),
        );
        for rest in text.split(begin.as_str()).skip(1) {
            let Some((body, _)) = rest.split_once(end.as_str()) else {
                continue;
            };
            let body: String = body.split_whitespace().collect();
            bodies.extend(forms::from_base64(&body));
        }
    }
    bodies
}

/// The private parts of keys in DER that lie anywhere in these bytes: scalars of SEC 1 and of RFC 8410, numbers of RSA.
pub(super) fn private_parts(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        // A structure that is as long as it says, and begins with a version.
        let found = value(rest)
            .filter(|(tag, content, _)| *tag == 0x30 && content.first() == Some(&2))
            .map(|(_, content, length)| {
                let mut found = Vec::new();
                descend(content, 0, &mut found);
                (found, length)
            });
        match found {
            Some((found, length)) if !found.is_empty() => {
                parts.extend(found);
                at += length;
            }
            _ if rest.is_empty() => break,
            _ => at += 1,
        }
    }
    parts
}

fn descend(mut bytes: &[u8], depth: usize, parts: &mut Vec<Vec<u8>>) {
    let mut numbers = 0;
    while let Some((tag, content, length)) = value(bytes) {
        match tag {
            0x30 if depth < MAX_DEPTH => descend(content, depth + 1, parts),
            0x04 => match value(content) {
                Some((0x30 | 0x04, inner, whole)) if whole == content.len() => {
                    if content.first() == Some(&4) {
                        parts.push(inner.to_vec());
                    } else if depth < MAX_DEPTH {
                        descend(content, depth + 1, parts);
                    }
                }
                _ if (32..=66).contains(&content.len()) => parts.push(content.to_vec()),
                _ => {}
            },
            0x02 if content.len() >= MIN_NUMBER_BYTES => {
                numbers += 1;
                // The first is the modulus, which is public.
                if numbers > 1 {
                    parts.push(content.to_vec());
                }
            }
            _ => {}
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

/// Tag, content, and how long both are together.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, head) = match first {
        short @ 0..=0x7f => (usize::from(short), 2),
        0x81 => (usize::from(*rest.first()?), 3),
        0x82 => {
            let [high, low] = rest.first_chunk::<2>()?;
            (usize::from(*high) << 8 | usize::from(*low), 4)
        }
        _ => return None,
    };
    let content = bytes.get(head..head + length)?;
    Some((tag, content, head + length))
}

#[cfg(test)]
mod tests {
    use edgeward_identity::{Signer as _, SoftwareKey};

    use super::*;

    #[test]
    fn of_a_key_only_the_private_half_is_secret_wherever_it_lies() {
        let key = SoftwareKey::generate().unwrap();
        let der = key.pkcs8().expose();
        let inside = [&b"marker and id"[..], der, b"\x30\x82"].concat();
        for bytes in [der, &inside] {
            let parts = of_file(bytes, true);
            assert_eq!(parts, [der[36..68].to_vec()]);
            assert_ne!(parts[0], key.public_key().point()[1..33]);
        }
        let public = key.public_key().spki_der();
        assert!(private_parts(&public).is_empty());
        assert!(of_file(b"plant.example/audit+1a2b3c4d+AZabcdefghijkl\n", true).is_empty());
        assert!(of_file(b"{\"keys\": []}", true).is_empty());
        let word = b"whsec_abcdefghijklmnop\n";
        assert_eq!(of_file(word, true), [&word[..22]]);
        assert_eq!(of_file(&[0xff; 32], true), [[0xff; 32]]);
        let key = "5a".repeat(32);
        let sum = "00".repeat(32);
        let site = format!("edgeward site key v1\nsite north\nmade 17\nkey {key}\nsum {sum}\n");
        assert_eq!(of_file(site.as_bytes(), true), [[0x5a; 32]]);
        let tombstone = format!("edgeward erased site key v1\nsite north\nmade 17\nsum {sum}\n");
        assert!(of_file(tombstone.as_bytes(), true).is_empty());
        assert!(of_file(word, false).is_empty() && of_file(&[0xff; 32], false).is_empty());
    }

    #[test]
    fn the_private_half_of_ed25519_is_found() {
        // RFC 8410, section 10.3.
        let text = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let parts = of_file(text.as_bytes(), true);
        assert_eq!(
            parts.iter().map(hex::encode).collect::<Vec<_>>(),
            ["d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842"]
        );
    }
}
