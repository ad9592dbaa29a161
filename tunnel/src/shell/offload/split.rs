//! Cutting a super-packet into the packets it stands for, in place.
//!
//! Each segment's headers are written just before its payload, over the payload of the segment before, which
//! has been used by then: no payload byte is moved.

use super::checksum::{Sum, pseudo_header};
use super::{
    BadFrame, CWR, FIN, Gso, NEEDS_CSUM, PSH, TCP, TCP_CSUM_OFFSET, UDP, UDP_CSUM_OFFSET,
    UDP_HEADER_BYTES, VnetHeader,
};

/// Longest headers of a segment, in bytes: IPv6 with some extension headers, and TCP with all options.
pub const MAX_HEADERS_BYTES: usize = 256;
/// Bytes after the packet that a caller of [`Splitter`] must leave free: room for padding.
pub const TAIL_BYTES: usize = 16;

/// The segments of one frame.
#[derive(Debug)]
pub struct Splitter<'a> {
    /// The packet and [`TAIL_BYTES`] after it.
    buffer: &'a mut [u8],
    plan: Plan,
    headers: [u8; MAX_HEADERS_BYTES],
    /// Offset of the next segment's payload.
    next: usize,
    number: u32,
    /// What the padding of the last segment covered.
    covered: [u8; TAIL_BYTES],
    restore: usize,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    /// End of the packet.
    end: usize,
    /// Length of all headers.
    headers: usize,
    /// Start of the transport header.
    transport: usize,
    /// Payload per segment; the whole packet if it is not segmented.
    size: usize,
    ipv4: bool,
    /// `None`: one packet that needs nothing.
    protocol: Option<u8>,
}

impl<'a> Splitter<'a> {
    /// `buffer` is the packet after its [`VnetHeader`], with [`TAIL_BYTES`] more at its end.
    pub fn new(header: VnetHeader, buffer: &'a mut [u8]) -> Result<Self, BadFrame> {
        let end = buffer
            .len()
            .checked_sub(TAIL_BYTES)
            .ok_or(BadFrame::Short)?;
        let packet = buffer.get_mut(..end).ok_or(BadFrame::Short)?;
        if header.gso == Gso::None && header.flags & NEEDS_CSUM != 0 {
            complete_checksum(header, packet)?;
        }
        let plan = Plan::new(header, packet)?;
        let mut headers = [0; MAX_HEADERS_BYTES];
        let kept = headers.get_mut(..plan.headers).ok_or(BadFrame::Disagrees)?;
        kept.copy_from_slice(packet.get(..plan.headers).ok_or(BadFrame::Short)?);
        Ok(Self {
            buffer,
            plan,
            headers,
            next: plan.headers,
            number: 0,
            covered: [0; TAIL_BYTES],
            restore: 0,
        })
    }

    /// How many segments are left.
    pub fn remaining(&self) -> usize {
        if self.plan.protocol.is_none() {
            return usize::from(self.number == 0);
        }
        self.plan
            .end
            .saturating_sub(self.next)
            .div_ceil(self.plan.size)
    }

    /// Length of the longest segment, in bytes.
    pub fn longest(&self) -> usize {
        self.plan.headers + self.plan.size
    }

    /// The first segment without padding, before any was taken.
    pub fn peek(&mut self) -> Option<&[u8]> {
        let plan = self.plan;
        if self.number != 0 {
            return None;
        }
        let end = match plan.protocol {
            None => plan.end,
            Some(_) => {
                let end = (plan.headers + plan.size).min(plan.end);
                self.write_headers(0, end)?;
                end
            }
        };
        self.buffer.get(..end)
    }

    /// The next segment, followed by zeros up to `padded(length)`; `padded` adds at most 15 bytes.
    pub fn next_segment(&mut self, padded: impl Fn(usize) -> usize) -> Option<&[u8]> {
        let plan = self.plan;
        self.uncover();
        let (start, end) = match plan.protocol {
            None if self.number == 0 => (0, plan.end),
            Some(_) if self.next < plan.end => {
                let end = (self.next + plan.size).min(plan.end);
                let start = self.next.checked_sub(plan.headers)?;
                self.write_headers(start, end)?;
                (start, end)
            }
            None | Some(_) => return None,
        };
        self.number += 1;
        self.next = end;
        let wanted = padded(end - start)
            .saturating_sub(end - start)
            .min(TAIL_BYTES);
        self.cover(end, wanted)?;
        self.buffer.get(start..end + wanted)
    }

    /// Puts zeros over what follows the segment, and remembers what was there.
    fn cover(&mut self, at: usize, length: usize) -> Option<()> {
        let after = self.buffer.get_mut(at..at + length)?;
        self.covered.get_mut(..length)?.copy_from_slice(after);
        after.fill(0);
        self.restore = length;
        Some(())
    }

    fn uncover(&mut self) {
        let length = std::mem::take(&mut self.restore);
        if let (Some(after), Some(covered)) = (
            self.buffer.get_mut(self.next..self.next + length),
            self.covered.get(..length),
        ) {
            after.copy_from_slice(covered);
        }
    }

