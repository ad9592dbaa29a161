//! One UDP port, several protocols, told apart by the first bytes.
//!
//! | first bytes | |
//! |---|---|
//! | 1 to 4, three zeros | WireGuard (WireGuard protocol, section 5.4) |
//! | 5, three zeros | a reach message ([`crate::reach::message`]) |
//! | 6, three zeros | a relayed datagram |
//! | the top two bits 0, and 0x2112A442 at byte 4 | STUN (RFC 8489, section 5) |
//! | anything else | QUIC: v1 has bit 0x40 set (RFC 9000, section 17), as long as it is not greased (RFC 9287) |
//!
//! STUN's first two bytes are its type, which is never 0x0100 to 0x0600 for anything sent here, so nothing collides.
//! The decision is made for every datagram of a GRO batch, since one source address may send all of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::udp::UdpPort;

/// Most QUIC datagrams waiting for their reader; a further one is dropped, which QUIC repairs.
pub const QUIC_INBOX_DATAGRAMS: usize = 512;
/// Longest QUIC datagram accepted, in bytes: more than any path MTU discovery of ours asks for.
pub const MAX_QUIC_DATAGRAM_BYTES: usize = 2048;

/// The ECN field of an IP packet (RFC 3168); `Not-ECT` is the absence of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    Ect0,
    Ect1,
    Ce,
}

/// One datagram that is not WireGuard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Sender; an IPv4-mapped IPv6 address is already IPv4 here.
    pub from: SocketAddr,
    /// The address of ours it was sent to: answer from it.
    pub local_ip: Option<IpAddr>,
    pub ecn: Option<Ecn>,
    pub bytes: Vec<u8>,
}

/// What to send: one datagram, or a run of equal ones (the last may be shorter) with `segment_size`.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    pub to: SocketAddr,
    /// Source address to use, as told by [`Datagram::local_ip`]; `None` lets the kernel choose.
    pub local_ip: Option<IpAddr>,
    pub ecn: Option<Ecn>,
    /// Bytes per datagram when `bytes` holds several (at most [`UdpSender::max_segments`]).
    pub segment_size: Option<usize>,
    pub bytes: &'a [u8],
}

/// Where the receive thread puts what is not WireGuard.
#[derive(Clone, Debug)]
pub struct DatagramSink {
    inbox: mpsc::Sender<Datagram>,
}

/// Where the QUIC endpoint takes its datagrams from.
#[derive(Debug)]
pub struct DatagramSource {
    inbox: Mutex<mpsc::Receiver<Datagram>>,
}

/// Sends on the socket that WireGuard uses too.
#[derive(Clone, Debug)]
pub struct UdpSender {
    port: std::sync::Arc<UdpPort>,
}

/// A bounded queue of at most [`QUIC_INBOX_DATAGRAMS`] datagrams.
pub fn quic_inbox() -> (DatagramSink, DatagramSource) {
    quic_inbox_of(QUIC_INBOX_DATAGRAMS)
}

/// A bounded queue of at most `datagrams`, for [`super::Profile::quic_datagrams`].
pub fn quic_inbox_of(datagrams: usize) -> (DatagramSink, DatagramSource) {
    inbox(datagrams)
}

/// A bounded queue of at most `datagrams`.
pub(super) fn inbox(datagrams: usize) -> (DatagramSink, DatagramSource) {
    let (sender, receiver) = mpsc::channel(datagrams.max(1));
    (
        DatagramSink { inbox: sender },
        DatagramSource {
            inbox: Mutex::new(receiver),
        },
    )
}

/// What a datagram is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    WireGuard,
    Reach,
    Relayed,
    Stun,
    Quic,
}

/// Shortest STUN message, in bytes: its header.
const STUN_HEADER_BYTES: usize = 20;

impl Class {
    pub fn of(datagram: &[u8]) -> Self {
        match datagram {
            [1..=4, 0, 0, 0, ..] => Self::WireGuard,
            [5, 0, 0, 0, ..] => Self::Reach,
            [6, 0, 0, 0, ..] => Self::Relayed,
            [0..=0x3f, _, _, _, 0x21, 0x12, 0xa4, 0x42, ..]
                if datagram.len() >= STUN_HEADER_BYTES =>
            {
                Self::Stun
            }
            _ => Self::Quic,
        }
    }
}

/// Whether a datagram belongs to WireGuard.
pub fn is_wireguard(datagram: &[u8]) -> bool {
    Class::of(datagram) == Class::WireGuard
}

