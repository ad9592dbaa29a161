//! What lies beyond a node: networks that it leads to, the internet, and what it does for others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use edgeward_identity::SpiffeId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{GroupId, Slice};

/// What this node does for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// It may carry the ciphertext of any two nodes that are bound to it.
    pub relay: bool,
    /// It may lead to the internet whom a rule lets.
    pub exit: bool,
}

/// A network behind this node, to which it leads whom a rule lets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceRoute {
    pub name: String,
    /// The network interface that it lies at; never the tunnel.
    pub net: String,
    /// Its addresses as its own machines know them.
    pub prefix: IpNet,
    /// Its addresses as the overlay knows them: `prefix` itself, one of the same length and family, or a `/96` and
    /// longer of IPv6 with as many host bits as an IPv4 `prefix`.
    pub seen_as: IpNet,
}

/// What an interface leads to in place of the node itself. Addresses are those that the overlay knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Beyond {
    /// Each of these addresses.
    Net(IpNet),
    /// Every address of the internet ([`is_internet`]), at every port.
    Internet,
}

/// A device behind a peer, by the address that the overlay knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenDevice {
    /// An ID of kind `device`.
    pub id: SpiffeId,
    pub address: IpAddr,
    /// Those of its groups that rows here name.
    pub groups: Vec<GroupId>,
    /// Whether some rule lets it in here: then its address is one of its node's AllowedIPs.
    pub source: bool,
}

/// Where questions put to policy files have devices that come through other nodes: a documentation address (RFC 5737).
const SEAT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

impl Slice {
    /// Puts a device behind a peer, as if a route led there.
    pub(crate) fn seat(&mut self, node: &SpiffeId, id: SpiffeId, groups: Vec<GroupId>) {
        let mut peers = self.peers.iter_mut();
        if let Some(peer) = peers.find(|peer| peer.id == *node) {
            peer.devices.push(SeenDevice {
                id,
                address: SEAT.into(),
                groups,
                source: true,
            });
        }
    }
}

impl Beyond {
    pub fn holds(&self, address: IpAddr) -> bool {
        match self {
            Self::Net(net) => net.contains(&address),
            Self::Internet => is_internet(address),
        }
    }
}

impl SliceRoute {
    /// Whether addresses are rewritten on the way.
    pub fn is_mapped(&self) -> bool {
        self.prefix != self.seen_as
    }

    /// How the overlay knows an address of this network.
    pub fn seen(&self, address: IpAddr) -> Option<IpAddr> {
        map(address, self.prefix, self.seen_as)
    }

    /// The address of this network that the overlay knows so.
    pub fn real(&self, address: IpAddr) -> Option<IpAddr> {
        map(address, self.seen_as, self.prefix)
    }
}

/// The address with the same host bits in another network that has as many of them.
fn map(address: IpAddr, from: IpNet, to: IpNet) -> Option<IpAddr> {
    if !from.contains(&address) || host_bits(from) != host_bits(to) {
        return None;
    }
    let host = bits(address) & host_mask(host_bits(from));
    let whole = bits(to.network()) | host;
    match to {
        IpNet::V4(_) => u32::try_from(whole)
            .ok()
            .map(|v4| Ipv4Addr::from(v4).into()),
        IpNet::V6(_) => Some(Ipv6Addr::from(whole).into()),
    }
}

/// Whether packets can be rewritten from one network to the other: each host has exactly one address in both.
pub fn is_one_to_one(prefix: IpNet, seen_as: IpNet) -> bool {
    let families = matches!(
        (prefix, seen_as),
        (IpNet::V4(_), _) | (IpNet::V6(_), IpNet::V6(_))
    );
    families && host_bits(prefix) == host_bits(seen_as)
}

/// Bits that tell the hosts of a network apart.
pub fn host_bits(net: IpNet) -> u8 {
    net.max_prefix_len().saturating_sub(net.prefix_len())
}