    fn write_headers(&mut self, start: usize, end: usize) -> Option<()> {
        let plan = self.plan;
        let last = end == plan.end;
        let packet = self.buffer.get_mut(start..end)?;
        packet
            .get_mut(..plan.headers)?
            .copy_from_slice(self.headers.get(..plan.headers)?);
        let length = end - start;
        if plan.ipv4 {
            put_u16(packet, 2, length)?;
            let id = get_u16(packet, 4)?.wrapping_add(u16::try_from(self.number & 0xffff).ok()?);
            put_u16(packet, 4, id.into())?;
            finish_ipv4_header(packet, plan.transport)?;
        } else {
            put_u16(packet, 4, length.checked_sub(40)?)?;
        }
        let addresses = if plan.ipv4 { 12..20 } else { 8..40 };
        let protocol = plan.protocol?;
        let (head, transport) = packet.split_at_mut_checked(plan.transport)?;
        let csum_offset = if protocol == TCP {
            let step = self.number.wrapping_mul(u32::try_from(plan.size).ok()?);
            let sequence: &mut [u8; 4] = transport.get_mut(4..8)?.try_into().ok()?;
            *sequence = u32::from_be_bytes(*sequence)
                .wrapping_add(step)
                .to_be_bytes();
            let flags = transport.get_mut(13)?;
            if !last {
                *flags &= !(FIN | PSH);
            }
            if self.number > 0 {
                *flags &= !CWR;
            }
            TCP_CSUM_OFFSET
        } else {
            let length = transport.len();
            put_u16(transport, 4, length)?;
            UDP_CSUM_OFFSET
        };
        transport.get_mut(csum_offset..csum_offset + 2)?.fill(0);
        let sum = pseudo_header(head.get(addresses)?, protocol, transport.len()).with(transport);
        transport
            .get_mut(csum_offset..csum_offset + 2)?
            .copy_from_slice(&checksum_field(sum, protocol));
        Some(())
    }
}

impl Plan {
    fn new(header: VnetHeader, packet: &[u8]) -> Result<Self, BadFrame> {
        let ipv4 = match packet.first().ok_or(BadFrame::Short)? >> 4 {
            4 => true,
            6 => false,
            _ => return Err(BadFrame::Disagrees),
        };
        let protocol = match header.gso {
            Gso::None => {
                return Ok(Self {
                    end: packet.len(),
                    headers: 0,
                    transport: 0,
                    size: packet.len().max(1),
                    ipv4,
                    protocol: None,
                });
            }
            Gso::Tcp4 if ipv4 => TCP,
            Gso::Tcp6 if !ipv4 => TCP,
            Gso::Udp => UDP,
            Gso::Tcp4 | Gso::Tcp6 => return Err(BadFrame::Disagrees),
        };
        let transport = usize::from(header.csum_start);
        let network = if ipv4 {
            usize::from(packet.first().ok_or(BadFrame::Short)? & 0x0f) * 4
        } else {
            40
        };
        let agrees = network >= 20
            && if ipv4 {
                transport == network
            } else {
                transport >= network
            };
        let own = if protocol == TCP {
            usize::from(packet.get(transport + 12).ok_or(BadFrame::Short)? >> 4) * 4
        } else {
            UDP_HEADER_BYTES
        };
        let headers = transport + own;
        let size = usize::from(header.gso_size);
        if !agrees || size == 0 || headers > MAX_HEADERS_BYTES || (protocol == TCP && own < 20) {
            return Err(BadFrame::Disagrees);
        }
        if headers > packet.len() {
            return Err(BadFrame::Short);
        }
        Ok(Self {
            end: packet.len(),
            headers,
            transport,
            size,
            ipv4,
            protocol: Some(protocol),
        })
    }
}

/// Completes the one checksum of a packet that is not segmented: its field holds the pseudo-header's sum.
fn complete_checksum(header: VnetHeader, packet: &mut [u8]) -> Result<(), BadFrame> {
    let start = usize::from(header.csum_start);
    let field = start + usize::from(header.csum_offset);
    let covered = packet.get(start..).ok_or(BadFrame::Short)?;
    let sum = Sum::default().with(covered);
    let place = packet.get_mut(field..field + 2).ok_or(BadFrame::Short)?;
    let protocol = if usize::from(header.csum_offset) == UDP_CSUM_OFFSET {
        UDP
    } else {
        TCP
    };
    place.copy_from_slice(&checksum_field(sum, protocol));
    Ok(())
}

/// A UDP checksum of zero would mean "none", so it is sent as all ones (RFC 768).
pub(super) fn checksum_field(sum: Sum, protocol: u8) -> [u8; 2] {
    match sum.finish() {
        [0, 0] if protocol == UDP => [0xff, 0xff],
        finished => finished,
    }
}

pub(super) fn finish_ipv4_header(packet: &mut [u8], length: usize) -> Option<()> {
    let header = packet.get_mut(..length)?;
    header.get_mut(10..12)?.fill(0);
    let sum = Sum::default().with(header).finish();
    header.get_mut(10..12)?.copy_from_slice(&sum);
    Some(())
}

pub(super) fn put_u16(bytes: &mut [u8], at: usize, number: usize) -> Option<()> {
    let number = u16::try_from(number).ok()?;
    bytes
        .get_mut(at..at + 2)?
        .copy_from_slice(&number.to_be_bytes());
    Some(())
}

pub(super) fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
