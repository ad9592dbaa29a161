//! One UDP port, two protocols: WireGuard goes to the node, everything else to QUIC.
//!
//! A WireGuard message starts with its type, 1 to 4, and three zero bytes (WireGuard protocol,
//! section 5.4). A QUIC v1 packet has bit 0x40 of its first byte set (RFC 9000, section 17), as long as
//! the bit is not greased (RFC 9287), so the two never collide. The decision is made for every datagram
//! of a GRO batch, since one source address may send both.

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
    let (sender, receiver) = mpsc::channel(datagrams.max(1));
    (
        DatagramSink { inbox: sender },
        DatagramSource {
            inbox: Mutex::new(receiver),
        },
    )
}

/// Whether a datagram belongs to WireGuard.
pub fn is_wireguard(datagram: &[u8]) -> bool {
    matches!(datagram, [1..=4, 0, 0, 0, ..])
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
