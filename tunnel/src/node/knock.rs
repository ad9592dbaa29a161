//! Peers that are not armed and may be: a packet to one of them *knocks*, and waits a little for the tunnel.
//!
//! The caller says who sleeps ([`Node::set_sleepers`]) and hears of the first packet to each ([`Event::Knocked`]). It
//! arms the peer if it wants to, and takes what waited ([`Node::take_held`]) once packets may pass; nothing leaves
//! the queue by itself, and what follows to the same peer waits behind it. What is not taken within [`HOLD_TIME`] is of no use any more.
//!
//! The other end may be ready first: what it sends before packets may pass here ([`Node::await_open`]) waits as well.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edgeward_identity::BootTime;
use foldhash::{HashMap, HashSet};
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

use super::{Event, Node, PeerId, Refusal};
use crate::routes::Routes;

/// How long a packet waits for its peer.
pub const HOLD_TIME: Duration = Duration::from_secs(5);
/// Most packets that wait for one sleeping peer.
pub const MAX_HELD_PACKETS: usize = 16;
/// Most bytes that wait for one sleeping peer.
pub const MAX_HELD_BYTES: usize = 32 << 10;
/// Most bytes that wait for all sleeping peers together.
pub const MAX_HELD_BYTES_IN_ALL: usize = 1 << 20;
/// Most peers that are waited for at once.
pub const MAX_WAITED_FOR: usize = 1024;
/// A peer that is still asleep is knocked at again after this time, if there are packets.
pub const KNOCK_AGAIN: Duration = Duration::from_secs(1);

/// What became of a packet that no armed peer owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// It waits.
    Held,
    /// Its peer sleeps, and there is no room to wait.
    Full,
    /// Nobody who sleeps owns the destination: also if its owner is open, and was not given it.
    Nobody,
}

/// Who sleeps, and what waits for them.
#[derive(Default)]
pub(super) struct Knocks {
    sleepers: RwLock<Routes<PeerId>>,
    waiting: Mutex<Waiting>,
    /// How many peers are waited for: what the data path looks at.
    waited_for: AtomicUsize,
}

/// What waited for one peer, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// To it.
    pub outward: Vec<Vec<u8>>,
    /// From it.
    pub inward: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Waiting {
    outward: Queues,
    inward: Queues,
    /// Armed, and no packet may pass yet.
    unopened: HashSet<PeerId>,
}

#[derive(Default)]
struct Queues {
    queues: HashMap<PeerId, Queue>,
    /// Of all queues.
    bytes: usize,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<(BootTime, Vec<u8>)>,
    bytes: usize,
    knocked: BootTime,
}

impl Node {
    /// Who may be woken: replaces what was said before. A prefix that an earlier entry has already is left out, and
    /// so is what exceeds [`crate::routes::MAX_ROUTES`]; how many those were is returned. What waits for peers that
    /// no longer sleep is dropped.
    pub fn set_sleepers(&self, sleepers: impl IntoIterator<Item = (IpNet, PeerId)>) -> usize {
        let mut routes = Routes::default();
        let mut present = HashSet::default();
        let mut left_out = 0;
        for (prefix, peer) in sleepers {
            match routes.insert(prefix, peer) {
                Ok(()) => {
                    present.insert(peer);
                }
                Err(_) => left_out += 1,
            }
        }
        *self.knocks.sleepers.write() = routes;
        self.knocks
            .with_waiting(|waiting| waiting.outward.retain(|peer, _| present.contains(&peer)));
        left_out
    }

    /// No packet of this peer may pass before [`Node::take_held`], or before it is cut. To be said before it is armed.
    pub fn await_open(&self, peer: PeerId) {
        self.knocks.with_waiting(|waiting| {
            waiting.unopened.insert(peer);
        });
    }

    /// The peer is not armed, or not any more.
    pub fn await_no_longer(&self, peer: PeerId) {
        if self.knocks.waited_for.load(Ordering::Acquire) > 0 {
            self.knocks.with_waiting(|waiting| {
                waiting.unopened.remove(&peer);
                waiting.inward.retain(|held, _| held != peer);
            });
        }
    }

    /// Whether packets wait for this peer, or must. Cheap while nobody is waited for.
    pub fn awaits(&self, peer: PeerId) -> bool {
        self.knocks.waited_for.load(Ordering::Acquire) > 0
            && self.knocks.waiting.lock().awaits(peer)
    }

    /// Keeps a packet that an awaited peer sent. Bounded; the rest is counted.
    pub fn keep_inward(&self, peer: PeerId, packet: &[u8], now: BootTime) {
        let (kept, _) = self
            .knocks
            .with_waiting(|waiting| waiting.inward.put(peer, packet, now));
        if !kept {
            self.counters.count(Refusal::QueueFull);
        }
    }

    /// Whether somebody sleeps who owns this destination.
    pub fn is_asleep(&self, destination: IpAddr) -> bool {
        self.knocks.sleepers.read().lookup(destination).is_some()
    }

    /// Whether somebody sleeps who owns this destination by a prefix longer than so.
    pub(super) fn sleeper_within(&self, destination: IpAddr, length: u8) -> bool {
        let sleepers = self.knocks.sleepers.read();
        let found = sleepers.lookup_prefix(destination);
        found.is_some_and(|(of_sleeper, _)| of_sleeper > length)
    }

