//! A slice made ready: the engine, and hash lookups beside it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use edgeward_identity::SpiffeId;
use edgeward_policy::slice::MESH;
use edgeward_policy::slice::beyond::is_internet;
use edgeward_policy::{
    DeviceIndex, Engine, EngineError, InterfaceIndex, L7, Opened, PeerIndex, Place, Proto,
    SeenDevice, SliceDevice, SliceInterface,
};
use ipnet::IpNet;

use super::devices::Devices;
use crate::view::HeldSlice;

/// One policy slice in force.
pub struct Rules {
    number: u64,
    digest: [u8; 32],
    engine: Engine,
    /// Interfaces of this node on the tunnel.
    mesh: HashMap<(Proto, u16), InterfaceIndex>,
    /// Interfaces that the agent itself serves, on whatever network.
    forwarded: HashMap<Spot, (InterfaceIndex, Arc<Forwarded>)>,
    by_address: HashMap<IpAddr, PeerIndex>,
    devices: Devices,
    /// Devices behind peers that may come here, by where they come from: the peer, and the place in its list.
    guests: HashMap<IpAddr, (PeerIndex, usize)>,
    guest_nodes: HashMap<SpiffeId, PeerIndex>,
    /// Devices of this node that peers know by these addresses.
    travellers: HashMap<IpAddr, DeviceIndex>,
}

/// Where connections to an interface arrive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// The network's name in policy; [`MESH`] is the tunnel.
    pub net: Arc<str>,
    pub proto: Proto,
    pub port: u16,
}

/// An interface that the agent itself serves.
#[derive(Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub spot: Spot,
    /// `service/interface`.
    pub name: Arc<str>,
    /// What is told apart within it.
    pub l7: Option<L7>,
    /// Names of its actions, in the order of their numbers.
    pub actions: Vec<Arc<str>>,
    /// Where it is forwarded.
    pub upstream: SocketAddr,
}

impl Forwarded {
    fn new(interface: &SliceInterface) -> Self {
        // What has no other place is a service of this machine that listens on loopback.
        let here = SocketAddr::from(([127, 0, 0, 1], interface.port));
        Self {
            spot: Spot {
                net: interface.net.as_str().into(),
                proto: interface.proto,
                port: interface.port,
            },
            name: format!("{}/{}", interface.service, interface.name).into(),
            l7: interface.l7.clone(),
            actions: interface.actions().into_iter().map(Into::into).collect(),
            upstream: interface.to.unwrap_or(here),
        }
    }
}

impl Rules {
    pub fn new(held: &HeldSlice) -> Result<Self, EngineError> {
        Self::with_opened(held, &[])
    }

    /// As [`Rules::new`], with what break-glass opened here.
    pub fn with_opened(held: &HeldSlice, opened: &[Opened]) -> Result<Self, EngineError> {
        let engine = Engine::with_opened(Arc::new(held.slice.clone()), opened)?;
        let (mut mesh, mut forwarded) = (HashMap::new(), HashMap::new());
        for (index, interface) in (0..).map(InterfaceIndex).zip(&engine.slice().interfaces) {
            if interface.net == MESH && interface.beyond.is_none() {
                mesh.insert((interface.proto, interface.port), index);
            }
            if interface.is_forwarded() {
                let served = Arc::new(Forwarded::new(interface));
                forwarded.insert(served.spot.clone(), (index, served));
            }
        }
        let mut by_address = HashMap::new();
        for (index, peer) in (0..).map(PeerIndex).zip(&engine.slice().peers) {
            by_address.insert(IpAddr::from(peer.v6), index);
            if let Some(v4) = peer.v4 {
                by_address.insert(IpAddr::from(v4), index);
            }
        }
        let devices = Devices::new(&engine.slice().devices);
        let (mut guests, mut guest_nodes) = (HashMap::new(), HashMap::new());
        for (index, peer) in (0..).map(PeerIndex).zip(&engine.slice().peers) {
            let known = peer.devices.iter().enumerate();
            for (place, device) in known.filter(|(_, device)| device.source) {
                // Somebody's own address is never a device's.
                if !by_address.contains_key(&device.address) {
                    guests.insert(device.address, (index, place));
                    guest_nodes.insert(device.id.clone(), index);
                }
            }
        }
        let own = (0..).zip(&engine.slice().devices);
        let travellers = own
            .filter(|(_, device)| device.recognised.certificate.is_none())
            .filter(|(index, device)| devices.is_unique(*index as usize, device))
            .filter_map(|(index, device)| Some((device.seen_as?, DeviceIndex(index))))
            .collect();
        Ok(Self {
            number: held.number,
            digest: held.digest,
            engine,
            mesh,
            forwarded,
            by_address,
            devices,
            guests,
            guest_nodes,
            travellers,
        })
    }

