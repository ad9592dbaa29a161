//! This machine's addresses, and word of their changes (rtnetlink).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

/// Most addresses that are looked at.
const MAX_ADDRESSES: usize = 64;
/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE`
/// (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Changes come in bursts: the last of one counts.
const SETTLE: Duration = Duration::from_millis(300);
/// What is read and thrown away at once, in bytes, and how often in a row.
const CHUNK_BYTES: usize = 16 * 1024;
const MAX_CHUNKS: usize = 64;

/// What the machine's network looks like from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Sorted; without those of loopback and of the tunnel's own device.
    pub addresses: Vec<IpAddr>,
    /// The one with which the cloud is reached.
    pub towards_cloud: Option<IpAddr>,
}

impl Local {
    /// As of now. Sends nothing.
    pub fn look(tunnel: &str, cloud: Option<SocketAddr>) -> io::Result<Self> {
        let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let mut addresses: Vec<IpAddr> = getifaddrs()?
            .filter(|entry| entry.interface_name != tunnel && entry.flags.contains(up))
            .filter(|entry| !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK))
            .filter_map(|entry| {
                let address = entry.address?;
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            })
            .take(MAX_ADDRESSES)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let towards_cloud = cloud.and_then(source_towards);
        Ok(Self {
            towards_cloud: towards_cloud.filter(|ip| addresses.contains(ip)),
            addresses,
        })
    }
}

/// Hears of changes. Dropping it stops that.
pub struct Watch {
    netlink: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Needs no rights.
    pub fn open() -> io::Result<Self> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self {
            netlink: AsyncFd::register(netlink)?,
        })
    }

    /// Returns once something may have changed, and has settled. Safe to drop and call again.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.netlink.readable().await?;
        ready.clear_ready();
        tokio::time::sleep(SETTLE).await;
        self.drain();
        Ok(())
    }

    /// What changed is looked up anew; what the kernel could not queue tells nothing less.
    fn drain(&self) {
        let mut chunk = [0; CHUNK_BYTES];
        for _ in 0..MAX_CHUNKS {
            match recv(
                self.netlink.get_ref().as_raw_fd(),
                &mut chunk,
                MsgFlags::empty(),
            ) {
                Ok(0) | Err(nix::Error::EAGAIN) => return,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// The address that the kernel would send from.
fn source_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(to).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_the_tunnel_are_left_out() {
        let all = Local::look("none-such", None).unwrap();
        assert!(all.addresses.iter().all(|ip| !ip.is_loopback()));
        assert_eq!(all.towards_cloud, None);
        let loopback: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let look = Local::look("none-such", Some(loopback)).unwrap();
        assert_eq!(
            look.towards_cloud, None,
            "an address that nobody else can use"
        );
    }

    #[tokio::test]
    async fn a_quiet_machine_tells_of_no_change() {
        let watch = Watch::open().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(1), watch.changed()).await;
        // Other tests may change something; what counts is that it returns and can be asked again.
        drop(quiet);
        watch.drain();
    }
}
