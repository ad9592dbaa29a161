//! Datagrams from the network, a batch at a time.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use edgeward_identity::BootTime;
use parking_lot::MutexGuard;

use super::peer::{Peer, PeerHandle, PeerState};
use super::timers::KEEPALIVE_TIMEOUT;
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

/// The lock of the peer whose datagrams are being opened.
struct Opener<'a> {
    node: &'a Node,
    peer: &'a Arc<Peer>,
    index: SessionIndex,
    state: MutexGuard<'a, PeerState>,
    received: bool,
    data: bool,
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

    /// Opens `first` and every datagram after it that belongs to the same session, under one lock.
    fn receive_data<'d>(
        &self,
        index: SessionIndex,
        from: Endpoint,
        first: &'d [u8],
        rest: &mut std::iter::Peekable<impl Iterator<Item = &'d [u8]>>,
        now: BootTime,
        batch: &mut Inbound,
    ) -> usize {
        let owner = self.session_owner(index);
        let mut opener = owner.as_ref().map(|peer| Opener {
            node: self,
            peer,
            index,
            state: peer.state.lock(),
            received: false,
            data: false,
        });
        let mut refused = 0;
        let mut datagram = first;
        loop {
            let opened = match &mut opener {
                Some(opener) => opener.open(from, datagram, now, batch),
                None => Err(Refusal::NoSession),
            };
            if let Err(refusal) = opened {
                self.counters.count(refusal);
                refused += 1;
            }
            match rest.next_if(|next| Message::parse(next) == Ok(Message::Data(index))) {
                Some(next) => datagram = next,
                None => break,
            }
        }
        if let Some(opener) = opener {
            opener.finish(now);
        }
        refused
    }
}

impl Opener<'_> {
    fn open(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        now: BootTime,
        batch: &mut Inbound,
    ) -> Result<(), Refusal> {
        self.peer.check_live(&self.state, now)?;
        let (keyed, is_next) = self
            .state
            .receiving(self.index, now)
            .ok_or(Refusal::NoSession)?;
        let room = batch.arena.get_mut(batch.used..).unwrap_or_default();
        let opened = keyed.session.open(datagram, room)?;
        keyed.used |= matches!(opened, Opened::Packet(_));
        self.received = true;
        if is_next && let Some(confirmed) = self.state.next.take() {
            self.node
                .promote(self.peer, &mut self.state, confirmed, now);
            self.node.roam(self.peer, &mut self.state, from);
            self.node
                .flush_queue(&mut self.state, now, &mut batch.outgoing);
        }
        self.node.roam(self.peer, &mut self.state, from);
        if let Opened::Packet(length) = opened {
            self.data = true;
            self.state.received_bytes = self.state.received_bytes.saturating_add(length as u64);
            batch.push(self.peer, length);
        }
        Ok(())
    }

    /// Once per batch: what it means for the timers.
    fn finish(mut self, now: BootTime) {
        if !self.received {
            return;
        }
        let state = &mut *self.state;
        state.dead_at = None;
        if state.rekey_on_use && self.data {
            state.rekey_on_use = false;
            state.rekey_at = Some(now);
        }
        if self.data && state.keepalive_at.is_none() {
            state.keepalive_at = Some(now.plus(KEEPALIVE_TIMEOUT));
        }
        self.node.reschedule(self.peer, state);
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
