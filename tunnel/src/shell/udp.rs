//! The UDP port: segmentation offload out (`UDP_SEGMENT`), coalescing in (`UDP_GRO`), large buffers.
//!
//! Each offload has a switch and a fallback: where the kernel or the device refuses segmentation (`EIO`,
//! `EINVAL`), batches go out datagram by datagram from then on.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::demux::{Ecn, Transmit};

/// Wanted size of each socket buffer, in bytes (7 MiB): what one batch of wake-ups can fill.
pub const SOCKET_BUFFER_BYTES: usize = 7 << 20;
/// Most datagrams in one segmented send (`UDP_MAX_SEGMENTS` of the kernel before 6.9 is 64).
pub const MAX_SEGMENTS: usize = 64;
/// Longest segmented send, in bytes: 65,535 less the IPv4 and UDP headers.
pub const MAX_SEND_BYTES: usize = 65_507;
/// Size of one receive buffer, in bytes: a whole coalesced batch.
pub const RECV_BUFFER_BYTES: usize = 65_535;

/// Which offloads to use. All on by default; each is probed before use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOffload {
    /// `UDP_SEGMENT` on send.
    pub gso: bool,
    /// `UDP_GRO` on receive.
    pub gro: bool,
}

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub struct UdpPort {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Bound to an IPv6 address, so that IPv4 peers are written IPv4-mapped.
    ipv6: bool,
    gso: AtomicBool,
    send_failures: AtomicU64,
}

impl Default for UdpOffload {
    fn default() -> Self {
        Self {
            gso: true,
            gro: true,
        }
    }
}

