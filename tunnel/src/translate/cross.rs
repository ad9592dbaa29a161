//! IPv4 behind the node, IPv6 in the overlay (RFC 7915).

use std::net::IpAddr;
use std::ops::Range;

use super::checksum::{changed, difference, fold, of_address, pseudo, read, sum, write};
use super::parse::{ICMP_BYTES, ICMPV6, Packet, UDP, V4_BYTES, V6_BYTES};
use super::same::{complete, never_zero, put_addresses, verify};
use super::{Change, Checksum, Refused, Way, icmp};

/// Longest error of ICMPv6 (RFC 4443, 2.4), in bytes.
const MAX_ERROR_V6_BYTES: usize = 1280;
/// Longest error of ICMP (RFC 1812, 4.3.2.3), in bytes.
const MAX_ERROR_V4_BYTES: usize = 576;

/// The packet in the other family, in place: its new range.
pub(super) fn translate(
    change: &Change<'_>,
    buffer: &mut [u8],
    at: Range<usize>,
    packet: &Packet,
    checksum: Checksum,
) -> Result<Range<usize>, Refused> {
    let bytes = buffer.get(at.clone()).ok_or(Refused::Short)?;
    if packet.is_icmp() && checksum == Checksum::Partial {
        return Err(Refused::Checksum);
    }
    if packet.is_icmp() {
        verify(bytes, packet)?;
    }
    if packet.is_error(bytes) {
        return translate_error(change, buffer, at, packet);
    }
    let ends = ends_of(change, packet)?;
    let transport = buffer
        .get_mut(at.start + packet.transport..at.end)
        .ok_or(Refused::Short)?;
    let protocol = match packet.is_icmp() {
        true => message(change, transport)?,
        false => {
            segment(transport, packet, ends, checksum)?;
            packet.protocol
        }
    };
    let length = transport.len();
    let header = header_of(change, packet, ends, protocol, length)?;
    let start = (at.start + packet.transport)
        .checked_sub(header.as_ref().len())
        .ok_or(Refused::Room)?;
    let place = buffer.get_mut(start..at.end).ok_or(Refused::Room)?;
    put(place, header.as_ref())?;
    if packet.is_icmp() {
        complete(place, header.as_ref().len(), ends.0, ends.1, protocol)?;
    }
    Ok(start..at.end)
}

fn ends_of(change: &Change<'_>, packet: &Packet) -> Result<(IpAddr, IpAddr), Refused> {
    let (source, destination) = (
        change.address(packet.source)?,
        change.address(packet.destination)?,
    );
    let to_v4 = change.way == Way::Inward;
    match source.is_ipv4() == to_v4 && destination.is_ipv4() == to_v4 {
        true => Ok((source, destination)),
        false => Err(Refused::Address),
    }
}

/// The checksum of TCP or UDP under other addresses; the rest of the pseudo-header sums up the same.
fn segment(
    transport: &mut [u8],
    packet: &Packet,
    (source, destination): (IpAddr, IpAddr),
    checksum: Checksum,
) -> Result<(), Refused> {
    let at = packet.checksum_offset();
    let field = read(transport, at)?;
    if packet.protocol == UDP && field == 0 && checksum == Checksum::Complete {
        // IPv6 does not know UDP without a checksum.
        let total = u64::from(sum(transport))
            + u64::from(pseudo(source, destination, transport.len(), UDP));
        return match source {
            IpAddr::V6(_) => write(transport, at, never_zero(packet, !fold(total))),
            IpAddr::V4(_) => Err(Refused::Checksum),
        };
    }
    let moved = moved(packet, (source, destination));
    match checksum {
        Checksum::Complete => write(transport, at, never_zero(packet, changed(field, moved))),
        Checksum::Partial => write(transport, at, fold(u64::from(field) + u64::from(moved))),
    }
}

fn moved(packet: &Packet, (source, destination): (IpAddr, IpAddr)) -> u16 {
    let before = u64::from(of_address(packet.source)) + u64::from(of_address(packet.destination));
    let after = u64::from(of_address(source)) + u64::from(of_address(destination));
    difference(fold(before), fold(after))
}

fn message(change: &Change<'_>, message: &mut [u8]) -> Result<u8, Refused> {
    match change.way {
        Way::Inward => icmp::to_v4(message),
        Way::Outward => icmp::to_v6(message),
    }
}

/// A header of either family.
enum Header {
    V4([u8; V4_BYTES]),
    V6([u8; V6_BYTES]),
}

