//! Which fragmented packets passed with their first fragment.

use std::net::IpAddr;
use std::time::Duration;

use edgeward_identity::BootTime;
use foldhash::HashMap;

use super::packet::IpPacket;
use super::{Direction, Party};
use crate::node::PeerId;

/// Most fragmented packets on their way at once.
pub(super) const MAX_FRAGMENTED: usize = 1024;
/// How long the later fragments of a packet may take (Linux waits 30 s; ours are one hop away).
pub(super) const FRAGMENT_LIFETIME: Duration = Duration::from_secs(5);

/// One fragmented packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    peer: PeerId,
    generation: u64,
    direction: Direction,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

#[derive(Default)]
pub(super) struct Fragments(HashMap<Key, BootTime>);

impl Key {
    pub(super) fn new(packet: &IpPacket, id: u32, party: Party, direction: Direction) -> Self {
        Self {
            peer: party.peer,
            generation: party.generation,
            direction,
            source: packet.key.source,
            destination: packet.key.destination,
            protocol: packet.key.protocol,
            id,
        }
    }
}

impl Fragments {
    /// The first fragment passed. When the table is full its later fragments will not.
    pub(super) fn admit(&mut self, key: Key, now: BootTime) {
        if self.0.len() >= MAX_FRAGMENTED {
            self.expire(now);
        }
        if self.0.len() < MAX_FRAGMENTED {
            self.0.insert(key, now.plus(FRAGMENT_LIFETIME));
        }
    }

    pub(super) fn continues(&self, key: &Key, now: BootTime) -> bool {
        self.0.get(key).is_some_and(|until| now < *until)
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.0.retain(|key, _| key.peer != peer);
    }

    pub(super) fn expire(&mut self, now: BootTime) {
        self.0.retain(|_, until| now < *until);
    }
}
