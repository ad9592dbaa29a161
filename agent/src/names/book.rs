//! Which names this node may know, and what they stand for. Pure.
//!
//! Made anew from each slice. What is not in the book does not exist: a node learns no name and no address of what
//! policy does not let it reach, and cannot tell one that it may not reach from one that is not there.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::Name;
use domain::base::name::Label;
use edgeward_identity::{SpiffeId, TrustDomain, overlay};
use edgeward_policy::slice::SlicePeer;
use edgeward_policy::{SeenDevice, Slice};

use crate::view::Overlay;

/// A name as it goes over the wire, in lower case.
pub type WireName = Name<Vec<u8>>;

/// Longest label of a name, in bytes (RFC 1035 2.3.4).
const MAX_LABEL_BYTES: usize = 63;
/// Labels of the IPv6 address tree (RFC 3596 2.5) above a whole address: 32 nibbles, then `ip6.arpa`.
const IP6_LABELS: usize = 34;
/// As for IPv4: four numbers, then `in-addr.arpa`.
const IP4_LABELS: usize = 6;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Of a zone that is not ours.
    Foreign,
    /// Inside our zone, but one of the cloud's own addresses: only the world's name servers know it.
    Cloud,
    /// No such name here.
    Nothing(Zone),
    /// The name is there, without a record of its own.
    Bare(Zone),
    Addresses {
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    },
    Pointer(WireName),
    /// Ours, but this node has no policy that holds: ask again.
    NotKnown,
}

/// What answers for a name that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(pub WireName);

/// The trust domain is no name that DNS can carry. The installation's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trust domain is not a name for dns: {0}")]
pub struct NoZone(pub TrustDomain);

/// Names and addresses, both ways.
#[derive(Clone, Debug)]
pub struct Book {
    zone: WireName,
    v6_zone: WireName,
    /// Below the zone: `gw-3`, `plc-17.gw-3`.
    names: HashMap<Box<str>, Entry>,
    pointers: HashMap<IpAddr, WireName>,
    /// Hosts of the cloud that lie inside the zone.
    cloud: HashSet<WireName>,
    /// Without one only this node's own name is known.
    has_policy: bool,
    ambiguous: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    /// Two that DNS cannot tell apart: neither has the name.
    ambiguous: bool,
}

/// The devices behind a peer that this node may reach; others only come here.
fn reached_devices(peer: &SlicePeer) -> impl Iterator<Item = &SeenDevice> {
    peer.devices.iter().filter(|device| {
        let mut routes = peer.routes.iter();
        !device.source || routes.any(|net| net.contains(&device.address))
    })
}

impl Book {
    /// What `node` may know by its slice; `None`: by none that holds. `cloud` are the hosts at which it finds the cloud.
    pub fn new(
        node: &SpiffeId,
        own: Overlay,
        slice: Option<&Slice>,
        cloud: &[String],
    ) -> Result<Self, NoZone> {
        let domain = node.trust_domain();
        let zone = wire_name(domain.as_str()).ok_or_else(|| NoZone(domain.clone()))?;
        let v6_zone = v6_zone_of(domain).ok_or_else(|| NoZone(domain.clone()))?;
        let mut book = Self {
            cloud: cloud
                .iter()
                .filter_map(|host| wire_name(host))
                .filter(|host| host.ends_with(&zone))
                .collect(),
            zone,
            v6_zone,
            names: HashMap::new(),
            pointers: HashMap::new(),
            has_policy: slice.is_some(),
            ambiguous: 0,
        };
        if let Some(slice) = slice {
            book.add_peers(slice);
            book.add_own_devices(node, slice);
        }
        book.add_own(node, own);
        book.ambiguous = book.names.values().filter(|entry| entry.ambiguous).count();
        Ok(book)
    }

    pub fn zone(&self) -> &WireName {
        &self.zone
    }

