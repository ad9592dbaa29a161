//! Devices that hang on other nodes, and come through the tunnels of those.

use std::collections::BTreeSet;
use std::net::IpAddr;

use edgeward_identity::SpiffeId;

use super::select::Class;
use crate::slice::{PeerIndex, SeenDevice, Slice};

/// How a subject comes to the node that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Comes {
    /// By a proof of its own.
    Anywhere,
    /// A device of this node, by the network that it hangs on.
    ByNetwork,
    /// A device of another node, through the tunnel of that.
    AsGuest,
}

/// Devices of peers that some rule lets in here.
pub(crate) struct Guests {
    /// Sorted by peer: of each peer, one of every class of them, or all where somebody has an approval of his own.
    examples: Vec<(PeerIndex, u32)>,
}

impl Guests {
    pub(crate) fn new(slice: &Slice, class_of: impl Fn(&SpiffeId) -> Option<Class>) -> Self {
        let mut examples = Vec::new();
        for (number, peer) in (0..).map(PeerIndex).zip(&slice.peers) {
            let mut seen = BTreeSet::new();
            for (place, device) in (0..).zip(&peer.devices) {
                let class = class_of(&device.id).filter(|_| slice.approvals.is_empty());
                if device.source && class.is_none_or(|class| seen.insert(class)) {
                    examples.push((number, place));
                }
            }
        }
        Self { examples }
    }

    /// Devices of a peer such that the others are decided about as one of these.
    pub(crate) fn examples<'s>(
        &'s self,
        slice: &'s Slice,
        peer: PeerIndex,
    ) -> impl Iterator<Item = &'s SeenDevice> {
        let start = self.examples.partition_point(|(known, _)| *known < peer);
        let of_peer = self.examples.iter().skip(start);
        let of_peer = of_peer.take_while(move |(known, _)| *known == peer);
        let devices = slice.peers.get(peer.0 as usize).map(|peer| &peer.devices);
        of_peer.filter_map(move |(_, place)| devices?.get(*place as usize))
    }
}

impl Slice {
    /// The device behind a peer that may come here from an address.
    pub fn guest(&self, peer: PeerIndex, address: IpAddr) -> Option<&SeenDevice> {
        let mut devices = self.peers.get(peer.0 as usize)?.devices.iter();
        devices.find(|device| device.source && device.address == address)
    }
}
