//! The kernel's list for people, `ascii_runtime_measurements`: turned into the binary one, so that there is one judge.
//! For tools and vectors; nodes send the binary list, since this one cannot carry every path.
//!
//! One entry a line: `pcr template-digest template algorithm:digest path [signature]`.

use super::{
    IMA_PCR, ImaRefused, MAX_IMA_PART_BYTES, MAX_PATH_BYTES, TEMPLATE_HASH_BYTES, Template,
    hash_of_name,
};

/// The same entries as `binary_runtime_measurements` has them. Refuses what cannot be said there; whether digests are
/// right is for [`super::parse_binary`].
pub fn binary_of_ascii(text: &[u8]) -> Result<Vec<u8>, ImaRefused> {
    if text.len() > MAX_IMA_PART_BYTES {
        return Err(ImaRefused::TooLarge);
    }
    let mut out = Vec::with_capacity(text.len());
    let lines = text.split(|byte| *byte == b'\n');
    for (index, line) in (0_u64..).zip(lines) {
        if !line.is_empty() {
            put_line(&mut out, line, index)?;
        }
    }
    Ok(out)
}

fn put_line(out: &mut Vec<u8>, line: &[u8], index: u64) -> Result<(), ImaRefused> {
    let malformed = || ImaRefused::Line(index);
    let mut words = line.splitn(5, |byte| *byte == b' ');
    let mut word = || words.next().ok_or_else(malformed);
    // The kernel pads the PCR to two characters.
    let pcr = std::str::from_utf8(word()?)
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
        .ok_or_else(malformed)?;
    if pcr != u32::from(IMA_PCR) {
        return Err(ImaRefused::Pcr(index));
    }
    let template_hash = hex::decode(word()?).map_err(|_| malformed())?;
    if template_hash.len() != TEMPLATE_HASH_BYTES {
        return Err(ImaRefused::TemplateHash(index));
    }
    let template = Template::from_name(word()?).ok_or(ImaRefused::Template(index))?;
    let digest = word()?;
    let rest = word()?;
    let (path, signature) = match template {
        Template::ImaNg => (rest, None),
        Template::ImaSig => {
            let (path, signature) = last_word(rest).ok_or_else(malformed)?;
            (path, Some(hex::decode(signature).map_err(|_| malformed())?))
        }
    };
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return Err(ImaRefused::Path(index));
    }
    let mut data = Vec::new();
    put(&mut data, &digest_field(digest, index)?);
    put(&mut data, &[path, b"\0"].concat());
    if let Some(signature) = signature {
        put(&mut data, &signature);
    }
    out.extend_from_slice(&pcr.to_le_bytes());
    out.extend_from_slice(&template_hash);
    put(out, template.as_str().as_bytes());
    put(out, &data);
    Ok(())
}

fn digest_field(word: &[u8], index: u64) -> Result<Vec<u8>, ImaRefused> {
    let malformed = || ImaRefused::Line(index);
    let colon = word
        .iter()
        .position(|byte| *byte == b':')
        .ok_or_else(malformed)?;
    let (name, digits) = word.split_at_checked(colon).ok_or_else(malformed)?;
    if hash_of_name(name).is_none() {
        return Err(ImaRefused::Algorithm(index));
    }
    let digest =
        hex::decode(digits.strip_prefix(b":").unwrap_or(digits)).map_err(|_| malformed())?;
    Ok([name, b":\0", &digest].concat())
}

/// The signature is the last word; a file without one has a space and nothing there.
fn last_word(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = rest.iter().rposition(|byte| *byte == b' ')?;
    let (path, signature) = rest.split_at_checked(space)?;
    Some((path, signature.strip_prefix(b" ")?))
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}
