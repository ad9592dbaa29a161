//! The forms in which bytes may stand in a text.

/// Both alphabets of RFC 4648: for texts, and for addresses.
const ALPHABETS: [&[u8; 64]; 2] = [
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
];

/// As it is, hex, and base64 wherever in a longer stretch it may lie: what its neighbours decide is left out.
pub(super) fn all(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        bytes.to_vec(),
        hex::encode(bytes).into_bytes(),
        hex::encode_upper(bytes).into_bytes(),
    ];
    for alphabet in ALPHABETS {
        forms.extend((0..3).map(|before| base64(bytes, before, alphabet)));
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// The whole characters of base64 that `bytes` decide when `before` others stand in front.
fn base64(bytes: &[u8], before: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bits: Vec<bool> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
        .collect();
    // So many bits belong to a character that began before.
    let skipped = (6 - before * 8 % 6) % 6;
    let whole = bits.get(skipped..).unwrap_or_default().chunks_exact(6);
    whole
        .filter_map(|six| {
            let value = six
                .iter()
                .fold(0, |value, bit| value << 1 | usize::from(*bit));
            alphabet.get(value).copied()
        })
        .collect()
}

/// Bytes of base64 in either alphabet, padded or not.
pub(super) fn from_base64(text: &str) -> anyhow::Result<Vec<u8>> {
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for c in text.trim_end_matches('=').bytes() {
        let value = ALPHABETS
            .iter()
            .find_map(|alphabet| alphabet.iter().position(|known| *known == c));
        let value = u32::try_from(value.ok_or_else(|| anyhow::anyhow!("not base64"))?)?;
        bits = bits << 6 | value;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff)?);
            bits &= (1 << held) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_others_make_of_it_wherever_the_bytes_lie() {
        // RFC 4648, section 10.
        assert_eq!(base64(b"foobar", 0, ALPHABETS[0]), b"Zm9vYmFy");
        assert_eq!(from_base64("Zm9vYg==").unwrap(), b"foob");
        assert_eq!(from_base64("-_-_").unwrap(), from_base64("+/+/").unwrap());
        assert!(from_base64("a b").is_err());
        for before in 0..3 {
            let around = [&b"xy"[..before], b"secret bytes", b"z"].concat();
            let whole = base64(&around, 0, ALPHABETS[0]);
            let part = base64(b"secret bytes", before, ALPHABETS[0]);
            assert!(part.len() >= 15);
            assert!(whole.windows(part.len()).any(|window| window == part));
        }
    }
}
