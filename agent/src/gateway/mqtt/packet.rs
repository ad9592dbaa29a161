//! Control packets by their fixed header (MQTT 5.0, section 2.1), for both versions.

use super::bytes::{Malformed, Reader, put_variable, variable};

/// Longest packet that is carried either way, in bytes. Brokers and clients of MQTT 5 are told.
pub const MAX_PACKET_BYTES: usize = 1024 * 1024;

/// The version that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// Table 2-1 of the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub kind: Kind,
    /// The low four bits of the first byte: checked where they are reserved.
    pub flags: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// All of it.
    pub whole: &'a [u8],
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The flags that it must have; none where they mean something (section 2.1.3).
    fn reserved_flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }
}

/// The packet at the start of `bytes`. `None`: more are needed. The first header that cannot be is refused before its
/// body has come.
pub fn first(bytes: &[u8]) -> Result<Option<Packet<'_>>, Malformed> {
    let Some((header, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let (kind, flags) = (Kind::of(header >> 4), header & 0x0f);
    let kind = kind.ok_or(Malformed("packet-type"))?;
    if kind.reserved_flags().is_some_and(|wanted| wanted != flags) {
        return Err(Malformed("flags"));
    }
    let Some((length, taken)) = variable(rest)? else {
        return Ok(None);
    };
    let length = usize::try_from(length).map_err(|_| Malformed("length"))?;
    if 1 + taken + length > MAX_PACKET_BYTES {
        return Err(Malformed("packet-size"));
    }
    let Some(whole) = bytes.get(..1 + taken + length) else {
        return Ok(None);
    };
    Ok(Some(Packet {
        kind,
        flags,
        body: whole.get(1 + taken..).unwrap_or_default(),
        whole,
    }))
}

/// Appends a packet.
pub fn put(out: &mut Vec<u8>, kind: Kind, flags: u8, body: &[u8]) {
    out.push(kind.number() << 4 | flags);
    put_variable(out, body.len());
    out.extend_from_slice(body);
}

/// Appends an acknowledgement of four kinds: PUBACK, PUBREC, PUBREL, PUBCOMP. A reason other than success is for
/// MQTT 5 only.
pub fn put_ack(out: &mut Vec<u8>, kind: Kind, id: u16, reason: Option<u8>) {
    let [high, low] = id.to_be_bytes();
    let flags = kind.reserved_flags().unwrap_or(0);
    match reason {
        Some(reason) => put(out, kind, flags, &[high, low, reason]),
        None => put(out, kind, flags, &[high, low]),
    }
}

/// The packet identifier of an acknowledgement; what MQTT 5 puts behind it is left to its reader.
pub fn ack_id(packet: &Packet<'_>, version: Version) -> Result<u16, Malformed> {
    let mut reader = Reader::new(packet.body);
    let id = reader.packet_id()?;
    if version == Version::V3 {
        reader.end()?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_cannot_be_are_refused_before_their_bodies_come() {
        for (bytes, word) in [
            (&[0x00][..], "packet-type"),
            (&[0x11], "flags"),
            (&[0x60], "flags"),
            (&[0x80], "flags"),
            (&[0xe1], "flags"),
            (&[0x30, 0xff, 0xff, 0xff, 0xff], "length"),
            (&[0x30, 0x80, 0], "length"),
            (&[0x30, 0xff, 0xff, 0xff, 0x7f], "packet-size"),
            (&[0x30, 0xfd, 0xff, 0x3f], "packet-size"),
        ] {
            assert_eq!(first(bytes), Err(Malformed(word)), "{bytes:?}");
        }
    }

    #[test]
    fn the_longest_packet_waits_for_its_body() {
        assert_eq!(first(&[0x30, 0xfc, 0xff, 0x3f]), Ok(None));
        let mut longest = vec![0x30, 0xfc, 0xff, 0x3f];
        longest.resize(MAX_PACKET_BYTES, 0);
        assert_eq!(
            first(&longest).unwrap().unwrap().whole.len(),
            MAX_PACKET_BYTES
        );
    }

    #[test]
    fn a_packet_reads_as_it_was_written() {
        for number in 1..=15 {
            let kind = Kind::of(number).unwrap();
            let mut bytes = Vec::new();
            put(
                &mut bytes,
                kind,
                kind.reserved_flags().unwrap_or(0b1101),
                &[7; 200],
            );
            bytes.push(0);
            let packet = first(&bytes).unwrap().unwrap();
            assert_eq!((packet.kind, packet.body), (kind, &[7; 200][..]));
            assert_eq!(packet.whole.len() + 1, bytes.len());
            for length in 0..packet.whole.len() {
                assert_eq!(first(&bytes[..length]), Ok(None));
            }
        }
    }

    #[test]
    fn an_acknowledgement_names_a_packet_and_in_the_old_version_nothing_else() {
        let packet = |body| Packet {
            kind: Kind::PubAck,
            flags: 0,
            body,
            whole: body,
        };
        assert!(ack_id(&packet(&[0, 0]), Version::V5).is_err());
        assert!(ack_id(&packet(&[0]), Version::V5).is_err());
        assert!(ack_id(&packet(&[0, 1, 0]), Version::V3).is_err());
        assert_eq!(ack_id(&packet(&[0, 1, 0x10]), Version::V5), Ok(1));
        assert_eq!(ack_id(&packet(&[1, 0]), Version::V3), Ok(256));
    }
}