impl DatagramSink {
    /// Hands one datagram over; `false` means that it was dropped, because the queue is full, its reader is
    /// gone, or it is longer than [`MAX_QUIC_DATAGRAM_BYTES`]. Never blocks.
    pub fn offer(
        &self,
        from: SocketAddr,
        local_ip: Option<IpAddr>,
        ecn: Option<Ecn>,
        bytes: &[u8],
    ) -> bool {
        if bytes.is_empty() || bytes.len() > MAX_QUIC_DATAGRAM_BYTES {
            return false;
        }
        // The permit comes first: a flood that finds the queue full costs no allocation.
        match self.inbox.try_reserve() {
            Ok(permit) => {
                permit.send(Datagram {
                    from,
                    local_ip,
                    ecn,
                    bytes: bytes.to_vec(),
                });
                true
            }
            Err(_) => false,
        }
    }
}

impl DatagramSource {
    /// The next datagram; `None` once every sink is gone.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<Datagram>> {
        self.inbox.lock().poll_recv(cx)
    }

    /// The next datagram; `None` once every sink is gone.
    pub async fn recv(&self) -> Option<Datagram> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }
}

impl UdpSender {
    pub fn new(port: std::sync::Arc<UdpPort>) -> Self {
        Self { port }
    }

    /// Sends without blocking. `WouldBlock` means that the socket's buffer (7 MiB where allowed) is full:
    /// wait about a millisecond and try again.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.port.try_send(transmit)
    }

    /// How many segments one [`Transmit`] may hold: 64 with UDP GSO, 1 without. May fall at any time.
    pub fn max_segments(&self) -> usize {
        self.port.max_segments()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> SocketAddr {
        "192.0.2.1:51820".parse().unwrap()
    }

    #[test]
    fn wireguard_is_told_apart_by_type_and_reserved_bytes() {
        for kind in 1..=4u8 {
            assert!(is_wireguard(&[kind, 0, 0, 0, 9]));
            assert!(!is_wireguard(&[kind, 0, 0, 1, 9]));
        }
        assert!(!is_wireguard(&[5, 0, 0, 0]));
        assert!(!is_wireguard(&[0, 0, 0, 0]));
        assert!(!is_wireguard(&[1, 0, 0]));
        assert!(!is_wireguard(&[]));
        assert!(!is_wireguard(&[0xc3, 0, 0, 0, 1]), "a QUIC initial");
        assert!(!is_wireguard(&[0x40, 0, 0, 0]), "a QUIC short header");
    }

    #[test]
    fn classes_never_overlap() {
        let mut stun = [0u8; 20];
        stun[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        for (kind, class) in [
            ([0x00, 0x01, 0, 0], Class::Stun),
            ([0x01, 0x01, 0, 0x0c], Class::Stun),
            ([0x01, 0x11, 0, 0x0c], Class::Stun),
            ([0x01, 0x00, 0, 0], Class::WireGuard),
            ([0x04, 0x00, 0, 0], Class::WireGuard),
            ([0x05, 0x00, 0, 0], Class::Reach),
            ([0x06, 0x00, 0, 0], Class::Relayed),
            ([0x40, 0x01, 0, 0], Class::Quic),
            ([0xc0, 0x00, 0, 0], Class::Quic),
        ] {
            stun[..4].copy_from_slice(&kind);
            assert_eq!(Class::of(&stun), class, "{kind:?}");
        }
        stun[..4].copy_from_slice(&[0, 1, 0, 0]);
        assert_eq!(Class::of(&stun[..19]), Class::Quic, "cut off");
        stun[7] = 0;
        assert_eq!(Class::of(&stun), Class::Quic, "without the cookie");
        assert_eq!(Class::of(&[5, 0, 0]), Class::Quic);
        assert_eq!(Class::of(&[7, 0, 0, 0]), Class::Quic);
    }

    #[test]
    fn a_full_inbox_drops_instead_of_growing() {
        let (sink, _source) = quic_inbox();
        for _ in 0..QUIC_INBOX_DATAGRAMS {
            assert!(sink.offer(from(), None, None, &[0x40]));
        }
        assert!(!sink.offer(from(), None, None, &[0x40]));
    }

    #[test]
    fn oversized_and_empty_datagrams_are_dropped() {
        let (sink, _source) = quic_inbox();
        assert!(!sink.offer(from(), None, None, &[]));
        assert!(!sink.offer(from(), None, None, &vec![0x40; MAX_QUIC_DATAGRAM_BYTES + 1]));
        assert!(sink.offer(from(), None, None, &vec![0x40; MAX_QUIC_DATAGRAM_BYTES]));
    }

    #[test]
    fn datagrams_arrive_in_order_with_their_sender() {
        let (sink, source) = quic_inbox();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(source.poll_recv(&mut cx).is_pending());
        assert!(sink.offer(from(), None, Some(Ecn::Ce), &[0x40, 1]));
        let Poll::Ready(Some(datagram)) = source.poll_recv(&mut cx) else {
            panic!("a datagram is waiting");
        };
        assert_eq!((datagram.from, datagram.ecn), (from(), Some(Ecn::Ce)));
        assert_eq!(datagram.bytes, [0x40, 1]);
        drop(sink);
        assert!(matches!(source.poll_recv(&mut cx), Poll::Ready(None)));
    }
}
