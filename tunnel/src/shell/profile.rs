//! How much memory and how many threads the tunnel may take.

use std::fmt;

use super::demux::QUIC_INBOX_DATAGRAMS;
use super::offload::split::TAIL_BYTES;
use super::offload::{HEADER_BYTES, MAX_PACKET_BYTES};
use super::udp::RECV_BUFFER_BYTES;

/// Room for one frame of the device, in bytes.
pub(super) const FRAME_BYTES: usize = HEADER_BYTES + MAX_PACKET_BYTES + TAIL_BYTES;
/// Cores from which on each direction gets two threads.
const CORES_FOR_TWO: usize = 4;

/// What the buffers are sized for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Deep buffers: a server between fast networks.
    Throughput,
    #[default]
    Balanced,
    /// At most [`SMALL_BYTES`] of buffers in all, the kernel's included: a gateway with 128 MiB.
    Small,
}

/// Most bytes that the buffers of [`Profile::Small`] take with one thread per direction (2 MiB).
pub const SMALL_BYTES: usize = 2 << 20;

/// How the work is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// By the number of cores.
    #[default]
    Auto,
    /// One thread for both directions.
    Shared,
    /// One thread per direction while there is much to do both ways, and one for both else: a packet that is answered
    /// at once then wakes one thread, not two.
    One,
    /// Two threads per direction: reading and deciding, then sealing and sending; receiving and opening, then
    /// filtering and writing. The order of packets is kept.
    Two,
}

/// Sizes of one profile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Frames of the device read at once, in bytes.
    pub(super) arena_bytes: usize,
    /// Most frames in one batch.
    pub(super) frames: usize,
    /// Sealed bytes collected before they are sent.
    pub(super) out_bytes: usize,
    /// Coalesced batches of datagrams taken in one call.
    pub(super) recv_buffers: usize,
    /// Wanted size of each socket buffer, in bytes.
    pub(super) socket_bytes: usize,
    /// Batches between the two threads of a direction.
    pub(super) batches: usize,
    /// Packets that the device keeps while we are busy.
    pub(super) device_queue: u32,
}

/// Most coalesced batches that any profile takes in one call.
pub(super) const MAX_RECV_BUFFERS: usize = 8;

impl Profile {
    pub(super) fn sizes(self) -> Sizes {
        match self {
            Self::Throughput => Sizes {
                arena_bytes: 4 * FRAME_BYTES,
                frames: 256,
                out_bytes: 512 << 10,
                recv_buffers: MAX_RECV_BUFFERS,
                socket_bytes: 7 << 20,
                batches: 4,
                device_queue: 2000,
            },
            Self::Balanced => Sizes {
                arena_bytes: 2 * FRAME_BYTES,
                frames: 128,
                out_bytes: 256 << 10,
                recv_buffers: 4,
                socket_bytes: 4 << 20,
                batches: 3,
                device_queue: 1000,
            },
            Self::Small => Sizes {
                arena_bytes: FRAME_BYTES,
                frames: 32,
                out_bytes: 72 << 10,
                recv_buffers: 1,
                socket_bytes: 256 << 10,
                batches: 2,
                device_queue: 64,
            },
        }
    }

    /// Datagrams that may wait for QUIC: what [`super::demux::quic_inbox_of`] is to be given.
    pub fn quic_datagrams(self) -> usize {
        match self {
            Self::Throughput | Self::Balanced => QUIC_INBOX_DATAGRAMS,
            Self::Small => QUIC_INBOX_DATAGRAMS / 8,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Balanced => "balanced",
            Self::Small => "small",
        }
    }
}

impl Sizes {
    /// Room for the datagrams of one call.
    pub(super) fn recv_bytes(&self) -> usize {
        self.recv_buffers * RECV_BUFFER_BYTES
    }

