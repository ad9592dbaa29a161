//! What lies beyond a node: which routes it leads, what its interfaces lead to, and who carries for whom.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use edgeward_identity::{Kind, SpiffeId};
use ipnet::{IpNet, Ipv6Net};

use super::{Cut, Named};
use crate::compile::fleet_index::IndexedNode;
use crate::compile::{Behind, Device, Interface, Route, Rule, Seen};
use crate::slice::{Beyond, MAX_PEER_ROUTES, MAX_SLICE_PEERS, Roles, SeenDevice, SliceRoute};

/// A device that can come to other nodes, through the one that it hangs on.
pub(super) struct Source<'c> {
    pub(super) device: &'c Device,
    pub(super) groups: &'c BTreeSet<usize>,
}

/// Where the tests in policy files find what lies behind nodes: documentation addresses (RFC 3849).
const TESTS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);

impl Cut<'_> {
    pub(super) fn roles(&self) -> Roles {
        let exits = &self.policy.exits;
        Roles {
            relay: self.index.relays().any(|rank| rank == self.own),
            exit: !exits.is_disjoint(&self.node.groups),
        }
    }

    /// Whoever carries for others meets everybody, and everybody meets those who carry.
    pub(super) fn add_relays(&self, roles: Roles, peers: &mut BTreeSet<usize>) {
        if roles.relay {
            let room = MAX_SLICE_PEERS.saturating_sub(peers.len());
            let others = (0..self.index.len()).filter(|rank| *rank != self.own);
            let others: Vec<usize> = others.filter(|rank| !peers.contains(rank)).collect();
            peers.extend(others.into_iter().take(room));
        }
        peers.extend(self.index.relays().filter(|rank| *rank != self.own));
    }

    /// The networks that a node leads to.
    pub(super) fn routes_of(&self, node: &IndexedNode) -> Vec<SliceRoute> {
        if self.everybody_asked {
            return vec![SliceRoute {
                name: "tests".to_owned(),
                net: "tests".to_owned(),
                prefix: test_net(TESTS, 32),
                seen_as: test_net(TESTS, 32),
            }];
        }
        let routes = self.policy.routes.iter();
        let mut led: Vec<SliceRoute> = routes
            .filter(|route| self.leads(node, route))
            .map(|route| route.of(&node.id))
            .collect();
        led.sort_by(|one, other| one.name.cmp(&other.name));
        led
    }

    /// Of several nodes that could lead to one network, the first by its ID does.
    fn leads(&self, node: &IndexedNode, route: &Route) -> bool {
        if !node.groups.contains(&route.on) {
            return false;
        }
        match route.seen {
            Seen::PerNode => true,
            Seen::As(_) => {
                let first = self.index.members(route.on).min();
                let first = first.and_then(|rank| self.index.node(rank));
                first.is_some_and(|first| first.id == node.id)
            }
        }
    }

    /// What an interface leads to on this node; `None` where the node does not offer it at all.
    pub(super) fn beyond(
        &self,
        interface: &Interface,
        node: &IndexedNode,
    ) -> Option<Option<Beyond>> {
        let Some(behind) = interface.behind else {
            return Some(None);
        };
        if behind != Behind::Internet && self.everybody_asked {
            return Some(Some(Beyond::Net(self.test_place(interface))));
        }
        let net = match behind {
            Behind::Internet => return Some(Some(Beyond::Internet)),
            Behind::Route(index) => {
                let route = self.policy.routes.get(index)?;
                self.leads(node, route)
                    .then(|| route.of(&node.id).seen_as)?
            }
            Behind::Device(index) => {
                let mut vouched = node.devices.iter();
                vouched.find(|(known, _)| *known == index)?;
                let device = self.policy.devices.get(index)?;
                seen_in(&self.routes_of(node), device)?.into()
            }
        };
        Some(Some(Beyond::Net(net)))
    }

    /// An address of its own for each interface.
    fn test_place(&self, interface: &Interface) -> IpNet {
        let mut all = self.policy.interfaces.iter();
        let place = all.position(|known| std::ptr::eq(known, interface));
        let place = place.unwrap_or_default() as u128;
        test_net(Ipv6Addr::from(TESTS.to_bits() | place), 128)
    }

    /// The devices behind a peer that this node may reach, and those that may come here.
    pub(super) fn seen_devices(&self, node: &IndexedNode, routes: &[IpNet]) -> Vec<SeenDevice> {
        if node.devices.is_empty() || (routes.is_empty() && self.guests.is_empty()) {
            return Vec::new();
        }
        let led = self.routes_of(node);
        let domain = node.id.trust_domain();
        let mut devices: Vec<SeenDevice> = node
            .devices
            .iter()
            .filter_map(|(index, groups)| {
                let device = self.policy.devices.get(*index)?;
                let address = seen_in(&led, device)?;
                let source = device.is_told_by_packets() && !groups.is_disjoint(&self.guests);
                let reached = routes.iter().any(|net| net.contains(&address));
                let groups = groups.iter();
                let groups = groups.filter_map(|group| self.groups.known(Named::Group(*group)));
                (source || reached).then_some(SeenDevice {
                    id: SpiffeId::new(domain, Kind::Device, &device.name).ok()?,
                    address,
                    groups: groups.collect(),
                    source,
                })
            })
            .collect();
        // Where there are too many, those that only have a name go first.
        devices.sort_by(|one, other| (!one.source, &one.id).cmp(&(!other.source, &other.id)));
        devices.truncate(MAX_PEER_ROUTES);
        devices.sort_by(|one, other| one.id.cmp(&other.id));
        devices
    }

    /// The devices of a node that other nodes can tell apart by their packets.
    pub(super) fn sources<'s>(&'s self, node: &'s IndexedNode) -> Vec<Source<'s>> {
        if node.devices.is_empty() {
            return Vec::new();
        }
        let led = self.routes_of(node);
        let known = node.devices.iter();
        let known = known.filter_map(|(index, groups)| {
            let device = self.policy.devices.get(*index)?;
            seen_in(&led, device).filter(|_| device.is_told_by_packets())?;
            Some(Source { device, groups })
        });
        known.collect()
    }

    /// The devices that a rule of an interface in the tunnel names, and the nodes that vouch for them.
    pub(super) fn add_guests(&mut self, rule: &Rule, peers: &mut BTreeSet<usize>) {
        for group in &rule.from.groups {
            let known = self.policy.groups.get(*group);
            if known.is_none_or(|known| known.via.is_none()) {
                continue;
            }
            self.guests.insert(*group);
            let vouching = self.index.vouchers(*group);
            let vouching = vouching.filter(|rank| *rank != self.own);
            peers.extend(vouching.filter(|rank| {
                let node = self.index.node(*rank);
                let sources = node.map_or_else(Vec::new, |node| self.sources(node));
                sources.iter().any(|source| source.groups.contains(group))
            }));
        }
    }
}

/// How the overlay knows a device by the routes that its node leads.
pub(super) fn seen_in(routes: &[SliceRoute], device: &Device) -> Option<IpAddr> {
    let address = device.recognised.ip?.to_canonical();
    routes
        .iter()
        .filter(|route| route.net == device.net)
        .find_map(|route| route.seen(address))
}

/// Networks, none inside another, in order.
pub(super) fn reached_routes(beyond: &[Beyond]) -> Vec<IpNet> {
    let nets: BTreeSet<IpNet> = beyond
        .iter()
        .filter_map(|beyond| match beyond {
            Beyond::Net(net) => Some(*net),
            Beyond::Internet => None,
        })
        .collect();
    let inside = |net: &IpNet| nets.iter().any(|other| other != net && other.contains(net));
    let apart = nets.iter().filter(|net| !inside(net));
    apart.copied().take(MAX_PEER_ROUTES).collect()
}

fn test_net(address: Ipv6Addr, length: u8) -> IpNet {
    Ipv6Net::new(address, length).unwrap_or_default().into()
}
