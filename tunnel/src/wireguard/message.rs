//! What goes over the wire (WireGuard protocol, section 5.4): four kinds of messages, told by their first four bytes.

use super::{Refused, SessionIndex};

/// Longest handshake message, in bytes (the initiation).
pub const MAX_HANDSHAKE_BYTES: usize = INITIATION_BYTES;
/// What a data message adds to its plaintext, in bytes: 16 of header, 16 of tag.
pub const DATA_OVERHEAD_BYTES: usize = DATA_HEADER_BYTES + TAG_BYTES;
/// Plaintext is padded to a multiple of this, in bytes (WireGuard protocol, section 5.4.6).
pub const PADDING_BYTES: usize = 16;

pub(super) const INITIATION_BYTES: usize = 148;
pub(super) const RESPONSE_BYTES: usize = 92;
pub(super) const COOKIE_BYTES: usize = 64;
pub(super) const DATA_HEADER_BYTES: usize = 16;
pub(super) const TAG_BYTES: usize = 16;
/// Both authenticators, at the end of an initiation or response.
pub(super) const MACS_BYTES: usize = 32;

/// Kind, our index: what stands before the Noise message of an initiation.
pub(super) const INITIATION_HEADER_BYTES: usize = 8;
/// Kind, our index, the peer's.
pub(super) const RESPONSE_HEADER_BYTES: usize = 12;

const INITIATION: u32 = 1;
const RESPONSE: u32 = 2;
const COOKIE: u32 = 3;
const DATA: u32 = 4;

/// What a datagram is, from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Initiation,
    Response(SessionIndex),
    Cookie(SessionIndex),
    Data(SessionIndex),
}

impl Message {
    /// Reads kind, length and receiver index. Never panics, whatever the bytes.
    pub fn parse(datagram: &[u8]) -> Result<Self, Refused> {
        let index = |from| {
            word(datagram, from)
                .map(SessionIndex)
                .ok_or(Refused::Malformed)
        };
        match (word(datagram, 0), datagram.len()) {
            (Some(INITIATION), INITIATION_BYTES) => Ok(Self::Initiation),
            (Some(RESPONSE), RESPONSE_BYTES) => index(8).map(Self::Response),
            (Some(COOKIE), COOKIE_BYTES) => index(4).map(Self::Cookie),
            (Some(DATA), DATA_OVERHEAD_BYTES..) => index(4).map(Self::Data),
            _ => Err(Refused::Malformed),
        }
    }
}

/// Length of a packet of `length` bytes once padded: to a multiple of 16, but never past the tunnel's MTU.
pub fn padded_length(length: usize, mtu: usize) -> usize {
    length.next_multiple_of(PADDING_BYTES).min(mtu.max(length))
}

/// The four bytes at `from`, little endian.
pub(super) fn word(datagram: &[u8], from: usize) -> Option<u32> {
    let bytes = datagram.get(from..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

pub(super) fn initiation_header(ours: SessionIndex) -> [u8; INITIATION_HEADER_BYTES] {
    join(INITIATION, ours.0)
}

pub(super) fn response_header(ours: SessionIndex, theirs: u32) -> [u8; RESPONSE_HEADER_BYTES] {
    let mut header = [0; RESPONSE_HEADER_BYTES];
    let words = [RESPONSE, ours.0, theirs];
    for (bytes, word) in header.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    header
}

pub(super) fn cookie_header(theirs: u32) -> [u8; 8] {
    join(COOKIE, theirs)
}

pub(super) fn data_header(theirs: u32, counter: u64) -> [u8; DATA_HEADER_BYTES] {
    let mut header = [0; DATA_HEADER_BYTES];
    let (front, back) = header.split_at_mut(8);
    front.copy_from_slice(&join(DATA, theirs));
    back.copy_from_slice(&counter.to_le_bytes());
    header
}

fn join(first: u32, second: u32) -> [u8; 8] {
    (u64::from(first) | u64::from(second) << 32).to_le_bytes()
}