    /// Room for the packets of one call. Each datagram is opened into the room after the packets before it, which are
    /// shorter than theirs.
    pub(super) fn opened_bytes(&self) -> usize {
        self.recv_bytes() + RECV_BUFFER_BYTES
    }
}

impl Threads {
    /// What `Auto` comes to on a machine of so many cores; everything else as it is. `small` takes no second
    /// set of buffers by itself.
    pub fn resolve(self, cores: usize, profile: Profile) -> Self {
        match (self, cores) {
            (Self::Auto, 0 | 1) => Self::Shared,
            (Self::Auto, cores) if cores >= CORES_FOR_TWO && profile != Profile::Small => Self::Two,
            (Self::Auto, _) => Self::One,
            (chosen, _) => chosen,
        }
    }

    /// Threads per direction; `None` for [`Self::Auto`].
    pub fn per_direction(self) -> Option<u8> {
        match self {
            Self::Auto => None,
            Self::Shared => Some(0),
            Self::One => Some(1),
            Self::Two => Some(2),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::demux::MAX_QUIC_DATAGRAM_BYTES;
    use crate::shell::egress::{Departures, Sender};
    use crate::shell::udp::{UdpOffload, UdpPort, any_address};

    /// All that is allocated for one thread per direction, and what the kernel keeps for the port.
    fn buffer_bytes(profile: Profile) -> usize {
        let sizes = profile.sizes();
        let port = UdpPort::bind_sized(any_address(0), UdpOffload::default(), profile).unwrap();
        let (receive, send) = port.buffer_bytes().unwrap();
        let out = Departures::new(&sizes).allocated_bytes() + Sender::allocated_bytes(&sizes);
        let into = vec![0u8; sizes.recv_bytes()].capacity() + sizes.opened_bytes();
        let quic = profile.quic_datagrams() * MAX_QUIC_DATAGRAM_BYTES;
        receive + send + out + into + quic
    }

    #[test]
    fn small_stays_within_two_mebibytes_and_is_the_smallest() {
        let [throughput, balanced, small] =
            [Profile::Throughput, Profile::Balanced, Profile::Small].map(buffer_bytes);
        assert!(small <= SMALL_BYTES, "{small} bytes");
        // Without CAP_NET_ADMIN the kernel may hold the sockets of all three at its own limit.
        assert!(
            small < balanced && balanced < throughput,
            "{balanced} and {throughput}"
        );
    }

    #[test]
    fn auto_never_takes_more_threads_than_cores() {
        for cores in 0..64 {
            for profile in [Profile::Throughput, Profile::Balanced, Profile::Small] {
                let per_direction = Threads::Auto.resolve(cores, profile).per_direction();
                let threads = usize::from(per_direction.unwrap()) * 2;
                assert!(threads.max(1) <= cores.max(1), "{cores} cores");
            }
        }
        assert_eq!(Threads::Auto.resolve(2, Profile::Balanced), Threads::One);
        assert_eq!(Threads::Auto.resolve(4, Profile::Balanced), Threads::Two);
        assert_eq!(Threads::Auto.resolve(64, Profile::Small), Threads::One);
    }

    #[test]
    fn what_was_chosen_stays() {
        for chosen in [Threads::Shared, Threads::One, Threads::Two] {
            assert_eq!(chosen.resolve(1, Profile::Small), chosen);
        }
    }

    #[test]
    fn every_profile_holds_the_largest_frame_and_what_is_sealed_of_it() {
        for profile in [Profile::Throughput, Profile::Balanced, Profile::Small] {
            let sizes = profile.sizes();
            assert!(sizes.arena_bytes >= FRAME_BYTES, "{profile}");
            assert!(sizes.recv_buffers >= 1 && sizes.recv_buffers <= MAX_RECV_BUFFERS);
            assert!(sizes.batches >= 2);
            // One whole packet of the greatest size, or a message would never fit.
            assert!(sizes.out_bytes >= MAX_PACKET_BYTES + 1024, "{profile}");
        }
    }
}