    /// How many names have an address.
    pub fn len(&self) -> usize {
        self.names.len() - self.ambiguous
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many names belong to two, who differ in case only: nobody has them.
    pub fn ambiguous(&self) -> usize {
        self.ambiguous
    }

    /// The zones for which this node answers: names, then addresses.
    pub fn zones(&self) -> Vec<WireName> {
        let v4 = (64..128).filter_map(|second| wire_name(&format!("{second}.100.in-addr.arpa")));
        [self.zone.clone(), self.v6_zone.clone()]
            .into_iter()
            .chain(v4)
            .collect()
    }

    /// What a name in lower case stands for.
    pub fn find(&self, name: &WireName) -> Found {
        if let Some(found) = self.find_pointer(name) {
            return found;
        }
        let Some(labels) = below(name, &self.zone) else {
            return Found::Foreign;
        };
        if self.cloud.contains(name) {
            return Found::Cloud;
        }
        if labels.is_empty() {
            return Found::Bare(Zone(self.zone.clone()));
        }
        let entry = key(&labels).and_then(|key| self.names.get(key.as_str()));
        match entry.filter(|entry| !entry.ambiguous) {
            Some(Entry {
                v4: None, v6: None, ..
            }) => Found::Bare(Zone(self.zone.clone())),
            Some(entry) => Found::Addresses {
                v4: entry.v4,
                v6: entry.v6,
            },
            None if !self.has_policy => Found::NotKnown,
            None => Found::Nothing(Zone(self.zone.clone())),
        }
    }

    /// Addresses by their trees. What lies between our zones and a whole address has no record, whatever is below it.
    fn find_pointer(&self, name: &WireName) -> Option<Found> {
        let address = address_of(name);
        if let Some(found) = address.and_then(|address| self.pointers.get(&address)) {
            return Some(Found::Pointer(found.clone()));
        }
        let (zone, whole) = match v4_zone_of(name) {
            Some(zone) => (zone, IP4_LABELS),
            None if name.ends_with(&self.v6_zone) => (self.v6_zone.clone(), IP6_LABELS),
            None => return None,
        };
        // The root is a label too.
        Some(if name.label_count() <= whole {
            Found::Bare(Zone(zone))
        } else if self.has_policy {
            Found::Nothing(Zone(zone))
        } else {
            Found::NotKnown
        })
    }

    fn add_peers(&mut self, slice: &Slice) {
        let reached: HashSet<usize> = slice
            .egress
            .iter()
            .filter(|egress| egress.beyond.is_none() && egress.devices.is_empty())
            .filter_map(|egress| usize::try_from(egress.peer.0).ok())
            .collect();
        for (index, peer) in slice.peers.iter().enumerate() {
            let addresses = match reached.contains(&index) {
                true => Entry {
                    v4: peer.v4,
                    v6: Some(peer.v6),
                    ambiguous: false,
                },
                // The name under which its devices stand.
                false if reached_devices(peer).next().is_some() => Entry::default(),
                false => continue,
            };
            self.add(peer.id.name(), addresses);
            for device in reached_devices(peer) {
                self.add_device(device.id.name(), peer.id.name(), Some(device.address));
            }
        }
    }

    fn add_own_devices(&mut self, node: &SpiffeId, slice: &Slice) {
        for device in &slice.devices {
            self.add_device(device.id.name(), node.name(), device.recognised.ip);
        }
    }

    fn add_device(&mut self, device: &str, node: &str, address: Option<IpAddr>) {
        if !is_label(device) || !is_label(node) {
            return;
        }
        let (v4, v6) = match address {
            Some(IpAddr::V4(v4)) => (Some(v4), None),
            Some(IpAddr::V6(v6)) => (None, Some(v6)),
            None => (None, None),
        };
        let entry = Entry {
            v4,
            v6,
            ambiguous: false,
        };
        self.insert(format!("{device}.{node}"), entry);
    }

    /// Nobody takes this node's own name from it.
    fn add_own(&mut self, node: &SpiffeId, own: Overlay) {
        if is_label(node.name()) {
            self.names.remove(node.name().to_ascii_lowercase().as_str());
        }
        let v4 = own.v4.map(IpAddr::V4);
        for address in std::iter::once(IpAddr::V6(own.v6)).chain(v4) {
            self.pointers.remove(&address);
        }
        let addresses = Entry {
            v4: own.v4,
            v6: Some(own.v6),
            ambiguous: false,
        };
        self.add(node.name(), addresses);
    }

    fn add(&mut self, name: &str, entry: Entry) {
        if is_label(name) {
            self.insert(name.to_owned(), entry);
        }
    }

    fn insert(&mut self, name: String, entry: Entry) {
        let name = name.to_ascii_lowercase();
        let Some(full) = wire_name(&format!("{name}.{}", self.zone)) else {
            return;
        };
        if let Some(present) = self.names.get_mut(name.as_str()) {
            present.ambiguous = true;
            self.pointers.retain(|_, pointed| *pointed != full);
            return;
        }
        let addresses = [entry.v6.map(IpAddr::V6), entry.v4.map(IpAddr::V4)];
        for address in addresses.into_iter().flatten() {
            self.pointers.entry(address).or_insert_with(|| full.clone());
        }
        self.names.insert(name.into(), entry);
    }
}

/// A name of DNS in lower case; `None` where the text is none.
pub fn wire_name(text: &str) -> Option<WireName> {
    let name = Name::<Vec<u8>>::vec_from_str(&text.to_ascii_lowercase()).ok()?;
    (!name.is_root()).then_some(name)
}

/// The labels that stand before a zone; `None` for a name outside of it.
fn below<'a>(name: &'a WireName, zone: &WireName) -> Option<Vec<&'a Label>> {
    if !name.ends_with(zone) {
        return None;
    }
    let count = name.label_count().checked_sub(zone.label_count())?;
    Some(name.iter().take(count).collect())
}

