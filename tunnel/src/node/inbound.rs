//! Datagrams from the network, a batch at a time.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use edgeward_identity::BootTime;

use super::peer::{Peer, PeerHandle};
use super::{Endpoint, Node, Outgoing, Refusal};
use crate::wireguard::{Message, Opened, SessionIndex};

/// The packets of one batch, decrypted, from peers that may send from their inner source.
#[derive(Default)]
pub struct Inbound {
    arena: Vec<u8>,
    used: usize,
    packets: Vec<Range<usize>>,
    runs: Vec<InboundRun>,
    /// Answers to send: handshakes, keepalives, what waited for a session.
    pub outgoing: Vec<Outgoing>,
}

/// Consecutive packets of one peer.
pub struct InboundRun {
    pub peer: PeerHandle,
    packets: Range<usize>,
}

impl Inbound {
    /// Room for `bytes` of datagrams in one batch; more is dropped and counted.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            arena: vec![0; bytes],
            ..Self::default()
        }
    }

    /// Forgets the batch, keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
        self.runs.clear();
        self.outgoing.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Peers in the order of arrival.
    pub fn runs(&self) -> &[InboundRun] {
        &self.runs
    }

    /// The packets of a run, in the order of arrival.
    pub fn packets(&self, run: &InboundRun) -> impl Iterator<Item = &[u8]> {
        self.packets
            .get(run.packets.clone())
            .unwrap_or_default()
            .iter()
            .filter_map(|range| self.arena.get(range.clone()))
    }

    /// Where the packets of a run are in [`Self::bytes`]; empty where one was dropped.
    pub fn ranges(&self, run: &InboundRun) -> impl Iterator<Item = Range<usize>> {
        let ranges = self.packets.get(run.packets.clone()).unwrap_or_default();
        ranges.iter().cloned()
    }

    /// All packets of the batch.
    pub fn bytes(&self) -> &[u8] {
        self.arena.get(..self.used).unwrap_or_default()
    }

    /// The same, to be rewritten in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.arena.get_mut(..self.used).unwrap_or_default()
    }

    fn push(&mut self, peer: &Arc<Peer>, length: usize) {
        let start = self.used;
        self.used = start.saturating_add(length);
        let number = self.packets.len();
        self.packets.push(start..self.used);
        match self.runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.peer.0, peer) => run.packets.end = number + 1,
            _ => self.runs.push(InboundRun {
                peer: PeerHandle(Arc::clone(peer)),
                packets: number..number + 1,
            }),
        }
    }
}

/// Where a run of datagrams came from, and what was found in it.
struct Run<'a> {
    peer: &'a Arc<Peer>,
    index: SessionIndex,
    from: Endpoint,
    now: BootTime,
    received: bool,
    /// In the session that sends, too.
    current: bool,
    data: u64,
    refused: usize,
}

/// Why a run was left off in its middle.
#[derive(PartialEq, Eq)]
enum Left {
    AtTheEnd,
    /// A message was opened that changes what is read under the lock.
    ToWrite,
}

impl Node {
    /// Takes WireGuard datagrams that came together from one place: `bytes` is a run of datagrams of `stride`
    /// bytes, the last of which may be shorter (what `UDP_GRO` hands over). Packets are added to `batch`.
    ///
    /// Returns how many datagrams were refused; [`Self::refusals`] knows why.
    pub fn receive(
        &self,
        from: Endpoint,
        bytes: &[u8],
        stride: usize,
        now: BootTime,
        batch: &mut Inbound,
    ) -> usize {
        let mut refused = 0;
        let mut datagrams = bytes.chunks(stride.max(1)).peekable();
        while let Some(datagram) = datagrams.next() {
            let handled = match Message::parse(datagram) {
                Err(malformed) => Err(malformed.into()),
                Ok(Message::Data(index)) => {
                    refused += self.receive_data(index, from, datagram, &mut datagrams, now, batch);
                    Ok(())
                }
                Ok(message) => {
                    self.handle_handshake(message, from, datagram, now, &mut batch.outgoing)
                }
            };
            if let Err(refusal) = handled {
                self.counters.count(refusal);
                refused += 1;
            }
        }
        refused
    }

    /// Drops every packet whose inner source does not belong to the peer that sent it, by longest prefix over
    /// all peers: a peer with 10.0.0.0/8 cannot speak for another's 10.0.0.7/32. Call once per batch.
    pub fn check_sources(&self, batch: &mut Inbound) {
        let table = self.table.read();
        let mut known: Option<(IpAddr, bool, *const Peer)> = None;
        for run in &batch.runs {
            let peer = &run.peer.0;
            for range in batch
                .packets
                .get_mut(run.packets.clone())
                .unwrap_or_default()
            {
                let source = batch.arena.get(range.clone()).and_then(source_address);
                let allowed = match (source, known) {
                    (Some(source), Some((last, allowed, of)))
                        if source == last && of == Arc::as_ptr(peer) =>
                    {
                        allowed
                    }
                    (Some(source), _) => {
                        let owner = table.routes.lookup(source);
                        let allowed =
                            owner.is_some_and(|owner| Arc::ptr_eq(owner, peer)) && !peer.is_cut();
                        known = Some((source, allowed, Arc::as_ptr(peer)));
                        allowed
                    }
                    (None, _) => false,
                };
                if !allowed {
                    self.counters.count(Refusal::WrongSource);
                    *range = range.start..range.start;
                }
            }
        }
    }

