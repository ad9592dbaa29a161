//! What the filter reads of a packet: addresses, protocol, ports, and whether it is a fragment.
//!
//! RFC 791, 8200 (IPv6), 792, 4443 (ICMP), 1858 and 3128 (fragments that hide a header). Refused outright:
//! IPv4 options, IPv6 routing and authentication headers, more extension headers than [`MAX_EXTENSIONS`], and a
//! first fragment without its whole transport header.

use std::net::IpAddr;

use super::FlowKey;

/// Most IPv6 extension headers before the transport header.
pub const MAX_EXTENSIONS: usize = 4;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const UDP_LITE: u8 = 136;
const SCTP: u8 = 132;
const DCCP: u8 = 33;

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const ROUTING: u8 = 43;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;

const TCP_HEADER_BYTES: usize = 20;
const ICMP_HEADER_BYTES: usize = 8;

/// TCP flags, as in the header's fourteenth byte.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// What matters of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// As this packet goes, whoever opened its flow. Ports are 0 in a later fragment.
    pub key: FlowKey,
    pub position: Position,
    pub tcp_flags: Option<u8>,
    pub icmp: Option<Icmp>,
    /// Where the packet quoted by an ICMP error starts.
    pub quoted: usize,
}

/// Where in its original packet a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Whole,
    /// The first fragment of the packet with this identification.
    First(u32),
    /// A later one.
    Later(u32),
}

/// Kinds of ICMP and ICMPv6 messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    Request,
    Reply,
    /// Destination unreachable, packet too big, time exceeded, parameter problem.
    Error,
    /// Everything else: redirects, router and neighbour discovery, timestamps.
    Other,
}

/// Why a packet cannot be judged. The sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("shorter than its headers")]
    Short,
    #[error("neither IPv4 nor IPv6: {0}")]
    Version(u8),
    #[error("length field disagrees with the packet")]
    Length,
    #[error("has IPv4 options")]
    Options,
    #[error("has an extension header that is refused: {0}")]
    Extension(u8),
    #[error("more extension headers than {MAX_EXTENSIONS}")]
    TooManyExtensions,
    #[error("first fragment without its whole transport header")]
    TinyFragment,
    #[error("later fragment that would overwrite the transport header")]
    OverlappingFragment,
}

/// Reads a whole packet.
pub fn parse(packet: &[u8]) -> Result<IpPacket, Malformed> {
    let parsed = parse_headers(packet, true)?;
    let transport = packet.get(parsed.at..parsed.end).ok_or(Malformed::Short)?;
    let mut read = IpPacket {
        key: parsed.key(0, 0),
        position: parsed.position,
        tcp_flags: None,
        icmp: None,
        quoted: 0,
    };
    if matches!(parsed.position, Position::Later(_)) {
        // A fragment at offset 8 could replace the flags of a TCP header that was judged (RFC 3128).
        if parsed.protocol == TCP && parsed.offset < TCP_HEADER_BYTES {
            return Err(Malformed::OverlappingFragment);
        }
        return Ok(read);
    }
    let short = match parsed.position {
        Position::Whole => Malformed::Short,
        Position::First(_) | Position::Later(_) => Malformed::TinyFragment,
    };
    match parsed.protocol {
        TCP => {
            let header = transport.get(..TCP_HEADER_BYTES).ok_or(short)?;
            read.key = parsed.key_with_ports(header, short)?;
            read.tcp_flags = header.get(13).copied();
        }
        UDP | UDP_LITE | SCTP | DCCP => {
            let header = transport.get(..8).ok_or(short)?;
            read.key = parsed.key_with_ports(header, short)?;
        }
        ICMP | ICMPV6 if parsed.is_own_icmp() => {
            let header = transport.get(..ICMP_HEADER_BYTES).ok_or(short)?;
            let kind = icmp_kind(parsed.protocol, header.first().copied().unwrap_or(u8::MAX));
            read.icmp = Some(kind);
            read.quoted = parsed.at + ICMP_HEADER_BYTES;
            if matches!(kind, Icmp::Request | Icmp::Reply) {
                read.key = parsed.key(be16(header, 4).ok_or(short)?, 0);
            }
        }
        ICMP | ICMPV6 => read.icmp = Some(Icmp::Other),
        _ => {}
    }
    Ok(read)
}

/// Reads the start of a packet that an ICMP error quotes: its end may be missing, its ports may not.
pub fn parse_quoted(quoted: &[u8]) -> Result<IpPacket, Malformed> {
    let parsed = parse_headers(quoted, false)?;
    if matches!(parsed.position, Position::Later(_)) {
        return Err(Malformed::Short);
    }
    let transport = quoted.get(parsed.at..).ok_or(Malformed::Short)?;
    let mut icmp = None;
    let key = match parsed.protocol {
        TCP | UDP | UDP_LITE | SCTP | DCCP => parsed.key_with_ports(transport, Malformed::Short)?,
        ICMP | ICMPV6 => {
            let kind = transport.first().copied().ok_or(Malformed::Short)?;
            icmp = Some(icmp_kind(parsed.protocol, kind));
            parsed.key(be16(transport, 4).ok_or(Malformed::Short)?, 0)
        }
        _ => parsed.key(0, 0),
    };
    Ok(IpPacket {
        key,
        position: parsed.position,
        tcp_flags: None,
        icmp,
        quoted: 0,
    })
}

