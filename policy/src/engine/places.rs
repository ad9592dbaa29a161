//! Where things stand in a slice: interfaces by name and by port, and the ways out to each peer.

use crate::slice::{Egress, InterfaceIndex, PeerIndex, Proto, Slice, SliceInterface};

/// Indices into one slice, sorted; the slice itself is handed in.
pub(super) struct Places {
    by_name: Vec<u32>,
    by_port: Vec<u32>,
    /// Pairs of a peer and an entry of the slice's egress.
    egress: Vec<(PeerIndex, u32)>,
}

impl Places {
    pub(super) fn new(slice: &Slice) -> Self {
        let mut interfaces: Vec<(u32, &SliceInterface)> = (0..).zip(&slice.interfaces).collect();
        interfaces.sort_by(|(_, one), (_, other)| name(one).cmp(&name(other)));
        let by_name = interfaces.iter().map(|(index, _)| *index).collect();
        interfaces.sort_by(|(_, one), (_, other)| port(one).cmp(&port(other)));
        // What lies beyond the node is not the node.
        interfaces.retain(|(_, interface)| interface.beyond.is_none());
        let by_port = interfaces.iter().map(|(index, _)| *index).collect();
        let egress = slice.egress.iter().zip(0..);
        let mut egress: Vec<_> = egress.map(|(egress, index)| (egress.peer, index)).collect();
        egress.sort_unstable();
        Self {
            by_name,
            by_port,
            egress,
        }
    }

    pub(super) fn named(
        &self,
        slice: &Slice,
        service: &str,
        wanted: &str,
    ) -> Option<InterfaceIndex> {
        find(&self.by_name, slice, name, (service, wanted))
    }

    pub(super) fn at(
        &self,
        slice: &Slice,
        net: &str,
        proto: Proto,
        number: u16,
    ) -> Option<InterfaceIndex> {
        find(&self.by_port, slice, port, (net, proto.number(), number))
    }

    /// The ways out to a peer.
    pub(super) fn egress<'s>(
        &'s self,
        slice: &'s Slice,
        peer: PeerIndex,
    ) -> impl Iterator<Item = &'s Egress> {
        let start = self.egress.partition_point(|(known, _)| *known < peer);
        let of_peer = self.egress.iter().skip(start);
        of_peer
            .take_while(move |(known, _)| *known == peer)
            .filter_map(|(_, index)| slice.egress.get(*index as usize))
    }
}

fn name(interface: &SliceInterface) -> (&str, &str) {
    (&interface.service, &interface.name)
}

fn port(interface: &SliceInterface) -> (&str, u8, u16) {
    (&interface.net, interface.proto.number(), interface.port)
}

fn find<'s, K: Ord + 's>(
    sorted: &[u32],
    slice: &'s Slice,
    key: impl Fn(&'s SliceInterface) -> K,
    wanted: K,
) -> Option<InterfaceIndex> {
    let of = |index: &u32| slice.interfaces.get(*index as usize).map(&key);
    let wanted = Some(wanted);
    let place = sorted
        .binary_search_by(|index| of(index).cmp(&wanted))
        .ok()?;
    sorted.get(place).copied().map(InterfaceIndex)
}
