//! A bounded big-endian reader for TPM structures, and the matching writer.
//!
//! Nothing is allocated by a size that has not been compared with the bytes at hand and with the caller's limit,
//! and bytes left over are an error: a structure is exactly as long as it says.

/// Reads from the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

/// Why a TPM structure cannot be read. The fault is the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("structure is cut off")]
    Truncated,
    #[error("bytes follow after the structure: {0}")]
    Trailing(usize),
    #[error("{what} is larger than its limit in bytes: {size} > {limit}")]
    TooLarge {
        what: &'static str,
        size: usize,
        limit: usize,
    },
    #[error("{what} has an unsupported or reserved value: {value:#x}")]
    Unsupported { what: &'static str, value: u32 },
    #[error("magic is not ff544347: {0:08x}")]
    Magic(u32),
}

impl Malformed {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Truncated => "tpm_structure_truncated",
            Self::Trailing(_) => "tpm_structure_trailing",
            Self::TooLarge { .. } => "tpm_structure_too_large",
            Self::Unsupported { .. } => "tpm_structure_unsupported",
            Self::Magic(_) => "attest_magic",
        }
    }
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`, refused above `limit` bytes. `what` names the structure in errors.
    pub fn new(bytes: &'a [u8], what: &'static str, limit: usize) -> Result<Self, Malformed> {
        within(what, bytes.len(), limit)?;
        Ok(Self(bytes))
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Truncated)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: u16 size, then that many bytes, at most `limit`.
    pub fn sized(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], Malformed> {
        let size = usize::from(self.u16()?);
        within(what, size, limit)?;
        self.take(size)
    }

    /// The structure must end here.
    pub fn end(self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Malformed::Trailing(left)),
        }
    }
}

/// Writes a TPM2B. The values this crate writes are far below 64 KiB; a longer one would be cut and then refused.
pub(crate) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&size.to_be_bytes());
    out.extend(bytes.iter().take(usize::from(size)));
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), Malformed> {
    if size > limit {
        return Err(Malformed::TooLarge { what, size, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_the_bytes_or_the_limit_is_refused() {
        let mut reader = Reader::new(&[0xff, 0xff, 1], "x", 8).unwrap();
        assert!(matches!(
            reader.sized("x", 4),
            Err(Malformed::TooLarge { size: 0xffff, .. })
        ));
        let mut reader = Reader::new(&[0, 2, 1], "x", 8).unwrap();
        assert_eq!(reader.sized("x", 4), Err(Malformed::Truncated));
        assert!(Reader::new(&[0; 9], "x", 8).is_err());
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut reader = Reader::new(&[0, 1, 7, 9], "x", 8).unwrap();
        assert_eq!(reader.sized("x", 4), Ok([7].as_slice()));
        assert_eq!(reader.end(), Err(Malformed::Trailing(1)));
    }
}
