//! A node `a` of `plant.example` and the peers that its slice lists.

use std::net::IpAddr;

use edgeward_identity::SpiffeId;
use edgeward_identity::overlay::ipv6_of;
use edgeward_policy::slice::{Egress, PeerIndex, SlicePeer};
use edgeward_policy::{Recognition, SeenDevice, Slice, SliceDevice};

use super::book::Book;
use crate::enforce::testing::{id, parts, slice};
use crate::view::Overlay;

/// What policy lets the node do.
pub(crate) enum May {
    Reach(u32),
    SeeDevice(usize, SeenDevice),
}

pub(crate) struct Scene {
    slice: Slice,
    egress: Egress,
}

/// The node may reach an interface of the peer.
pub(crate) fn reach(peer: u32) -> May {
    May::Reach(peer)
}

/// The node may reach a device behind the peer.
pub(crate) fn device(peer: usize, name: &str, address: &str) -> May {
    let device = SeenDevice {
        id: device_id(name),
        address: address.parse().unwrap(),
        groups: Vec::new(),
        source: false,
    };
    May::SeeDevice(peer, device)
}

impl Scene {
    /// Peers that may come in, and that the node may not reach.
    pub(crate) fn new(peers: &[&str]) -> Self {
        let mut slice = slice();
        let egress = slice.egress.remove(0);
        let one = slice.peers.remove(0);
        slice.peers = peers
            .iter()
            .zip(2..)
            .map(|(name, number)| SlicePeer {
                id: id(name),
                v6: ipv6_of(&id(name)),
                v4: Some([100, 64, 0, number].into()),
                ..one.clone()
            })
            .collect();
        Self { slice, egress }
    }

    pub(crate) fn with(mut self, may: May) -> Self {
        match may {
            May::Reach(peer) => self.slice.egress.push(Egress {
                peer: PeerIndex(peer),
                ..self.egress.clone()
            }),
            May::SeeDevice(peer, device) => self.slice.peers[peer].devices.push(device),
        }
        self
    }

    pub(crate) fn with_own_device(mut self, name: &str, ip: Option<&str>) -> Self {
        let ip: Option<IpAddr> = ip.map(|ip| ip.parse().unwrap());
        self.slice.devices.push(SliceDevice {
            id: device_id(name),
            groups: Vec::new(),
            net: "lan0".to_owned(),
            recognised: Recognition {
                mac: Some("02:00:00:00:00:11".parse().unwrap()),
                ip,
                certificate: None,
            },
            seen_as: None,
        });
        self
    }

    pub(crate) fn slice(&self) -> Slice {
        self.slice.clone()
    }

    pub(crate) fn peer(&self, index: usize) -> &SlicePeer {
        &self.slice.peers[index]
    }

    pub(crate) fn node(&self) -> SpiffeId {
        id("a")
    }

    pub(crate) fn overlay(&self) -> Overlay {
        parts().overlay
    }

    pub(crate) fn book(&self) -> Book {
        Book::new(&self.node(), self.overlay(), Some(&self.slice), &[]).unwrap()
    }
}

fn device_id(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/device/{name}")
        .parse()
        .unwrap()
}
