//! From the TUN device to the UDP port: read a batch of frames, filter; then cut, seal, send.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use edgeward_identity::BootTime;

use super::Shared;
use super::knocking;
use super::offload::split::{Splitter, TAIL_BYTES};
use super::offload::{HEADER_BYTES, VnetHeader};
use super::profile::{FRAME_BYTES, Sizes};
use super::sending::{SendBatch, send_all};
use super::stop::Watch;
use super::too_big::Answers;
use crate::filter::{Direction, Party};
use crate::node::{Outgoing, PeerHandle, Sealer};
use crate::wireguard::{DATA_OVERHEAD_BYTES, MAX_HANDSHAKE_BYTES, padded_length};

/// Frames on their way out, with the peers they go to. Kept between batches.
pub(super) struct Departures {
    arena: Vec<u8>,
    used: usize,
    frames: Vec<Frame>,
    now: BootTime,
}

struct Frame {
    header: VnetHeader,
    /// The packet, without its header; [`TAIL_BYTES`] follow.
    packet: Range<usize>,
    peer: Option<PeerHandle>,
}

/// The first half: from the device to a decision.
pub(super) struct Reader {
    shared: Arc<Shared>,
    most_frames: usize,
}

/// The second half: from the decision to the port.
pub(super) struct Sender {
    shared: Arc<Shared>,
    watch: Watch,
    out: SendBatch,
    outgoing: Vec<Outgoing>,
    answers: Answers,
}

impl Departures {
    pub(super) fn new(sizes: &Sizes) -> Self {
        Self {
            arena: vec![0; sizes.arena_bytes],
            used: 0,
            frames: Vec::with_capacity(sizes.frames),
            now: BootTime::default(),
        }
    }