/// Labels as one text, where each is such that no other labels give the same text.
fn key(labels: &[&Label]) -> Option<String> {
    let texts: Option<Vec<&str>> = labels
        .iter()
        .map(|label| std::str::from_utf8(label.as_slice()).ok())
        .collect();
    let texts = texts.filter(|texts| texts.iter().all(|text| is_label(text)))?;
    Some(texts.join("."))
}

fn is_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_LABEL_BYTES).contains(&text.len()) && text.bytes().all(fits)
}

/// `….ip6.arpa` of the trust domain's prefix.
fn v6_zone_of(domain: &TrustDomain) -> Option<WireName> {
    let nibbles = usize::from(overlay::PREFIX_BITS / 4);
    let prefix = overlay::prefix_of(domain).to_bits();
    let labels: String = (0..nibbles)
        .rev()
        .map(|nibble| format!("{:x}.", (prefix >> (124 - 4 * nibble)) & 0xf))
        .collect();
    wire_name(&format!("{labels}ip6.arpa"))
}

/// The zone of `100.64.0.0/10`'s part in which a name lies.
fn v4_zone_of(name: &WireName) -> Option<WireName> {
    let text = name.to_string();
    let mut labels = text.rsplit('.');
    let known = ["arpa", "in-addr", "100"];
    if !known.iter().all(|label| labels.next() == Some(label)) {
        return None;
    }
    let second: u8 = labels.next()?.parse().ok()?;
    let zone = wire_name(&format!("{second}.100.in-addr.arpa"))?;
    ((64..128).contains(&second) && name.ends_with(&zone)).then_some(zone)
}

/// The address whose name in the tree of addresses this is.
fn address_of(name: &WireName) -> Option<IpAddr> {
    let text = name.to_string();
    let address = if let Some(nibbles) = text.strip_suffix(".ip6.arpa") {
        let mut bits = 0_u128;
        for (position, nibble) in nibbles.split('.').enumerate() {
            let digit = u128::from_str_radix(nibble, 16).ok()?;
            bits |= digit.checked_shl(u32::try_from(position).ok()?.checked_mul(4)?)?;
        }
        IpAddr::V6(bits.into())
    } else {
        let numbers = text.strip_suffix(".in-addr.arpa")?;
        let mut octets = [0; 4];
        let mut texts = numbers.rsplit('.');
        for octet in &mut octets {
            *octet = texts.next()?.parse().ok()?;
        }
        IpAddr::V4(octets.into())
    };
    // Only the one way of writing it.
    let written = Name::<Vec<u8>>::reverse_from_addr(address).ok()?;
    (written == *name).then_some(address)
}

#[cfg(test)]
mod tests;
