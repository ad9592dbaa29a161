//! What DER forbids and lenient parsers let pass (X.690, 10 and 11): indefinite or padded lengths, sets out of order,
//! booleans other than 00 and ff, padded integers, bytes after the end.
//!
//! Two parsers that read one certificate differently are a way in. Some makers break these rules (Nuvoton's names have a
//! set out of order); what they made is refused unless somebody listed it, and then nothing but the order is forgiven.

/// Deepest nesting accepted.
const MAX_DEPTH: usize = 24;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const SET: u8 = 0x31;
const CONSTRUCTED: u8 = 0x20;

/// How much of DER is insisted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    Strict,
    /// Members of a set may stand in any order; all else as in DER. For what was listed by its hash, or is signed by a
    /// root that was.
    SetsInAnyOrder,
}

/// Checks that `bytes` are one DER value, all the way down. Says in a few words what is wrong.
pub fn check_strict(bytes: &[u8]) -> Result<(), &'static str> {
    check(bytes, Strictness::Strict)
}

/// As [`check_strict`], as strictly as asked.
pub fn check(bytes: &[u8], strictness: Strictness) -> Result<(), &'static str> {
    let (_, rest) = check_value(bytes, 0, strictness)?;
    if !rest.is_empty() {
        return Err("bytes follow after the value");
    }
    Ok(())
}

/// The one DER value at the start of a buffer that may be padded, as an NV index of a TPM is.
pub fn trim(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (header, length) = header(bytes)?;
    bytes.get(..header + length).ok_or("value is cut off")
}

/// The content of the one value in strict DER.
pub(crate) fn content(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (header, length) = header(bytes)?;
    bytes.get(header..header + length).ok_or("value is cut off")
}

/// The values in a constructed one of strict DER: tag, and value whole.
pub(crate) fn children(bytes: &[u8]) -> Result<Vec<(u8, &[u8])>, &'static str> {
    let mut rest = content(bytes)?;
    let mut children = Vec::new();
    while let Some(tag) = rest.first() {
        let (header, length) = header(rest)?;
        let (child, after) = rest
            .split_at_checked(header + length)
            .ok_or("value is cut off")?;
        children.push((*tag, child));
        rest = after;
    }
    Ok(children)
}

/// Checks one value; returns it whole, and what follows.
fn check_value(
    bytes: &[u8],
    depth: usize,
    strictness: Strictness,
) -> Result<(&[u8], &[u8]), &'static str> {
    if depth > MAX_DEPTH {
        return Err("nested too deeply");
    }
    let (header, length) = header(bytes)?;
    let (value, rest) = bytes
        .split_at_checked(header + length)
        .ok_or("value is cut off")?;
    let (_, content) = value.split_at_checked(header).ok_or("value is cut off")?;
    let tag = *bytes.first().ok_or("value is cut off")?;
    if tag & CONSTRUCTED != 0 {
        check_children(tag, content, depth, strictness)?;
    } else {
        check_primitive(tag, content)?;
    }
    Ok((value, rest))
}

fn check_children(
    tag: u8,
    mut content: &[u8],
    depth: usize,
    strictness: Strictness,
) -> Result<(), &'static str> {
    let mut last: &[u8] = &[];
    while !content.is_empty() {
        let (child, rest) = check_value(content, depth + 1, strictness)?;
        if tag == SET && child < last && strictness == Strictness::Strict {
            return Err("set is out of order");
        }
        last = child;
        content = rest;
    }
    Ok(())
}

fn check_primitive(tag: u8, content: &[u8]) -> Result<(), &'static str> {
    match (tag, content) {
        (BOOLEAN, [0 | 0xff]) => Ok(()),
        (BOOLEAN, _) => Err("boolean is neither 00 nor ff"),
        (INTEGER, []) => Err("integer is empty"),
        (INTEGER, [0, next, ..]) if *next < 0x80 => Err("integer is padded"),
        (INTEGER, [0xff, next, ..]) if *next >= 0x80 => Err("integer is padded"),
        _ => Ok(()),
    }
}

/// Lengths of header and content.
fn header(bytes: &[u8]) -> Result<(usize, usize), &'static str> {
    let (tag, first) = match bytes {
        [tag, first, ..] => (*tag, *first),
        _ => return Err("value is cut off"),
    };
    if tag & 0x1f == 0x1f {
        return Err("tag of more than one byte");
    }
    if first < 0x80 {
        return Ok((2, usize::from(first)));
    }
    let count = usize::from(first & 0x7f);
    // Three bytes of length are 16 MiB, far above every limit here.
    if count == 0 || count > 3 {
        return Err("length is indefinite or too long");
    }
    let digits = bytes.get(2..2 + count).ok_or("value is cut off")?;
    let length = digits
        .iter()
        .fold(0_usize, |length, digit| length * 256 + usize::from(*digit));
    let shortest = match length {
        0..0x80 => 0,
        0x80..0x100 => 1,
        0x100..0x1_0000 => 2,
        _ => 3,
    };
    if count != shortest {
        return Err("length is padded");
    }
    Ok((2 + count, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_der_forbids_is_refused() {
        let cases: [(&[u8], &str); 9] = [
            (&[0x30, 0x80, 0, 0], "length is indefinite or too long"),
            (&[0x30, 0x81, 0x01, 0x05], "length is padded"),
            (&[0x01, 0x01, 0x01], "boolean is neither 00 nor ff"),
            (&[0x02, 0x02, 0x00, 0x01], "integer is padded"),
            (&[0x02, 0x00], "integer is empty"),
            (
                &[0x31, 0x06, 0x02, 0x01, 0x02, 0x02, 0x01, 0x01],
                "set is out of order",
            ),
            (&[0x05, 0x00, 0x00], "bytes follow after the value"),
            (&[0x30, 0x05, 0x05, 0x00], "value is cut off"),
            (&[0x1f, 0x81, 0x00], "tag of more than one byte"),
        ];
        for (bytes, reason) in cases {
            assert_eq!(check_strict(bytes), Err(reason), "{bytes:02x?}");
        }
        let deep = (0..40).fold(vec![0x05, 0x00], |inner, _| {
            let length = u8::try_from(inner.len()).unwrap();
            [vec![0x30, length], inner].concat()
        });
        assert_eq!(check_strict(&deep), Err("nested too deeply"));
    }

    #[test]
    fn padding_after_the_value_is_trimmed_where_that_is_asked_for() {
        assert_eq!(
            trim(&[0x30, 0x02, 0x05, 0x00, 0xff, 0xff]),
            Ok([0x30, 0x02, 0x05, 0x00].as_slice())
        );
        assert_eq!(trim(&[0x30, 0x04, 0x05]), Err("value is cut off"));
    }
}
