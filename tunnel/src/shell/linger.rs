//! Waiting awake for what comes back at once.
//!
//! Waking a thread on a processor that has gone to rest costs more than all else on a packet's way, most of all in a virtual
//! machine. So after a small batch, if what followed the ones before came within [`MOST`], the thread looks for it so long
//! before it sleeps. It takes at most one part in [`SHARE`] of a processor for that, nothing where it waits in vain or much
//! is to do, and lets every other thread that wants the processor have it first.

use std::time::Duration;

use edgeward_identity::BootTime;

/// How long one wait may be awake.
const MOST: Duration = Duration::from_micros(100);
/// One part in so many of the time may be spent so.
const SHARE: u32 = 20;
/// How much of it may be saved up.
const SAVED: Duration = Duration::from_millis(2);
/// Batches of so many bytes are load: what follows them is worth a sleep.
const LIGHT_BYTES: usize = 4 << 10;
/// What one prompt answer, and one that was not, count for; from how many points on it is worth waiting awake.
const PROMPT: u8 = 1;
const LATE: u8 = 3;
const WORTH: u8 = 6;
const BEST: u8 = 12;

/// What was done last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Sent,
    Delivered,
}

/// When one thread waits awake. Told the time.
#[derive(Debug)]
pub(super) struct Linger {
    allowed: bool,
    did: Option<Did>,
    /// Since when it waits.
    since: BootTime,
    awake: bool,
    /// How promptly something followed what was sent, and what was delivered.
    sent: u8,
    delivered: u8,
    budget: Duration,
}

impl Linger {
    /// `allowed` is the operator's choice; on one core whoever is waited for could not run.
    pub(super) fn new(allowed: bool, cores: usize) -> Self {
        Self {
            allowed: allowed && cores > 1,
            did: None,
            since: BootTime::default(),
            awake: false,
            sent: 0,
            delivered: 0,
            budget: Duration::ZERO,
        }
    }

    /// Whether there is anything to tell it.
    pub(super) fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// What one turn has moved, to the network and to the device, in bytes.
    pub(super) fn did(&mut self, sent: usize, delivered: usize) {
        self.did = match (sent, delivered) {
            (0, 0) => None,
            (LIGHT_BYTES.., _) | (_, LIGHT_BYTES..) => None,
            (0, _) => Some(Did::Delivered),
            (_, _) => Some(Did::Sent),
        };
    }

    /// A wait begins: until when it is to be awake, if at all.
    pub(super) fn begin(&mut self, now: BootTime) -> Option<BootTime> {
        let earned = now.since(self.since) / SHARE;
        self.budget = self.budget.saturating_add(earned).min(SAVED);
        self.since = now;
        let points = match self.did? {
            Did::Sent => self.sent,
            Did::Delivered => self.delivered,
        };
        self.awake = self.allowed && points >= WORTH && self.budget >= MOST;
        self.awake.then(|| now.plus(MOST))
    }

    /// Nothing came in time: the thread goes to sleep.
    pub(super) fn in_vain(&mut self, now: BootTime) {
        self.spend(now);
    }

    /// The wait is over.
    pub(super) fn over(&mut self, now: BootTime) {
        self.spend(now);
        let points = match self.did.take() {
            Some(Did::Sent) => &mut self.sent,
            Some(Did::Delivered) => &mut self.delivered,
            None => return,
        };
        *points = if now.since(self.since) <= MOST {
            points.saturating_add(PROMPT).min(BEST)
        } else {
            points.saturating_sub(LATE)
        };
    }

    fn spend(&mut self, now: BootTime) {
        if std::mem::take(&mut self.awake) {
            self.budget = self.budget.saturating_sub(now.since(self.since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread whose turns are played, and how long it was awake and asleep.
    struct Played {
        linger: Linger,
        now: BootTime,
        awake: Duration,
        prompt_and_awake: u32,
    }

    impl Played {
        fn new(allowed: bool, cores: usize) -> Self {
            Self {
                linger: Linger::new(allowed, cores),
                now: BootTime::default().plus(Duration::from_secs(1)),
                awake: Duration::ZERO,
                prompt_and_awake: 0,
            }
        }

        /// Moves so many bytes, and the next thing comes after `gap`.
        fn turn(&mut self, sent: usize, delivered: usize, gap: Duration) {
            self.linger.did(sent, delivered);
            let until = self.linger.begin(self.now);
            let end = self.now.plus(gap);
            if let Some(until) = until {
                assert!(until.since(self.now) <= MOST);
                if end <= until {
                    self.prompt_and_awake += 1;
                    self.awake += gap;
                } else {
                    self.linger.in_vain(until);
                    self.awake += MOST;
                }
            }
            self.linger.over(end);
            self.now = end;
        }
    }

    const PROMPTLY: Duration = Duration::from_micros(40);
    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn prompt_answers_are_waited_for_and_the_pause_after_them_is_not() {
        let mut asks = Played::new(true, 2);
        for _ in 0..1000 {
            asks.turn(100, 0, PROMPTLY);
            asks.turn(0, 100, MILLI);
        }
        assert!(asks.prompt_and_awake > 900, "{}", asks.prompt_and_awake);
        assert!(asks.awake <= PROMPTLY * 1000, "{:?}", asks.awake);
        // The other side answers at once and is then not asked for a while.
        let mut answers = Played::new(true, 2);
        for _ in 0..1000 {
            answers.turn(0, 100, Duration::ZERO);
            answers.turn(100, 0, MILLI);
        }
        assert_eq!(answers.awake, Duration::ZERO);
    }

    #[test]
    fn no_more_than_its_share_of_a_processor_is_taken() {
        for gap in [Duration::from_micros(60), Duration::from_micros(99)] {
            let mut busy = Played::new(true, 64);
            let begun = busy.now;
            for _ in 0..100_000 {
                busy.turn(100, 0, gap);
            }
            let most = busy.now.since(begun) / SHARE + SAVED + MOST;
            assert!(busy.awake <= most, "{:?} of {most:?}", busy.awake);
            assert!(busy.awake >= most / 2, "{:?} of {most:?}", busy.awake);
        }
    }

    #[test]
    fn where_it_waited_in_vain_it_soon_waits_no_more() {
        let mut linger = Played::new(true, 2);
        for _ in 0..1000 {
            linger.turn(100, 0, PROMPTLY);
            linger.turn(0, 100, MILLI);
        }
        linger.awake = Duration::ZERO;
        for _ in 0..1000 {
            linger.turn(100, 0, MILLI);
        }
        assert!(linger.awake <= MOST * 3, "{:?}", linger.awake);
        assert!(linger.awake > Duration::ZERO);
    }

    #[test]
    fn load_one_core_and_the_operator_let_it_sleep() {
        let mut load = Played::new(true, 2);
        let (mut alone, mut forbidden) = (Played::new(true, 1), Played::new(false, 2));
        for _ in 0..1000 {
            load.turn(LIGHT_BYTES, 0, PROMPTLY);
            load.turn(100, LIGHT_BYTES, PROMPTLY);
            load.turn(0, 0, PROMPTLY);
            for one in [&mut alone, &mut forbidden] {
                one.turn(100, 0, PROMPTLY);
                one.turn(0, 100, MILLI);
            }
        }
        for one in [load, alone, forbidden] {
            assert_eq!(one.awake, Duration::ZERO);
        }
    }
}
