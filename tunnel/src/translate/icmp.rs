//! Messages of ICMP in the other family (RFC 7915, 4.2 and 5.2): echoes, and errors that have a counterpart there.

use super::Refused;
use super::checksum::{read, write};
use super::parse::{ICMP, ICMPV6};

/// What the header of a packet grows by from IPv4 to IPv6, in bytes.
const GROWTH: u16 = 20;
/// Least MTU of IPv6 (RFC 8200, 5), in bytes.
const MIN_MTU_V6: u16 = 1280;
/// Least MTU that IPv4 tells of (RFC 791), in bytes.
const MIN_MTU_V4: u16 = 68;

/// Rewrites type, code and what follows of the first eight bytes; the protocol number that they then belong to.
pub(super) fn to_v6(message: &mut [u8]) -> Result<u8, Refused> {
    let (kind, code) = kind_of(message)?;
    let (kind, code) = match (kind, code) {
        (8, 0) => (128, 0),
        (0, 0) => (129, 0),
        (3, 4) => {
            let mtu = read(message, 6)?;
            let mtu = mtu.saturating_add(GROWTH).max(MIN_MTU_V6);
            write(message, 4, 0)?;
            write(message, 6, mtu)?;
            (2, 0)
        }
        (3, 3) => (1, 4),
        (3, 9 | 10 | 13 | 15) => (1, 1),
        (3, 0 | 1 | 5..=8 | 11 | 12) => (1, 0),
        (11, code @ 0..=1) => (3, code),
        _ => return Err(Refused::Icmp),
    };
    put_kind(message, kind, code)?;
    Ok(ICMPV6)
}

/// The other way.
pub(super) fn to_v4(message: &mut [u8]) -> Result<u8, Refused> {
    let (kind, code) = kind_of(message)?;
    let (kind, code) = match (kind, code) {
        (128, 0) => (8, 0),
        (129, 0) => (0, 0),
        (1, 0 | 2 | 3) => (3, 1),
        (1, 1) => (3, 10),
        (1, 4) => (3, 3),
        (2, 0) => {
            let mtu = match read(message, 4)? {
                0 => read(message, 6)?,
                _ => u16::MAX,
            };
            let mtu = mtu.saturating_sub(GROWTH).max(MIN_MTU_V4);
            write(message, 4, 0)?;
            write(message, 6, mtu)?;
            (3, 4)
        }
        (3, code @ 0..=1) => (11, code),
        _ => return Err(Refused::Icmp),
    };
    put_kind(message, kind, code)?;
    Ok(ICMP)
}

fn kind_of(message: &[u8]) -> Result<(u8, u8), Refused> {
    match message.first_chunk() {
        Some([kind, code]) => Ok((*kind, *code)),
        None => Err(Refused::Short),
    }
}

fn put_kind(message: &mut [u8], kind: u8, code: u8) -> Result<(), Refused> {
    let place = message.first_chunk_mut().ok_or(Refused::Short)?;
    *place = [kind, code];
    Ok(())
}
