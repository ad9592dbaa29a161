//! Detours: ways through a relay, or through a channel that somebody else carries, that look like addresses.
//!
//! A detour's address lies in `100::/64`, which no network delivers (RFC 6666). WireGuard and QUIC send to it and hear
//! from it as from any other; this is where that becomes what really happens. On the way out through a relay every
//! datagram gets the header of its route; what comes back over a route is taken only from addresses at which the relay
//! proved itself.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::{HashMap, HashMapExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::demux::Transmit;
use super::udp::{MAX_SEND_BYTES, UdpPort};
use crate::node::Endpoint;
use crate::reach::message::{RELAYED_HEADER_BYTES, RouteId, relayed_header};
use crate::reach::{MAX_DETOURS, is_detour};

/// Most datagrams that wait to be carried by a channel; a further one is dropped.
pub const CHANNEL_DATAGRAMS: usize = 512;
/// Most relays whose route may have the same number: one of them lies.
const MAX_SAME_ROUTE: usize = 4;

/// All detours of one port.
#[derive(Debug, Default)]
pub struct Detours {
    table: RwLock<Table>,
    /// Where a batch gets its headers; kept, so that no batch allocates.
    scratch: Mutex<Vec<u8>>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Table {
    ways: HashMap<SocketAddr, Way>,
    routes: HashMap<RouteId, Vec<Back>>,
}

#[derive(Clone, Debug)]
enum Way {
    Relay { relay: Endpoint, route: RouteId },
    Channel(mpsc::Sender<Vec<u8>>),
}

/// How a route looks from here.
#[derive(Debug)]
struct Back {
    sources: Vec<SocketAddr>,
    address: SocketAddr,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            ways: HashMap::new(),
            routes: HashMap::new(),
        }
    }
}

impl Detours {
    /// Sends what goes to `address` through a relay from now on. `false` if there is no room, or the relay itself would
    /// be a detour.
    pub fn through(
        &self,
        address: SocketAddr,
        relay: Endpoint,
        sources: &[SocketAddr],
        route: RouteId,
    ) -> bool {
        if !is_detour(&address) || is_detour(&relay.remote) {
            return false;
        }
        let mut table = self.table.write();
        table.remove(address);
        let same = table.routes.get(&route).map_or(0, Vec::len);
        if table.ways.len() >= MAX_DETOURS || same >= MAX_SAME_ROUTE {
            return false;
        }
        table.ways.insert(address, Way::Relay { relay, route });
        table.routes.entry(route).or_default().push(Back {
            sources: sources.to_vec(),
            address,
        });
        true
    }

    /// Hands what goes to `address` to the holder of the receiver from now on. `None` if there is no room.
    pub fn channel(&self, address: SocketAddr) -> Option<mpsc::Receiver<Vec<u8>>> {
        let mut table = self.table.write();
        table.remove(address);
        if !is_detour(&address) || table.ways.len() >= MAX_DETOURS {
            return None;
        }
        let (sender, receiver) = mpsc::channel(CHANNEL_DATAGRAMS);
        table.ways.insert(address, Way::Channel(sender));
        Some(receiver)
    }

    /// The address leads nowhere any more.
    pub fn remove(&self, address: SocketAddr) {
        self.table.write().remove(address);
    }

    /// What a datagram of this route, sent by `from`, looks to come from.
    pub fn comes_from(&self, route: RouteId, from: SocketAddr) -> Option<SocketAddr> {
        let table = self.table.read();
        let backs = table.routes.get(&route)?;
        backs
            .iter()
            .find(|back| back.sources.contains(&from))
            .map(|back| back.address)
    }

    /// Whether the address is a channel's.
    pub fn is_channel(&self, address: SocketAddr) -> bool {
        matches!(self.table.read().ways.get(&address), Some(Way::Channel(_)))
    }

    /// The relay that what goes to this address really goes to.
    pub fn relay_of(&self, address: SocketAddr) -> Option<SocketAddr> {
        if !is_detour(&address) {
            return None;
        }
        match self.table.read().ways.get(&address) {
            Some(Way::Relay { relay, .. }) => Some(relay.remote),
            Some(Way::Channel(_)) | None => None,
        }
    }

    /// Datagrams that no channel took.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Sends to a detour's address.
    pub(super) fn send(&self, port: &UdpPort, transmit: &Transmit<'_>) -> io::Result<()> {
        let way = self.table.read().ways.get(&transmit.to).cloned();
        match way {
            Some(Way::Relay { relay, route }) => self.relay(port, transmit, relay, route),
            Some(Way::Channel(channel)) => {
                self.carry(&channel, transmit);
                Ok(())
            }
            None => Err(io::ErrorKind::HostUnreachable.into()),
        }
    }

    fn relay(
        &self,
        port: &UdpPort,
        transmit: &Transmit<'_>,
        relay: Endpoint,
        route: RouteId,
    ) -> io::Result<()> {
        let segment = segment_of(transmit);
        let wrapped = segment + RELAYED_HEADER_BYTES;
        let at_once = (MAX_SEND_BYTES / wrapped).max(1) * segment;
        // Taken out for as long as it is used: no lock is held across a send.
        let mut scratch = std::mem::take(&mut *self.scratch.lock());
        let header = relayed_header(route);
        let mut result = Ok(());
        for part in transmit.bytes.chunks(at_once) {
            scratch.clear();
            for datagram in part.chunks(segment) {
                scratch.extend_from_slice(&header);
                scratch.extend_from_slice(datagram);
            }
            result = port.try_send(&Transmit {
                to: relay.remote,
                local_ip: relay.local_ip,
                ecn: transmit.ecn,
                segment_size: Some(wrapped),
                bytes: &scratch,
            });
            if result.is_err() {
                break;
            }
        }
        *self.scratch.lock() = scratch;
        result
    }

