//! What is read of a packet before it is rewritten. Only whole, plain packets pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Refused;
use super::checksum::read;

pub(super) const V4_BYTES: usize = 20;
pub(super) const V6_BYTES: usize = 40;
pub(super) const ICMP_BYTES: usize = 8;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

const FRAGMENT_HEADER: u8 = 44;
const EXTENSIONS: [u8; 6] = [0, 43, 50, 51, 60, 135];

/// The plain parts of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// Type of service, or traffic class.
    pub(super) class: u8,
    /// Hops that are left.
    pub(super) hops: u8,
}

/// Source and destination of what looks like a packet.
pub(super) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?).into());
    let v6 = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into());
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

impl Packet {
    /// A whole packet of exactly this length.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let packet = Self::header(bytes)?;
        let says = match packet.source {
            IpAddr::V4(_) => usize::from(read(bytes, 2)?),
            IpAddr::V6(_) => usize::from(read(bytes, 4)?) + V6_BYTES,
        };
        let minimum = match packet.protocol {
            TCP => V4_BYTES,
            _ => ICMP_BYTES,
        };
        if says != bytes.len() || bytes.len() < packet.transport + minimum {
            return Err(Refused::Short);
        }
        Ok(packet)
    }

    /// The header of a packet whose end may be missing: one that an error quotes.
    pub(super) fn header(bytes: &[u8]) -> Result<Self, Refused> {
        let (source, destination) = addresses(bytes).ok_or(Refused::Short)?;
        let byte = |at: usize| bytes.get(at).copied().ok_or(Refused::Short);
        let packet = match source {
            IpAddr::V4(_) => {
                if byte(0)? != 0x45 {
                    return Err(Refused::Options);
                }
                // More fragments, or an offset.
                if read(bytes, 6)? & 0x3fff != 0 {
                    return Err(Refused::Fragment);
                }
                Self {
                    source,
                    destination,
                    protocol: byte(9)?,
                    transport: V4_BYTES,
                    class: byte(1)?,
                    hops: byte(8)?,
                }
            }
            IpAddr::V6(_) => {
                let class = (byte(0)? << 4) | (byte(1)? >> 4);
                Self {
                    source,
                    destination,
                    protocol: byte(6)?,
                    transport: V6_BYTES,
                    class,
                    hops: byte(7)?,
                }
            }
        };
        let own_icmp = match source {
            IpAddr::V4(_) => ICMP,
            IpAddr::V6(_) => ICMPV6,
        };
        match packet.protocol {
            TCP | UDP => Ok(packet),
            icmp if icmp == own_icmp => Ok(packet),
            FRAGMENT_HEADER if source.is_ipv6() => Err(Refused::Fragment),
            other if source.is_ipv6() && EXTENSIONS.contains(&other) => Err(Refused::Options),
            _ => Err(Refused::Protocol),
        }
    }

    pub(super) fn is_icmp(&self) -> bool {
        matches!(self.protocol, ICMP | ICMPV6)
    }

    /// The type of a message of ICMP.
    pub(super) fn icmp_type(&self, bytes: &[u8]) -> Option<u8> {
        bytes
            .get(self.transport)
            .copied()
            .filter(|_| self.is_icmp())
    }

    /// Whether it is an error, and so quotes a packet.
    pub(super) fn is_error(&self, bytes: &[u8]) -> bool {
        match (self.protocol, self.icmp_type(bytes)) {
            (ICMP, Some(kind)) => matches!(kind, 3 | 11 | 12),
            (ICMPV6, Some(kind)) => kind < 128,
            _ => false,
        }
    }

    /// The packet that an error quotes.
    pub(super) fn quoted(&self, bytes: &[u8]) -> Option<Self> {
        let quoted = bytes.get(self.transport + ICMP_BYTES..)?;
        self.is_error(bytes)
            .then(|| Self::header(quoted).ok())
            .flatten()
    }

    /// Where the checksum of the transport header stands, from its start.
    pub(super) fn checksum_offset(&self) -> usize {
        match self.protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        }
    }
}
