//! What the house promises of itself, checked.

mod direction;
mod refusals;
