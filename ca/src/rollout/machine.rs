//! The stages of one candidate: when it goes on, when it stops, when it goes back. Pure: told the time and what was denied.

use std::time::Duration;

use edgeward_identity::Timestamp;
use edgeward_policy::space::Change;

use super::{Denials, Percent, Rise};

/// Most stages of one candidate.
pub const MAX_STEPS: usize = 16;
/// Shortest hold: nodes report their denials every ten seconds, and one report may just have gone.
pub const MIN_HOLD: Duration = Duration::from_secs(20);
/// Longest hold.
pub const MAX_HOLD: Duration = Duration::from_secs(30 * 86_400);

/// Shares that rise to everything, and how long each is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Percent>,
    hold: Duration,
}

/// Not a plan. The operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    #[error("stages are shares in percent, from 1 to 100")]
    Percent,
    #[error("stages must rise and end with 100, and be at most {MAX_STEPS}")]
    Steps,
    #[error("a stage is held for at least {} s and at most {} days", MIN_HOLD.as_secs(), MAX_HOLD.as_secs() / 86_400)]
    Hold,
}

/// Where a candidate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The candidate's number.
    pub number: u64,
    /// The number of what is in force for the others.
    pub base: u64,
    pub plan: Plan,
    /// Index into the plan.
    pub step: usize,
    /// Last position of the stage's part.
    pub threshold: u64,
    /// When the first stage began: what was denied before is compared with.
    pub begun: Timestamp,
    /// When this stage began: denials count from here.
    pub entered: Timestamp,
    /// Leaf of the audit log before this stage.
    pub leaf: Option<u64>,
    /// When the hold began: later than the stage after a restart, or while none of its nodes was there.
    pub since: Timestamp,
    pub phase: Phase,
    /// Whether rising denials stop this stage: not again once an operator has looked at them and gone on.
    pub watched: bool,
    /// What the candidate is to the base.
    pub change: Change,
    /// The operator's signature under the base as the next policy: without it the cloud cannot return by itself.
    pub return_signature: Option<String>,
}

/// What is going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Holding,
    /// Nothing goes on until somebody says so. Why, in words.
    Paused(String),
    /// In force everywhere.
    Done,
    /// The base is in force again, under a new number.
    Returned,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Wait,
    /// The next stage.
    Widen(Percent),
    /// Into force everywhere.
    Finish,
    /// Denials rise, and going back would open again what the candidate closed: people must look.
    Pause(Rise),
    /// Denials rise, and going back opens nothing.
    Return(Rise),
}

impl Plan {
    pub fn new(steps: &[u8], hold: Duration) -> Result<Self, NoPlan> {
        let steps: Vec<Percent> = steps
            .iter()
            .map(|percent| Percent::new(*percent).ok_or(NoPlan::Percent))
            .collect::<Result<_, _>>()?;
        let rises = steps.windows(2).all(|pair| pair.first() < pair.last());
        if steps.last() != Some(&Percent::ALL) || !rises || steps.len() > MAX_STEPS {
            return Err(NoPlan::Steps);
        }
        if !(MIN_HOLD..=MAX_HOLD).contains(&hold) {
            return Err(NoPlan::Hold);
        }
        Ok(Self { steps, hold })
    }

    pub fn steps(&self) -> &[Percent] {
        &self.steps
    }

    pub fn hold(&self) -> Duration {
        self.hold
    }
}

impl Phase {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Holding => "holding",
            Self::Paused(_) => "paused",
            Self::Done => "done",
            Self::Returned => "returned",
        }
    }

    /// Whether the candidate is still only tried.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Holding | Self::Paused(_))
    }
}

impl Rollout {
    pub fn percent(&self) -> Percent {
        let steps = &self.plan.steps;
        steps.get(self.step).copied().unwrap_or(Percent::ALL)
    }

    /// When the stage ends by itself.
    pub fn due(&self) -> Timestamp {
        self.since.plus(self.plan.hold)
    }

    /// Whether going back would open what the candidate closed.
    pub fn reopens(&self) -> bool {
        !matches!(self.change, Change::Same | Change::Wider)
    }

    pub fn returns_by_itself(&self) -> bool {
        !self.reopens() && self.return_signature.is_some()
    }

    pub fn poll(&self, now: Timestamp, denials: &Denials) -> Act {
        if self.phase != Phase::Holding {
            return Act::Wait;
        }
        if self.watched
            && let Some(rise) = denials.rise()
        {
            return match self.returns_by_itself() {
                true => Act::Return(rise),
                false => Act::Pause(rise),
            };
        }
        if now < self.due() {
            return Act::Wait;
        }
        let next = self.step.checked_add(1);
        match next.and_then(|next| self.plan.steps.get(next)) {
            Some(percent) => Act::Widen(*percent),
            None => Act::Finish,
        }
    }

    /// The next stage, from now on.
    #[must_use]
    pub fn widened(&self, threshold: u64, leaf: Option<u64>, now: Timestamp) -> Self {
        Self {
            step: self.step.saturating_add(1),
            // A node that was in stays in, whatever the fleet looks like by now.
            threshold: threshold.max(self.threshold),
            entered: now,
            since: now,
            leaf,
            watched: true,
            ..self.clone()
        }
    }

    #[must_use]
    pub fn paused(&self, why: &str) -> Self {
        Self {
            phase: Phase::Paused(why.to_owned()),
            ..self.clone()
        }
    }

    /// Held once more from now on; what rose is not asked about again in this stage.
    #[must_use]
    pub fn resumed(&self, now: Timestamp) -> Self {
        Self {
            phase: Phase::Holding,
            since: now,
            watched: false,
            ..self.clone()
        }
    }

    /// The hold begins again: nobody watched, or nobody was there to be watched.
    #[must_use]
    pub fn held_again(&self, now: Timestamp) -> Self {
        Self {
            since: now,
            ..self.clone()
        }
    }

    #[must_use]
    pub fn ended(&self, phase: Phase) -> Self {
        Self {
            phase,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
