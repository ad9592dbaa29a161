//! The socket that the QUIC endpoint believes to have: it receives what [`super::demux`] sorted out and sends on
//! the port that WireGuard uses.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::demux::{Datagram, DatagramSource, Ecn, Transmit, UdpSender};

/// How long to wait before a send into a full socket buffer is tried again.
pub const FULL_BUFFER_WAIT: Duration = Duration::from_millis(1);

/// One UDP port, seen from QUIC. The first bytes tell QUIC from WireGuard only if the QUIC bit is not greased:
/// the endpoint must be configured so.
#[derive(Debug)]
pub struct QuicSocket {
    source: DatagramSource,
    sender: UdpSender,
    local: SocketAddr,
}

impl QuicSocket {
    pub fn new(source: DatagramSource, sender: UdpSender) -> io::Result<Arc<Self>> {
        // quinn dials IPv6 from IPv6 sockets only, and detours are IPv6 whatever the port is.
        let local = mapped(sender.local_addr()?);
        Ok(Arc::new(Self {
            source,
            sender,
            local,
        }))
    }

    /// Copies a datagram into quinn's buffer. One that does not fit is dropped, as a network would.
    fn fill(datagram: &Datagram, buffer: &mut [u8]) -> Option<RecvMeta> {
        let length = datagram.bytes.len();
        buffer.get_mut(..length)?.copy_from_slice(&datagram.bytes);
        Some(RecvMeta {
            addr: mapped(datagram.from),
            len: length,
            stride: length,
            ecn: datagram.ecn.map(to_quinn),
            dst_ip: datagram.local_ip,
        })
    }
}

impl AsyncUdpSocket for QuicSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { wait: None })
    }

    fn try_send(&self, transmit: &quinn::udp::Transmit<'_>) -> io::Result<()> {
        let out = Transmit {
            to: plain(transmit.destination),
            local_ip: transmit.src_ip.map(|ip| ip.to_canonical()),
            ecn: transmit.ecn.map(from_quinn),
            segment_size: transmit.segment_size,
            bytes: transmit.contents,
        };
        match self.sender.try_send(&out) {
            // quinn keeps to the address it was first spoken to at, which may be gone by now.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock && out.local_ip.is_some() => {
                self.sender.try_send(&Transmit {
                    local_ip: None,
                    ..out
                })
            }
            result => result,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            loop {
                match self.source.poll_recv(cx) {
                    Poll::Ready(Some(datagram)) => {
                        if let Some(filled) = Self::fill(&datagram, buffer) {
                            *meta = filled;
                            received += 1;
                            break;
                        }
                    }
                    Poll::Ready(None) if received == 0 => {
                        return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                    }
                    Poll::Pending if received == 0 => return Poll::Pending,
                    Poll::Ready(None) | Poll::Pending => return Poll::Ready(Ok(received)),
                }
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        self.sender.max_segments()
    }

    /// Path MTU discovery stays off: binds are small, and the port is shared.
    fn may_fragment(&self) -> bool {
        true
    }
}

/// Wakes a sender after a moment: the port has no readiness of its own to wait for.
#[derive(Debug)]
struct Writable {
    wait: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wait = self
            .wait
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(FULL_BUFFER_WAIT)));
        match wait.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.wait = None;
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// quinn keeps every address of an IPv6 socket as IPv6 and would take the plain form for another peer.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn to_quinn(ecn: Ecn) -> EcnCodepoint {
    match ecn {
        Ecn::Ect0 => EcnCodepoint::Ect0,
        Ecn::Ect1 => EcnCodepoint::Ect1,
        Ecn::Ce => EcnCodepoint::Ce,
    }
}

fn from_quinn(ecn: EcnCodepoint) -> Ecn {
    match ecn {
        EcnCodepoint::Ect0 => Ecn::Ect0,
        EcnCodepoint::Ect1 => Ecn::Ect1,
        EcnCodepoint::Ce => Ecn::Ce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::demux::quic_inbox;
    use crate::shell::udp::{UdpOffload, UdpPort, any_address};

    fn socket(local: SocketAddr) -> (crate::shell::demux::DatagramSink, Arc<QuicSocket>) {
        let port = Arc::new(UdpPort::bind(local, UdpOffload::default()).unwrap());
        let (sink, source) = quic_inbox();
        (sink, QuicSocket::new(source, UdpSender::new(port)).unwrap())
    }

    fn receive(socket: &QuicSocket, sizes: &[usize]) -> Poll<io::Result<Vec<RecvMeta>>> {
        let mut storage: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0; *size]).collect();
        let mut buffers: Vec<IoSliceMut<'_>> = storage
            .iter_mut()
            .map(|bytes| IoSliceMut::new(bytes))
            .collect();
        let mut meta = vec![RecvMeta::default(); sizes.len()];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        socket
            .poll_recv(&mut cx, &mut buffers, &mut meta)
            .map_ok(|count| meta[..count].to_vec())
    }

    #[test]
    fn datagrams_too_long_for_the_buffer_are_dropped_and_the_rest_arrives() {
        let (sink, socket) = socket("127.0.0.1:0".parse().unwrap());
        let from = "192.0.2.1:7".parse().unwrap();
        assert!(receive(&socket, &[100]).is_pending());
        for length in [101, 40, 100] {
            assert!(sink.offer(from, None, Some(Ecn::Ce), &vec![0x40; length]));
        }
        let Poll::Ready(Ok(meta)) = receive(&socket, &[100, 100, 100]) else {
            panic!("two datagrams are waiting");
        };
        let lengths: Vec<usize> = meta.iter().map(|meta| meta.len).collect();
        assert_eq!(lengths, [40, 100]);
        assert_eq!(meta[0].addr, mapped(from));
        assert_eq!(meta[0].ecn, Some(EcnCodepoint::Ce));
        drop(sink);
        assert!(matches!(receive(&socket, &[100]), Poll::Ready(Err(_))));
    }

    #[test]
    fn an_address_of_ours_that_is_gone_does_not_silence_a_connection() {
        let (_sink, socket) = socket(any_address(0));
        let peer = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
        let gone: IpAddr = "192.0.2.77".parse().unwrap();
        socket
            .try_send(&quinn::udp::Transmit {
                destination: mapped(peer.local_addr().unwrap()),
                ecn: None,
                contents: b"still here",
                segment_size: None,
                src_ip: Some(gone),
            })
            .unwrap();
        let received = crate::shell::udp::receive_all(&peer, 1);
        assert_eq!(received, [b"still here".to_vec()]);
    }

    #[test]
    fn ipv4_peers_have_one_form_and_detours_are_dialled_from_any_port() {
        for local in [any_address(0), "127.0.0.1:0".parse().unwrap()] {
            let (sink, socket) = socket(local);
            assert!(sink.offer("192.0.2.1:7".parse().unwrap(), None, None, &[0x40]));
            let Poll::Ready(Ok(meta)) = receive(&socket, &[100]) else {
                panic!("a datagram is waiting");
            };
            assert_eq!(meta[0].addr, "[::ffff:192.0.2.1]:7".parse().unwrap());
            assert!(socket.local_addr().unwrap().is_ipv6());
        }
    }
}