    /// Opens `first` and every datagram after it that belongs to the same session.
    fn receive_data<'d>(
        &self,
        index: SessionIndex,
        from: Endpoint,
        first: &'d [u8],
        rest: &mut std::iter::Peekable<impl Iterator<Item = &'d [u8]>>,
        now: BootTime,
        batch: &mut Inbound,
    ) -> usize {
        let more = |next: &&[u8]| Message::parse(next) == Ok(Message::Data(index));
        let mut datagrams = std::iter::once(first)
            .chain(std::iter::from_fn(|| rest.next_if(more)))
            .peekable();
        let Some(peer) = self.session_owner(index) else {
            let refused = datagrams.count();
            for _ in 0..refused {
                self.counters.count(Refusal::NoSession);
            }
            return refused;
        };
        let mut run = Run {
            peer: &peer,
            index,
            from,
            now,
            received: false,
            current: false,
            data: 0,
            refused: 0,
        };
        while self.open_some(&mut run, &mut datagrams, batch) == Left::ToWrite {
            self.follow(&run, &mut batch.outgoing);
        }
        self.finish(&run);
        run.refused
    }

    /// Opens datagrams until there are none left, or one confirms the session or moves the peer.
    fn open_some<'d>(
        &self,
        run: &mut Run<'_>,
        datagrams: &mut std::iter::Peekable<impl Iterator<Item = &'d [u8]>>,
        batch: &mut Inbound,
    ) -> Left {
        if datagrams.peek().is_none() {
            return Left::AtTheEnd;
        }
        let link = run.peer.link.read();
        let live = run.peer.check_live(run.now);
        let found = live.and_then(|()| {
            let keyed = link
                .receiving(run.index, run.now)
                .ok_or(Refusal::NoSession)?;
            Ok(keyed.session.opening()?)
        });
        let mut opening = match found {
            Ok(found) => found,
            Err(refusal) => {
                for _ in datagrams {
                    self.counters.count(refusal);
                    run.refused += 1;
                }
                return Left::AtTheEnd;
            }
        };
        run.current = link.is_current(run.index);
        let to_write = link.is_confirmed_by(run.index) || link.moves_to(run.from, run.now);
        for datagram in datagrams {
            let room = batch.arena.get_mut(batch.used..).unwrap_or_default();
            match opening.open(datagram, room) {
                Ok(opened) => {
                    run.received = true;
                    if let Opened::Packet(length) = opened {
                        run.data = run.data.saturating_add(length as u64);
                        batch.push(run.peer, length);
                    }
                    if to_write {
                        return Left::ToWrite;
                    }
                }
                Err(refused) => {
                    self.counters.count(refused.into());
                    run.refused += 1;
                }
            }
        }
        Left::AtTheEnd
    }

    /// After an authentic message that confirms a session, or comes from elsewhere.
    fn follow(&self, run: &Run<'_>, out: &mut Vec<Outgoing>) {
        let peer = run.peer;
        let mut state = peer.state.lock();
        if peer.check_live(run.now).is_err() {
            return;
        }
        let opened = {
            let mut link = peer.link.write();
            let fresh = link.take_confirmed(run.index);
            let opened =
                fresh.map(|fresh| self.promote(peer, &mut state, &mut link, fresh, run.now));
            self.roam(peer, &mut link, run.from, run.now);
            opened
        };
        let Some(opened) = opened else {
            return;
        };
        if opened && state.queue.is_empty() {
            // So that the initiator need not say it again.
            out.extend(peer.seal_single(&[], self.config.mtu, run.now));
        }
        self.flush_queue(peer, &mut state, run.now, out);
        self.reschedule(peer, &state);
    }

    /// Once per run: what it means for the timers.
    fn finish(&self, run: &Run<'_>) {
        if !run.received {
            return;
        }
        let pulse = &run.peer.pulse;
        if run.current && pulse.unheard.load(Ordering::Acquire) {
            pulse.unheard.store(false, Ordering::Release);
        }
        let due = pulse.received(run.data, run.now);
        if run.data > 0 && pulse.rekey_on_use.swap(false, Ordering::AcqRel) {
            self.rekey_now(run.peer, run.now);
        }
        if let Some(due) = due {
            self.due_by(run.peer, due);
        }
    }
}

/// The source of an inner packet.
fn source_address(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            Some(octets.into())
        }
        6 => {
            let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            Some(octets.into())
        }
        _ => None,
    }
}
