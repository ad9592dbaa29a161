//! The UDP port: segmentation offload out (`UDP_SEGMENT`), coalescing in (`UDP_GRO`), large buffers.
//!
//! Each offload has a switch and a fallback. A segmented send is refused for two reasons: the kernel or the device cannot
//! (`EIO`, `EINVAL`): batches go out datagram by datagram from then on, to everybody; or the datagrams are too long for
//! the path to this one peer: only this batch does, and the caller is told the path's MTU. The kernel fragments a single
//! datagram that is too long, and otherwise forbids routers to.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::demux::{Ecn, Transmit};
use super::detour::Detours;
use super::gso;
use super::profile::Profile;
use crate::node::outer_headers;
use crate::reach::is_detour;
use crate::reach::message::RELAYED_HEADER_BYTES;

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

/// How a batch left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// As far as we know, every datagram in one piece.
    Whole,
    /// Fragmented by the kernel: the path to this destination takes IP packets of `mtu` bytes.
    TooLong { mtu: u16 },
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
    /// Of what is sent; zero: none.
    mark: AtomicU32,
    detours: Detours,
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
    /// Binds `local`, with the buffers of [`Profile::Balanced`]. The unspecified IPv6 address also serves IPv4.
    pub fn bind(local: SocketAddr, offload: UdpOffload) -> io::Result<Self> {
        Self::bind_sized(local, offload, Profile::default())
    }

    /// Binds `local`.
    pub fn bind_sized(
        local: SocketAddr,
        offload: UdpOffload,
        profile: Profile,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(local);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if let SocketAddr::V6(v6) = local {
            socket.set_only_v6(!v6.ip().is_unspecified())?;
        }
        size_buffers(&socket, profile.sizes().socket_bytes);
        socket.bind(&local.into())?;
        Self::of(UdpSocket::from(socket), local.is_ipv6(), offload)
    }

    /// Goes on with a socket that another process has bound.
    pub fn adopt(socket: OwnedFd, offload: UdpOffload) -> io::Result<Self> {
        let socket = UdpSocket::from(socket);
        let ipv6 = socket.local_addr()?.is_ipv6();
        Self::of(socket, ipv6, offload)
    }

    fn of(socket: UdpSocket, ipv6: bool, offload: UdpOffload) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        adjust(&socket, ipv6);
        if !offload.gro {
            // The only coalescing switch of a socket; refusing it means that there is none to switch off.
            let _unsupported = setsockopt(&socket, sockopt::UdpGroSegment, &false);
        }
        let gso = offload.gso && state.max_gso_segments() > 1 && gso::kernel_is_sound();
        Ok(Self {
            socket,
            state,
            ipv6,
            gso: AtomicBool::new(gso),
            send_failures: AtomicU64::new(0),
            mark: AtomicU32::new(0),
            detours: Detours::default(),
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What is sent bears this mark from now on, for the kernel's rules of routing.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        setsockopt(&self.socket, sockopt::Mark, &mark)?;
        self.mark.store(mark, Ordering::Relaxed);
        Ok(())
    }

    fn mark(&self) -> u32 {
        self.mark.load(Ordering::Relaxed)
    }

    /// What lies behind addresses that no network has.
    pub fn detours(&self) -> &Detours {
        &self.detours
    }

    /// Whether a datagram of `bytes` leaves in pieces, as far as the kernel knows the path.
    pub fn is_too_long(&self, to: SocketAddr, bytes: usize) -> bool {
        let (to, more) = match self.detours.relay_of(to) {
            Some(relay) => (relay, RELAYED_HEADER_BYTES),
            None => (to, 0),
        };
        !is_detour(&to) && too_long(to, bytes + more, self.mark()).is_some()
    }

    /// How many segments one send may hold now.
    pub fn max_segments(&self) -> usize {
        if self.gso.load(Ordering::Relaxed) {
            MAX_SEGMENTS
        } else {
            1
        }
    }

    /// Datagrams that the kernel refused for other reasons than a full buffer.
    pub fn send_failures(&self) -> u64 {
        self.send_failures.load(Ordering::Relaxed)
    }

    /// What the kernel gave, in bytes: to receive, and to send. It counts its own overhead in, and says twice what was asked.
    pub fn buffer_bytes(&self) -> io::Result<(usize, usize)> {
        let socket = SockRef::from(&self.socket);
        Ok((socket.recv_buffer_size()?, socket.send_buffer_size()?))
    }

    /// Sends without blocking; falls back to single datagrams when segmentation is refused.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.send(transmit, true).map(|_| ())
    }

    /// As [`Self::try_send`]; `together` is whether segmentation is worth trying.
    pub fn send(&self, transmit: &Transmit<'_>, together: bool) -> io::Result<Sent> {
        if is_detour(&transmit.to) {
            return self.detours.send(self, transmit).map(|()| Sent::Whole);
        }
        let segment = transmit.segment_size.unwrap_or(transmit.bytes.len()).max(1);
        let mut sent = Sent::Whole;
        let mut refused = None;
        if transmit.bytes.len() > segment && together && self.max_segments() > 1 {
            match self.send_segmented(transmit, segment) {
                Ok(()) => return Ok(Sent::Whole),
                Err(error) if !gso::is_refusal(&error) => return Err(self.counted(error)),
                Err(error) => match too_long(transmit.to, segment, self.mark()) {
                    Some(mtu) => sent = Sent::TooLong { mtu },
                    None if gso::is_for_good(&error) => refused = Some(error),
                    None => {}
                },
            }
        }
        for datagram in transmit.bytes.chunks(segment) {
            self.send_one(transmit, datagram)?;
            // The same error comes where there is no way at all, or from an address that is not ours any more: then it
            // was not for the segments.
            if let Some(error) = refused.take() {
                tracing::warn!(%error, "udp segmentation offload refused: sending single datagrams from now on");
                self.gso.store(false, Ordering::Relaxed);
            }
        }
        Ok(sent)
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

    fn send_segmented(&self, transmit: &Transmit<'_>, segment: usize) -> io::Result<()> {
        let segment = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
        let send = gso::Segmented {
            to: self.mapped(transmit.to),
            source: transmit.local_ip.map(|ip| self.mapped_ip(ip)),
            ecn: transmit.ecn,
            segment,
            bytes: transmit.bytes,
        };
        gso::send(&self.socket, &send)
    }

    fn send_one(&self, transmit: &Transmit<'_>, bytes: &[u8]) -> io::Result<()> {
        let out = quinn_udp::Transmit {
            destination: self.mapped(transmit.to),
            ecn: transmit.ecn.map(EcnCodepoint::from),
            contents: bytes,
            segment_size: None,
            src_ip: transmit.local_ip.map(|ip| self.mapped_ip(ip)),
        };
        self.state
            .try_send((&self.socket).into(), &out)
            .map_err(|error| self.counted(error))
    }

    fn counted(&self, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::WouldBlock {
            self.send_failures.fetch_add(1, Ordering::Relaxed);
        }
        error
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
fn size_buffers(socket: &Socket, bytes: usize) {
    let forced = setsockopt(socket, sockopt::RcvBufForce, &bytes)
        .and_then(|()| setsockopt(socket, sockopt::SndBufForce, &bytes));
    if forced.is_err() {
        let socket = SockRef::from(socket);
        let plain = socket
            .set_recv_buffer_size(bytes)
            .and_then(|()| socket.set_send_buffer_size(bytes));
        if let Err(error) = plain {
            tracing::warn!(%error, "udp socket keeps its default buffers");
        }
    }
}

/// What QUIC's view of a socket gets wrong for us: a datagram that is too long must leave in pieces rather than not at
/// all, and nobody reads the time at which one came. A kernel that knows none of this does as we want already.
fn adjust(socket: &UdpSocket, ipv6: bool) {
    let _unknown = rustix::net::sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT);
    if ipv6 {
        let _unknown =
            rustix::net::sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT);
        let _unknown = setsockopt(socket, sockopt::Ipv6DontFrag, &false);
    }
    let _unknown = setsockopt(socket, sockopt::ReceiveTimestampns, &false);
}

/// The path's MTU towards `to` as the kernel knows it, if datagrams of `bytes` do not fit.
fn too_long(to: SocketAddr, bytes: usize, mark: u32) -> Option<u16> {
    let mtu = route_mtu(to, mark)?;
    let headers = usize::from(outer_headers(to));
    (bytes + headers > mtu).then(|| u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Asked on a socket of its own: only a connected one is told.
fn route_mtu(to: SocketAddr, mark: u32) -> Option<usize> {
    let to = canonical(to);
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => any_address(0),
    };
    let socket = UdpSocket::bind(any).ok()?;
    if mark != 0 {
        setsockopt(&socket, sockopt::Mark, &mark).ok()?;
    }
    socket.connect(to).ok()?;
    let mtu = match to {
        SocketAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket),
        SocketAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket),
    };
    usize::try_from(mtu.ok()?).ok()
}

/// Waits for so many datagrams, in order.
#[cfg(test)]
pub(super) fn receive_all(port: &UdpPort, wanted: usize) -> Vec<Vec<u8>> {
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

#[cfg(test)]
mod tests;
