//! Networks behind this node under other addresses: one to one, in the packets themselves, without any state.
//!
//! The overlay knows a network by `seen`, its own machines by `real`; both have as many hosts. Towards the network the
//! destination changes, from it the source; ICMP errors are rewritten with what they quote. Where the families differ
//! (IPv4 behind, IPv6 in the overlay) headers are translated as by RFC 7915, and the peer's own two overlay addresses
//! stand for each other. Checksums are changed by the difference, so a packet that was damaged stays damaged.
//!
//! Fragments, IPv4 options and IPv6 extension headers are refused, and so is every message of ICMP that is neither an
//! echo nor an error with a counterpart. No I/O, and nothing is kept between two packets.

mod checksum;
mod cross;
mod icmp;
mod parse;
mod same;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::IpNet;

use parse::Packet;

/// Most networks of one node.
pub const MAX_NETWORKS: usize = 256;
/// Bytes that a packet may grow by, at its front: its own header and that of the packet an error quotes.
pub const HEADROOM_BYTES: usize = 40;

/// One network under two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// As the overlay knows it.
    pub seen: IpNet,
    /// As its own machines know it.
    pub real: IpNet,
}

/// The networks behind this node, and the two addresses of everybody in the overlay who may speak with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translations {
    networks: Vec<Network>,
    to_v4: HashMap<Ipv6Addr, Ipv4Addr, foldhash::fast::RandomState>,
    to_v6: HashMap<Ipv4Addr, Ipv6Addr, foldhash::fast::RandomState>,
}

/// Whether the checksum of a packet is there, or only the sum over its pseudo-header (a frame of the TUN device).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Complete,
    Partial,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translated {
    /// It is about none of the networks.
    Untouched,
    /// It stands here now.
    At(Range<usize>),
}

/// Why a packet about one of the networks is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("shorter than its headers, or of another length than it says")]
    Short,
    #[error("a fragment")]
    Fragment,
    #[error("IPv4 options or an IPv6 extension header")]
    Options,
    #[error("neither TCP, UDP nor ICMP")]
    Protocol,
    #[error("a message of ICMP without a counterpart")]
    Icmp,
    #[error("its checksum is wrong or missing")]
    Checksum,
    #[error("no address of the other family for its other end")]
    Address,
    #[error("no room to grow")]
    Room,
}

impl Translations {
    /// `None` where nothing is to be translated. Networks whose sizes differ, and IPv6 networks seen as IPv4, are left
    /// out; so are all beyond [`MAX_NETWORKS`]. `people` are overlay addresses of peers and of this node itself.
    pub fn new(
        networks: impl IntoIterator<Item = Network>,
        people: impl IntoIterator<Item = (Ipv6Addr, Ipv4Addr)>,
    ) -> Option<Self> {
        let networks: Vec<Network> = networks
            .into_iter()
            .filter(|network| network.seen != network.real && network.is_one_to_one())
            .take(MAX_NETWORKS)
            .collect();
        if networks.is_empty() {
            return None;
        }
        let mut all = Self {
            networks,
            ..Self::default()
        };
        for (v6, v4) in people {
            all.to_v4.insert(v6, v4);
            all.to_v6.insert(v4, v6);
        }
        Some(all)
    }

    /// A packet from the overlay towards a network, already checked by the filter.
    pub fn inward(&self, buffer: &mut [u8], at: Range<usize>) -> Result<Translated, Refused> {
        let Some((_, destination)) = ends(buffer, &at) else {
            return Err(Refused::Short);
        };
        let Some(network) = self.seen(destination) else {
            return Ok(Translated::Untouched);
        };
        let packet = Packet::parse(buffer.get(at.clone()).ok_or(Refused::Short)?)?;
        let change = Change {
            all: self,
            network,
            way: Way::Inward,
        };
        change.apply(buffer, at, &packet, Checksum::Complete)
    }

