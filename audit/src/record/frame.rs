//! How a record lies in a journal file.
//!
//! ```text
//! magic 4 | length u32 | durable u64 | check 16 | record
//! ```
//!
//! Numbers are big-endian. `durable` is the sequence number below which everything was known to be on disk when the
//! frame was written: it lets recovery tell a torn end (what follows was never promised to anybody) from damage to what had
//! been promised. `check` is the start of SHA-256 over length, `durable` and the record's hash. The magic begins with
//! a byte that UTF-8 never has, so a search for the next frame does not stop inside of records.

use crate::digest::Digest;

use super::{MAX_RECORD_BYTES, record_hash};

/// Bytes before the record.
pub(crate) const HEADER_BYTES: usize = 32;
/// Longest frame, in bytes.
pub(crate) const MAX_FRAME_BYTES: usize = HEADER_BYTES + MAX_RECORD_BYTES;
/// First bytes of every frame.
pub(crate) const MAGIC: [u8; 4] = [0xff, b'E', b'W', 0x01];

const CHECK_BYTES: usize = 16;
const LABEL: &[u8] = b"edgeward journal frame v1\n";

/// A frame whose check holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) record: &'a [u8],
    /// Everything below this sequence number was on disk when the frame was written.
    pub(crate) durable: u64,
}

/// Why there is no frame here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    #[error("frame is incomplete")]
    Incomplete,
    #[error("frame does not begin with its mark")]
    Magic,
    #[error("frame length is beyond the limit")]
    Length,
    #[error("frame check does not hold")]
    Check,
}

impl Frame<'_> {
    pub(crate) fn len(&self) -> usize {
        HEADER_BYTES + self.record.len()
    }
}

/// Appends a frame to `out`. `record` is at most [`MAX_RECORD_BYTES`] long.
pub(crate) fn write(out: &mut Vec<u8>, record: &[u8], hash: &Digest, durable: u64) {
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&durable.to_be_bytes());
    out.extend_from_slice(&check(length, durable, hash));
    out.extend_from_slice(record);
}

/// Reads the frame at the start of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Frame<'_>, FrameFault> {
    let (magic, rest) = bytes
        .split_first_chunk::<4>()
        .ok_or(FrameFault::Incomplete)?;
    if *magic != MAGIC {
        return Err(FrameFault::Magic);
    }
    let (length, rest) = rest
        .split_first_chunk::<4>()
        .ok_or(FrameFault::Incomplete)?;
    let (durable, rest) = rest
        .split_first_chunk::<8>()
        .ok_or(FrameFault::Incomplete)?;
    let (stated, rest) = rest
        .split_first_chunk::<CHECK_BYTES>()
        .ok_or(FrameFault::Incomplete)?;
    let length = u32::from_be_bytes(*length);
    let durable = u64::from_be_bytes(*durable);
    let size = usize::try_from(length).map_err(|_| FrameFault::Length)?;
    if size > MAX_RECORD_BYTES {
        return Err(FrameFault::Length);
    }
    let record = rest.get(..size).ok_or(FrameFault::Incomplete)?;
    if *stated == check(length, durable, &record_hash(record)) {
        Ok(Frame { record, durable })
    } else {
        Err(FrameFault::Check)
    }
}

fn check(length: u32, durable: u64, hash: &Digest) -> [u8; CHECK_BYTES] {
    let digest = Digest::of(&[
        LABEL,
        &length.to_be_bytes(),
        &durable.to_be_bytes(),
        hash.as_bytes(),
    ]);
    let mut check = [0; CHECK_BYTES];
    for (to, from) in check.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    check
}
