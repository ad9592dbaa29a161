//! From the TUN device to the UDP port: read a batch of frames, filter, cut, seal, send.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::Shared;
use super::knocking;
use super::offload::split::{Splitter, TAIL_BYTES};
use super::offload::{HEADER_BYTES, MAX_PACKET_BYTES, VnetHeader};
use super::sending::{SendBatch, send_all};
use super::stop::{Wake, Watch};
use crate::filter::{Direction, Party};
use crate::node::{Outgoing, PeerHandle, Sealer};
use crate::wireguard::{DATA_OVERHEAD_BYTES, MAX_HANDSHAKE_BYTES, padded_length};
use edgeward_identity::BootTime;

/// Room for one frame, in bytes.
const FRAME_BYTES: usize = HEADER_BYTES + MAX_PACKET_BYTES + TAIL_BYTES;
/// Frames are read until less than this is left for one more, in bytes: two large ones, or many small ones.
const ARENA_BYTES: usize = 2 * FRAME_BYTES;
/// Most frames in one batch.
const MAX_FRAMES: usize = 128;
/// Sealed bytes collected before they are sent: the largest super-packets with their overhead.
const OUT_BYTES: usize = 256 << 10;

/// The thread's buffers, kept between batches.
struct Egress {
    shared: Arc<Shared>,
    watch: Watch,
    arena: Vec<u8>,
    frames: Vec<Frame>,
    out: SendBatch,
    outgoing: Vec<Outgoing>,
}

struct Frame {
    header: VnetHeader,
    /// The packet, without its header; [`TAIL_BYTES`] follow.
    packet: Range<usize>,
    peer: Option<PeerHandle>,
}

/// Runs until the shell stops.
pub(super) fn run(shared: Arc<Shared>, watch: Watch) -> io::Result<()> {
    let mut egress = Egress {
        shared,
        watch,
        arena: vec![0; ARENA_BYTES],
        frames: Vec::with_capacity(MAX_FRAMES),
        out: SendBatch::with_capacity(OUT_BYTES),
        outgoing: Vec::new(),
    };
    loop {
        if !egress.read()? {
            match egress.watch.wait_readable(egress.shared.device.as_fd())? {
                Wake::Ready | Wake::TimedOut => continue,
                Wake::Stopped => return Ok(()),
            }
        }
        let now = egress.shared.clock.boottime();
        egress.decide(now);
        egress.seal(now);
        egress.out.flush(&egress.shared.port, &egress.watch);
        send_all(&egress.shared.port, &egress.watch, &mut egress.outgoing);
        egress.shared.wake_timer();
    }
}

impl Egress {
    /// Reads what is there, up to a batch; `false` if there is nothing.
    fn read(&mut self) -> io::Result<bool> {
        self.frames.clear();
        let header = if self.shared.device.has_offload() {
            HEADER_BYTES
        } else {
            0
        };
        let mut used = 0;
        while self.frames.len() < MAX_FRAMES {
            let Some(room) = self.arena.get_mut(used..used + FRAME_BYTES - TAIL_BYTES) else {
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
                Ok(parsed) => self.frames.push(Frame {
                    header: parsed,
                    packet: used + header..used + length,
                    peer: None,
                }),
                Err(error) => tracing::debug!(%error, "frame of the device dropped"),
            }
            used += length + TAIL_BYTES;
        }
        Ok(!self.frames.is_empty())
    }

    /// Finds each frame's peer and asks the filter, once per frame.
    fn decide(&mut self, now: BootTime) {
        let shared = &*self.shared;
        for frame in &mut self.frames {
            let destination = self
                .arena
                .get(frame.packet.clone())
                .and_then(destination_address);
            let range = frame.packet.start..frame.packet.end + TAIL_BYTES;
            let buffer = self.arena.get_mut(range).unwrap_or_default();
            frame.peer = knocking::peer_of(&shared.node, destination, frame.header, buffer, now);
        }
        let mut checker = shared.filter.checker(now);
        for frame in &mut self.frames {
            let Some(peer) = &frame.peer else { continue };
            let party = Party {
                peer: peer.id(),
                generation: peer.generation(),
            };
            let packet = self.arena.get(frame.packet.clone()).unwrap_or_default();
            if checker.check(packet, party, Direction::Out).is_err() {
                frame.peer = None;
            }
        }
    }

    /// Seals the batch; one lock per peer and run of frames, given back before anything is sent.
    fn seal(&mut self, now: BootTime) {
        let shared = &*self.shared;
        let mut held: Option<(&PeerHandle, Sealer<'_>)> = None;
        for frame in &self.frames {
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
            let buffer = self.arena.get_mut(range).unwrap_or_default();
            let mut segments = match Splitter::new(frame.header, buffer) {
                Ok(segments) => segments,
                Err(error) => {
                    tracing::debug!(%error, "frame of the device dropped");
                    continue;
                }
            };
            while let Some((_, sealer)) = &mut held {
                if seal_some(
                    sealer,
                    peer,
                    &mut segments,
                    &mut self.out,
                    &mut self.outgoing,
                    shared.mtu(),
                ) {
                    break;
                }
                // No room for a further message.
                drop(held.take());
                self.out.flush(&shared.port, &self.watch);
                held = peer
                    .sealer(&shared.node, now)
                    .ok()
                    .map(|sealer| (peer, sealer));
            }
        }
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
