//! What is to be led where: a pure function of the picture, of who is bound, and of the names of network devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use edgeward_identity::BootTime;
use edgeward_identity::overlay::{PREFIX_BITS, prefix_of};
use edgeward_policy::{Mac, PeerIndex, SliceDevice};
use edgeward_tunnel::translate::{Network, Translations};
use ipnet::{IpNet, Ipv6Net};

use crate::enforce::NetDevice;
use crate::enforce::decide::Picture;

/// Most networks of peers in the kernel at once.
pub const MAX_LEASED: usize = 4096;

/// A network that this node leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Led {
    pub device: NetDevice,
    /// As its own machines know it.
    pub prefix: IpNet,
}

/// A device whose address on its network is worth something: how its frames must look there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// As its own network knows it.
    pub ip: IpAddr,
    /// `None`: it is known by its address alone.
    pub mac: Option<Mac>,
}

/// Who is who on the networks that are led.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Nobody else sends into the tunnel from these addresses.
    pub addresses: BTreeSet<(NetDevice, Claim)>,
    /// Stations that a device is known by: they do not pass for one that is known by its address alone.
    pub stations: BTreeSet<(NetDevice, Mac)>,
}

/// Somebody who is bound: what the bind lets come from there, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    pub allowed_ips: Vec<IpNet>,
    pub until: BootTime,
}

/// What is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub led: BTreeSet<Led>,
    pub claims: Claims,
    /// The device towards the internet, if this node is an exit.
    pub exit: Option<NetDevice>,
    /// Networks behind bound peers, none inside another.
    pub leased: BTreeMap<IpNet, BootTime>,
    /// Networks behind peers that a packet wakes, none inside another.
    pub asleep: BTreeSet<IpNet>,
    /// Networks that the machine must send into the tunnel; what is of the overlay goes there anyway.
    pub into_tunnel: BTreeSet<IpNet>,
    pub translations: Option<Translations>,
    /// Routes whose network has no device here, by name.
    pub unled: Vec<String>,
}

impl Plan {
    /// Without a policy, and where nothing is granted, nothing is led.
    pub fn new(
        picture: &Picture,
        armed: &[Armed],
        asleep: &BTreeSet<IpNet>,
        device: &impl Fn(&str) -> Option<NetDevice>,
        uplink: &impl Fn() -> Option<NetDevice>,
    ) -> Self {
        let Ok(rules) = picture.may_grant() else {
            return Self::default();
        };
        let slice = rules.engine().slice();
        let mut plan = Self::default();
        let mut networks = Vec::new();
        for route in &slice.routes {
            let Some(device) = device(&route.net) else {
                plan.unled.push(route.name.clone());
                continue;
            };
            let prefix = route.prefix;
            // A machine that is in two networks of the same addresses cannot tell them apart.
            if plan.led.iter().any(|led| overlap(led.prefix, prefix)) {
                plan.unled.push(route.name.clone());
                continue;
            }
            plan.led.insert(Led { device, prefix });
            networks.push(Network {
                seen: route.seen_as,
                real: prefix,
            });
        }
        plan.claim(&slice.devices, device);
        if slice.roles.exit {
            plan.exit = uplink();
            if plan.exit.is_none() {
                plan.unled.push("exit".to_owned());
            }
        }
        let people = slice
            .peers
            .iter()
            .filter_map(|peer| Some((peer.v6, peer.v4?)));
        let overlay = picture.parts().overlay;
        let own = overlay.v4.map(|v4| (overlay.v6, v4));
        plan.translations = Translations::new(networks, people.chain(own));
        let ours = Ipv6Net::new(prefix_of(slice.node.trust_domain()), PREFIX_BITS)
            .map(IpNet::V6)
            .ok();
        let routes = slice
            .peers
            .iter()
            .flat_map(|peer| peer.routes.iter().copied());
        let guests = (0..).map(PeerIndex).take(slice.peers.len());
        let guests = guests.flat_map(|peer| rules.guests_of(peer).map(IpNet::from));
        for net in routes.chain(guests).take(MAX_LEASED) {
            let led = plan.led.iter().any(|led| overlap(led.prefix, net));
            if !led && !ours.is_some_and(|ours| ours.contains(&net)) {
                plan.into_tunnel.insert(net);
            }
        }
        plan.lease(armed);
        plan.asleep = apart(asleep);
        plan
    }

    fn claim(&mut self, devices: &[SliceDevice], device: &impl Fn(&str) -> Option<NetDevice>) {
        for known in devices {
            let Some(net) = device(&known.net) else {
                continue;
            };
            let how = &known.recognised;
            if let Some(mac) = how.mac {
                self.claims.stations.insert((net.clone(), mac));
            }
            if let (Some(ip), Some(_)) = (how.ip, known.seen_as) {
                let ip = ip.to_canonical();
                let claim = Claim { ip, mac: how.mac };
                self.claims.addresses.insert((net, claim));
            }
        }
    }

    fn lease(&mut self, armed: &[Armed]) {
        let mut all: Vec<(IpNet, BootTime)> = armed
            .iter()
            .flat_map(|armed| {
                let nets = armed.allowed_ips.iter();
                nets.map(|net| (*net, armed.until))
            })
            .filter(|(net, _)| net.prefix_len() < net.max_prefix_len())
            .take(MAX_LEASED)
            .collect();
        // The larger first: what lies inside of one is in it.
        all.sort_by_key(|(net, until)| (net.prefix_len(), *net, *until));
        for (net, until) in all {
            if !self.leased.keys().any(|leased| leased.contains(&net)) {
                self.leased.insert(net, until);
            }
        }
    }
}

/// Networks without those inside another, bounded.
fn apart(networks: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let mut last: Option<IpNet> = None;
    // In this order a network comes before what is inside of it, and nothing else between.
    let outermost = networks.iter().copied().filter(|net| {
        let inside = last.is_some_and(|last| last.contains(net));
        if !inside {
            last = Some(*net);
        }
        !inside
    });
    outermost.take(MAX_LEASED).collect()
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The family of a network, as the kernel's tools name it.
pub(super) fn is_v4(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V4(_))
}

#[cfg(test)]
mod tests;
