//! Type, length, value: one byte, four bytes big endian, bytes.

pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next field, which must be of this type.
    pub(crate) fn field(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (&kind, rest) = self.0.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        if kind != wanted {
            return None;
        }
        self.0 = rest;
        Some(value)
    }
}

pub(crate) fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}