    /// Takes a packet for a destination that no armed peer owns, or whose peer is awaited.
    pub fn knock(&self, destination: IpAddr, packet: &[u8], now: BootTime) -> Knock {
        let Some(peer) = self.knocks.sleepers.read().lookup(destination).copied() else {
            return Knock::Nobody;
        };
        let put = self.knocks.with_waiting(|waiting| {
            // An open peer that was not given this prefix is not woken by it, and what waited would wait in vain and
            // keep back what follows.
            let is_open = !waiting.unopened.contains(&peer) && self.is_armed(peer);
            (!is_open).then(|| waiting.outward.put(peer, packet, now))
        });
        let Some((held, tell)) = put else {
            return Knock::Nobody;
        };
        if tell {
            self.event(Event::Knocked { peer });
        }
        if held {
            Knock::Held
        } else {
            self.counters.count(Refusal::QueueFull);
            Knock::Full
        }
    }

    /// Packets of this peer may pass now: what waited and is not too old.
    pub fn take_held(&self, peer: PeerId, now: BootTime) -> Held {
        self.knocks.with_waiting(|waiting| {
            waiting.unopened.remove(&peer);
            Held {
                outward: waiting.outward.take(peer, now),
                inward: waiting.inward.take(peer, now),
            }
        })
    }

    /// Forgets what has waited too long. Call about once a second.
    pub fn expire_held(&self, now: BootTime) {
        if self.knocks.waited_for.load(Ordering::Acquire) > 0 {
            self.knocks.with_waiting(|waiting| {
                waiting.outward.expire(now);
                waiting.inward.expire(now);
            });
        }
    }

    /// The present arming of a peer ([`super::PeerHandle::generation`]).
    pub fn generation_of(&self, peer: PeerId) -> Option<u64> {
        self.peer(peer).map(|peer| peer.generation)
    }

    /// Inner bytes of every armed peer so far, both ways: what has grown was not idle.
    pub fn inner_bytes(&self) -> Vec<(PeerId, u64)> {
        let peers: Vec<_> = self.table.read().peers.values().cloned().collect();
        let bytes = |peer: &super::peer::Peer| {
            let (received, sent) = peer.pulse.bytes();
            received.saturating_add(sent)
        };
        peers.iter().map(|peer| (peer.id, bytes(peer))).collect()
    }

    /// Packets and bytes that wait for sleeping peers.
    pub fn held(&self) -> (usize, usize) {
        self.knocks.waiting.lock().outward.held()
    }
}

impl Knocks {
    fn with_waiting<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.waiting.lock();
        let result = act(&mut waiting);
        self.waited_for.store(waiting.awaited(), Ordering::Release);
        result
    }
}

impl Waiting {
    fn awaits(&self, peer: PeerId) -> bool {
        self.unopened.contains(&peer) || self.outward.queues.contains_key(&peer)
    }

    fn awaited(&self) -> usize {
        self.unopened.len() + self.outward.queues.len() + self.inward.queues.len()
    }
}

impl Queues {
    fn held(&self) -> (usize, usize) {
        let packets = self.queues.values().map(|queue| queue.packets.len());
        (packets.sum(), self.bytes)
    }

    /// Whether the packet waits, and whether the caller is to be told that somebody knocks.
    fn put(&mut self, peer: PeerId, packet: &[u8], now: BootTime) -> (bool, bool) {
        if !self.queues.contains_key(&peer) && self.queues.len() >= MAX_WAITED_FOR {
            self.expire(now);
            if self.queues.len() >= MAX_WAITED_FOR {
                return (false, false);
            }
        }
        let in_all = self.bytes;
        let queue = self.queues.entry(peer).or_default();
        let gone = queue.expire(now);
        let first = queue.packets.is_empty();
        let tell = first || now.since(queue.knocked) >= KNOCK_AGAIN;
        if tell {
            queue.knocked = now;
        }
        let in_all = in_all.saturating_sub(gone);
        let fits = queue.packets.len() < MAX_HELD_PACKETS
            && queue.bytes.saturating_add(packet.len()) <= MAX_HELD_BYTES
            && in_all.saturating_add(packet.len()) <= MAX_HELD_BYTES_IN_ALL;
        if fits {
            queue.packets.push_back((now, packet.to_vec()));
            queue.bytes += packet.len();
        }
        self.bytes = in_all + if fits { packet.len() } else { 0 };
        (fits, tell)
    }

    fn take(&mut self, peer: PeerId, now: BootTime) -> Vec<Vec<u8>> {
        let Some(queue) = self.queues.remove(&peer) else {
            return Vec::new();
        };
        self.bytes = self.bytes.saturating_sub(queue.bytes);
        let packets = queue.packets.into_iter();
        packets
            .filter(|(since, _)| now.since(*since) <= HOLD_TIME)
            .map(|(_, packet)| packet)
            .collect()
    }

    fn expire(&mut self, now: BootTime) {
        self.retain(|_, queue| {
            queue.expire(now);
            !queue.packets.is_empty()
        });
    }

    fn retain(&mut self, mut keep: impl FnMut(PeerId, &mut Queue) -> bool) {
        self.queues.retain(|peer, queue| keep(*peer, queue));
        self.bytes = self.queues.values().map(|queue| queue.bytes).sum();
    }
}

impl Queue {
    /// Drops what is too old; how many bytes that was.
    fn expire(&mut self, now: BootTime) -> usize {
        let before = self.bytes;
        while let Some((since, _)) = self.packets.front()
            && now.since(*since) > HOLD_TIME
            && let Some((_, packet)) = self.packets.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(packet.len());
        }
        before - self.bytes
    }
}

#[cfg(test)]
mod tests;