struct Headers {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    position: Position,
    /// Fragment offset in bytes.
    offset: usize,
    /// Start of the transport header.
    at: usize,
    /// End of the packet.
    end: usize,
}

impl Headers {
    fn key(&self, source_port: u16, destination_port: u16) -> FlowKey {
        FlowKey {
            protocol: self.protocol,
            source: self.source,
            destination: self.destination,
            source_port,
            destination_port,
        }
    }

    fn key_with_ports(&self, transport: &[u8], short: Malformed) -> Result<FlowKey, Malformed> {
        let source = be16(transport, 0).ok_or(short)?;
        let destination = be16(transport, 2).ok_or(short)?;
        Ok(self.key(source, destination))
    }

    /// ICMP in IPv4, ICMPv6 in IPv6: the other combinations exist only to confuse.
    fn is_own_icmp(&self) -> bool {
        self.source.is_ipv4() == (self.protocol == ICMP)
    }
}

fn parse_headers(packet: &[u8], whole: bool) -> Result<Headers, Malformed> {
    match packet.first().ok_or(Malformed::Short)? >> 4 {
        4 => parse_ipv4(packet, whole),
        6 => parse_ipv6(packet, whole),
        version => Err(Malformed::Version(version)),
    }
}

fn parse_ipv4(packet: &[u8], whole: bool) -> Result<Headers, Malformed> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(Malformed::Short)?;
    let [
        first,
        _,
        length_high,
        length_low,
        id_high,
        id_low,
        flags,
        offset_low,
        _,
        protocol,
        ..,
    ] = *header;
    if first & 0x0f != 5 {
        return Err(Malformed::Options);
    }
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    if length < header.len() || (whole && length != packet.len()) {
        return Err(Malformed::Length);
    }
    let word = u16::from_be_bytes([flags, offset_low]);
    let offset = usize::from(word & 0x1fff) * 8;
    let id = u32::from(u16::from_be_bytes([id_high, id_low]));
    Ok(Headers {
        source: address4(packet, 12)?,
        destination: address4(packet, 16)?,
        protocol,
        position: position(id, offset, word & 0x2000 != 0),
        offset,
        at: header.len(),
        end: packet.len(),
    })
}

fn parse_ipv6(packet: &[u8], whole: bool) -> Result<Headers, Malformed> {
    let header: &[u8; 40] = packet.first_chunk().ok_or(Malformed::Short)?;
    let [_, _, _, _, length_high, length_low, mut next, ..] = *header;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    if whole && length + header.len() != packet.len() {
        return Err(Malformed::Length);
    }
    let mut at = header.len();
    let mut place = (Position::Whole, 0);
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let [following, length] = *packet
                    .get(at..)
                    .and_then(<[u8]>::first_chunk)
                    .ok_or(Malformed::Short)?;
                next = following;
                at += (usize::from(length) + 1) * 8;
            }
            FRAGMENT if place.0 == Position::Whole => {
                let fragment: &[u8; 8] = packet
                    .get(at..)
                    .and_then(<[u8]>::first_chunk)
                    .ok_or(Malformed::Short)?;
                let [following, _, high, low, a, b, c, d] = *fragment;
                let word = u16::from_be_bytes([high, low]);
                let offset = usize::from(word & 0xfff8);
                next = following;
                at += fragment.len();
                place = (
                    position(u32::from_be_bytes([a, b, c, d]), offset, word & 1 != 0),
                    offset,
                );
                if offset != 0 {
                    return headers6(packet, next, at, place);
                }
            }
            FRAGMENT | ROUTING | AUTHENTICATION | NO_NEXT_HEADER => {
                return Err(Malformed::Extension(next));
            }
            _ => return headers6(packet, next, at, place),
        }
    }
    Err(Malformed::TooManyExtensions)
}

fn headers6(
    packet: &[u8],
    protocol: u8,
    at: usize,
    place: (Position, usize),
) -> Result<Headers, Malformed> {
    if at > packet.len() {
        return Err(Malformed::Short);
    }
    Ok(Headers {
        source: address6(packet, 8)?,
        destination: address6(packet, 24)?,
        protocol,
        position: place.0,
        offset: place.1,
        at,
        end: packet.len(),
    })
}

fn position(id: u32, offset: usize, more: bool) -> Position {
    match (offset, more) {
        (0, false) => Position::Whole,
        (0, true) => Position::First(id),
        _ => Position::Later(id),
    }
}

fn icmp_kind(protocol: u8, kind: u8) -> Icmp {
    match (protocol, kind) {
        (ICMP, 8) | (ICMPV6, 128) => Icmp::Request,
        (ICMP, 0) | (ICMPV6, 129) => Icmp::Reply,
        (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => Icmp::Error,
        _ => Icmp::Other,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}

fn address4(packet: &[u8], at: usize) -> Result<IpAddr, Malformed> {
    let octets: [u8; 4] = *packet
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(Malformed::Short)?;
    Ok(octets.into())
}

fn address6(packet: &[u8], at: usize) -> Result<IpAddr, Malformed> {
    let octets: [u8; 16] = *packet
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(Malformed::Short)?;
    Ok(octets.into())
}
