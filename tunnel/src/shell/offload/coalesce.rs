//! Joining packets of one flow, so that the kernel's stack sees one super-packet.
//!
//! Only what segmentation could have produced is joined: consecutive TCP segments with the same headers but for
//! sequence number and checksum, no flag but ACK (PSH ends the group), no IP options, extension headers or
//! fragments; UDP datagrams of equal length (a shorter one ends the group). Every joined packet's checksums are
//! verified first, since the kernel will trust the group's. A packet that does not fit ends its flow's group, so a
//! flow is never reordered.

use std::ops::Range;

use super::checksum::{Sum, pseudo_header};
use super::split::{finish_ipv4_header, get_u16, put_u16};
use super::{
    ACK, Gso, HEADER_BYTES, MAX_PACKET_BYTES, NEEDS_CSUM, PSH, TCP, TCP_CSUM_OFFSET, UDP,
    UDP_CSUM_OFFSET, UDP_HEADER_BYTES, VnetHeader,
};

/// Most packets in one group.
pub const MAX_GROUP_PACKETS: usize = 64;
/// Longest headers of a joined packet, in bytes: IPv6 and TCP with all options.
pub const MAX_HEADERS_BYTES: usize = 40 + 60;
/// How many groups of the batch are looked at for a packet: further flows are not joined.
const OPEN_GROUPS: usize = 8;

/// Groups the packets of one batch.
#[derive(Debug, Default)]
pub struct Coalescer {
    groups: Vec<Group>,
    payloads: Vec<Payload>,
    joins: Joins,
}

/// What the device takes joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    pub tcp4: bool,
    pub tcp6: bool,
    /// Over either family.
    pub udp: bool,
}

/// What goes to the device in one write.
#[derive(Debug)]
pub struct Group {
    /// The headers that make packets one flow, as the first one has them.
    shape: Shape,
    open: bool,
    packets: usize,
    /// Payload bytes of all packets.
    bytes: usize,
    /// Position of the first packet in the batch.
    first: Range<usize>,
    /// Places in `payloads`.
    head: usize,
    tail: usize,
    next_sequence: u32,
    next_id: u16,
    push: bool,
}

#[derive(Clone, Copy, Debug)]
struct Payload {
    start: usize,
    end: usize,
    next: usize,
}

/// A packet that might be joined.
#[derive(Clone, Copy, Debug)]
struct Shape {
    protocol: u8,
    ipv4: bool,
    transport: usize,
    headers: usize,
    payload: usize,
    sequence: u32,
    id: u16,
    push: bool,
    /// Don't-fragment: then the identification is free.
    dont_fragment: bool,
}

/// No further payload.
const END: usize = usize::MAX;

impl Coalescer {
    pub fn new(joins: Joins) -> Self {
        Self {
            joins,
            ..Self::default()
        }
    }

    /// What is joined from now on.
    pub fn allow(&mut self, joins: Joins) {
        self.joins = joins;
    }

    pub fn clear(&mut self) {
        self.groups.clear();
        self.payloads.clear();
    }

    /// Adds the packet at `range` of `arena`, to a group or as one of its own.
    pub fn push(&mut self, arena: &[u8], range: Range<usize>) {
        let Some(packet) = arena.get(range.clone()) else {
            return;
        };
        let shape = Shape::of(packet).filter(|shape| self.joins.allows(shape.kind()));
        let Some(shape) = shape else {
            // It may belong to any open flow: a FIN, say. Nothing may overtake it.
            self.close_flow(arena, packet);
            self.start(Shape::LONE, range, false);
            return;
        };
        let candidate = self
            .groups
            .iter()
            .enumerate()
            .rev()
            .take(OPEN_GROUPS)
            .find(|(_, group)| group.open && same_flow(arena, group, packet, &shape))
            .map(|(number, _)| number);
        if let Some(number) = candidate {
            let joined = self.groups.get_mut(number).is_some_and(|group| {
                fits(arena, group, packet, &shape) && verified(packet, &shape) && {
                    group.join(&shape);
                    true
                }
            });
            if joined {
                self.link(number, &shape, &range);
                return;
            }
            if let Some(group) = self.groups.get_mut(number) {
                group.open = false;
            }
        }
        let open = shape.payload > 0 && !shape.push && verified(packet, &shape);
        self.start(shape, range, open);
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Writes the headers of a group's frame into `out`; its length. `None` for a single packet, which goes out
    /// as it is.
    pub fn headers(
        &self,
        arena: &[u8],
        group: &Group,
        out: &mut [u8; HEADER_BYTES + MAX_HEADERS_BYTES],
    ) -> Option<usize> {
        if group.packets < 2 {
            return None;
        }
        let shape = &group.shape;
        let first = arena.get(group.first.clone())?;
        let length = shape.headers + group.bytes;
        let (vnet, rest) = out.split_at_mut_checked(HEADER_BYTES)?;
        let headers = rest.get_mut(..shape.headers)?;
        headers.copy_from_slice(first.get(..shape.headers)?);
        if shape.ipv4 {
            put_u16(headers, 2, length)?;
            finish_ipv4_header(headers, shape.transport)?;
        } else {
            put_u16(headers, 4, length.checked_sub(40)?)?;
        }
        let addresses = if shape.ipv4 { 12..20 } else { 8..40 };
        let (head, transport) = headers.split_at_mut_checked(shape.transport)?;
        let transport_length = length - shape.transport;
        let gso = shape.kind();
        let csum_offset = match gso {
            Gso::Udp => UDP_CSUM_OFFSET,
            Gso::Tcp4 | Gso::Tcp6 | Gso::None => TCP_CSUM_OFFSET,
        };
        if shape.protocol == TCP {
            if group.push {
                *transport.get_mut(13)? |= PSH;
            }
        } else {
            put_u16(transport, 4, transport_length)?;
        }
        let pseudo = pseudo_header(head.get(addresses)?, shape.protocol, transport_length).fold();
        transport
            .get_mut(csum_offset..csum_offset + 2)?
            .copy_from_slice(&pseudo);
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso,
            header_length: u16::try_from(shape.headers).ok()?,
            gso_size: u16::try_from(shape.payload).ok()?,
            csum_start: u16::try_from(shape.transport).ok()?,
            csum_offset: u16::try_from(csum_offset).ok()?,
        };
        vnet.copy_from_slice(&header.to_bytes());
        Some(HEADER_BYTES + shape.headers)
    }