    fn carry(&self, channel: &mpsc::Sender<Vec<u8>>, transmit: &Transmit<'_>) {
        for datagram in transmit.bytes.chunks(segment_of(transmit)) {
            match channel.try_reserve() {
                Ok(permit) => permit.send(datagram.to_vec()),
                Err(_) => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Table {
    fn remove(&mut self, address: SocketAddr) {
        let Some(Way::Relay { route, .. }) = self.ways.remove(&address) else {
            return;
        };
        if let Some(backs) = self.routes.get_mut(&route) {
            backs.retain(|back| back.address != address);
            if backs.is_empty() {
                self.routes.remove(&route);
            }
        }
    }
}

fn segment_of(transmit: &Transmit<'_>) -> usize {
    transmit.segment_size.unwrap_or(transmit.bytes.len()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::message::relayed;
    use crate::shell::udp::UdpOffload;

    const ROUTE: RouteId = RouteId(0x0102_0304_0506_0708);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn far() -> SocketAddr {
        address("[100::1]:6")
    }

    fn at(remote: SocketAddr) -> Endpoint {
        Endpoint {
            remote,
            local_ip: None,
        }
    }

    fn port() -> UdpPort {
        UdpPort::bind(address("127.0.0.1:0"), UdpOffload::default()).unwrap()
    }

    fn transmit(to: SocketAddr, bytes: &[u8], segment: usize) -> Transmit<'_> {
        Transmit {
            to,
            local_ip: None,
            ecn: None,
            segment_size: Some(segment),
            bytes,
        }
    }

    #[test]
    fn a_route_is_heard_from_its_relay_only() {
        let detours = Detours::default();
        let relay = address("192.0.2.9:51820");
        assert!(detours.through(far(), at(relay), &[relay], ROUTE));
        assert_eq!(detours.comes_from(ROUTE, relay), Some(far()));
        assert_eq!(detours.comes_from(ROUTE, address("192.0.2.9:51821")), None);
        assert_eq!(detours.comes_from(ROUTE, address("192.0.2.8:51820")), None);
        assert_eq!(detours.comes_from(RouteId(1), relay), None);
        detours.remove(far());
        assert_eq!(detours.comes_from(ROUTE, relay), None);
    }

    #[test]
    fn another_relay_with_the_same_number_takes_nothing_over() {
        let detours = Detours::default();
        let [honest, liar] = ["192.0.2.9:1", "192.0.2.10:1"].map(address);
        let other = address("[100::2]:6");
        assert!(detours.through(far(), at(honest), &[honest], ROUTE));
        assert!(detours.through(other, at(liar), &[liar], ROUTE));
        assert_eq!(detours.comes_from(ROUTE, honest), Some(far()));
        assert_eq!(detours.comes_from(ROUTE, liar), Some(other));
    }

    #[test]
    fn no_relay_lies_behind_a_relay_and_no_detour_at_a_real_address() {
        let detours = Detours::default();
        let relay = address("192.0.2.9:1");
        assert!(!detours.through(far(), at(address("[100::7]:6")), &[], ROUTE));
        assert!(!detours.through(address("192.0.2.1:6"), at(relay), &[], ROUTE));
        assert!(detours.channel(address("192.0.2.1:6")).is_none());
    }

    #[test]
    fn what_goes_nowhere_is_an_error() {
        let port = port();
        let sent = port.try_send(&transmit(far(), b"x", 1));
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::HostUnreachable);
    }

    #[test]
    fn every_datagram_of_a_batch_gets_its_header() {
        let (port, relay) = (port(), port());
        let to = relay.local_addr().unwrap();
        assert!(port.detours().through(far(), at(to), &[to], ROUTE));
        let bytes = [vec![4u8; 100], vec![5u8; 100], vec![6u8; 40]].concat();
        port.try_send(&transmit(far(), &bytes, 100)).unwrap();
        let received = crate::shell::udp::receive_all(&relay, 3);
        let inner: Vec<(RouteId, usize)> = received
            .iter()
            .map(|datagram| relayed(datagram).unwrap())
            .map(|(route, inner)| (route, inner.len()))
            .collect();
        assert_eq!(inner, [(ROUTE, 100), (ROUTE, 100), (ROUTE, 40)]);
    }

    #[test]
    fn a_channel_gets_datagrams_until_it_is_full() {
        let port = port();
        let mut channel = port.detours().channel(far()).unwrap();
        let bytes = vec![7; 10 * (CHANNEL_DATAGRAMS + 5)];
        port.try_send(&transmit(far(), &bytes, 10)).unwrap();
        assert_eq!(port.detours().dropped(), 5);
        assert_eq!(channel.try_recv().unwrap(), [7; 10]);
        port.detours().remove(far());
        assert!(port.try_send(&transmit(far(), b"x", 1)).is_err());
    }
}
