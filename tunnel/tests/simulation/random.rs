//! Repeatable randomness, so that a failure happens again.

use std::sync::Mutex;

use edgeward_tunnel::wireguard::{NoRandomness, Random};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// True for this share of a thousand.
    pub fn chance(&mut self, share: u64) -> bool {
        self.below(1_000) < share
    }
}

/// The randomness of one node.
pub struct Seeded(Mutex<Draw>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Draw(seed)))
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        let mut draw = self.0.lock().expect("no thread panicked");
        for chunk in bytes.chunks_mut(8) {
            let drawn = draw.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
        Ok(())
    }
}
