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
        self.next_wait_within(LONGEST)
    }

    /// As [`Backoff::next_wait`], with a shorter bound.
    pub fn next_wait_within(&mut self, longest: Duration) -> Duration {
        let step = self.step.min(longest);
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
    fn a_shorter_bound_holds_however_long_the_waits_were() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.next_wait();
        }
        assert!(backoff.next_wait_within(FIRST * 15) <= FIRST * 15);
    }

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