    /// The payloads of a group, in order.
    pub fn payloads<'a>(
        &'a self,
        arena: &'a [u8],
        group: &Group,
    ) -> impl Iterator<Item = &'a [u8]> {
        let mut at = group.head;
        std::iter::from_fn(move || {
            let payload = self.payloads.get(at)?;
            at = payload.next;
            arena.get(payload.start..payload.end)
        })
    }

    /// The packets of a group as they came, in order.
    pub fn packets<'a>(&'a self, arena: &'a [u8], group: &Group) -> impl Iterator<Item = &'a [u8]> {
        let mut at = group.head;
        let headers = group.shape.headers;
        std::iter::from_fn(move || {
            let payload = self.payloads.get(at)?;
            at = payload.next;
            arena.get(payload.start.checked_sub(headers)?..payload.end)
        })
    }

    fn start(&mut self, shape: Shape, range: Range<usize>, open: bool) {
        let number = self.payloads.len();
        self.payloads.push(Payload {
            start: range.start + shape.headers,
            end: range.end,
            next: END,
        });
        self.groups.push(Group {
            shape,
            open,
            packets: 1,
            bytes: shape.payload,
            first: range,
            head: number,
            tail: number,
            next_sequence: shape
                .sequence
                .wrapping_add(u32::try_from(shape.payload).unwrap_or(0)),
            next_id: shape.id.wrapping_add(1),
            push: shape.push,
        });
    }

    fn link(&mut self, group: usize, shape: &Shape, range: &Range<usize>) {
        let number = self.payloads.len();
        self.payloads.push(Payload {
            start: range.start + shape.headers,
            end: range.end,
            next: END,
        });
        if let Some(group) = self.groups.get_mut(group) {
            let tail = std::mem::replace(&mut group.tail, number);
            if let Some(payload) = self.payloads.get_mut(tail) {
                payload.next = number;
            }
        }
    }

    /// Ends the groups between the same two addresses.
    fn close_flow(&mut self, arena: &[u8], packet: &[u8]) {
        let addresses = addresses(packet);
        for group in self
            .groups
            .iter_mut()
            .rev()
            .take(OPEN_GROUPS)
            .filter(|group| group.open)
        {
            let same = arena
                .get(group.first.clone())
                .is_none_or(|first| self::addresses(first) == addresses);
            group.open &= !same;
        }
    }
}

impl Joins {
    /// Everything.
    pub const ALL: Self = Self {
        tcp4: true,
        tcp6: true,
        udp: true,
    };

    fn allows(self, kind: Gso) -> bool {
        match kind {
            Gso::Tcp4 => self.tcp4,
            Gso::Tcp6 => self.tcp6,
            Gso::Udp => self.udp,
            Gso::None => false,
        }
    }
}

impl Group {
    /// What the device is told it is; of no meaning for a single packet.
    pub fn kind(&self) -> Gso {
        self.shape.kind()
    }

    /// How many packets it stands for.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Where its first packet is.
    pub fn first(&self) -> Range<usize> {
        self.first.clone()
    }

    fn join(&mut self, shape: &Shape) {
        self.packets += 1;
        self.bytes += shape.payload;
        self.push |= shape.push;
        self.next_sequence = self
            .next_sequence
            .wrapping_add(u32::try_from(shape.payload).unwrap_or(0));
        self.next_id = self.next_id.wrapping_add(1);
        if shape.push || shape.payload < self.shape.payload || self.packets >= MAX_GROUP_PACKETS {
            self.open = false;
        }
    }
}

