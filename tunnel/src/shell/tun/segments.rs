//! How many segments the kernel puts into one super-packet for the device: as many as leave in one send.
//!
//! Left alone it puts in a few more than that, and every super-packet costs two sends, two receives and two writes at the
//! far end. Asked for over rtnetlink, since nothing else offers it.

use std::io::{self, Read as _};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::shell::udp::{MAX_SEGMENTS, MAX_SEND_BYTES};
use crate::wireguard::{DATA_OVERHEAD_BYTES, padded_length};

/// What the kernel's headers call them.
const AF_NETLINK: i32 = 16;
const NETLINK_ROUTE: i32 = 0;
const RTM_SETLINK: u16 = 19;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_GSO_MAX_SEGS: u16 = 40;
const HEADER_BYTES: usize = 16;
const IFINFO_BYTES: usize = 16;
const PATIENCE: Duration = Duration::from_secs(1);

/// Most segments of full length that leave in one send.
pub(super) fn in_one_send(mtu: u16) -> usize {
    let mtu = usize::from(mtu);
    let sealed = padded_length(mtu, mtu) + DATA_OVERHEAD_BYTES;
    (MAX_SEND_BYTES / sealed).clamp(1, MAX_SEGMENTS)
}

/// Sets the most segments of one super-packet to the device.
pub(super) fn limit(device: &str, segments: usize) -> io::Result<()> {
    let socket = Socket::new(
        Domain::from(AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(NETLINK_ROUTE)),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let segments = u32::try_from(segments).unwrap_or(u32::MAX);
    socket.send(&request(device, segments))?;
    let mut answer = [0; 512];
    let length = (&socket).read(&mut answer)?;
    match error_of(answer.get(..length).unwrap_or_default()) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn request(device: &str, segments: u32) -> Vec<u8> {
    let mut name = device.as_bytes().to_vec();
    name.push(0);
    let mut body = vec![0; IFINFO_BYTES];
    attribute(&mut body, IFLA_IFNAME, &name);
    attribute(&mut body, IFLA_GSO_MAX_SEGS, &segments.to_ne_bytes());
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(RTM_SETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    // Sequence and port: one request on a socket of its own.
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The error number of an acknowledgement, negative, or zero.
fn error_of(answer: &[u8]) -> Option<i32> {
    let kind: [u8; 2] = answer.get(4..6)?.try_into().ok()?;
    let code: [u8; 4] = answer
        .get(HEADER_BYTES..HEADER_BYTES + 4)?
        .try_into()
        .ok()?;
    (u16::from_ne_bytes(kind) == NLMSG_ERROR).then(|| i32::from_ne_bytes(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_leaves_in_one_send() {
        for mtu in [576u16, 1280, 1420, 1500, 9000, 65_000] {
            let segments = in_one_send(mtu);
            let sealed = padded_length(mtu.into(), mtu.into()) + DATA_OVERHEAD_BYTES;
            assert!(segments * sealed <= MAX_SEND_BYTES, "{mtu}");
            assert!(segments <= MAX_SEGMENTS);
            let more = (segments + 1) * sealed > MAX_SEND_BYTES;
            assert!(more || segments == MAX_SEGMENTS, "{mtu}");
        }
        assert_eq!(in_one_send(1420), 45);
    }

    #[test]
    fn the_kernel_understands_the_question() {
        let error = limit("no-such-device", 45).unwrap_err();
        // ENODEV, or EPERM for whoever may not ask.
        assert!(matches!(error.raw_os_error(), Some(19 | 1)), "{error:?}");
    }

    #[test]
    fn only_an_acknowledgement_is_one() {
        let mut answer = vec![0u8; 36];
        assert_eq!(error_of(&answer), None);
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert_eq!(error_of(&answer), Some(0));
        answer[16..20].copy_from_slice(&(-19i32).to_ne_bytes());
        assert_eq!(error_of(&answer), Some(-19));
        assert_eq!(error_of(&answer[..19]), None);
        assert_eq!(error_of(&[]), None);
    }
}
