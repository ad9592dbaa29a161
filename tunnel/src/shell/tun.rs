//! The TUN device: created, addressed and brought up here; frames in and out, with segmentation offload where
//! the kernel has it.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use tun_rs::{DeviceBuilder, SyncDevice};

/// Packets that the device keeps while we are busy; the kernel's default of 500 drops bursts.
pub const TX_QUEUE_PACKETS: u32 = 1000;
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
    device: SyncDevice,
    name: String,
    mtu: u16,
    offload: bool,
    udp_offload: bool,
}

impl TunDevice {
    pub fn create(config: &TunConfig) -> io::Result<Self> {
        if config.mtu > MAX_MTU {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "mtu is too large",
            ));
        }
        let device = match build(config, config.offload) {
            Err(error) if config.offload => {
                tracing::warn!(%error, "tun device without offload");
                build(config, false)?
            }
            result => result?,
        };
        device.set_nonblocking(true)?;
        let offload = device.tcp_gso();
        Ok(Self {
            name: device.name()?,
            mtu: config.mtu,
            offload,
            udp_offload: offload && device.udp_gso(),
            device,
        })
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

    /// Reads one frame.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.recv(buffer)
    }

    /// Writes one frame, given in parts.
    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.device.send_vectored(parts)
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn build(config: &TunConfig, offload: bool) -> io::Result<SyncDevice> {
    let mut builder = DeviceBuilder::new()
        .name(config.name.as_str())
        .mtu(config.mtu)
        .with(|options| {
            options.offload(offload).tx_queue_len(TX_QUEUE_PACKETS);
        });
    if let Some((address, length)) = config.ipv4 {
        builder = builder.ipv4(address, length, None);
    }
    for (address, length) in &config.ipv6 {
        builder = builder.ipv6(*address, *length);
    }
    builder.build_sync()
}
