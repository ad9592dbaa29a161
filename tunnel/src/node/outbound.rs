//! Packets to a peer, a batch at a time.

use std::sync::Arc;

use edgeward_identity::BootTime;
use parking_lot::RwLockReadGuard;

use super::link::Link;
use super::peer::{Peer, PeerHandle};
use super::{Endpoint, Node, Outgoing, Refusal};
use crate::wireguard::{REKEY_AFTER_MESSAGES, Sealing};
use std::sync::atomic::Ordering;

/// Seals packets of one batch to one peer. A cut waits for it: drop it before any system call. Receiving from the
/// same peer does not wait, nor does another batch to it.
pub struct Sealer<'a> {
    node: &'a Node,
    peer: &'a Arc<Peer>,
    /// Given back once there is nothing to seal with.
    link: Option<RwLockReadGuard<'a, Link>>,
    /// The present session's key, made at the first packet.
    sealing: Option<Sealing>,
    now: BootTime,
    sealed: bool,
    bytes: u64,
}

impl PeerHandle {
    /// For one batch; refused when the peer was cut or its lease has ended.
    pub fn sealer<'a>(&'a self, node: &'a Node, now: BootTime) -> Result<Sealer<'a>, Refusal> {
        let peer = &self.0;
        let link = peer.link.read();
        if let Err(refusal) = peer.check_live(now) {
            node.counters.count(refusal);
            return Err(refusal);
        }
        Ok(Sealer {
            node,
            peer,
            link: Some(link),
            sealing: None,
            now,
            sealed: false,
            bytes: 0,
        })
    }
}

impl Node {
    /// Counts a packet that no peer owns.
    pub fn count_unroutable(&self) {
        self.counters.count(Refusal::NoRoute);
    }
}

impl Sealer<'_> {
    /// Where sealed packets go, if there is a session to seal them in.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let link = self.link.as_ref()?;
        link.sending(self.now)?;
        link.endpoint
    }

    /// Seals one packet, already padded ([`crate::wireguard::padded_length`]), into the start of `out`, which
    /// needs [`crate::wireguard::DATA_OVERHEAD_BYTES`] more. Returns the length of the message.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Refusal> {
        let sealed = self.sealing().and_then(|sealing| {
            let sealed = sealing.seal(plaintext, out);
            sealed.map_err(Refusal::from)
        });
        self.tell(plaintext.len(), sealed)
    }

    /// The same for a packet of `length` bytes that stands 16 bytes into `message` already.
    pub fn seal_in_place(&mut self, length: usize, message: &mut [u8]) -> Result<usize, Refusal> {
        let sealed = self.sealing().and_then(|sealing| {
            let sealed = sealing.seal_in_place(length, message);
            sealed.map_err(Refusal::from)
        });
        self.tell(length, sealed)
    }

    /// Keeps a packet until there is a session, and asks for one if we may. Bounded; the rest is counted.
    pub fn hold(&mut self, packet: &[u8], out: &mut Vec<Outgoing>) {
        self.sealing = None;
        self.link = None;
        let mut state = self.peer.state.lock();
        if let Err(refusal) = self.peer.check_live(self.now) {
            self.node.counters.count(refusal);
            return;
        }
        // One may have come up since this batch began; what waits would not be looked at again.
        let mtu = self.node.config.mtu;
        if let Some(message) = self.peer.seal_single(packet, mtu, self.now) {
            out.push(message);
        } else {
            if !state.enqueue(packet) {
                self.node.counters.count(Refusal::QueueFull);
            }
            self.node
                .start_handshake(self.peer, &mut state, self.now, out);
        }
        self.node.reschedule(self.peer, &state);
    }

    fn sealing(&mut self) -> Result<&Sealing, Refusal> {
        if self.sealing.is_none() {
            let link = self.link.as_ref().ok_or(Refusal::NoSession)?;
            let keyed = link.sending(self.now).ok_or(Refusal::NoSession)?;
            self.sealing = Some(keyed.session.sealing()?);
        }
        self.sealing.as_ref().ok_or(Refusal::NoSession)
    }

    fn tell(&mut self, length: usize, sealed: Result<usize, Refusal>) -> Result<usize, Refusal> {
        match sealed {
            Ok(_) => {
                self.sealed = true;
                self.bytes = self.bytes.saturating_add(length as u64);
            }
            Err(refusal) => self.node.counters.count(refusal),
        }
        sealed
    }
}

impl Drop for Sealer<'_> {
    /// Once per batch, not per packet: what the batch means for the timers.
    fn drop(&mut self) {
        self.link = None;
        if !self.sealed {
            return;
        }
        let used_up = self
            .sealing
            .as_ref()
            .is_some_and(|sealing| sealing.sealed() >= REKEY_AFTER_MESSAGES);
        let pulse = &self.peer.pulse;
        let due = pulse.sent(self.bytes, self.now);
        if used_up || pulse.rekey_on_use.swap(false, Ordering::AcqRel) {
            self.node.rekey_now(self.peer, self.now);
        }
        if let Some(due) = due {
            self.node.due_by(self.peer, due);
        }
    }
}
