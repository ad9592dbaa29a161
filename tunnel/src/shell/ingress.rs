//! From the UDP port to the TUN device: receive batches, tell QUIC apart, open, check; then filter, join, write.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use edgeward_identity::BootTime;
use quinn_udp::RecvMeta;

use super::Shared;
use super::demux::DatagramSink;
use super::offload::HEADER_BYTES;
use super::offload::coalesce::{Coalescer, Group, MAX_GROUP_PACKETS, MAX_HEADERS_BYTES};
use super::profile::{MAX_RECV_BUFFERS, Sizes};
use super::sending::send_all;
use super::sorting;
use super::stop::Watch;
use super::udp::RECV_BUFFER_BYTES;
use crate::filter::{Direction, Party};
use crate::node::Inbound;

/// Receive errors in a row after which the port counts as gone.
const MAX_FAILURES: u32 = 1000;
/// From so many opened bytes on they are delivered before more is opened: they are still in the processor's cache, and
/// their receiver's buffer has time to be emptied.
const PORTION_BYTES: usize = 48 << 10;
/// Parts of one write: the headers, and each packet's payload.
const MAX_PARTS: usize = MAX_GROUP_PACKETS + 1;

/// Packets that arrived together, opened. Kept between batches.
pub(super) struct Arrivals {
    batch: Inbound,
    now: BootTime,
}

/// The first half: from the port to opened packets of peers that may send from their inner source.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    quic: DatagramSink,
    buffers: Vec<u8>,
    meta: [RecvMeta; MAX_RECV_BUFFERS],
    /// Buffers that the last call filled and that are still to be opened.
    left: Range<usize>,
    failures: u32,
}

/// The second half: from opened packets to the device.
pub(super) struct Writer {
    shared: Arc<Shared>,
    watch: Watch,
    coalescer: Coalescer,
    /// What the filter let in and is still to be rewritten; used only where there is something to rewrite.
    passed: Vec<Range<usize>>,
}

impl Arrivals {
    pub(super) fn new(sizes: &Sizes) -> Self {
        Self {
            batch: Inbound::with_capacity(sizes.opened_bytes()),
            now: BootTime::default(),
        }
    }

