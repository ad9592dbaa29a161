//! Segmentation offload of the TUN device, both ways: cutting the super-packets that the kernel hands over,
//! and joining packets so that the kernel takes them at once. No I/O.
//!
//! Every frame of such a device starts with the ten-byte header of virtio 1.2, section 5.1.6.1, in the byte order
//! of the machine.

pub mod checksum;
pub mod coalesce;
pub mod split;

/// Length of the header before each packet, in bytes.
pub const HEADER_BYTES: usize = 10;
/// Longest packet in a frame, in bytes.
pub const MAX_PACKET_BYTES: usize = 65_535;

/// The checksum at `csum_start + csum_offset` is to be completed.
pub const NEEDS_CSUM: u8 = 1;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// Where TCP and UDP keep their checksum.
pub(crate) const TCP_CSUM_OFFSET: usize = 16;
pub(crate) const UDP_CSUM_OFFSET: usize = 6;
pub(crate) const UDP_HEADER_BYTES: usize = 8;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const CWR: u8 = 0x80;

/// What a frame holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// One packet.
    #[default]
    None,
    Tcp4,
    Tcp6,
    /// UDP over either family: equal payloads, the last may be shorter.
    Udp,
}

/// The header before each packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    pub flags: u8,
    pub gso: Gso,
    /// Length of the packet's headers; a hint.
    pub header_length: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

/// Why a frame of the device cannot be cut. The kernel's fault, or a packet made to confuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("shorter than its headers")]
    Short,
    #[error("unknown kind of segmentation: {0}")]
    Kind(u8),
    #[error("header disagrees with the packet")]
    Disagrees,
}

impl VnetHeader {
    /// Reads the header; the packet is the rest of the frame.
    pub fn parse(frame: &[u8]) -> Result<Self, BadFrame> {
        let header: &[u8; HEADER_BYTES] = frame.first_chunk().ok_or(BadFrame::Short)?;
        let [flags, gso, a, b, c, d, e, f, g, h] = *header;
        // Bit 0x80 says that ECN is in use, which cutting takes care of anyway.
        let gso = match gso & 0x7f {
            0 => Gso::None,
            1 => Gso::Tcp4,
            4 => Gso::Tcp6,
            5 => Gso::Udp,
            other => return Err(BadFrame::Kind(other)),
        };
        Ok(Self {
            flags,
            gso,
            header_length: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        })
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let gso = match self.gso {
            Gso::None => 0,
            Gso::Tcp4 => 1,
            Gso::Tcp6 => 4,
            Gso::Udp => 5,
        };
        let [a, b] = self.header_length.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, gso, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests;
