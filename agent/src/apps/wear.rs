//! How often accepted releases may write the TPM's counter: such memory wears out, after some 100,000 writes in cheap
//! chips. What takes away asks nobody.

use std::time::Duration;

use edgeward_identity::BootTime;

/// Writes that may follow each other at once: an operator who tries something out does not wait.
const AT_ONCE: u32 = 8;
/// Over time there is one in so long.
const EVERY: Duration = Duration::from_secs(60);

/// What is left, by the boot's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wear {
    left: u32,
    /// Since when the next one is growing.
    since: BootTime,
}

impl Wear {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            left: AT_ONCE,
            since: now,
        }
    }

    /// Takes one. Otherwise: how long until there is one.
    pub(super) fn take(&mut self, now: BootTime) -> Result<(), Duration> {
        self.grow(now);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(EVERY.saturating_sub(now.since(self.since))),
        }
    }

    fn grow(&mut self, now: BootTime) {
        let whole = now.since(self.since).as_secs() / EVERY.as_secs();
        let grown = u32::try_from(whole).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(grown).min(AT_ONCE);
        self.since = match self.left {
            AT_ONCE => now,
            _ => self.since.plus(EVERY.saturating_mul(grown)),
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
        let mut wear = Wear::new(at(1_000));
        let day = 24 * 3600;
        let written = (0..day).filter(|second| wear.take(at(1_000 + second)).is_ok());
        assert_eq!(written.count(), 8 + 24 * 60 - 1);
    }

    #[test]
    fn who_must_wait_is_told_how_long_and_has_his_turn_then() {
        let mut wear = Wear::new(at(1_000));
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