    /// A packet from a network, or about one, towards the overlay. Before it [`HEADROOM_BYTES`] of the buffer are free.
    pub fn outward(
        &self,
        buffer: &mut [u8],
        at: Range<usize>,
        checksum: Checksum,
    ) -> Result<Translated, Refused> {
        let Some((source, _)) = ends(buffer, &at) else {
            return Err(Refused::Short);
        };
        let bytes = buffer.get(at.clone()).ok_or(Refused::Short)?;
        let network = match self.real(source) {
            Some(network) => network,
            // This node itself may tell of an error on the way to a network.
            None => {
                let Ok(packet) = Packet::parse(bytes) else {
                    return Ok(Translated::Untouched);
                };
                let quoted = packet.quoted(bytes);
                let Some(network) = quoted.and_then(|quoted| self.real(quoted.destination)) else {
                    return Ok(Translated::Untouched);
                };
                network
            }
        };
        let packet = Packet::parse(bytes)?;
        let change = Change {
            all: self,
            network,
            way: Way::Outward,
        };
        change.apply(buffer, at, &packet, checksum)
    }

    fn seen(&self, address: IpAddr) -> Option<Network> {
        let mut networks = self.networks.iter();
        networks
            .find(|network| network.seen.contains(&address))
            .copied()
    }

    fn real(&self, address: IpAddr) -> Option<Network> {
        let mut networks = self.networks.iter();
        networks
            .find(|network| network.real.contains(&address))
            .copied()
    }

    /// The same party's address of the other family.
    fn other(&self, address: IpAddr) -> Result<IpAddr, Refused> {
        let other = match address {
            IpAddr::V4(v4) => self.to_v6.get(&v4).copied().map(IpAddr::V6),
            IpAddr::V6(v6) => self.to_v4.get(&v6).copied().map(IpAddr::V4),
        };
        other.ok_or(Refused::Address)
    }
}

impl Network {
    fn is_one_to_one(self) -> bool {
        let host = |net: IpNet| net.max_prefix_len().saturating_sub(net.prefix_len());
        let families = matches!(
            (self.real, self.seen),
            (IpNet::V4(_), _) | (IpNet::V6(_), IpNet::V6(_))
        );
        families && host(self.real) == host(self.seen)
    }

    fn is_cross(self) -> bool {
        matches!((self.real, self.seen), (IpNet::V4(_), IpNet::V6(_)))
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Towards the network.
    Inward,
    Outward,
}

/// One rewriting: of one network, one way.
#[derive(Clone, Copy, Debug)]
struct Change<'t> {
    all: &'t Translations,
    network: Network,
    way: Way,
}

impl Change<'_> {
    fn apply(
        &self,
        buffer: &mut [u8],
        at: Range<usize>,
        packet: &Packet,
        checksum: Checksum,
    ) -> Result<Translated, Refused> {
        if self.network.is_cross() {
            return cross::translate(self, buffer, at, packet, checksum).map(Translated::At);
        }
        let bytes = buffer.get_mut(at.clone()).ok_or(Refused::Short)?;
        same::rewrite(self, bytes, packet, checksum)?;
        Ok(Translated::At(at))
    }

    /// The address that stands for this one on the other side: of a host of the network, or of a party of the overlay.
    fn address(&self, address: IpAddr) -> Result<IpAddr, Refused> {
        let (from, to) = match self.way {
            Way::Inward => (self.network.seen, self.network.real),
            Way::Outward => (self.network.real, self.network.seen),
        };
        if from.contains(&address) {
            return Ok(moved(address, from, to));
        }
        match self.network.is_cross() {
            true => self.all.other(address),
            false => Ok(address),
        }
    }
}

/// The address with the same host bits in a network of the same size.
fn moved(address: IpAddr, from: IpNet, to: IpNet) -> IpAddr {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let host = bits(address) ^ bits(from.network());
    let whole = bits(to.network()) | host;
    match to {
        // What a network of IPv4 and its hosts make up has 32 bits.
        IpNet::V4(_) => Ipv4Addr::from_bits(u32::try_from(whole).unwrap_or_default()).into(),
        IpNet::V6(_) => Ipv6Addr::from_bits(whole).into(),
    }
}

/// Source and destination.
fn ends(buffer: &[u8], at: &Range<usize>) -> Option<(IpAddr, IpAddr)> {
    parse::addresses(buffer.get(at.clone())?)
}

#[cfg(test)]
mod tests;
