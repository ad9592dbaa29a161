//! The network: datagrams on their way, and what happens to them there.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::BootTime;

use crate::random::Draw;

/// Datagrams that an eavesdropper keeps; older ones give way.
const RECORDED: usize = 512;

/// Shares of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub data_loss: u64,
    pub handshake_loss: u64,
    pub duplicate: u64,
    pub delay: Duration,
    /// Up to this much more, drawn for every datagram: they overtake each other.
    pub spread: Duration,
}

/// One datagram, and the number of the packet in it where the sender said so.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
    pub packet: Option<u64>,
}

pub struct Wire {
    pub faults: Faults,
    draw: Draw,
    flying: BinaryHeap<Reverse<Flying>>,
    sent: u64,
    /// Pairs of addresses that do not reach each other.
    parted: BTreeSet<(SocketAddr, SocketAddr)>,
    recorded: Vec<Datagram>,
    newest: Option<usize>,
    /// Packets that the wire lost.
    pub lost: BTreeSet<u64>,
}

struct Flying {
    lands: BootTime,
    number: u64,
    datagram: Datagram,
}

impl Wire {
    pub fn new(seed: u64) -> Self {
        Self {
            faults: Faults::none(),
            draw: Draw(seed),
            flying: BinaryHeap::new(),
            sent: 0,
            parted: BTreeSet::new(),
            recorded: Vec::new(),
            newest: None,
            lost: BTreeSet::new(),
        }
    }

    pub fn send(&mut self, datagram: Datagram, now: BootTime) {
        let next = self.newest.map_or(0, |newest| (newest + 1) % RECORDED);
        if self.recorded.len() < RECORDED {
            self.recorded.push(datagram.clone());
        } else {
            self.recorded[next] = datagram.clone();
        }
        self.newest = Some(next);
        let faults = self.faults;
        let loss = match datagram.bytes.first() {
            Some(4) => faults.data_loss,
            _ => faults.handshake_loss,
        };
        let parted = self.parted.contains(&ordered(datagram.from, datagram.to));
        if self.draw.chance(loss) || parted {
            self.lost.extend(datagram.packet);
            return;
        }
        if self.draw.chance(faults.duplicate) {
            self.fly(datagram.clone(), now);
        }
        self.fly(datagram, now);
    }

    /// Past all faults: what an attacker puts on the wire arrives.
    pub fn fly(&mut self, datagram: Datagram, now: BootTime) {
        let spread = self.draw.below(self.faults.spread.as_micros() as u64 + 1);
        self.sent += 1;
        self.flying.push(Reverse(Flying {
            lands: now.plus(self.faults.delay + Duration::from_micros(spread)),
            number: self.sent,
            datagram,
        }));
    }

    pub fn next_landing(&self) -> Option<BootTime> {
        self.flying.peek().map(|Reverse(flying)| flying.lands)
    }

    pub fn land(&mut self, now: BootTime) -> Option<Datagram> {
        self.next_landing().filter(|lands| *lands <= now)?;
        self.flying.pop().map(|Reverse(flying)| flying.datagram)
    }

    pub fn part(&mut self, a: SocketAddr, b: SocketAddr) {
        self.parted.insert(ordered(a, b));
    }

    pub fn heal(&mut self) {
        self.parted.clear();
    }

    /// Something that was on the wire before.
    pub fn recorded(&self, which: usize) -> Option<&Datagram> {
        self.recorded.get(which.checked_rem(self.recorded.len())?)
    }

    /// Datagrams that were put on the wire.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// What was sent last.
    pub fn newest(&self) -> Option<&Datagram> {
        self.recorded.get(self.newest?)
    }

    pub fn recordings(&self) -> &[Datagram] {
        &self.recorded
    }
}

impl Faults {
    pub const fn none() -> Self {
        Self {
            data_loss: 0,
            handshake_loss: 0,
            duplicate: 0,
            delay: Duration::from_millis(10),
            spread: Duration::ZERO,
        }
    }
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Flying {}

impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.lands, self.number).cmp(&(other.lands, other.number))
    }
}

fn ordered(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    if a < b { (a, b) } else { (b, a) }
}