impl AsRef<[u8]> for Header {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

fn header_of(
    change: &Change<'_>,
    packet: &Packet,
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    length: usize,
) -> Result<Header, Refused> {
    match change.way {
        Way::Inward => {
            let total = u16::try_from(length + V4_BYTES).map_err(|_| Refused::Short)?;
            let [high, low] = total.to_be_bytes();
            let mut bytes = [0; V4_BYTES];
            // Never fragmented on the way, so that no identification is needed (RFC 6864, 4.1).
            let first = [
                0x45,
                packet.class,
                high,
                low,
                0,
                0,
                0x40,
                0,
                packet.hops,
                protocol,
            ];
            put(&mut bytes, &first)?;
            put_addresses(&mut bytes, source, destination)?;
            let header = !sum(&bytes);
            write(&mut bytes, 10, header)?;
            Ok(Header::V4(bytes))
        }
        Way::Outward => {
            let payload = u16::try_from(length).map_err(|_| Refused::Short)?;
            let [high, low] = payload.to_be_bytes();
            let mut bytes = [0; V6_BYTES];
            let class = packet.class;
            let first = [
                0x60 | (class >> 4),
                class << 4,
                0,
                0,
                high,
                low,
                protocol,
                packet.hops,
            ];
            put(&mut bytes, &first)?;
            put_addresses(&mut bytes, source, destination)?;
            Ok(Header::V6(bytes))
        }
    }
}

fn put(place: &mut [u8], bytes: &[u8]) -> Result<(), Refused> {
    let place = place.get_mut(..bytes.len()).ok_or(Refused::Room)?;
    place.copy_from_slice(bytes);
    Ok(())
}

/// An error, with the header of what it quotes in the other family, too. What is quoted beyond a packet's most is cut.
fn translate_error(
    change: &Change<'_>,
    buffer: &mut [u8],
    at: Range<usize>,
    packet: &Packet,
) -> Result<Range<usize>, Refused> {
    let bytes = buffer.get(at.clone()).ok_or(Refused::Short)?;
    let quoted = packet.quoted(bytes).ok_or(Refused::Short)?;
    let (outer, inner) = (ends_of(change, packet)?, ends_of(change, &quoted)?);
    let message_at = at.start + packet.transport;
    let rest_at = message_at + ICMP_BYTES + quoted.transport;
    let rest_bytes = at.end.checked_sub(rest_at).ok_or(Refused::Short)?;
    let mut first = [0; ICMP_BYTES];
    let head = buffer.get(message_at..message_at + ICMP_BYTES);
    put(&mut first, head.ok_or(Refused::Short)?)?;
    let protocol = message(change, &mut first)?;

    let rest = buffer.get_mut(rest_at..at.end).ok_or(Refused::Short)?;
    let inner_protocol = quoted_transport(change, rest, &quoted, inner)?;
    let (header_bytes, most) = match change.way {
        Way::Inward => (V4_BYTES, MAX_ERROR_V4_BYTES),
        Way::Outward => (V6_BYTES, MAX_ERROR_V6_BYTES),
    };
    let kept = rest_bytes.min(most - 2 * header_bytes - ICMP_BYTES);
    // What the quoted packet's length was, whatever is left of it here.
    let quoted_length = match quoted.source {
        IpAddr::V4(_) => usize::from(read(buffer, message_at + ICMP_BYTES + 2)?)
            .checked_sub(V4_BYTES)
            .ok_or(Refused::Short)?,
        IpAddr::V6(_) => usize::from(read(buffer, message_at + ICMP_BYTES + 4)?),
    };
    let inner_header = header_of(change, &quoted, inner, inner_protocol, quoted_length)?;
    let outer_length = ICMP_BYTES + header_bytes + kept;
    let outer_header = header_of(change, packet, outer, protocol, outer_length)?;
    let start = rest_at
        .checked_sub(2 * header_bytes + ICMP_BYTES)
        .ok_or(Refused::Room)?;
    let end = rest_at + kept;
    let place = buffer.get_mut(start..end).ok_or(Refused::Room)?;
    let mut written = 0;
    for part in [outer_header.as_ref(), &first, inner_header.as_ref()] {
        put(place.get_mut(written..).ok_or(Refused::Room)?, part)?;
        written += part.len();
    }
    complete(place, header_bytes, outer.0, outer.1, protocol)?;
    Ok(start..end)
}

/// What is quoted of a transport header, under the other addresses; its protocol number there.
fn quoted_transport(
    change: &Change<'_>,
    rest: &mut [u8],
    quoted: &Packet,
    ends: (IpAddr, IpAddr),
) -> Result<u8, Refused> {
    if !quoted.is_icmp() {
        let at = quoted.checksum_offset();
        if let Ok(field) = read(rest, at)
            && !(quoted.protocol == UDP && field == 0)
        {
            write(
                rest,
                at,
                never_zero(quoted, changed(field, moved(quoted, ends))),
            )?;
        }
        return Ok(quoted.protocol);
    }
    // Only an echo is ever answered by an error. Its sum changes by the pseudo-header, by its type, and by that alone.
    let head = rest.get_mut(..ICMP_BYTES).ok_or(Refused::Short)?;
    let (before, field) = (read(head, 0)?, read(head, 2)?);
    let protocol = message(change, head)?;
    let after = read(head, 0)?;
    let mut moved = u64::from(difference(before, after));
    // The pseudo-header's length is not known where the quote was cut, so it is left out of the sum.
    moved += match protocol {
        ICMPV6 => u64::from(pseudo(ends.0, ends.1, 0, ICMPV6)),
        _ => u64::from(!pseudo(quoted.source, quoted.destination, 0, ICMPV6)),
    };
    write(head, 2, changed(field, fold(moved)))?;
    Ok(protocol)
}
