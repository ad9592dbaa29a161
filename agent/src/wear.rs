//! How often what can wait may write the TPM's counter: such memory wears out, after some 100,000 writes in cheap chips.
//! What takes away asks nobody.

use std::time::Duration;

use edgeward_identity::BootTime;

/// What is left, by the boot's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wear {
    /// Writes that may follow each other at once.
    at_once: u32,
    /// Over time there is one in so long.
    every: Duration,
    left: u32,
    /// Since when the next one is growing.
    since: BootTime,
}

impl Wear {
    pub(crate) fn new(at_once: u32, every: Duration, now: BootTime) -> Self {
        Self {
            at_once,
            every,
            left: at_once,
            since: now,
        }
    }

    /// Takes one. Otherwise: how long until there is one.
    pub(crate) fn take(&mut self, now: BootTime) -> Result<(), Duration> {
        self.grow(now);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.every.saturating_sub(now.since(self.since))),
        }
    }

    fn grow(&mut self, now: BootTime) {
        let whole = now.since(self.since).as_secs() / self.every.as_secs().max(1);
        let grown = u32::try_from(whole).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(grown).min(self.at_once);
        self.since = match self.left == self.at_once {
            true => now,
            false => self.since.plus(self.every.saturating_mul(grown)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn who_installs_all_the_time_writes_once_a_minute_and_a_few_at_once() {
        let mut wear = Wear::new(8, Duration::from_secs(60), at(1_000));
        let day = 24 * 3600;
        let written = (0..day).filter(|second| wear.take(at(1_000 + second)).is_ok());
        assert_eq!(written.count(), 8 + 24 * 60 - 1);
    }

    #[test]
    fn who_must_wait_is_told_how_long_and_has_his_turn_then() {
        let mut wear = Wear::new(8, Duration::from_secs(60), at(1_000));
        for _ in 0..8 {
            assert_eq!(wear.take(at(1_010)), Ok(()));
        }
        assert_eq!(wear.take(at(1_030)), Err(Duration::from_secs(40)));
        assert!(wear.take(at(1_069)).is_err());
        assert_eq!(wear.take(at(1_070)), Ok(()));
        assert!(wear.take(at(1_071)).is_err());
        // A pause does not save up more than there is at most.
        let later = at(1_000_000);
        assert_eq!((0..100).filter(|_| wear.take(later).is_ok()).count(), 8);
    }
}
