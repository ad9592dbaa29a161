//! How large a datagram the path to a peer takes, as far as anybody has told.
//!
//! Without locks, since every batch asks. Knowledge ages: a path may have become wider, and being wrong upwards costs
//! one refused send.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use edgeward_identity::BootTime;

use super::{Node, PeerHandle, PeerId};
use crate::wireguard::DATA_OVERHEAD_BYTES;

/// How long a path's MTU is believed (RFC 1191 6.3).
pub const PATH_MTU_AGE: Duration = Duration::from_secs(600);
/// Shortest limit believed, in bytes of UDP payload: less would let a forged ICMP error starve a peer.
pub const MIN_DATAGRAM_BYTES: u16 = 512;

const UDP_HEADER_BYTES: u16 = 8;
const IPV4_HEADER_BYTES: u16 = 20;
const IPV6_HEADER_BYTES: u16 = 40;

/// What one peer's path takes.
#[derive(Debug, Default)]
pub(super) struct PathMtu {
    /// Longest UDP payload, in bytes; 0 if nothing is known.
    datagram: AtomicU16,
    /// In nanoseconds since boot.
    until: AtomicU64,
}

/// IP and UDP headers towards `to`, in bytes.
pub fn outer_headers(to: SocketAddr) -> u16 {
    match to.ip().to_canonical() {
        std::net::IpAddr::V4(_) => IPV4_HEADER_BYTES + UDP_HEADER_BYTES,
        std::net::IpAddr::V6(_) => IPV6_HEADER_BYTES + UDP_HEADER_BYTES,
    }
}

impl PathMtu {
    fn learn(&self, mtu: u16, to: SocketAddr, now: BootTime) {
        self.set(mtu.saturating_sub(outer_headers(to)), now);
    }

    fn set(&self, datagram: u16, now: BootTime) {
        let datagram = datagram.max(MIN_DATAGRAM_BYTES);
        let until = now.plus(PATH_MTU_AGE).as_duration().as_nanos();
        self.until
            .store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.datagram.store(datagram, Ordering::Relaxed);
    }

    /// The path is another one, or nobody knows.
    pub(super) fn forget(&self) {
        self.datagram.store(0, Ordering::Relaxed);
    }

    fn largest_datagram(&self, now: BootTime) -> usize {
        let datagram = self.datagram.load(Ordering::Relaxed);
        let until = u128::from(self.until.load(Ordering::Relaxed));
        if datagram == 0 || now.as_duration().as_nanos() >= until {
            usize::MAX
        } else {
            datagram.into()
        }
    }
}

impl PeerHandle {
    /// The path to this peer at `to` takes IP packets of at most `mtu` bytes, headers included.
    pub fn learn_path_mtu(&self, mtu: u16, to: SocketAddr, now: BootTime) {
        self.0.path_mtu.learn(mtu, to, now);
    }

    /// Longest datagram that the path takes, in bytes of UDP payload; `usize::MAX` if nothing is known.
    pub fn largest_datagram(&self, now: BootTime) -> usize {
        self.0.path_mtu.largest_datagram(now)
    }

    /// Longest packet of the tunnel that the path takes, in bytes; `usize::MAX` if nothing is known.
    pub fn largest_packet(&self, now: BootTime) -> usize {
        match self.largest_datagram(now) {
            usize::MAX => usize::MAX,
            datagram => datagram.saturating_sub(DATA_OVERHEAD_BYTES),
        }
    }
}

impl Node {
    /// What was found out about a peer's path: the longest UDP payload that gets through, in bytes, or `None` to forget
    /// what was known. `false` if the peer is not armed.
    pub fn set_largest_datagram(&self, peer: PeerId, bytes: Option<u16>, now: BootTime) -> bool {
        let Some(peer) = self.peer(peer) else {
            return false;
        };
        match bytes {
            Some(bytes) => peer.path_mtu.set(bytes, now),
            None => peer.path_mtu.forget(),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn nothing_known_limits_nothing() {
        let path = PathMtu::default();
        assert_eq!(path.largest_datagram(at(0)), usize::MAX);
        path.learn(1400, "192.0.2.1:1".parse().unwrap(), at(0));
        path.forget();
        assert_eq!(path.largest_datagram(at(0)), usize::MAX);
    }

    #[test]
    fn headers_of_the_outer_family_are_taken_off() {
        let path = PathMtu::default();
        for (to, expected) in [
            ("192.0.2.1:1", 1400 - 28),
            ("[::ffff:192.0.2.1]:1", 1400 - 28),
            ("[2001:db8::1]:1", 1400 - 48),
        ] {
            path.learn(1400, to.parse().unwrap(), at(5));
            assert_eq!(path.largest_datagram(at(5)), expected, "{to}");
        }
    }

    #[test]
    fn a_forged_tiny_mtu_is_not_believed() {
        let path = PathMtu::default();
        path.learn(68, "192.0.2.1:1".parse().unwrap(), at(0));
        assert_eq!(
            path.largest_datagram(at(0)),
            usize::from(MIN_DATAGRAM_BYTES)
        );
    }

    #[test]
    fn knowledge_ages() {
        let path = PathMtu::default();
        path.learn(1400, "192.0.2.1:1".parse().unwrap(), at(100));
        assert_ne!(path.largest_datagram(at(699)), usize::MAX);
        assert_eq!(path.largest_datagram(at(700)), usize::MAX);
    }
}
