//! The TUN device: created, addressed and brought up here; frames in and out, with segmentation offload where
//! the kernel has it.

mod segments;

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::inherit::DeviceFacts;
use super::offload::coalesce::Joins;
use super::offload::{Gso, HEADER_BYTES};
use super::profile::Profile;

/// Largest MTU, in bytes, whose packets fit into one frame with their headers.
pub const MAX_MTU: u16 = 65_000;

/// The device to make, in the network namespace of the process.
#[derive(Clone, Debug)]
pub struct TunConfig {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// In bytes: 1420 lets WireGuard over IPv6 fit into 1500.
    pub mtu: u16,
    pub ipv4: Option<(Ipv4Addr, u8)>,
    pub ipv6: Vec<(Ipv6Addr, u8)>,
    /// Segmentation offload, both ways. Probed; falls back to plain packets.
    pub offload: bool,
}

/// A TUN device, non-blocking.
pub struct TunDevice {
    /// Ours alone, or with a process that gives it to us: frames are read and written in either case.
    device: File,
    name: String,
    mtu: u16,
    offload: bool,
    udp_offload: bool,
    /// Kinds of joined packets that it refused, once for each.
    refused: [AtomicBool; 3],
}

impl TunDevice {
    /// Makes the device; `profile` says how many packets it keeps while we are busy (the kernel's default of 500 drops
    /// bursts).
    pub fn create(config: &TunConfig, profile: Profile) -> io::Result<Self> {
        if config.mtu > MAX_MTU {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "mtu is too large",
            ));
        }
        let device = match build(config, config.offload, profile) {
            Err(error) if config.offload => {
                tracing::warn!(%error, "tun device without offload");
                build(config, false, profile)?
            }
            result => result?,
        };
        device.set_nonblocking(true)?;
        let offload = device.tcp_gso();
        let name = device.name()?;
        if offload {
            // Without it everything works, and costs more.
            if let Err(error) = segments::limit(&name, segments::in_one_send(config.mtu)) {
                tracing::debug!(%error, "the kernel chooses how many segments come at once");
            }
        }
        Ok(Self {
            name,
            mtu: config.mtu,
            offload,
            udp_offload: offload && device.udp_gso(),
            refused: Default::default(),
            device: File::from(device.as_fd().try_clone_to_owned()?),
        })
    }

    /// Goes on with a device that another process has made.
    pub(super) fn adopt(
        config: &TunConfig,
        device: OwnedFd,
        facts: DeviceFacts,
    ) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&device, FcntlArg::F_GETFL)?);
        fcntl(&device, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self {
            name: config.name.clone(),
            mtu: config.mtu,
            offload: facts.offload,
            udp_offload: facts.offload && facts.udp_offload,
            refused: Default::default(),
            device: File::from(device),
        })
    }

    pub(super) fn facts(&self) -> DeviceFacts {
        DeviceFacts {
            offload: self.offload,
            udp_offload: self.udp_offload,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether frames start with a [`super::offload::VnetHeader`] and may hold segmented TCP.
    pub fn has_offload(&self) -> bool {
        self.offload
    }

    /// Whether frames may hold segmented UDP too (Linux 6.2).
    pub fn has_udp_offload(&self) -> bool {
        self.udp_offload
    }

    /// What it takes joined, as far as it has shown.
    pub fn joins(&self) -> Joins {
        let [tcp4, tcp6, udp] = &self.refused;
        let takes = |refused: &AtomicBool| self.offload && !refused.load(Ordering::Relaxed);
        Joins {
            tcp4: takes(tcp4),
            tcp6: takes(tcp6),
            udp: self.udp_offload && takes(udp),
        }
    }

    /// It refused a joined packet: none of that kind any more.
    pub(super) fn refuse_joined(&self, kind: Gso) {
        let [tcp4, tcp6, udp] = &self.refused;
        let refused = match kind {
            Gso::Tcp4 => tcp4,
            Gso::Tcp6 => tcp6,
            Gso::Udp => udp,
            Gso::None => return,
        };
        refused.store(true, Ordering::Relaxed);
    }

    /// Reads one frame.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.device).read(buffer)
    }

    /// Writes one packet that is not joined.
    pub(super) fn write_packet(&self, packet: &[u8]) -> io::Result<()> {
        let packet = IoSlice::new(packet);
        if self.offload {
            self.write(&[IoSlice::new(&[0; HEADER_BYTES]), packet])?;
        } else {
            self.write(&[packet])?;
        }
        Ok(())
    }

    /// Writes one frame, given in parts.
    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.device).write_vectored(parts)
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn build(config: &TunConfig, offload: bool, profile: Profile) -> io::Result<SyncDevice> {
    let mut builder = DeviceBuilder::new()
        .name(config.name.as_str())
        .mtu(config.mtu)
        .with(|options| {
            options
                .offload(offload)
                .tx_queue_len(profile.sizes().device_queue);
        });
    if let Some((address, length)) = config.ipv4 {
        builder = builder.ipv4(address, length, None);
    }
    for (address, length) in &config.ipv6 {
        builder = builder.ipv6(*address, *length);
    }
    builder.build_sync()
}