    /// Number of the signed slice.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// SHA-256 of the signed slice.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn mesh_interface(&self, proto: Proto, port: u16) -> Option<InterfaceIndex> {
        self.mesh.get(&(proto, port)).copied()
    }

    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The interface that the agent itself serves there.
    pub fn forwarded(&self, spot: &Spot) -> Option<(InterfaceIndex, &Arc<Forwarded>)> {
        let (index, interface) = self.forwarded.get(spot)?;
        Some((*index, interface))
    }

    /// Every interface that the agent itself serves, in no particular order.
    pub fn all_forwarded(&self) -> impl Iterator<Item = &Arc<Forwarded>> {
        self.forwarded.values().map(|(_, interface)| interface)
    }

    /// Whether the agent itself serves this interface.
    pub(super) fn is_forwarded(&self, index: InterfaceIndex) -> bool {
        let interfaces = &self.engine.slice().interfaces;
        let interface = interfaces.get(index.0 as usize);
        interface.is_some_and(SliceInterface::is_forwarded)
    }

    /// The peer that owns an overlay address.
    pub(super) fn peer_at(&self, address: IpAddr) -> Option<PeerIndex> {
        self.by_address.get(&address).copied()
    }

    pub fn peer(&self, id: &SpiffeId) -> Option<PeerIndex> {
        self.engine.peer(id)
    }

    /// The peer's overlay addresses, each as a prefix of its own, what it leads to of networks behind it, and the
    /// addresses of the devices there that may come here: its AllowedIPs.
    pub fn prefixes(&self, index: PeerIndex) -> Vec<IpNet> {
        let Some(peer) = self.engine.slice().peers.get(index.0 as usize) else {
            return Vec::new();
        };
        let v6 = IpNet::from(std::net::IpAddr::from(peer.v6));
        let v4 = peer.v4.map(|v4| IpNet::from(std::net::IpAddr::from(v4)));
        let own = std::iter::once(v6).chain(v4);
        // Somebody's own address is never another's network.
        let free = |net: &&IpNet| net.prefix_len() < net.max_prefix_len() || !self.is_taken(net);
        let guests = self.guests_of(index).map(IpNet::from);
        let led = peer.routes.iter().filter(free).copied();
        let mut all: Vec<IpNet> = own.chain(led).collect();
        all.extend(guests.filter(|guest| !peer.routes.contains(guest)));
        all
    }

    /// The addresses from which devices behind a peer may come here.
    pub fn guests_of(&self, peer: PeerIndex) -> impl Iterator<Item = IpAddr> {
        let known = self.engine.slice().peers.get(peer.0 as usize);
        let devices = known.into_iter().flat_map(|peer| &peer.devices);
        let addresses = devices
            .filter(|device| device.source)
            .map(|device| device.address);
        addresses.filter(|address| !self.by_address.contains_key(address))
    }

    /// The device behind a peer that comes from an address.
    pub(super) fn guest_at(&self, address: IpAddr) -> Option<(PeerIndex, &SeenDevice)> {
        let (peer, place) = *self.guests.get(&address)?;
        let known = self.engine.slice().peers.get(peer.0 as usize)?;
        Some((peer, known.devices.get(place)?))
    }

    /// The node that vouches for a device which may come here.
    pub(super) fn node_of_guest(&self, device: &SpiffeId) -> Option<&SpiffeId> {
        let peer = self.guest_nodes.get(device)?;
        let known = self.engine.slice().peers.get(peer.0 as usize)?;
        Some(&known.id)
    }

    /// The device of this node that peers know by an address.
    pub fn traveller_at(&self, address: IpAddr) -> Option<(DeviceIndex, &SliceDevice)> {
        let index = *self.travellers.get(&address)?;
        Some((index, self.engine.slice().devices.get(index.0 as usize)?))
    }

    /// Whether some rule lets this node to the internet through a peer.
    pub(super) fn leads_out(&self, peer: PeerIndex) -> bool {
        let peers = &self.engine.slice().peers;
        peers.get(peer.0 as usize).is_some_and(|peer| peer.exit)
    }

    fn is_taken(&self, net: &IpNet) -> bool {
        self.by_address.contains_key(&net.addr())
    }

    /// Whether an address lies in a network that this node leads to.
    pub(super) fn leads_to(&self, address: IpAddr) -> bool {
        let slice = self.engine.slice();
        let mut routes = slice.routes.iter();
        routes.any(|route| route.seen_as.contains(&address))
            || (slice.roles.exit && is_internet(address))
    }

    /// `service/interface` behind a port of this node or of a peer, or of an address beyond either.
    pub fn name_of(
        &self,
        peer: Option<PeerIndex>,
        proto: Proto,
        port: u16,
        beyond: Option<IpAddr>,
    ) -> Option<String> {
        let slice = self.engine.slice();
        if let Some(address) = beyond {
            let place = Place {
                proto,
                address,
                port,
            };
            return match peer {
                None => {
                    let mut interfaces = slice.interfaces.iter();
                    let known = interfaces
                        .find(|known| place.is_in(known.proto, known.port, known.beyond))?;
                    Some(format!("{}/{}", known.service, known.name))
                }
                Some(peer) => {
                    let mut ways = slice.egress.iter().filter(|way| way.peer == peer);
                    let way = ways.find(|way| place.is_in(way.proto, way.port, way.beyond))?;
                    Some(format!("{}/{}", way.service, way.interface))
                }
            };
        }
        match peer {
            None => {
                let index = self.mesh_interface(proto, port)?;
                let interface = slice.interfaces.get(index.0 as usize)?;
                Some(format!("{}/{}", interface.service, interface.name))
            }
            Some(peer) => slice
                .egress
                .iter()
                .filter(|egress| egress.beyond.is_none())
                .find(|egress| egress.peer == peer && egress.proto == proto && egress.port == port)
                .map(|egress| format!("{}/{}", egress.service, egress.interface)),
        }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