fn host_mask(host_bits: u8) -> u128 {
    1_u128
        .checked_shl(u32::from(host_bits))
        .map_or(u128::MAX, |bit| bit - 1)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Whether an address is one of the public internet: unicast, globally reachable, and of no overlay, private, shared,
/// link-local, documentation, benchmarking, translation or reserved range. IPv6: inside `2000::/3` only.
pub fn is_internet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !inside_v4(v4, NOT_INTERNET_V4),
        IpAddr::V6(v6) => v6.segments()[0] >> 13 == 1 && !inside_v6(v6, NOT_INTERNET_V6),
    }
}

/// The IANA special-purpose registry for IPv4, as far as it is not globally reachable, with multicast and class E.
const NOT_INTERNET_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// What inside `2000::/3` leads elsewhere: IETF protocols with Teredo, documentation, and 6to4, which hides IPv4
/// addresses of every kind.
const NOT_INTERNET_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn inside_v4(address: Ipv4Addr, nets: &[(Ipv4Addr, u8)]) -> bool {
    nets.iter().any(|(net, length)| {
        let host = 32 - u32::from(*length);
        (address.to_bits() ^ net.to_bits()).checked_shr(host) == Some(0)
    })
}

fn inside_v6(address: Ipv6Addr, nets: &[(Ipv6Addr, u8)]) -> bool {
    nets.iter().any(|(net, length)| {
        let host = 128 - u32::from(*length);
        (address.to_bits() ^ net.to_bits()).checked_shr(host) == Some(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_private_overlay_shared_or_reserved_address_is_of_the_internet() {
        for text in [
            "0.0.0.0",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.255.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "100::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "4000::1",
            "1fff::1",
        ] {
            assert!(!is_internet(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.0",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2606:4700::1111",
            "2a00:1450::1",
            "3ffe::1",
        ] {
            assert!(is_internet(text.parse().unwrap()), "{text}");
        }
    }

    fn route(prefix: &str, seen_as: &str) -> SliceRoute {
        SliceRoute {
            name: "lan".to_owned(),
            net: "lan0".to_owned(),
            prefix: prefix.parse().unwrap(),
            seen_as: seen_as.parse().unwrap(),
        }
    }

    #[test]
    fn only_addresses_of_the_network_are_mapped_and_each_comes_back() {
        for (prefix, seen_as, real, seen) in [
            ("192.168.1.0/24", "10.7.3.0/24", "192.168.1.17", "10.7.3.17"),
            (
                "192.168.1.0/24",
                "fd7a:1::/120",
                "192.168.1.17",
                "fd7a:1::11",
            ),
            ("0.0.0.0/0", "fd7a:1::/96", "10.1.2.3", "fd7a:1::a01:203"),
            ("fd00:1::/64", "fd00:2::/64", "fd00:1::5", "fd00:2::5"),
            ("10.0.0.1/32", "10.9.9.9/32", "10.0.0.1", "10.9.9.9"),
        ] {
            let route = route(prefix, seen_as);
            let (real, seen) = (real.parse().unwrap(), seen.parse().unwrap());
            assert_eq!(route.seen(real), Some(seen), "{prefix}");
            assert_eq!(route.real(seen), Some(real), "{prefix}");
            if prefix != "0.0.0.0/0" {
                assert_eq!(route.seen("192.168.2.1".parse().unwrap()), None);
            }
            assert_eq!(route.real("fd99::1".parse().unwrap()), None);
        }
    }

    #[test]
    fn an_ipv6_network_is_never_seen_as_ipv4_nor_a_network_as_one_of_another_size() {
        for (prefix, seen_as) in [
            ("fd00::/120", "10.0.0.0/24"),
            ("192.168.1.0/24", "10.0.0.0/16"),
            ("192.168.1.0/24", "fd00::/96"),
        ] {
            let (prefix, seen_as) = (prefix.parse().unwrap(), seen_as.parse().unwrap());
            assert!(!is_one_to_one(prefix, seen_as), "{prefix} {seen_as}");
        }
    }
}