    /// Bytes read, headers included.
    pub(super) fn bytes(&self) -> usize {
        self.used
    }

    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        self.arena.capacity() + self.frames.capacity() * size_of::<Frame>()
    }
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            most_frames: shared.sizes.frames,
            shared,
        }
    }

    /// Takes what is there, up to a batch, and decides about it; `false` if there is nothing.
    pub(super) fn read(&mut self, batch: &mut Departures) -> io::Result<bool> {
        self.take(batch)?;
        if batch.frames.is_empty() {
            return Ok(false);
        }
        batch.now = self.shared.clock.boottime();
        self.decide(batch);
        Ok(true)
    }

    fn take(&self, batch: &mut Departures) -> io::Result<()> {
        batch.frames.clear();
        let header = if self.shared.device.has_offload() {
            HEADER_BYTES
        } else {
            0
        };
        batch.used = 0;
        let headroom = self.shared.translating.headroom();
        while batch.frames.len() < self.most_frames {
            let used = batch.used + headroom;
            let Some(room) = batch.arena.get_mut(used..used + FRAME_BYTES - TAIL_BYTES) else {
                break;
            };
            let length = match self.shared.device.read(room) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let parsed = if header == 0 {
                Ok(VnetHeader::default())
            } else {
                VnetHeader::parse(room.get(..length).unwrap_or_default())
            };
            match parsed {
                Ok(parsed) => batch.frames.push(Frame {
                    header: parsed,
                    packet: used + header..used + length,
                    peer: None,
                }),
                Err(error) => tracing::debug!(%error, "frame of the device dropped"),
            }
            batch.used = used + length + TAIL_BYTES;
        }
        Ok(())
    }

    /// Finds each frame's peer and asks the filter, once per frame.
    fn decide(&self, batch: &mut Departures) {
        let shared = &*self.shared;
        let now = batch.now;
        if let Some(all) = shared.translating.load() {
            let translating = &shared.translating;
            let arena = &mut batch.arena;
            batch.frames.retain_mut(|frame| {
                translating.outward(&all, arena, &mut frame.packet, &mut frame.header)
            });
        }
        for frame in &mut batch.frames {
            let destination = batch
                .arena
                .get(frame.packet.clone())
                .and_then(destination_address);
            let range = frame.packet.start..frame.packet.end + TAIL_BYTES;
            let buffer = batch.arena.get_mut(range).unwrap_or_default();
            frame.peer = knocking::peer_of(&shared.node, destination, frame.header, buffer, now);
        }
        let mut checker = shared.filter.checker(now);
        for frame in &mut batch.frames {
            let Some(peer) = &frame.peer else { continue };
            let party = Party {
                peer: peer.id(),
                generation: peer.generation(),
            };
            let packet = batch.arena.get(frame.packet.clone()).unwrap_or_default();
            if checker.check(packet, party, Direction::Out).is_err() {
                frame.peer = None;
            }
        }
    }
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, watch: Watch) -> Self {
        Self {
            out: SendBatch::with_capacity(shared.sizes.out_bytes),
            shared,
            watch,
            outgoing: Vec::new(),
            answers: Answers::default(),
        }
    }

    /// Seals and sends what was decided.
    pub(super) fn send(&mut self, batch: &mut Departures) {
        self.seal(batch);
        self.out.flush(&self.shared, &self.watch, batch.now);
        send_all(&self.shared.port, &self.watch, &mut self.outgoing);
        self.answers.write(&self.shared);
        self.shared.wake_timer();
    }

    /// Seals the batch; one lock per peer and run of frames, given back before anything is sent.
    fn seal(&mut self, batch: &mut Departures) {
        let shared = &*self.shared;
        let now = batch.now;
        let mut held: Option<(&PeerHandle, Sealer<'_>)> = None;
        for frame in &batch.frames {
            let Some(peer) = &frame.peer else { continue };
            if held
                .as_ref()
                .is_none_or(|(holder, _)| !holder.is_same(peer))
            {
                // Given back first: two peers are never locked at once.
                drop(held.take());
                held = peer
                    .sealer(&shared.node, now)
                    .ok()
                    .map(|sealer| (peer, sealer));
            }
            let range = frame.packet.start..frame.packet.end + TAIL_BYTES;
            let buffer = batch.arena.get_mut(range).unwrap_or_default();
            let mut segments = match Splitter::new(frame.header, buffer) {
                Ok(segments) => segments,
                Err(error) => {
                    tracing::debug!(%error, "frame of the device dropped");
                    continue;
                }
            };
            if segments.longest() > peer.largest_packet(now)
                && self.answers.too_big(&mut segments, peer, now)
            {
                continue;
            }
            while let Some((_, sealer)) = &mut held {
                if seal_some(
                    sealer,
                    peer,
                    &mut segments,
                    &mut self.out,
                    &mut self.outgoing,
                    shared.mtu().min(peer.largest_packet(now)),
                ) {
                    break;
                }
                // No room for a further message.
                drop(held.take());
                self.out.flush(shared, &self.watch, now);
                held = peer
                    .sealer(&shared.node, now)
                    .ok()
                    .map(|sealer| (peer, sealer));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn allocated_bytes(sizes: &Sizes) -> usize {
        SendBatch::with_capacity(sizes.out_bytes).allocated_bytes()
    }
}

/// Seals segments until there are none left (`true`) or no room is.
fn seal_some(
    sealer: &mut Sealer<'_>,
    peer: &PeerHandle,
    segments: &mut Splitter<'_>,
    out: &mut SendBatch,
    outgoing: &mut Vec<Outgoing>,
    mtu: usize,
) -> bool {
    let Some(to) = sealer.endpoint() else {
        // No session yet: the node keeps a few packets and asks for one.
        while let Some(packet) = segments.next_segment(|length| length) {
            sealer.hold(packet, outgoing);
        }
        return true;
    };
    while segments.remaining() > 0 {
        let room = out.room();
        if room.len()
            < mtu.max(segments.longest()) + TAIL_BYTES + DATA_OVERHEAD_BYTES + MAX_HANDSHAKE_BYTES
        {
            return false;
        }
        let Some(packet) = segments.next_segment(|length| padded_length(length, mtu)) else {
            return true;
        };
        // A refusal is counted by the node; the packet is dropped.
        if let Ok(length) = sealer.seal(packet, room) {
            out.push(peer, to, length);
        }
    }
    true
}

pub(super) fn destination_address(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?)),
        6 => Some(IpAddr::from(
            <[u8; 16]>::try_from(packet.get(24..40)?).ok()?,
        )),
        _ => None,
    }
}
