//! Device and port on their way to another process of this machine: the kernel keeps what arrives meanwhile.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use edgeward_identity::Clock;

use super::demux::DatagramSink;
use super::tun::TunDevice;
use super::udp::UdpPort;
use super::{ShellConfig, StartError, Tunnel};
use crate::filter::Filter;
use crate::node::Node;

/// What a tunnel stands on. The device goes when nobody holds it any more.
#[derive(Debug)]
pub struct Inherited {
    pub device: OwnedFd,
    pub port: OwnedFd,
    pub facts: DeviceFacts,
}

/// What cannot be asked of a device that somebody else opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Frames have a header, and may be segmented TCP.
    pub offload: bool,
    /// They may be segmented UDP, too.
    pub udp_offload: bool,
}

impl Tunnel {
    /// Ends the threads, and gives away what they stood on. Take the peers out afterwards
    /// ([`Node::export`](crate::node::Node::export)): nothing is sealed or opened any more. Nothing is lost but what no
    /// longer fits into the kernel's queues, if the other process arms them before it starts.
    pub fn give_away(&self) -> io::Result<Inherited> {
        self.stop();
        Ok(Inherited {
            device: self.shared.device.as_fd().try_clone_to_owned()?,
            port: self.shared.port.as_fd().try_clone_to_owned()?,
            facts: self.shared.device.facts(),
        })
    }

    /// As [`Self::start`], on a device and a port that another process has opened. Neither name, addresses nor MTU are
    /// set: they are what they were, and `config` must say the same.
    pub fn start_on(
        config: &ShellConfig,
        inherited: Inherited,
        node: Arc<Node>,
        filter: Arc<Filter>,
        quic: DatagramSink,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let port = UdpPort::adopt(inherited.port, config.udp).map_err(|source| {
            let address = config.listen;
            StartError::Udp { address, source }
        })?;
        let device = TunDevice::adopt(&config.tun, inherited.device, inherited.facts);
        let device = device.map_err(|source| StartError::Tun {
            name: config.tun.name.clone(),
            source,
        })?;
        Self::begin(config, device, port, node, filter, quic, clock)
    }
}