    /// For datagrams of so many bytes together, and one more.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self {
            batch: Inbound::with_capacity(bytes),
            now: BootTime::default(),
        }
    }

    /// Empty, for what arrives now.
    pub(super) fn begin(&mut self, now: BootTime) -> &mut Inbound {
        self.now = now;
        self.batch.clear();
        &mut self.batch
    }

    /// Bytes of packets opened.
    pub(super) fn bytes(&self) -> usize {
        self.batch.bytes().len()
    }
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, quic: DatagramSink) -> Self {
        Self {
            buffers: vec![0; shared.sizes.recv_bytes()],
            shared,
            quic,
            meta: [RecvMeta::default(); MAX_RECV_BUFFERS],
            left: 0..0,
            failures: 0,
        }
    }

    /// Whether there is more without waiting for it.
    pub(super) fn has_more(&self) -> bool {
        !self.left.is_empty()
    }

    /// Takes what is there, up to a batch, and opens it; `false` if there is nothing.
    pub(super) fn receive(&mut self, batch: &mut Arrivals) -> io::Result<bool> {
        match self.take(batch) {
            Ok(()) => {
                self.failures = 0;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // Usually an ICMP error about an earlier datagram: nothing to do with the next one.
            Err(error) if self.failures < MAX_FAILURES => {
                self.failures += 1;
                tracing::debug!(%error, "receive");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        if self.left.is_empty() {
            self.left = 0..self.fetch()?;
        }
        let now = self.shared.clock.boottime();
        let batch = arrivals.begin(now);
        while batch.bytes().len() < PORTION_BYTES
            && let Some(number) = self.left.next()
        {
            let start = number * RECV_BUFFER_BYTES;
            let (Some(meta), Some(buffer)) = (self.meta.get(number), self.buffers.get_mut(start..))
            else {
                continue;
            };
            let bytes = buffer.get_mut(..meta.len).unwrap_or_default();
            sorting::sort(&self.shared, &self.quic, meta, bytes, now, batch);
        }
        if !batch.is_empty() {
            self.shared.node.check_sources(batch);
        }
        Ok(())
    }

    /// One receive call: how many buffers it filled.
    fn fetch(&mut self) -> io::Result<usize> {
        let mut rest: &mut [u8] = &mut self.buffers;
        let mut slices: [IoSliceMut<'_>; MAX_RECV_BUFFERS] = std::array::from_fn(|_| {
            let (buffer, after) = std::mem::take(&mut rest)
                .split_at_mut_checked(RECV_BUFFER_BYTES)
                .unwrap_or_default();
            rest = after;
            IoSliceMut::new(buffer)
        });
        let count = self.shared.sizes.recv_buffers;
        let slices = slices.get_mut(..count).unwrap_or_default();
        self.shared.port.recv(slices, &mut self.meta)
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, watch: Watch) -> Self {
        Self {
            coalescer: Coalescer::new(shared.device.joins()),
            passed: Vec::new(),
            shared,
            watch,
        }
    }

    /// Filters and writes packets, and sends what the node answers.
    pub(super) fn write(&mut self, arrivals: &mut Arrivals) {
        if !arrivals.batch.is_empty() {
            self.filter(arrivals);
            self.translate(&mut arrivals.batch);
            self.write_groups(&arrivals.batch);
        }
        send_all(&self.shared.port, &self.watch, &mut arrivals.batch.outgoing);
        self.shared.wake_timer();
    }

    /// Asks the filter about every packet, and groups what may pass.
    fn filter(&mut self, arrivals: &Arrivals) {
        let batch = &arrivals.batch;
        self.coalescer.clear();
        let translated = self.shared.translating.load().is_some();
        // What either thread of this direction found out.
        self.coalescer.allow(self.shared.device.joins());
        let mut checker = self.shared.filter.checker(arrivals.now);
        for run in batch.runs() {
            let party = Party {
                peer: run.peer.id(),
                generation: run.peer.generation(),
            };
            let awaited = self.shared.node.awaits(run.peer.id());
            for range in batch.ranges(run) {
                let packet = batch.bytes().get(range.clone()).unwrap_or_default();
                if awaited && !packet.is_empty() {
                    let node = &self.shared.node;
                    node.keep_inward(run.peer.id(), packet, arrivals.now);
                    continue;
                }
                if packet.is_empty() || checker.check(packet, party, Direction::In).is_err() {
                    continue;
                }
                if run.peer.is_cut() {
                    continue;
                }
                match translated {
                    true => self.passed.push(range),
                    false => self.coalescer.push(batch.bytes(), range),
                }
            }
        }
    }

    /// What passed, with the addresses that the networks behind this node know.
    fn translate(&mut self, batch: &mut Inbound) {
        if self.passed.is_empty() {
            return;
        }
        let translating = &self.shared.translating;
        let all = translating.load();
        for range in self.passed.drain(..) {
            let range = match &all {
                Some(all) => translating.inward(all, batch.bytes_mut(), range),
                // What was in force a moment ago is no more: nobody leads there.
                None => None,
            };
            if let Some(range) = range {
                self.coalescer.push(batch.bytes(), range);
            }
        }
    }

    fn write_groups(&mut self, batch: &Inbound) {
        let device = &self.shared.device;
        for group in self.coalescer.groups() {
            let Err(error) = self.write_group(batch.bytes(), group) else {
                continue;
            };
            let refused = group.packets() > 1
                && matches!(error.raw_os_error(), Some(code) if refuses_joined(code));
            if refused {
                tracing::warn!(%error, kind = ?group.kind(), "tun device refuses joined packets: single ones from now on");
                device.refuse_joined(group.kind());
                // None of them is lost for it.
                for packet in self.coalescer.packets(batch.bytes(), group) {
                    self.count(device.write_packet(packet));
                }
            } else {
                self.count(Err(error));
            }
        }
    }

    fn count(&self, result: io::Result<()>) {
        if let Err(error) = result {
            self.shared.device_errors.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, "packet not written to the device");
        }
    }

    fn write_group(&self, arena: &[u8], group: &Group) -> io::Result<()> {
        let mut headers = [0; HEADER_BYTES + MAX_HEADERS_BYTES];
        let Some(length) = self.coalescer.headers(arena, group, &mut headers) else {
            let packet = arena.get(group.first()).unwrap_or_default();
            return self.shared.device.write_packet(packet);
        };
        let mut parts = [IoSlice::new(&[]); MAX_PARTS];
        let mut count = 1;
        for (part, payload) in parts
            .iter_mut()
            .skip(1)
            .zip(self.coalescer.payloads(arena, group))
        {
            *part = IoSlice::new(payload);
            count += 1;
        }
        if let Some(first) = parts.first_mut() {
            *first = IoSlice::new(headers.get(..length).unwrap_or_default());
        }
        self.shared
            .device
            .write(parts.get(..count).unwrap_or_default())?;
        Ok(())
    }
}

/// What a kernel answers that does not take joined packets.
fn refuses_joined(code: i32) -> bool {
    use nix::errno::Errno;
    matches!(Errno::from_raw(code), Errno::EINVAL | Errno::EOPNOTSUPP)
}
