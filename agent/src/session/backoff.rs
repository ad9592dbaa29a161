//! Waits between connections: doubling, bounded, and random, so that a fleet does not come back as one.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Half of the present step, plus a random part of the other half.
#[derive(Debug)]
pub struct Backoff {
    step: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { step: FIRST }
    }
}

impl Backoff {
    pub fn reset(&mut self) {
        self.step = FIRST;
    }

    pub fn next_wait(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(LONGEST);
        let mut byte = [0];
        // Without randomness the whole step: late rather than together.
        let part = SystemRandom::new()
            .fill(&mut byte)
            .map_or(255, |()| byte[0]);
        step / 2 + step / 2 * u32::from(part) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_small_again() {
        let mut backoff = Backoff::default();
        let first = backoff.next_wait();
        assert!(first >= FIRST / 2 && first <= FIRST);
        for _ in 0..20 {
            assert!(backoff.next_wait() <= LONGEST);
        }
        assert!(backoff.next_wait() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
