//! STUN Binding (RFC 8489): what address a UDP port has where the cloud sees it. As much of it as that takes; no I/O.
//!
//! A request is padded to at least what its answer takes, so that a server never sends more than it was sent. Answers
//! are not authenticated: whoever is on the path can lie. A false address can only deny a direct way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Length of the header, in bytes.
pub const HEADER_BYTES: usize = 20;
/// Length of every request that is made here, and the least that is answered, in bytes: header, an IPv6 address, a
/// fingerprint.
pub const MIN_REQUEST_BYTES: usize = HEADER_BYTES + 4 + 20 + FINGERPRINT_BYTES;
/// Longest message that is read, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1280;
/// Most attributes that are looked at.
const MAX_ATTRIBUTES: usize = 32;

const COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const SOFTWARE: u16 = 0x8022;
const FINGERPRINT: u16 = 0x8028;
/// Attributes below this must be understood (RFC 8489 14).
const OPTIONAL_FROM: u16 = 0x8000;
/// Those of them that a Binding without credentials may ignore: USERNAME, MESSAGE-INTEGRITY and -SHA256, PRIORITY
/// and USE-CANDIDATE, RFC 5780's PADDING.
const IGNORED: [u16; 6] = [0x0006, 0x0008, 0x001c, 0x0024, 0x0025, 0x0026];
const FINGERPRINT_BYTES: usize = 8;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// Tells an answer from anything else: drawn at random by whoever asks.
pub type TransactionId = [u8; 12];

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Request(TransactionId),
    /// The address that the request came from.
    Success(TransactionId, SocketAddr),
}

/// The bytes are no Binding message that we can use. The sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("not a stun message")]
    NotStun,
    #[error("length does not fit: {0} bytes")]
    Length(usize),
    #[error("neither a binding request nor its success: type {0:#06x}")]
    Type(u16),
    #[error("an attribute goes beyond the message")]
    Attribute,
    #[error("more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    #[error("attribute that must be understood: {0:#06x}")]
    NotUnderstood(u16),
    #[error("fingerprint does not fit")]
    Fingerprint,
    #[error("no address, or a malformed one")]
    Address,
}

/// Whether a datagram is for this codec, by its first bytes: neither WireGuard's nor QUIC's look like it.
pub fn is_stun(datagram: &[u8]) -> bool {
    let first = datagram.first().is_some_and(|first| first & 0xc0 == 0);
    first && datagram.get(4..8) == Some(&COOKIE.to_be_bytes())
}

/// A Binding request of [`MIN_REQUEST_BYTES`].
pub fn request(id: &TransactionId) -> Vec<u8> {
    let mut message = header(BINDING_REQUEST, id);
    // Optional to understand, of any content, and as long as the longest address attribute: the padding.
    push(&mut message, SOFTWARE, b"edgeward            ");
    seal(message)
}

/// The answer to a request from `from`; never longer than [`MIN_REQUEST_BYTES`].
pub fn success(id: &TransactionId, from: SocketAddr) -> Vec<u8> {
    let mut message = header(BINDING_SUCCESS, id);
    push(&mut message, XOR_MAPPED_ADDRESS, &xor_mapped(id, from));
    seal(message)
}

impl Message {
    /// Reads one datagram.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if !is_stun(bytes) || bytes.len() < HEADER_BYTES {
            return Err(Malformed::NotStun);
        }
        let (kind, length) = (word(bytes, 0), word(bytes, 2));
        let whole = usize::from(length) + HEADER_BYTES;
        if bytes.len() > MAX_MESSAGE_BYTES || whole != bytes.len() || length % 4 != 0 {
            return Err(Malformed::Length(bytes.len()));
        }
        let id: TransactionId = bytes
            .get(8..HEADER_BYTES)
            .and_then(|id| id.try_into().ok())
            .ok_or(Malformed::NotStun)?;
        let mapped = attributes(bytes, &id)?;
        match (kind, mapped) {
            (BINDING_REQUEST, _) => Ok(Self::Request(id)),
            (BINDING_SUCCESS, Some(address)) => Ok(Self::Success(id, address)),
            (BINDING_SUCCESS, None) => Err(Malformed::Address),
            (other, _) => Err(Malformed::Type(other)),
        }
    }
}

