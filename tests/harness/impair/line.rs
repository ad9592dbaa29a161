//! One direction of a cable: which frame leaves when. Told time and randomness.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Faults;

/// Frames that a cable holds; more are lost, as in a router's queue.
pub const QUEUE_FRAMES: usize = 10_000;

/// Frames on their way.
#[derive(Debug)]
pub struct Line {
    faults: Faults,
    random: Random,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// When the last frame that keeps its order leaves.
    last: Duration,
    accepted: u64,
}

/// Sorted by when it leaves, then by when it came.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    leaves: Duration,
    number: u64,
    frame: Vec<u8>,
}

/// Not for secrets: a seed makes a run happen again.
#[derive(Debug)]
pub struct Random(u64);

impl Line {
    pub fn new(seed: u64) -> Self {
        Self {
            faults: Faults::default(),
            random: Random::new(seed),
            waiting: BinaryHeap::new(),
            last: Duration::ZERO,
            accepted: 0,
        }
    }

    /// Frames that are on their way keep their time, but a cut loses them.
    pub fn set(&mut self, faults: Faults) {
        self.faults = faults;
        if faults.cut {
            self.waiting.clear();
        }
    }

    /// A frame arrives at `now`, counted from any one moment.
    pub fn accept(&mut self, mut frame: Vec<u8>, now: Duration) {
        let faults = self.faults;
        if faults.cut || self.random.chance(faults.loss) {
            return;
        }
        if self.random.chance(faults.corrupt) && !frame.is_empty() {
            let bit = self.random.below(frame.len() as u64 * 8);
            frame[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let delay = u64::from(faults.delay_ms) * 1_000
            + self.random.below(u64::from(faults.jitter_ms) * 1_000 + 1);
        let mut leaves = (now + Duration::from_micros(delay)).max(self.last);
        if self.random.chance(faults.reorder) {
            leaves += Duration::from_millis(u64::from(Faults::LATE_MS));
        } else {
            self.last = leaves;
        }
        if self.random.chance(faults.duplicate) {
            self.keep(frame.clone(), leaves);
        }
        self.keep(frame, leaves);
    }

    /// The next frame that has left by `now`.
    pub fn leave(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.due()? > now {
            return None;
        }
        self.waiting.pop().map(|Reverse(waiting)| waiting.frame)
    }

    /// When the next frame leaves.
    pub fn due(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.leaves)
    }

    fn keep(&mut self, frame: Vec<u8>, leaves: Duration) {
        if self.waiting.len() < QUEUE_FRAMES {
            self.accepted += 1;
            self.waiting.push(Reverse(Waiting {
                leaves,
                number: self.accepted,
                frame,
            }));
        }
    }
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, or 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw().checked_rem(end).unwrap_or(0)
    }

    /// True for this share of a thousand.
    pub fn chance(&mut self, share: u32) -> bool {
        self.below(1_000) < u64::from(share)
    }
}
