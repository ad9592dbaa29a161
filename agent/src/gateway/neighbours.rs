//! The MAC address behind an IP address, by the kernel's neighbour table (rtnetlink, RTM_GETNEIGH).

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use edgeward_policy::Mac;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// `RTM_NEWNEIGH`, `RTM_GETNEIGH` (linux/rtnetlink.h).
const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;
/// `NLMSG_ERROR`, `NLMSG_DONE` (linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 0x301;
/// `NDA_DST`, `NDA_LLADDR` (linux/neighbour.h).
const ATTRIBUTE_IP: u16 = 1;
const ATTRIBUTE_MAC: u16 = 2;
/// Bytes of `nlmsghdr`, `ndmsg` and `rtattr`.
const HEADER: usize = 16;
const BODY: usize = 12;
const ATTRIBUTE: usize = 4;
/// Most bytes and messages of the table that are read.
const MAX_CHUNK: usize = 64 * 1024;
const MAX_CHUNKS: usize = 256;
/// The kernel answers at once.
const ANSWER_SECONDS: i64 = 1;

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Number of the kernel interface.
    pub device: i32,
    pub ip: IpAddr,
    pub mac: Mac,
}

/// Looks an address up. Blocks for as long as the kernel needs to list its table.
pub(super) fn mac_of(device: &str, ip: IpAddr) -> io::Result<Option<Mac>> {
    let index = nix::net::if_::if_nametoindex(device)?;
    let ip = ip.to_canonical();
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    setsockopt(
        &netlink,
        sockopt::ReceiveTimeout,
        &TimeVal::new(ANSWER_SECONDS, 0),
    )?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(
        netlink.as_raw_fd(),
        &request(index),
        &kernel,
        MsgFlags::empty(),
    )?;
    let mut chunk = vec![0; MAX_CHUNK];
    for _ in 0..MAX_CHUNKS {
        let length = recv(netlink.as_raw_fd(), &mut chunk, MsgFlags::empty())?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let (found, more) = read(bytes);
        let wanted = found
            .into_iter()
            .find(|entry| u32::try_from(entry.device) == Ok(index) && entry.ip == ip);
        if let Some(entry) = wanted {
            return Ok(Some(entry.mac));
        }
        if !more {
            break;
        }
    }
    Ok(None)
}

/// Asks for all entries of one kernel interface.
fn request(index: u32) -> Vec<u8> {
    let length = HEADER + BODY;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend(GET_NEIGHBOUR.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    // ndmsg: family (any), padding, interface, state, flags, type.
    bytes.extend([0; 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// Entries in one chunk of an answer, and whether more may come.
pub fn read(mut bytes: &[u8]) -> (Vec<Neighbour>, bool) {
    let mut found = Vec::new();
    while let Some(length) = u32_at(bytes, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(message) = bytes.get(..length).filter(|_| length >= HEADER) else {
            return (found, false);
        };
        match u16_at(message, 4) {
            Some(NEW_NEIGHBOUR) => found.extend(neighbour(message)),
            Some(ERROR | DONE) | None => return (found, false),
            Some(_) => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    (found, true)
}

fn neighbour(message: &[u8]) -> Option<Neighbour> {
    let device = i32::from_ne_bytes(message.get(HEADER + 4..HEADER + 8)?.try_into().ok()?);
    let (mut ip, mut mac) = (None, None);
    let mut attributes = message.get(HEADER + BODY..)?;
    while let Some(length) = u16_at(attributes, 0).map(usize::from) {
        let value = attributes.get(ATTRIBUTE..length)?;
        match u16_at(attributes, 2)? {
            ATTRIBUTE_IP => ip = address(value),
            ATTRIBUTE_MAC => mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            _ => {}
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    Some(Neighbour {
        device,
        ip: ip?,
        mac: mac?,
    })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(value).ok().map(IpAddr::from))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(device: i32, ip: &[u8], mac: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(device.to_ne_bytes());
        body.extend([0; 4]);
        for (kind, value) in [(ATTRIBUTE_IP, ip), (ATTRIBUTE_MAC, mac)] {
            body.extend(
                u16::try_from(ATTRIBUTE + value.len())
                    .unwrap()
                    .to_ne_bytes(),
            );
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(aligned(body.len()), 0);
        }
        let mut message = u32::try_from(HEADER + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        message.extend(NEW_NEIGHBOUR.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn entries_are_read_and_what_has_no_mac_is_left_out() {
        let mut bytes = entry(3, &[192, 0, 2, 1], &[2, 0, 0, 0, 0, 1]);
        bytes.extend(entry(3, &[192, 0, 2, 2], &[]));
        bytes.extend(entry(4, &[0; 16], &[2, 0, 0, 0, 0, 2]));
        let (found, more) = read(&bytes);
        assert!(more);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].device, 3);
        assert_eq!(found[0].ip, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(found[0].mac.to_string(), "02:00:00:00:00:01");
        assert_eq!(found[1].ip, IpAddr::from([0_u8; 16]));
    }

    #[test]
    fn cut_and_lying_messages_give_nothing_and_end() {
        let whole = entry(3, &[192, 0, 2, 1], &[2, 0, 0, 0, 0, 1]);
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).0.is_empty(), "{cut}");
        }
        for lie in [0_u32, 1, 15, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[..4].copy_from_slice(&lie.to_ne_bytes());
            assert!(read(&bytes).0.is_empty(), "{lie}");
        }
    }

    #[test]
    fn the_kernel_knows_no_neighbour_on_loopback() {
        assert_eq!(mac_of("lo", IpAddr::from([127, 0, 0, 1])).unwrap(), None);
        assert!(mac_of("no-such-device", IpAddr::from([127, 0, 0, 1])).is_err());
    }
}
