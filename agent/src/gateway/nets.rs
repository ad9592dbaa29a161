//! Which kernel interfaces stand behind the networks that policy names, and which addresses they have.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use edgeward_policy::slice::MESH;
use nix::ifaddrs::getifaddrs;

use crate::enforce::Nets;
use crate::view::Overlay;

/// Most addresses of one kernel interface that are listened at.
pub(super) const MAX_ADDRESSES: usize = 16;

/// Networks by the names that policy has for them.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// The TUN device.
    pub(super) mesh: String,
    pub(super) others: Nets,
}

/// Why there is nowhere to listen. The operator's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAddress {
    #[error("no kernel interface is configured for the network: {0}")]
    NotConfigured(String),
    #[error("the kernel interface has no address: {0}")]
    None(String),
    #[error("addresses cannot be read: {0}")]
    Unreadable(String),
}

impl Kernel {
    /// The kernel interface behind a network.
    pub(super) fn device(&self, net: &str) -> Option<String> {
        match net {
            MESH => Some(self.mesh.clone()),
            other => self.others.device(other).map(|device| device.to_string()),
        }
    }

    /// Where to listen for a network: on the tunnel at this node's own addresses, whatever else the device has.
    pub(super) fn addresses(
        &self,
        net: &str,
        overlay: &Overlay,
    ) -> Result<BTreeSet<IpAddrWithScope>, NoAddress> {
        if net == MESH {
            let v4 = overlay.v4.map(IpAddr::from);
            let all = std::iter::once(overlay.v6.into()).chain(v4);
            return Ok(all.map(|ip| IpAddrWithScope { ip, scope: 0 }).collect());
        }
        let device = self
            .device(net)
            .ok_or_else(|| NoAddress::NotConfigured(net.to_owned()))?;
        let found = of_device(&device).map_err(|error| NoAddress::Unreadable(error.to_string()))?;
        match found.is_empty() {
            true => Err(NoAddress::None(device)),
            false => Ok(found),
        }
    }
}

/// An address, and for a link-local one the number of its kernel interface (RFC 4007 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct IpAddrWithScope {
    pub(super) ip: IpAddr,
    pub(super) scope: u32,
}

impl IpAddrWithScope {
    pub(super) fn at(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(v4) => SocketAddr::from((v4, port)),
            IpAddr::V6(v6) => std::net::SocketAddrV6::new(v6, port, 0, self.scope).into(),
        }
    }
}

fn of_device(device: &str) -> nix::Result<BTreeSet<IpAddrWithScope>> {
    let all = getifaddrs()?.filter(|entry| entry.interface_name == device);
    let addresses = all.filter_map(|entry| entry.address).filter_map(|address| {
        if let Some(v4) = address.as_sockaddr_in() {
            return Some(IpAddrWithScope {
                ip: v4.ip().into(),
                scope: 0,
            });
        }
        let v6 = address.as_sockaddr_in6()?;
        Some(IpAddrWithScope {
            ip: v6.ip().into(),
            scope: v6.scope_id(),
        })
    });
    Ok(addresses.take(MAX_ADDRESSES).collect())
}