impl Shape {
    /// A packet that is never joined.
    const LONE: Self = Self {
        protocol: 0,
        ipv4: false,
        transport: 0,
        headers: 0,
        payload: 0,
        sequence: 0,
        id: 0,
        push: false,
        dont_fragment: false,
    };

    fn kind(&self) -> Gso {
        match (self.protocol, self.ipv4) {
            (TCP, true) => Gso::Tcp4,
            (TCP, false) => Gso::Tcp6,
            (UDP, _) => Gso::Udp,
            _ => Gso::None,
        }
    }

    /// The packet's shape, if segmentation could have made it.
    fn of(packet: &[u8]) -> Option<Self> {
        let (ipv4, transport, protocol, id, dont_fragment) = match packet.first()? {
            0x45 => {
                let word = get_u16(packet, 6)?;
                // More fragments, a fragment offset, or the reserved bit.
                if word & 0xbfff != 0 || usize::from(get_u16(packet, 2)?) != packet.len() {
                    return None;
                }
                (
                    true,
                    20,
                    *packet.get(9)?,
                    get_u16(packet, 4)?,
                    word & 0x4000 != 0,
                )
            }
            first if first >> 4 == 6 => {
                if usize::from(get_u16(packet, 4)?) + 40 != packet.len() {
                    return None;
                }
                (false, 40, *packet.get(6)?, 0, true)
            }
            _ => return None,
        };
        let own = packet.get(transport..)?;
        let (headers, sequence, push) = match protocol {
            TCP => {
                let length = usize::from(*own.get(12)? >> 4) * 4;
                let flags = *own.get(13)?;
                // The bits beside the header length: the accurate-ECN flag (RFC 9768) and reserved ones.
                if length < 20 || flags & !PSH != ACK || *own.get(12)? & 0x0f != 0 {
                    return None;
                }
                let sequence = u32::from_be_bytes(own.get(4..8)?.try_into().ok()?);
                (transport + length, sequence, flags & PSH != 0)
            }
            UDP if usize::from(get_u16(own, 4)?) == own.len()
                && get_u16(own, UDP_CSUM_OFFSET)? != 0 =>
            {
                (transport + UDP_HEADER_BYTES, 0, false)
            }
            _ => return None,
        };
        let payload = packet.len().checked_sub(headers)?;
        Some(Self {
            protocol,
            ipv4,
            transport,
            headers,
            payload,
            sequence,
            id,
            push,
            dont_fragment,
        })
    }
}

/// Same addresses and ports.
fn same_flow(arena: &[u8], group: &Group, packet: &[u8], shape: &Shape) -> bool {
    let Some(first) = arena.get(group.first.clone()) else {
        return false;
    };
    let ports = shape.transport..shape.transport + 4;
    group.shape.protocol == shape.protocol
        && group.shape.ipv4 == shape.ipv4
        && first.get(ports.clone()) == packet.get(ports)
        && addresses(first) == addresses(packet)
}

/// Whether a packet of the same flow continues the group.
fn fits(arena: &[u8], group: &Group, packet: &[u8], shape: &Shape) -> bool {
    let Some(first) = arena.get(group.first.clone()) else {
        return false;
    };
    let same = |range: Range<usize>| first.get(range.clone()) == packet.get(range);
    let network = if shape.ipv4 {
        // Version, type of service; fragment word; time to live, protocol. Not length, identification, checksum.
        same(0..2) && same(6..10) && (shape.dont_fragment || shape.id == group.next_id)
    } else {
        // Version, class, flow label; next header, hop limit. Not the length.
        same(0..4) && same(6..8)
    };
    let own = shape.transport;
    let transport = if shape.protocol == TCP {
        shape.sequence == group.next_sequence
            && shape.headers == group.shape.headers
            // Acknowledgement, header length; window; urgent pointer and options. Not flags (checked), checksum.
            && same(own + 8..own + 13)
            && same(own + 14..own + 16)
            && same(own + 18..shape.headers)
    } else {
        true
    };
    network
        && transport
        && shape.payload > 0
        && shape.payload <= group.shape.payload
        && shape.headers + group.bytes + shape.payload <= MAX_PACKET_BYTES
}

/// Whether the packet's own checksums are right.
fn verified(packet: &[u8], shape: &Shape) -> bool {
    let addresses = if shape.ipv4 { 12..20 } else { 8..40 };
    let (Some(head), Some(transport), Some(addresses)) = (
        packet.get(..shape.transport),
        packet.get(shape.transport..),
        packet.get(addresses),
    ) else {
        return false;
    };
    (!shape.ipv4 || Sum::default().with(head).is_valid())
        && pseudo_header(addresses, shape.protocol, transport.len())
            .with(transport)
            .is_valid()
}

fn addresses(packet: &[u8]) -> Option<&[u8]> {
    match packet.first()? >> 4 {
        4 => packet.get(12..20),
        6 => packet.get(8..40),
        _ => None,
    }
}
