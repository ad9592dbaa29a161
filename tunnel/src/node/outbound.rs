//! Packets to a peer, a batch at a time.

use std::sync::Arc;

use edgeward_identity::BootTime;
use parking_lot::MutexGuard;

use super::peer::{Peer, PeerHandle, PeerState};
use super::timers::{KEEPALIVE_TIMEOUT, REKEY_TIMEOUT};
use super::{Endpoint, Node, Outgoing, Refusal, Role};

/// Seals packets of one batch to one peer. Holds the peer's lock: drop it before any system call.
pub struct Sealer<'a> {
    node: &'a Node,
    peer: &'a Arc<Peer>,
    state: MutexGuard<'a, PeerState>,
    now: BootTime,
    sealed: bool,
}

impl PeerHandle {
    /// Locks the peer for one batch; refused when it was cut or its lease has ended.
    pub fn sealer<'a>(&'a self, node: &'a Node, now: BootTime) -> Result<Sealer<'a>, Refusal> {
        let peer = &self.0;
        let state = peer.state.lock();
        if let Err(refusal) = peer.check_live(&state, now) {
            node.counters.count(refusal);
            return Err(refusal);
        }
        Ok(Sealer {
            node,
            peer,
            state,
            now,
            sealed: false,
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
        let ready = self
            .state
            .current
            .as_ref()
            .is_some_and(|keyed| self.now < keyed.expires);
        ready.then(|| self.state.target()).flatten()
    }

    /// Seals one packet, already padded ([`crate::wireguard::padded_length`]), into the start of `out`, which
    /// needs 32 bytes more. Returns the length of the message.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Refusal> {
        let now = self.now;
        let sealed = match self
            .state
            .current
            .as_mut()
            .filter(|keyed| now < keyed.expires)
        {
            Some(keyed) => {
                keyed.used = true;
                keyed.session.seal(plaintext, out).map_err(Refusal::from)
            }
            None => Err(Refusal::NoSession),
        };
        match sealed {
            Ok(length) => {
                self.sealed = true;
                self.state.sent_bytes =
                    self.state.sent_bytes.saturating_add(plaintext.len() as u64);
                Ok(length)
            }
            Err(refusal) => {
                self.node.counters.count(refusal);
                Err(refusal)
            }
        }
    }

    /// Keeps a packet until there is a session, and asks for one if we may. Bounded; the rest is counted.
    pub fn hold(&mut self, packet: &[u8], out: &mut Vec<Outgoing>) {
        if !self.state.enqueue(packet) {
            self.node.counters.count(Refusal::QueueFull);
        }
        self.node
            .start_handshake(self.peer, &mut self.state, self.now, out);
        self.node.reschedule(self.peer, &mut self.state);
    }
}

impl Drop for Sealer<'_> {
    /// Once per batch, not per packet: what the batch means for the timers.
    fn drop(&mut self) {
        if !self.sealed {
            return;
        }
        let state = &mut *self.state;
        state.last_sent = self.now;
        state.keepalive_at = None;
        let mut earlier = false;
        if state.dead_at.is_none() && self.peer.role != Role::Responder {
            state.dead_at = Some(self.now.plus(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT));
            earlier = true;
        }
        if state.rekey_on_use {
            state.rekey_on_use = false;
            state.rekey_at = Some(self.now);
            earlier = true;
        }
        if earlier {
            self.node.reschedule(self.peer, state);
        }
    }
}
