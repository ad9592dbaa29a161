//! When evidence is asked for, and what an answer is worth. Decisions only: told the time, handed its randomness.
//!
//! A session's first challenge comes at once, the next at random moments around the interval. An unanswered one is
//! repeated once; then the node is stale. Every nonce is good for one answer, right or wrong. Where an answer was only a
//! part (of a long list, or without a log that a new boot made necessary), the next part is asked for at once, and
//! all parts are due when the first answer was.

use std::time::Duration;

use edgeward_evidence::Nonce;
use edgeward_identity::BootTime;

use crate::config::Attest;

pub(crate) mod answer;
pub(crate) mod judge;
mod known;
mod pool;
mod profile;

pub use answer::Answer;
pub use judge::{Case, Judged, Partial, Refusal, Verdict, explain, judge};
pub use known::{Asked, Known};
pub use pool::{NoThread, Verifiers, Weight};
pub use profile::{Measured, Measures, Unmeasurable};

/// How often a node is asked at most because of what it said.
pub const HASTENED_EVERY: Duration = Duration::from_secs(1);

/// One node's challenges during one session.
#[derive(Debug)]
pub struct Schedule {
    config: Attest,
    phase: Phase,
    /// When something was asked last.
    asked: Option<BootTime>,
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
        /// Something changed meanwhile: this is yesterday's question, and the next comes as soon as this.
        hasten: Option<BootTime>,
    },
    /// An answer came and is being judged.
    Judging {
        since: BootTime,
        deadline: BootTime,
        renew: bool,
        hasten: Option<BootTime>,
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
            asked: None,
        }
    }

    /// The next thing to do. `renew` says whether the next challenge asks for a renewal.
    pub fn poll(&mut self, now: BootTime, renew: bool, draw: Draw) -> Step {
        match &mut self.phase {
            Phase::Judging { .. } => Step::Wait(now.plus(self.config.deadline)),
            Phase::Resting { until } if now < *until => Step::Wait(*until),
            Phase::Resting { .. } => {
                self.asked = Some(now);
                self.phase = Phase::Asking {
                    open: vec![draw.nonce],
                    deadline: now.plus(self.config.deadline),
                    renew,
                    hasten: None,
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
                ..
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

    /// Whether [`Schedule::poll`] would begin to ask now.
    pub fn is_due(&self, now: BootTime) -> bool {
        matches!(self.phase, Phase::Resting { until } if now >= until)
    }

    /// Takes an answer to one of the open nonces, whatever it is worth: all of them are burnt. `None`: nothing was
    /// asked with that nonce. `Some`: whether a renewal had been asked for. Nothing more is asked until the answer is
    /// judged: [`Schedule::judged`] or [`Schedule::follow`].
    pub fn answered(&mut self, nonce: &[u8], now: BootTime) -> Option<bool> {
        match &self.phase {
            Phase::Asking {
                open,
                deadline,
                renew,
                hasten,
            } if open.iter().any(|open| open.as_bytes() == nonce) => {
                let (deadline, renew, hasten) = (*deadline, *renew, *hasten);
                self.phase = Phase::Judging {
                    since: now,
                    deadline,
                    renew,
                    hasten,
                };
                Some(renew)
            }
            Phase::Asking { .. } | Phase::Resting { .. } | Phase::Judging { .. } => None,
        }
    }

    /// The answer was judged, and nothing is missing.
    pub fn judged(&mut self, now: BootTime, random: u64) {
        let Phase::Judging { hasten, .. } = self.phase else {
            return;
        };
        self.rest(now, random);
        if let Some(at) = hasten {
            self.ask_by(at);
        }
    }

    /// The answer was a part: asks for the next one with this nonce. The node has what is left of its time; what the
    /// cloud took to judge the part is not counted.
    pub fn follow(&mut self, now: BootTime, nonce: Nonce) -> Step {
        match self.phase {
            Phase::Judging {
                since,
                deadline,
                renew,
                hasten,
            } => {
                self.phase = Phase::Asking {
                    open: vec![nonce],
                    deadline: deadline.plus(now.since(since)),
                    renew,
                    hasten,
                };
                Step::Challenge { nonce, renew }
            }
            Phase::Asking { deadline, .. } => Step::Wait(deadline),
            Phase::Resting { until } => Step::Wait(until),
        }
    }

    /// Asks at once, or as soon as what it has asked is answered: what must be measured has changed.
    pub fn hasten(&mut self, now: BootTime) {
        self.ask_by(now);
    }

    /// As [`Schedule::hasten`], for what the node says of itself: it does not get itself asked more often than every
    /// [`HASTENED_EVERY`].
    pub fn heed(&mut self, now: BootTime) {
        let earliest = self.asked.map_or(now, |asked| asked.plus(HASTENED_EVERY));
        self.ask_by(now.max(earliest));
    }

    /// Not later than then, once what was asked is answered.
    fn ask_by(&mut self, at: BootTime) {
        match &mut self.phase {
            Phase::Resting { until } => *until = at.min(*until),
            Phase::Judging { hasten, .. } | Phase::Asking { hasten, .. } => {
                *hasten = Some(hasten.map_or(at, |before| before.min(at)));
            }
        }
    }

    /// Keeps to another pace from now on; what was to come later than that comes sooner.
    pub fn keep_to(&mut self, config: Attest, now: BootTime) {
        self.config = config;
        if let Phase::Resting { until } = &mut self.phase {
            *until = (*until).min(now.plus(config.interval.saturating_add(config.jitter)));
        }
    }

    /// Asks later than it would, unless it is asking: too many are at it.
    pub fn postpone(&mut self, until: BootTime) {
        if let Phase::Resting { until: due } = &mut self.phase {
            *due = until.max(*due);
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
        assert_eq!(schedule.answered(&[1; 32], at(100)), None);
        assert_eq!(schedule.poll(at(100), false, draw(1, 0)), asked(1));
        assert_eq!(schedule.answered(&[2; 32], at(101)), None);
        assert_eq!(schedule.answered(&[1; 31], at(101)), None);
        assert_eq!(schedule.answered(&[], at(101)), None);
    }

    #[test]
    fn a_nonce_is_good_for_one_answer() {
        let mut schedule = schedule();
        schedule.poll(at(100), false, draw(1, 0));
        assert_eq!(schedule.answered(&[1; 32], at(101)), Some(false));
        assert_eq!(schedule.answered(&[1; 32], at(101)), None);
    }

    #[test]
    fn nothing_is_asked_while_an_answer_is_judged() {
        let mut schedule = schedule();
        schedule.poll(at(100), false, draw(1, 0));
        schedule.answered(&[1; 32], at(101));
        for seconds in [101, 111, 500] {
            assert!(matches!(
                schedule.poll(at(seconds), false, draw(2, 0)),
                Step::Wait(_)
            ));
        }
        assert!(!schedule.is_due(at(500)));
        schedule.judged(at(500), 0);
        assert_eq!(
            schedule.poll(at(500), false, draw(2, 0)),
            Step::Wait(at(550))
        );
    }

    #[test]
    fn parts_are_due_when_the_first_answer_was() {
        let mut schedule = schedule();
        schedule.poll(at(100), true, draw(1, 0));
        assert_eq!(schedule.answered(&[1; 32], at(104)), Some(true));
        // Judged for 20 s: the node has the 6 s that it had left.
        let nonce = Nonce::from_bytes([2; 32]);
        assert_eq!(
            schedule.follow(at(124), nonce),
            Step::Challenge { nonce, renew: true }
        );
        assert_eq!(schedule.answered(&[1; 32], at(124)), None);
        assert_eq!(
            schedule.poll(at(129), true, draw(3, 0)),
            Step::Wait(at(130))
        );
        assert!(matches!(
            schedule.poll(at(130), true, draw(3, 0)),
            Step::Challenge { .. }
        ));
        assert_eq!(schedule.poll(at(140), true, draw(4, 0)), Step::Stale);
    }

    #[test]
    fn nothing_follows_where_nothing_was_answered() {
        let mut schedule = schedule();
        let nonce = Nonce::from_bytes([2; 32]);
        assert!(matches!(schedule.follow(at(100), nonce), Step::Wait(_)));
        schedule.judged(at(100), 0);
        assert_eq!(schedule.poll(at(100), false, draw(1, 0)), asked(1));
    }

    #[test]
    fn a_quicker_pace_takes_effect_at_once_and_a_slower_one_after_the_next_challenge() {
        let mut schedule = schedule();
        let pace = |interval| Attest {
            interval: Duration::from_secs(interval),
            jitter: Duration::ZERO,
            ..Attest::default()
        };
        schedule.keep_to(pace(1200), at(100));
        schedule.poll(at(100), false, draw(1, 0));
        schedule.answered(&[1; 32], at(100));
        schedule.judged(at(100), 0);
        assert_eq!(
            schedule.poll(at(110), false, draw(2, 0)),
            Step::Wait(at(1300))
        );
        schedule.keep_to(pace(200), at(110));
        assert_eq!(
            schedule.poll(at(110), false, draw(2, 0)),
            Step::Wait(at(310))
        );
        schedule.keep_to(pace(1200), at(120));
        assert_eq!(
            schedule.poll(at(120), false, draw(2, 0)),
            Step::Wait(at(310))
        );
    }

    #[test]
    fn too_many_at_it_is_no_reason_to_ask_early_or_never() {
        let mut schedule = schedule();
        assert!(schedule.is_due(at(100)));
        schedule.postpone(at(103));
        assert_eq!(
            schedule.poll(at(102), false, draw(1, 0)),
            Step::Wait(at(103))
        );
        schedule.postpone(at(101));
        assert_eq!(
            schedule.poll(at(102), false, draw(1, 0)),
            Step::Wait(at(103))
        );
        assert_eq!(schedule.poll(at(103), false, draw(1, 0)), asked(1));
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
        assert_eq!(schedule.answered(&[3; 32], at(120)), None);
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
        assert_eq!(schedule.answered(&[1; 32], at(111)), Some(true));
        assert_eq!(schedule.answered(&[2; 32], at(111)), None);
    }

    #[test]
    fn the_next_challenge_comes_within_the_jitter_around_the_interval() {
        for random in [0, 1, 7_919, 20_000, 20_001, u64::MAX] {
            let mut schedule = schedule();
            schedule.poll(at(100), false, draw(1, 0));
            schedule.answered(&[1; 32], at(100));
            schedule.judged(at(100), random);
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
        schedule.answered(&[1; 32], at(100));
        schedule.judged(at(100), 0);
        schedule.hasten(at(101));
        assert_eq!(schedule.poll(at(101), false, draw(2, 0)), asked(2));
        schedule.hasten(at(102));
        assert_eq!(
            schedule.poll(at(102), false, draw(3, 0)),
            Step::Wait(at(111))
        );
        // While an answer is judged it may be the answer to yesterday's question.
        schedule.answered(&[2; 32], at(103));
        schedule.hasten(at(103));
        schedule.judged(at(104), 0);
        assert_eq!(schedule.poll(at(104), false, draw(4, 0)), asked(4));
    }
    #[test]
    fn a_node_that_says_that_more_runs_is_asked_at_once_and_no_more_often_than_every_second() {
        let mut schedule = schedule();
        schedule.poll(at(100), false, draw(1, 0));
        schedule.answered(&[1; 32], at(100));
        schedule.judged(at(100), 0);
        schedule.heed(at(120));
        assert_eq!(schedule.poll(at(120), false, draw(2, 0)), asked(2));
        // It goes on and on: before, while it is asked, and while its answer is judged.
        schedule.heed(at(120));
        schedule.answered(&[2; 32], at(120));
        schedule.heed(at(120));
        schedule.judged(at(120), 0);
        schedule.heed(at(120));
        assert_eq!(
            schedule.poll(at(120), false, draw(3, 0)),
            Step::Wait(at(120).plus(HASTENED_EVERY))
        );
        assert_eq!(schedule.poll(at(121), false, draw(3, 0)), asked(3));
        // What the cloud itself wants to know waits for nothing.
        schedule.heed(at(121));
        schedule.hasten(at(121));
        schedule.answered(&[3; 32], at(121));
        schedule.judged(at(121), 0);
        assert_eq!(schedule.poll(at(121), false, draw(4, 0)), asked(4));
    }

    #[test]
    fn who_is_heeded_is_not_asked_later_for_it() {
        let mut schedule = schedule();
        schedule.heed(at(100));
        assert_eq!(schedule.poll(at(100), false, draw(1, 0)), asked(1));
        schedule.heed(at(100));
        assert_eq!(
            schedule.poll(at(101), false, draw(2, 0)),
            Step::Wait(at(110)),
            "an answer is waited for first"
        );
    }
}
