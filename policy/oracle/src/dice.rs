//! Chance that can be thrown again.

/// SplitMix64, from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Never none.
    pub(crate) fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        let some: Vec<T> = of.iter().filter(|_| self.one_in(2)).cloned().collect();
        if some.is_empty() {
            vec![of[self.below(of.len())].clone()]
        } else {
            some
        }
    }

    pub(crate) fn minutes(&mut self) -> u64 {
        [1, 5, 10, 30, 60, 600][self.below(6)]
    }
}
