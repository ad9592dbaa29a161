//! Addresses of one family for others of the same.

use std::net::IpAddr;

use super::checksum::{changed, difference, fold, of_address, pseudo, read, sum, write};
use super::parse::{ICMP_BYTES, Packet, UDP};
use super::{Change, Checksum, Refused};

pub(super) fn rewrite(
    change: &Change<'_>,
    bytes: &mut [u8],
    packet: &Packet,
    checksum: Checksum,
) -> Result<(), Refused> {
    if packet.is_error(bytes) {
        return rewrite_error(change, bytes, packet);
    }
    let moved = addresses(change, bytes, packet)?;
    // ICMP of IPv4 sums up no addresses.
    if packet.is_icmp() && packet.source.is_ipv4() {
        return Ok(());
    }
    let transport = bytes.get_mut(packet.transport..).ok_or(Refused::Short)?;
    let at = packet.checksum_offset();
    let field = read(transport, at)?;
    match checksum {
        Checksum::Complete if packet.protocol == UDP && field == 0 => Ok(()),
        Checksum::Complete => write(transport, at, never_zero(packet, changed(field, moved))),
        Checksum::Partial => write(transport, at, fold(u64::from(field) + u64::from(moved))),
    }
}

/// In UDP a zero says that there is no checksum.
pub(super) fn never_zero(packet: &Packet, field: u16) -> u16 {
    match (packet.protocol, field) {
        (UDP, 0) => 0xffff,
        _ => field,
    }
}

/// Rewrites both addresses, and the header's own checksum; what sums over the addresses changed by.
fn addresses(change: &Change<'_>, bytes: &mut [u8], packet: &Packet) -> Result<u16, Refused> {
    let (source, destination) = (
        change.address(packet.source)?,
        change.address(packet.destination)?,
    );
    let before = u64::from(of_address(packet.source)) + u64::from(of_address(packet.destination));
    let after = u64::from(of_address(source)) + u64::from(of_address(destination));
    let moved = difference(fold(before), fold(after));
    put_addresses(bytes, source, destination)?;
    if source.is_ipv4() {
        let header = read(bytes, 10)?;
        write(bytes, 10, changed(header, moved))?;
    }
    Ok(moved)
}

pub(super) fn put_addresses(
    bytes: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
) -> Result<(), Refused> {
    let mut put = |at: usize, octets: &[u8]| {
        let place = bytes.get_mut(at..at + octets.len()).ok_or(Refused::Short)?;
        place.copy_from_slice(octets);
        Ok(())
    };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(12, &source.octets())?;
            put(16, &destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            put(8, &source.octets())?;
            put(24, &destination.octets())
        }
        _ => Err(Refused::Address),
    }
}

/// An error goes the other way than the packet that it quotes: there the host of the network is the other end.
fn rewrite_error(change: &Change<'_>, bytes: &mut [u8], packet: &Packet) -> Result<(), Refused> {
    verify(bytes, packet)?;
    let quoted = packet.quoted(bytes).ok_or(Refused::Short)?;
    addresses(change, bytes, packet)?;
    let message = bytes.get_mut(packet.transport..).ok_or(Refused::Short)?;
    let inner = message.get_mut(ICMP_BYTES..).ok_or(Refused::Short)?;
    let moved = addresses(change, inner, &quoted)?;
    adjust_quoted(inner, &quoted, moved);
    let (source, destination) = (
        change.address(packet.source)?,
        change.address(packet.destination)?,
    );
    complete(
        bytes,
        packet.transport,
        source,
        destination,
        packet.protocol,
    )
}

/// The transport checksum of a quoted packet, if that much of it is quoted.
pub(super) fn adjust_quoted(inner: &mut [u8], quoted: &Packet, moved: u16) {
    if quoted.is_icmp() && quoted.source.is_ipv4() {
        return;
    }
    let at = quoted.transport + quoted.checksum_offset();
    let Ok(field) = read(inner, at) else {
        return;
    };
    if quoted.protocol == UDP && field == 0 {
        return;
    }
    // The field was just read, so it can be written.
    let _there = write(inner, at, never_zero(quoted, changed(field, moved)));
}

/// Refuses a message of ICMP whose checksum is wrong: it is summed up anew afterwards, which would mend it.
pub(super) fn verify(bytes: &[u8], packet: &Packet) -> Result<(), Refused> {
    let message = bytes.get(packet.transport..).ok_or(Refused::Short)?;
    let mut total = u64::from(sum(message));
    if packet.source.is_ipv6() {
        let ends = (packet.source, packet.destination);
        total += u64::from(pseudo(ends.0, ends.1, message.len(), packet.protocol));
    }
    match fold(total) {
        0xffff => Ok(()),
        _ => Err(Refused::Checksum),
    }
}

/// Sums a message of ICMP up.
pub(super) fn complete(
    bytes: &mut [u8],
    transport: usize,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
) -> Result<(), Refused> {
    let message = bytes.get_mut(transport..).ok_or(Refused::Short)?;
    write(message, 2, 0)?;
    let mut total = u64::from(sum(message));
    if source.is_ipv6() {
        total += u64::from(pseudo(source, destination, message.len(), protocol));
    }
    write(message, 2, !fold(total))
}
