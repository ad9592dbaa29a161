//! From the UDP port to the TUN device: receive batches, tell QUIC apart, open, check, filter, join, write.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use edgeward_identity::BootTime;
use quinn_udp::RecvMeta;

use super::Shared;
use super::demux::{DatagramSink, Ecn, is_wireguard};
use super::offload::HEADER_BYTES;
use super::offload::coalesce::{Coalescer, Group, MAX_GROUP_PACKETS, MAX_HEADERS_BYTES};
use super::sending::send_all;
use super::stop::{Wake, Watch};
use super::udp::RECV_BUFFER_BYTES;
use crate::filter::{Direction, Party};
use crate::node::{Endpoint, Inbound};

/// Coalesced batches taken in one call.
const RECV_BUFFERS: usize = 4;
/// Receive errors in a row after which the port counts as gone.
const MAX_FAILURES: u32 = 1000;
/// Parts of one write: the headers, and each packet's payload.
const MAX_PARTS: usize = MAX_GROUP_PACKETS + 1;

/// The thread's buffers, kept between batches.
struct Ingress {
    shared: Arc<Shared>,
    watch: Watch,
    quic: DatagramSink,
    buffers: Vec<u8>,
    batch: Inbound,
    coalescer: Coalescer,
}

/// Runs until the shell stops.
pub(super) fn run(shared: Arc<Shared>, watch: Watch, quic: DatagramSink) -> io::Result<()> {
    let coalescer = Coalescer::new(shared.device.has_offload(), shared.device.has_udp_offload());
    let mut ingress = Ingress {
        shared,
        watch,
        quic,
        buffers: vec![0; RECV_BUFFERS * RECV_BUFFER_BYTES],
        // Each datagram is opened into the room after the packets before it, which are shorter than theirs.
        batch: Inbound::with_capacity(RECV_BUFFERS * RECV_BUFFER_BYTES + RECV_BUFFER_BYTES),
        coalescer,
    };
    let mut failures = 0;
    loop {
        match ingress.receive() {
            Ok(()) => failures = 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match ingress.watch.wait_readable(ingress.shared.port.as_fd())? {
                    Wake::Ready | Wake::TimedOut => {}
                    Wake::Stopped => return Ok(()),
                }
            }
            // Usually an ICMP error about an earlier datagram: nothing to do with the next one.
            Err(error) if failures < MAX_FAILURES => {
                failures += 1;
                tracing::debug!(%error, "receive");
            }
            Err(error) => return Err(error),
        }
    }
}

impl Ingress {
    fn receive(&mut self) -> io::Result<()> {
        let mut meta = [RecvMeta::default(); RECV_BUFFERS];
        let received = {
            let mut rest: &mut [u8] = &mut self.buffers;
            let mut slices: [IoSliceMut<'_>; RECV_BUFFERS] = std::array::from_fn(|_| {
                let (buffer, after) = std::mem::take(&mut rest)
                    .split_at_mut_checked(RECV_BUFFER_BYTES)
                    .unwrap_or_default();
                rest = after;
                IoSliceMut::new(buffer)
            });
            self.shared.port.recv(&mut slices, &mut meta)?
        };
        let now = self.shared.clock.boottime();
        self.batch.clear();
        for (buffer, meta) in self
            .buffers
            .chunks(RECV_BUFFER_BYTES)
            .zip(&meta)
            .take(received)
        {
            let bytes = buffer.get(..meta.len).unwrap_or_default();
            demultiplex(&self.shared, &self.quic, meta, bytes, now, &mut self.batch);
        }
        if !self.batch.is_empty() {
            self.shared.node.check_sources(&mut self.batch);
            self.filter(now);
            self.write();
        }
        let mut outgoing = std::mem::take(&mut self.batch.outgoing);
        send_all(&self.shared.port, &self.watch, &mut outgoing);
        self.batch.outgoing = outgoing;
        self.shared.wake_timer();
        Ok(())
    }

    /// Asks the filter about every packet, and groups what may pass.
    fn filter(&mut self, now: BootTime) {
        self.coalescer.clear();
        let mut checker = self.shared.filter.checker(now);
        for run in self.batch.runs() {
            let party = Party {
                peer: run.peer.id(),
                generation: run.peer.generation(),
            };
            let awaited = self.shared.node.awaits(run.peer.id());
            for range in self.batch.ranges(run) {
                let packet = self.batch.bytes().get(range.clone()).unwrap_or_default();
                if awaited && !packet.is_empty() {
                    self.shared.node.keep_inward(run.peer.id(), packet, now);
                    continue;
                }
                if packet.is_empty() || checker.check(packet, party, Direction::In).is_err() {
                    continue;
                }
                if run.peer.is_cut() {
                    continue;
                }
                self.coalescer.push(self.batch.bytes(), range);
            }
        }
    }

    fn write(&mut self) {
        let mut refused = false;
        for group in self.coalescer.groups() {
            if let Err(error) = self.write_group(group) {
                if group.packets() > 1
                    && matches!(error.raw_os_error(), Some(code) if refuses_joined(code))
                {
                    refused = true;
                }
                self.shared.device_errors.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "packet not written to the device");
            }
        }
        if refused {
            tracing::warn!("tun device refused a joined packet: single packets from now on");
            self.coalescer.disable();
        }
    }

    fn write_group(&self, group: &Group) -> io::Result<()> {
        let arena = self.batch.bytes();
        let device = &self.shared.device;
        let mut headers = [0; HEADER_BYTES + MAX_HEADERS_BYTES];
        let Some(length) = self.coalescer.headers(arena, group, &mut headers) else {
            let packet = IoSlice::new(arena.get(group.first()).unwrap_or_default());
            if device.has_offload() {
                device.write(&[IoSlice::new(&[0; HEADER_BYTES]), packet])?;
            } else {
                device.write(&[packet])?;
            }
            return Ok(());
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
        device.write(parts.get(..count).unwrap_or_default())?;
        Ok(())
    }
}

/// Hands runs of WireGuard datagrams to the node and everything else to QUIC, in order.
fn demultiplex(
    shared: &Shared,
    quic: &DatagramSink,
    meta: &RecvMeta,
    bytes: &[u8],
    now: BootTime,
    batch: &mut Inbound,
) {
    let stride = meta.stride.max(1);
    let from = Endpoint {
        remote: meta.addr,
        local_ip: meta.dst_ip,
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let ours = rest
            .chunks(stride)
            .take_while(|datagram| is_wireguard(datagram))
            .count();
        let (run, after) = rest.split_at(ours.saturating_mul(stride).min(rest.len()));
        if !run.is_empty() {
            shared.node.receive(from, run, stride, now, batch);
        }
        let (other, after) = after.split_at(stride.min(after.len()));
        if !other.is_empty() && !quic.offer(meta.addr, meta.dst_ip, meta.ecn.map(Ecn::from), other)
        {
            shared.quic_dropped.fetch_add(1, Ordering::Relaxed);
        }
        rest = after;
    }
}

/// What a kernel answers that does not take joined packets.
fn refuses_joined(code: i32) -> bool {
    use nix::errno::Errno;
    matches!(Errno::from_raw(code), Errno::EINVAL | Errno::EOPNOTSUPP)
}
