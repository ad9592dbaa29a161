//! Staged policies: a candidate comes into force for a share of the nodes first, and for all of them if nothing speaks
//! against it. Pure; `hub/rollouts.rs` performs it.

mod denials;
mod machine;
mod part;

pub use denials::{BEFORE, Denials, Rise, Side};
pub use machine::{Act, MAX_HOLD, MAX_STEPS, MIN_HOLD, NoPlan, Phase, Plan, Rollout};
pub use part::{Part, Percent};