/// Walks them; returns the mapped address, if one is there.
fn attributes(bytes: &[u8], id: &TransactionId) -> Result<Option<SocketAddr>, Malformed> {
    let (mut at, mut mapped) = (HEADER_BYTES, None);
    for _ in 0..MAX_ATTRIBUTES {
        if at == bytes.len() {
            return Ok(mapped);
        }
        let head = bytes.get(at..at + 4).ok_or(Malformed::Attribute)?;
        let (kind, length) = (word(head, 0), usize::from(word(head, 2)));
        let value = bytes
            .get(at + 4..at + 4 + length)
            .ok_or(Malformed::Attribute)?;
        match kind {
            XOR_MAPPED_ADDRESS => mapped = Some(un_xor(id, value).ok_or(Malformed::Address)?),
            FINGERPRINT => {
                let before = bytes.get(..at).unwrap_or_default();
                let last = at + FINGERPRINT_BYTES == bytes.len();
                if !last || value != fingerprint(before).to_be_bytes() {
                    return Err(Malformed::Fingerprint);
                }
            }
            known if IGNORED.contains(&known) || known >= OPTIONAL_FROM => {}
            unknown => return Err(Malformed::NotUnderstood(unknown)),
        }
        at += 4 + length.next_multiple_of(4);
    }
    match at == bytes.len() {
        true => Ok(mapped),
        false => Err(Malformed::TooMany),
    }
}

fn header(kind: u16, id: &TransactionId) -> Vec<u8> {
    let mut message = Vec::with_capacity(MIN_REQUEST_BYTES);
    message.extend_from_slice(&kind.to_be_bytes());
    // The length follows with the last attribute.
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&COOKIE.to_be_bytes());
    message.extend_from_slice(id);
    message
}

fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Writes the length, which counts the fingerprint, and then the fingerprint.
fn seal(mut message: Vec<u8>) -> Vec<u8> {
    let length = message.len() - HEADER_BYTES + FINGERPRINT_BYTES;
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    for (place, byte) in message.iter_mut().skip(2).zip(length) {
        *place = byte;
    }
    let fingerprint = fingerprint(&message);
    push(&mut message, FINGERPRINT, &fingerprint.to_be_bytes());
    message
}

fn xor_mapped(id: &TransactionId, address: SocketAddr) -> Vec<u8> {
    let port = address.port() ^ (COOKIE >> 16) as u16;
    let (family, ip) = match address.ip().to_canonical() {
        IpAddr::V4(ip) => (IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (IPV6, ip.octets().to_vec()),
    };
    let mut value = vec![0, family];
    value.extend_from_slice(&port.to_be_bytes());
    value.extend(ip.iter().zip(mask(id)).map(|(byte, mask)| byte ^ mask));
    value
}

fn un_xor(id: &TransactionId, value: &[u8]) -> Option<SocketAddr> {
    let [_, family, port @ ..] = value else {
        return None;
    };
    let (port, ip) = port.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port) ^ (COOKIE >> 16) as u16;
    let plain: Vec<u8> = ip
        .iter()
        .zip(mask(id))
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    let ip: IpAddr = match (*family, ip.len()) {
        (IPV4, 4) => Ipv4Addr::from(<[u8; 4]>::try_from(plain).ok()?).into(),
        (IPV6, 16) => Ipv6Addr::from(<[u8; 16]>::try_from(plain).ok()?).into(),
        _ => return None,
    };
    (port != 0).then_some(SocketAddr::new(ip, port))
}

fn mask(id: &TransactionId) -> impl Iterator<Item = u8> {
    COOKIE.to_be_bytes().into_iter().chain(*id)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    let pair = bytes.get(at..at + 2).and_then(|pair| pair.try_into().ok());
    u16::from_be_bytes(pair.unwrap_or_default())
}

fn fingerprint(bytes: &[u8]) -> u32 {
    crc32(bytes) ^ FINGERPRINT_XOR
}

/// CRC-32 of ITU V.42, as the fingerprint wants it; messages are a hundred bytes and rare.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests;
