//! Networks behind nodes, and how the overlay knows them.

use edgeward_identity::SpiffeId;
use edgeward_identity::overlay::prefix_of;
use ipnet::{IpNet, Ipv6Net};
use ring::digest::{Context, SHA256};

use super::{CompiledPolicy, Device, Group};
use crate::labels::{matches, may_meet};
use crate::slice::SliceRoute;

/// Bits of an IPv6 network into which a whole IPv4 address fits.
pub(crate) const EMBEDDING_BITS: u8 = 96;

/// `[route.x]`.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    /// The group of nodes that lead there.
    pub(crate) on: usize,
    pub(crate) net: String,
    pub(crate) prefix: IpNet,
    pub(crate) seen: Seen,
}

/// How the overlay knows a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// So, of the same size as the network itself. One node leads there.
    As(IpNet),
    /// By a network of its own for each node: every node of the group leads to its own.
    PerNode,
}

/// What a way in leads to in place of the node that offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Index of a route.
    Route(usize),
    /// Index of a device.
    Device(usize),
    Internet,
}

impl Route {
    /// The route as this node leads it.
    pub(crate) fn of(&self, node: &SpiffeId) -> SliceRoute {
        let seen_as = match self.seen {
            Seen::As(net) => net,
            Seen::PerNode => embedded(self.prefix, own_prefix(node, &self.name)),
        };
        SliceRoute {
            name: self.name.clone(),
            net: self.net.clone(),
            prefix: self.prefix,
            seen_as,
        }
    }

    /// Every network that the overlay may know it by, as far as the policy alone says.
    pub(crate) fn seen(&self) -> Option<IpNet> {
        match self.seen {
            Seen::As(net) => Some(net),
            Seen::PerNode => None,
        }
    }
}

impl Device {
    /// Whether a route leads to it, as far as net and address say.
    pub(crate) fn lies_in(&self, route: &Route) -> bool {
        let address = self.recognised.ip.map(|ip| ip.to_canonical());
        route.net == self.net && address.is_some_and(|address| route.prefix.contains(&address))
    }

    /// Who proves a key cannot do so by its packets.
    pub(crate) fn is_told_by_packets(&self) -> bool {
        self.recognised.certificate.is_none()
    }
}

impl CompiledPolicy {
    /// Whether a device of these groups may come to other nodes: some node may both vouch for it and lead to it.
    pub(crate) fn may_travel<'p>(
        &self,
        device: &Device,
        groups: impl Iterator<Item = &'p Group>,
    ) -> bool {
        let vouching = groups
            .filter(|group| matches(&group.matches, &device.labels))
            .filter_map(|group| self.groups.get(group.via?));
        let leading: Vec<&Group> = self
            .routes
            .iter()
            .filter(|route| device.lies_in(route))
            .filter_map(|route| self.groups.get(route.on))
            .collect();
        let mut both = vouching.flat_map(|via| leading.iter().map(move |on| (via, on)));
        device.is_told_by_packets() && both.any(|(via, on)| may_meet(&via.matches, &on.matches))
    }
}

/// An IPv4 network inside an IPv6 network that has room for every IPv4 address; others stay as they are.
pub(crate) fn embedded(prefix: IpNet, room: Ipv6Net) -> IpNet {
    let IpNet::V4(v4) = prefix else {
        return prefix;
    };
    let whole = room.network().to_bits() | u128::from(v4.network().to_bits());
    let length = EMBEDDING_BITS + v4.prefix_len();
    Ipv6Net::new(whole.into(), length).map_or(prefix, IpNet::V6)
}

/// The trust domain's 48 bits and 48 more that follow from the node's name and the route's.
fn own_prefix(node: &SpiffeId, route: &str) -> Ipv6Net {
    let mut hash = Context::new(&SHA256);
    for part in ["edgeward-route-v1", &node.to_string(), route] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    let hash = hash.finish();
    let mut octets = prefix_of(node.trust_domain()).octets();
    for (octet, byte) in octets.iter_mut().skip(6).zip(hash.as_ref().iter().take(6)) {
        *octet = *byte;
    }
    Ipv6Net::new(octets.into(), EMBEDDING_BITS)
        .unwrap_or_default()
        .trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(seen: Seen) -> Route {
        Route {
            name: "lan".to_owned(),
            on: 0,
            net: "lan0".to_owned(),
            prefix: "192.168.1.0/24".parse().unwrap(),
            seen,
        }
    }

    #[test]
    fn a_hundred_nodes_with_the_same_network_are_seen_apart_and_each_always_so() {
        let route = route(Seen::PerNode);
        let node = |number: u32| -> SpiffeId {
            format!("spiffe://plant.example/node/gw-{number}")
                .parse()
                .unwrap()
        };
        let all: std::collections::BTreeSet<IpNet> = (0..100)
            .map(|number| route.of(&node(number)).seen_as)
            .collect();
        assert_eq!(all.len(), 100);
        let first = route.of(&node(0));
        assert_eq!(first.seen_as, route.of(&node(0)).seen_as);
        assert_eq!(first.seen_as.prefix_len(), 120);
        let domain = prefix_of(node(0).trust_domain()).octets();
        let IpNet::V6(v6) = first.seen_as else {
            panic!("{}", first.seen_as)
        };
        assert_eq!(v6.network().octets()[..6], domain[..6]);
        assert_eq!(v6.network().octets()[12..], [192, 168, 1, 0]);
        let plc = "192.168.1.17".parse().unwrap();
        assert_eq!(first.real(first.seen(plc).unwrap()), Some(plc));
    }
}
