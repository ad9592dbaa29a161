//! The internet checksum (RFC 1071), whole and by difference (RFC 1624).

use std::net::IpAddr;

use super::Refused;

/// Ones' complement sum of 16-bit words, folded.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut total: u64 = pairs
        .iter()
        .map(|pair| u64::from(u16::from_be_bytes(*pair)))
        .sum();
    if let [last] = rest {
        total += u64::from(*last) << 8;
    }
    fold(total)
}

pub(super) fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

pub(super) fn of_address(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    }
}

/// The sum over a pseudo-header.
pub(super) fn pseudo(source: IpAddr, destination: IpAddr, length: usize, protocol: u8) -> u16 {
    let parts = [
        u64::from(of_address(source)),
        u64::from(of_address(destination)),
        // Lengths of packets fit into 32 bits.
        (length >> 16) as u64,
        (length & 0xffff) as u64,
        u64::from(protocol),
    ];
    fold(parts.iter().sum())
}

/// What a sum changes by when one part of it becomes another.
pub(super) fn difference(before: u16, after: u16) -> u16 {
    fold(u64::from(!before) + u64::from(after))
}

pub(super) fn read(bytes: &[u8], at: usize) -> Result<u16, Refused> {
    let pair = bytes.get(at..at + 2).and_then(|two| two.first_chunk());
    pair.map(|two| u16::from_be_bytes(*two))
        .ok_or(Refused::Short)
}

pub(super) fn write(bytes: &mut [u8], at: usize, value: u16) -> Result<(), Refused> {
    let place = bytes.get_mut(at..at + 2).ok_or(Refused::Short)?;
    place.copy_from_slice(&value.to_be_bytes());
    Ok(())
}

/// A checksum field that now stands for a sum changed by `difference`.
pub(super) fn changed(field: u16, difference: u16) -> u16 {
    !fold(u64::from(!field) + u64::from(difference))
}