impl UdpPort {
    /// Binds `local`. The unspecified IPv6 address also serves IPv4.
    pub fn bind(local: SocketAddr, offload: UdpOffload) -> io::Result<Self> {
        let domain = Domain::for_address(local);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if let SocketAddr::V6(v6) = local {
            socket.set_only_v6(!v6.ip().is_unspecified())?;
        }
        grow_buffers(&socket);
        socket.bind(&local.into())?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        if !offload.gro {
            // The only coalescing switch of a socket; refusing it means that there is none to switch off.
            let _unsupported = setsockopt(&socket, sockopt::UdpGroSegment, &false);
        }
        Ok(Self {
            socket,
            state,
            ipv6: local.is_ipv6(),
            gso: AtomicBool::new(offload.gso),
            send_failures: AtomicU64::new(0),
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// How many segments one send may hold now.
    pub fn max_segments(&self) -> usize {
        if self.gso.load(Ordering::Relaxed) {
            self.state.max_gso_segments().clamp(1, MAX_SEGMENTS)
        } else {
            1
        }
    }

    /// Datagrams that the kernel refused for other reasons than a full buffer.
    pub fn send_failures(&self) -> u64 {
        self.send_failures.load(Ordering::Relaxed)
    }

    /// Sends without blocking; falls back to single datagrams when segmentation is refused.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.bytes.len()).max(1);
        let segments = transmit.bytes.len().div_ceil(segment);
        if segments <= 1 {
            return self.send_one(transmit, transmit.bytes, None);
        }
        if self.max_segments() > 1 {
            match self.send_one(transmit, transmit.bytes, Some(segment)) {
                Err(error) if refuses_segmentation(&error) => {
                    tracing::warn!(%error, "udp segmentation offload refused: sending single datagrams from now on");
                    self.gso.store(false, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        for datagram in transmit.bytes.chunks(segment) {
            self.send_one(transmit, datagram, None)?;
        }
        Ok(())
    }

    /// Receives up to `buffers.len()` batches; each `meta` tells sender, length and datagram size.
    pub fn recv(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        let received = self.state.recv((&self.socket).into(), buffers, meta)?;
        for meta in meta.iter_mut().take(received) {
            meta.addr = canonical(meta.addr);
            meta.dst_ip = meta.dst_ip.map(|ip| ip.to_canonical());
        }
        Ok(received)
    }

    fn send_one(
        &self,
        transmit: &Transmit<'_>,
        bytes: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let out = quinn_udp::Transmit {
            destination: self.mapped(transmit.to),
            ecn: transmit.ecn.map(EcnCodepoint::from),
            contents: bytes,
            segment_size,
            src_ip: transmit.local_ip.map(|ip| self.mapped_ip(ip)),
        };
        let result = self.state.try_send((&self.socket).into(), &out);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.send_failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn mapped(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.ipv6 => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => to,
        }
    }

    fn mapped_ip(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(v4) if self.ipv6 => v4.to_ipv6_mapped().into(),
            IpAddr::V4(_) | IpAddr::V6(_) => ip,
        }
    }
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Ecn> for EcnCodepoint {
    fn from(ecn: Ecn) -> Self {
        match ecn {
            Ecn::Ect0 => Self::Ect0,
            Ecn::Ect1 => Self::Ect1,
            Ecn::Ce => Self::Ce,
        }
    }
}

impl From<EcnCodepoint> for Ecn {
    fn from(ecn: EcnCodepoint) -> Self {
        match ecn {
            EcnCodepoint::Ect0 => Self::Ect0,
            EcnCodepoint::Ect1 => Self::Ect1,
            EcnCodepoint::Ce => Self::Ce,
        }
    }
}

/// The unspecified IPv6 address with `port`: serves both address families.
pub fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Asks for more than the system's limit first, which CAP_NET_ADMIN allows, then for what anybody may have.
fn grow_buffers(socket: &Socket) {
    let forced = setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)
        .and_then(|()| setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES));
    if forced.is_err() {
        let socket = SockRef::from(socket);
        let plain = socket
            .set_recv_buffer_size(SOCKET_BUFFER_BYTES)
            .and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER_BYTES));
        if let Err(error) = plain {
            tracing::warn!(%error, "udp socket keeps its default buffers");
        }
    }
}

fn refuses_segmentation(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_all(port: &UdpPort, wanted: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for _ in 0..10_000 {
            let mut buffer = vec![0; RECV_BUFFER_BYTES];
            let mut meta = [RecvMeta::default()];
            match port.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta) {
                Ok(_) => out.extend(
                    buffer[..meta[0].len]
                        .chunks(meta[0].stride.max(1))
                        .map(<[u8]>::to_vec),
                ),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
            if out.len() >= wanted {
                break;
            }
        }
        out
    }

    #[test]
    fn a_batch_arrives_whole_with_and_without_offload() {
        for offload in [
            UdpOffload::default(),
            UdpOffload {
                gso: false,
                gro: true,
            },
            UdpOffload {
                gso: false,
                gro: false,
            },
        ] {
            let a = UdpPort::bind("127.0.0.1:0".parse().unwrap(), offload).unwrap();
            let b = UdpPort::bind("127.0.0.1:0".parse().unwrap(), offload).unwrap();
            let bytes: Vec<u8> = (0..2500u32).map(|i| (i % 251) as u8).collect();
            a.try_send(&Transmit {
                to: b.local_addr().unwrap(),
                local_ip: None,
                ecn: None,
                segment_size: Some(1000),
                bytes: &bytes,
            })
            .unwrap();
            let received = receive_all(&b, 3);
            let lengths: Vec<usize> = received.iter().map(Vec::len).collect();
            assert_eq!(lengths, [1000, 1000, 500], "{offload:?}");
            assert_eq!(received.concat(), bytes);
        }
    }

    #[test]
    fn one_ipv6_socket_serves_ipv4_and_shows_plain_addresses() {
        let both = UdpPort::bind(any_address(0), UdpOffload::default()).unwrap();
        let port = both.local_addr().unwrap().port();
        let four = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
        four.try_send(&Transmit {
            to: SocketAddr::new("127.0.0.1".parse().unwrap(), port),
            local_ip: None,
            ecn: None,
            segment_size: None,
            bytes: b"hello",
        })
        .unwrap();
        let mut buffer = vec![0; RECV_BUFFER_BYTES];
        let mut meta = [RecvMeta::default()];
        for _ in 0..10_000 {
            if both
                .recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta)
                .is_ok()
            {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(meta[0].addr, four.local_addr().unwrap());
        assert_eq!(meta[0].dst_ip, Some("127.0.0.1".parse().unwrap()));
        both.try_send(&Transmit {
            to: meta[0].addr,
            local_ip: meta[0].dst_ip,
            ecn: None,
            segment_size: None,
            bytes: b"back",
        })
        .unwrap();
        assert_eq!(receive_all(&four, 1), [b"back".to_vec()]);
    }
}
