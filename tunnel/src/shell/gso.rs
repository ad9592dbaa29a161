//! One send of many datagrams of equal length (`UDP_SEGMENT`).

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use super::demux::Ecn;

/// What to send, in the address family of the socket.
pub(super) struct Segmented<'a> {
    pub(super) to: SocketAddr,
    pub(super) source: Option<IpAddr>,
    pub(super) ecn: Option<Ecn>,
    pub(super) segment: u16,
    pub(super) bytes: &'a [u8],
}

pub(super) fn send(socket: &UdpSocket, send: &Segmented<'_>) -> io::Result<()> {
    let (v4, v6);
    let source = match send.source {
        None => None,
        Some(IpAddr::V4(source)) => {
            v4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(source.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Some(IpAddr::V6(source)) => {
            v6 = libc::in6_pktinfo {
                ipi6_ifindex: 0,
                ipi6_addr: libc::in6_addr {
                    s6_addr: source.octets(),
                },
            };
            Some(ControlMessage::Ipv6PacketInfo(&v6))
        }
    };
    let bits = send.ecn.map(ecn_bits);
    let (tos, class) = (bits.unwrap_or(0), i32::from(bits.unwrap_or(0)));
    let v4 = matches!(send.to.ip().to_canonical(), IpAddr::V4(_));
    let ecn = bits.map(|_| {
        if v4 {
            ControlMessage::Ipv4Tos(&tos)
        } else {
            ControlMessage::Ipv6TClass(&class)
        }
    });
    let segment = ControlMessage::UdpGsoSegments(&send.segment);
    let parts = [IoSlice::new(send.bytes)];
    let to = SockaddrStorage::from(send.to);
    let control: &[ControlMessage<'_>] = match (source, ecn) {
        (None, None) => &[segment],
        (Some(source), None) => &[segment, source],
        (None, Some(ecn)) => &[segment, ecn],
        (Some(source), Some(ecn)) => &[segment, source, ecn],
    };
    loop {
        match sendmsg(
            socket.as_raw_fd(),
            &parts,
            control,
            MsgFlags::empty(),
            Some(&to),
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether the same datagrams one by one may do: no segmentation, or too long for the path.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    is_for_good(error) || error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// What a kernel answers whose device does not segment, unless the datagrams are too long.
pub(super) fn is_for_good(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP)
    )
}

/// Whether this kernel sends segments as they are.
pub(super) fn kernel_is_sound() -> bool {
    let name = rustix::system::uname();
    let sound = is_sound(&name.release().to_string_lossy());
    if !sound {
        tracing::warn!(release = ?name.release(), "this kernel corrupts segmented sends: udp segmentation offload stays off");
    }
    sound
}

/// Linux 7.0 to 7.1.4 corrupt a segmented send whose segments are all equal. What cannot be read counts as sound: a
/// kernel that refuses segments says so itself.
fn is_sound(release: &str) -> bool {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    let (major, minor, patch) = (next(), next(), next());
    match (major, minor) {
        (Some(7), Some(0)) => false,
        (Some(7), Some(1)) => patch.unwrap_or(0) > 4,
        _ => true,
    }
}

fn ecn_bits(ecn: Ecn) -> u8 {
    match ecn {
        Ecn::Ect1 => 1,
        Ecn::Ect0 => 2,
        Ecn::Ce => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_corrupt_segments_are_known() {
        for bad in [
            "7.0.0",
            "7.0",
            "7.0.12-arch1-1",
            "7.1-rc3",
            "7.1.0",
            "7.1.4-generic",
        ] {
            assert!(!is_sound(bad), "{bad}");
        }
        for good in [
            "6.18.0",
            "6.1.0-18-amd64",
            "7.1.5",
            "7.1.10",
            "7.2.0",
            "8.0.1",
            "",
            "x",
            "70.1.1",
        ] {
            assert!(is_sound(good), "{good}");
        }
    }

    #[test]
    fn only_what_single_datagrams_may_mend_is_tried_again() {
        for code in [libc::EIO, libc::EINVAL, libc::EOPNOTSUPP, libc::EMSGSIZE] {
            assert!(is_refusal(&io::Error::from_raw_os_error(code)));
        }
        for code in [libc::EAGAIN, libc::ENETUNREACH, libc::EPERM, libc::ENOBUFS] {
            assert!(!is_refusal(&io::Error::from_raw_os_error(code)));
        }
        assert!(!is_for_good(&io::Error::from_raw_os_error(libc::EMSGSIZE)));
    }
}
