//! This machine's addresses, and word of their changes (rtnetlink).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::sync::mpsc;

use crate::outside;

/// Most addresses that are looked at.
const MAX_ADDRESSES: usize = 64;
/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE`
/// (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Changes come in bursts: the last of one counts, in milliseconds and in how often that long is waited.
const SETTLE_MILLIS: u16 = 300;
const MAX_SETTLES: usize = 10;
/// How often the thread looks whether anybody still listens, in milliseconds.
const LOOK_EVERY_MILLIS: u16 = 2000;
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
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Of addresses and routes. Needs no rights. A thread of its own waits for the kernel.
    pub fn open() -> io::Result<Self> {
        Self::on(GROUPS)
    }

    /// Of what the kernel tells to these groups.
    pub fn on(groups: u32) -> io::Result<Self> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let (tell, changes) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("edgeward-netlink".to_owned())
            .spawn(move || listen(&netlink, &tell))?;
        Ok(Self { changes })
    }

    /// Returns once something may have changed, and has settled. Safe to drop and call again. Never returns where the
    /// kernel tells nothing any more.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

fn listen(netlink: &OwnedFd, tell: &mpsc::Sender<()>) {
    while !tell.is_closed() {
        let mut waiting = [PollFd::new(netlink.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, LOOK_EVERY_MILLIS) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => {
                settle(netlink);
                // One that waits to be looked at says the same.
                let _waits = tell.try_send(());
            }
            Err(error) => {
                tracing::error!(%error, "changes of the network are not heard of any more");
                return;
            }
        }
    }
}

/// Waits until nothing more comes, within bounds.
fn settle(netlink: &OwnedFd) {
    for _ in 0..MAX_SETTLES {
        drain(netlink);
        let mut waiting = [PollFd::new(netlink.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, SETTLE_MILLIS) != Ok(1) {
            return;
        }
    }
}

/// What changed is looked up anew; what the kernel could not queue tells nothing less.
fn drain(netlink: &OwnedFd) {
    let mut chunk = [0; CHUNK_BYTES];
    for _ in 0..MAX_CHUNKS {
        match recv(netlink.as_raw_fd(), &mut chunk, MsgFlags::empty()) {
            Ok(0) | Err(nix::Error::EAGAIN) => return,
            Ok(_) | Err(_) => {}
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
    outside::mark(&socket);
    socket.connect(to).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    async fn silence_is_no_change() {
        let mut watch = Watch::open().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(1), watch.changed()).await;
        assert!(quiet.is_err());
    }
}
