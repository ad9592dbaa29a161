//! Cursors: where to go on, for this filter only.
//!
//! base64url of `leaf index u64 | filter hash 16 | HMAC-SHA-256 16`. The log only grows, so a cursor holds for ever; the
//! HMAC keeps it opaque in fact, not only by agreement.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use edgeward_identity::Secret;
use ring::hmac;
use subtle::ConstantTimeEq;

use super::Filter;

/// Longest cursor, in bytes.
pub const MAX_CURSOR_BYTES: usize = 64;

const FILTER_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const LABEL: &[u8] = b"edgeward audit cursor v1\n";

/// The key of cursors: keep it as long as cursors are to hold.
#[derive(Clone)]
pub struct CursorKey(hmac::Key);

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The last leaf index that was answered.
    pub after: u64,
}

/// Why a cursor is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("not a cursor that was given out")]
    Malformed,
    #[error("cursor was given out for another filter")]
    OtherFilter,
}

impl CursorKey {
    pub fn new(key: &Secret<[u8; 32]>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    fn tag(&self, covered: &[u8]) -> [u8; TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(LABEL);
        context.update(covered);
        let mut tag = [0; TAG_BYTES];
        for (to, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        tag
    }
}

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey(..)")
    }
}

impl Cursor {
    pub fn seal(self, filter: &Filter, key: &CursorKey) -> String {
        let mut bytes = self.after.to_be_bytes().to_vec();
        bytes.extend(filter.hash().as_bytes().iter().take(FILTER_BYTES));
        let tag = key.tag(&bytes);
        bytes.extend_from_slice(&tag);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn open(text: &str, filter: &Filter, key: &CursorKey) -> Result<Self, CursorError> {
        if text.len() > MAX_CURSOR_BYTES {
            return Err(CursorError::Malformed);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| CursorError::Malformed)?;
        let (covered, tag) = bytes
            .split_at_checked(8 + FILTER_BYTES)
            .ok_or(CursorError::Malformed)?;
        if !bool::from(key.tag(covered).ct_eq(tag)) {
            return Err(CursorError::Malformed);
        }
        let (after, for_filter) = covered
            .split_first_chunk::<8>()
            .ok_or(CursorError::Malformed)?;
        if !filter.hash().as_bytes().starts_with(for_filter) {
            return Err(CursorError::OtherFilter);
        }
        Ok(Self {
            after: u64::from_be_bytes(*after),
        })
    }
}
