//! Packets for peers that sleep: held in the node on their way out, sent once the peer is there.

use std::net::IpAddr;

use edgeward_identity::BootTime;

use super::offload::VnetHeader;
use super::offload::split::Splitter;
use super::{Shared, Tunnel};
use crate::filter::{Direction, Party};
use crate::node::{Knock, Node, Outgoing, PeerHandle, PeerId};
use crate::wireguard::{DATA_OVERHEAD_BYTES, MAX_HANDSHAKE_BYTES, padded_length};

/// Whose a frame on its way out is. `None`: nobody's, or it waits for a peer that sleeps or is just being armed.
/// `buffer` is as [`Splitter::new`] wants it.
pub(super) fn peer_of(
    node: &Node,
    destination: Option<IpAddr>,
    header: VnetHeader,
    buffer: &mut [u8],
    now: BootTime,
) -> Option<PeerHandle> {
    let peer = destination.and_then(|destination| node.route(destination));
    if let Some(peer) = peer
        && !node.awaits(peer.id())
    {
        return Some(peer);
    }
    match destination.filter(|destination| node.is_asleep(*destination)) {
        Some(destination) => hold(node, destination, header, buffer, now),
        None => node.count_unroutable(),
    }
    None
}

fn hold(node: &Node, destination: IpAddr, header: VnetHeader, buffer: &mut [u8], now: BootTime) {
    match Splitter::new(header, buffer) {
        Ok(mut segments) => {
            while let Some(packet) = segments.next_segment(|length| length) {
                if node.knock(destination, packet, now) != Knock::Held {
                    break;
                }
            }
        }
        Err(error) => tracing::debug!(%error, "frame of the device dropped"),
    }
}

impl Tunnel {
    /// Sends what waited for a peer that is armed and open now, through the filter as everything else; how many
    /// packets that were.
    pub fn release(&self, peer: PeerId) -> usize {
        self.with_outgoing(|now, out| self.shared.release(peer, now, out))
    }
}

impl Shared {
    fn release(&self, peer: PeerId, now: BootTime, out: &mut Vec<Outgoing>) -> usize {
        let mut released = 0;
        for packet in self.node.take_held(peer, now) {
            let handle = super::egress::destination_address(&packet)
                .and_then(|destination| self.node.route(destination))
                .filter(|handle| handle.id() == peer);
            let Some(handle) = handle else {
                self.node.count_unroutable();
                continue;
            };
            let party = Party {
                peer,
                generation: handle.generation(),
            };
            let passes = self
                .filter
                .checker(now)
                .check(&packet, party, Direction::Out);
            if passes.is_err() {
                continue;
            }
            let Ok(mut sealer) = handle.sealer(&self.node, now) else {
                continue;
            };
            released += 1;
            let Some(to) = sealer.endpoint() else {
                sealer.hold(&packet, out);
                continue;
            };
            let mut plain = packet;
            plain.resize(padded_length(plain.len(), self.mtu()), 0);
            let mut bytes = vec![0; (plain.len() + DATA_OVERHEAD_BYTES).max(MAX_HANDSHAKE_BYTES)];
            // A refusal is counted by the node.
            if let Ok(length) = sealer.seal(&plain, &mut bytes) {
                bytes.truncate(length);
                out.push(Outgoing { to, bytes });
            }
        }
        released
    }
}
