//! When evidence is asked for, and what an answer is worth. Decisions only: told the time, handed its randomness.
//!
//! A session's first challenge comes at once, the next at random moments around the interval. An unanswered one is
//! repeated once; then the node is stale. Every nonce is good for one answer, right or wrong.

use std::time::Duration;

use edgeward_evidence::Nonce;
use edgeward_identity::BootTime;

use crate::config::Attest;

pub(crate) mod judge;
mod profile;

pub use judge::{Answer, Expected, Judged, Refusal, judge};
pub use profile::{Measured, measured};

/// One node's challenges during one session.
#[derive(Debug)]
pub struct Schedule {
    config: Attest,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Resting {
        until: BootTime,
    },
    /// Nonces that may still be answered, oldest first: one, or two after the repetition.
    Asking {
        open: Vec<Nonce>,
        deadline: BootTime,
        renew: bool,
    },
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before then.
    Wait(BootTime),
    /// Send this challenge.
    Challenge { nonce: Nonce, renew: bool },
    /// The node gave no evidence in time.
    Stale,
}

/// What a core may not make itself.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub nonce: Nonce,
    /// Any number, all equally likely.
    pub random: u64,
}

impl Schedule {
    pub fn new(config: Attest, now: BootTime) -> Self {
        Self {
            config,
            phase: Phase::Resting { until: now },
        }
    }

    /// The next thing to do. `renew` says whether the next challenge asks for a renewal.
    pub fn poll(&mut self, now: BootTime, renew: bool, draw: Draw) -> Step {
        match &mut self.phase {
            Phase::Resting { until } if now < *until => Step::Wait(*until),
            Phase::Resting { .. } => {
                self.phase = Phase::Asking {
                    open: vec![draw.nonce],
                    deadline: now.plus(self.config.deadline),
                    renew,
                };
                Step::Challenge {
                    nonce: draw.nonce,
                    renew,
                }
            }
            Phase::Asking { deadline, .. } if now < *deadline => Step::Wait(*deadline),
            Phase::Asking {
                open,
                deadline,
                renew,
            } => {
                if open.len() == 1 {
                    open.push(draw.nonce);
                    *deadline = now.plus(self.config.deadline);
                    return Step::Challenge {
                        nonce: draw.nonce,
                        renew: *renew,
                    };
                }
                self.rest(now, draw.random);
                Step::Stale
            }
        }
    }

    /// Takes an answer to one of the open nonces, whatever it is worth: all of them are burnt. `None`: nothing was
    /// asked with that nonce. `Some`: whether a renewal had been asked for.
    pub fn answered(&mut self, nonce: &[u8], now: BootTime, random: u64) -> Option<bool> {
        match &self.phase {
            Phase::Asking { open, renew, .. }
                if open.iter().any(|open| open.as_bytes() == nonce) =>
            {
                let renew = *renew;
                self.rest(now, random);
                Some(renew)
            }
            Phase::Asking { .. } | Phase::Resting { .. } => None,
        }
    }

    /// Asks at once, unless it is asking: what must be measured has changed.
    pub fn hasten(&mut self, now: BootTime) {
        if let Phase::Resting { until } = &mut self.phase {
            *until = now;
        }
    }

    fn rest(&mut self, now: BootTime, random: u64) {
        let jitter = u64::try_from(self.config.jitter.as_millis()).unwrap_or(u64::MAX / 4);
        let within = random % jitter.saturating_mul(2).saturating_add(1);
        let wait = self
            .config
            .interval
            .saturating_sub(self.config.jitter)
            .saturating_add(Duration::from_millis(within));
        self.phase = Phase::Resting {
            until: now.plus(wait),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    fn draw(byte: u8, random: u64) -> Draw {
        Draw {
            nonce: Nonce::from_bytes([byte; 32]),
            random,
        }
    }

    fn asked(byte: u8) -> Step {
        Step::Challenge {
            nonce: Nonce::from_bytes([byte; 32]),
            renew: false,
        }
    }

    fn schedule() -> Schedule {
        Schedule::new(Attest::default(), at(100))
    }

    #[test]
    fn an_answer_that_nothing_asked_for_is_not_taken() {
        let mut schedule = schedule();
        assert_eq!(schedule.answered(&[1; 32], at(100), 0), None);
        assert_eq!(schedule.poll(at(100), false, draw(1, 0)), asked(1));
        assert_eq!(schedule.answered(&[2; 32], at(101), 0), None);
        assert_eq!(schedule.answered(&[1; 31], at(101), 0), None);
        assert_eq!(schedule.answered(&[], at(101), 0), None);
    }

    #[test]
    fn a_nonce_is_good_for_one_answer() {
        let mut schedule = schedule();
        schedule.poll(at(100), false, draw(1, 0));
        assert_eq!(schedule.answered(&[1; 32], at(101), 0), Some(false));
        assert_eq!(schedule.answered(&[1; 32], at(101), 0), None);
    }

    #[test]
    fn silence_is_asked_once_more_and_then_stale() {
        let mut schedule = schedule();
        assert_eq!(schedule.poll(at(100), false, draw(1, 0)), asked(1));
        assert_eq!(
            schedule.poll(at(105), false, draw(2, 0)),
            Step::Wait(at(110))
        );
        assert_eq!(schedule.poll(at(110), false, draw(3, 0)), asked(3));
        assert_eq!(
            schedule.poll(at(119), false, draw(4, 0)),
            Step::Wait(at(120))
        );
        assert_eq!(schedule.poll(at(120), false, draw(5, 0)), Step::Stale);
        assert_eq!(schedule.answered(&[3; 32], at(120), 0), None);
        assert!(matches!(
            schedule.poll(at(120), false, draw(6, 0)),
            Step::Wait(_)
        ));
    }

    #[test]
    fn a_late_answer_to_the_first_of_two_challenges_counts() {
        let mut schedule = schedule();
        schedule.poll(at(100), true, draw(1, 0));
        schedule.poll(at(110), true, draw(2, 0));
        assert_eq!(schedule.answered(&[1; 32], at(111), 0), Some(true));
        assert_eq!(schedule.answered(&[2; 32], at(111), 0), None);
    }

    #[test]
    fn the_next_challenge_comes_within_the_jitter_around_the_interval() {
        for random in [0, 1, 7_919, 20_000, 20_001, u64::MAX] {
            let mut schedule = schedule();
            schedule.poll(at(100), false, draw(1, 0));
            schedule.answered(&[1; 32], at(100), random);
            match schedule.poll(at(100), false, draw(2, 0)) {
                Step::Wait(until) => assert!(until >= at(150) && until <= at(170), "{until:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_change_of_what_must_be_measured_is_asked_about_at_once() {
        let mut schedule = schedule();
        schedule.poll(at(100), false, draw(1, 0));
        schedule.answered(&[1; 32], at(100), 0);
        schedule.hasten(at(101));
        assert_eq!(schedule.poll(at(101), false, draw(2, 0)), asked(2));
        schedule.hasten(at(102));
        assert_eq!(
            schedule.poll(at(102), false, draw(3, 0)),
            Step::Wait(at(111))
        );
    }
}
