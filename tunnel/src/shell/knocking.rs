//! Packets for peers that sleep: held in the node on their way out, sent once the peer is there.

use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use edgeward_identity::BootTime;

use super::offload::split::Splitter;
use super::offload::{HEADER_BYTES, VnetHeader};
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
    let peer = destination.and_then(|destination| node.route_awake(destination));
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
                match node.knock(destination, packet, now) {
                    Knock::Held => {}
                    Knock::Full => break,
                    Knock::Nobody => {
                        node.count_unroutable();
                        break;
                    }
                }
            }
        }
        Err(error) => tracing::debug!(%error, "frame of the device dropped"),
    }
}

impl Tunnel {
    /// Passes on what waited for a peer that is armed and open now, through the filter as everything else; how many
    /// packets that were.
    pub fn release(&self, peer: PeerId) -> usize {
        self.with_outgoing(|now, out| self.shared.release(peer, now, out))
    }
}

impl Shared {
    fn release(&self, peer: PeerId, now: BootTime, out: &mut Vec<Outgoing>) -> usize {
        let held = self.node.take_held(peer, now);
        self.release_outward(peer, held.outward, now, out)
            + self.release_inward(peer, held.inward, now)
    }

    fn release_outward(
        &self,
        peer: PeerId,
        packets: Vec<Vec<u8>>,
        now: BootTime,
        out: &mut Vec<Outgoing>,
    ) -> usize {
        let mut released = 0;
        for packet in packets {
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

    /// Their sources were checked when they came.
    fn release_inward(&self, peer: PeerId, packets: Vec<Vec<u8>>, now: BootTime) -> usize {
        let mut released = 0;
        for mut packet in packets {
            let Some(generation) = self.node.generation_of(peer) else {
                return released;
            };
            let party = Party { peer, generation };
            let passes = self
                .filter
                .checker(now)
                .check(&packet, party, Direction::In);
            if passes.is_err() {
                continue;
            }
            let whole = 0..packet.len();
            let at = match self.translating.load() {
                Some(all) => self.translating.inward(&all, &mut packet, whole),
                None => Some(whole),
            };
            let Some(packet) = at.and_then(|at| packet.get(at)) else {
                continue;
            };
            let header = [0; HEADER_BYTES];
            let parts = [IoSlice::new(&header), IoSlice::new(packet)];
            let parts = if self.device.has_offload() {
                &parts[..]
            } else {
                parts.get(1..).unwrap_or_default()
            };
            match self.device.write(parts) {
                Ok(_) => released += 1,
                Err(error) => {
                    self.device_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, "packet not written to the device");
                }
            }
        }
        released
    }
}
