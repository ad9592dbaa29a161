//! The decision space of a policy: what every verdict follows from, made finite and looked at as a whole.
//!
//! Selectors are conjunctions of `key in {values}`, and every other condition compares with something that the policy
//! names. So along each axis (who, action, state, tier, profiles, age of the evidence, time, approvals) only finitely
//! many things can be told apart: its atoms. A verdict is the same for all points that share their atoms.
//! One interface at a time, and with the rows only that bear on a subject, that stays small; a diagram which shares
//! equal parts keeps it from being multiplied out.
//!
//! [`diff`] and [`compare`] put two policies side by side. Break-glass is taken as closed.

mod ask;
mod axes;
mod beside;
mod cells;
mod diagram;
mod diff;
mod explain;
mod flows;
mod interface;
mod invariant;
mod joint;
mod region;
mod rows;
mod side;
mod subjects;
mod times;
mod wording;

pub use ask::{Ask, Asker, CannotAsk, ask};
pub use beside::{Beside, Moved};
pub use diff::{Change, Diff, compare, diff};
pub use explain::{Dimension, Explanation, Question, RuleSaid, Unexplained, explain};
pub use flows::{Closing, Flow, closing};
pub(crate) use invariant::check_invariants;
pub use wording::{Direction, Region, Said, Subjects};

/// The space is larger than what is worth looking at. The author's to mend: fewer groups, windows or terms at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    #[error(
        "more kinds of subjects at one interface than the limit: {}",
        cells::MAX_CELLS
    )]
    Subjects,
    #[error("the windows named at one interface open and close more often than can be followed")]
    Windows,
    #[error("more differences at one interface than can be listed")]
    Differences,
}

#[cfg(test)]
mod tests;
