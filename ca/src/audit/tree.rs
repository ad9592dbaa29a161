//! The log's tree: stored events become leaves under signed checkpoints, and what was signed is never taken back.
//!
//! One task ([`Integrator`]) turns what was appended into tiles and one checkpoint a round: at once where nothing was
//! going on, else every [`INTERVAL`]. A round that fails for want of the database is tried again. Where the database does
//! not continue what was signed before, nothing is signed any more ([`Halt`]): the cloud goes on, its nodes keep their
//! records, and somebody must look.

mod anchor;
mod head;
mod integrator;
mod round;
mod self_check;
#[cfg(test)]
mod tests;

pub use head::{Halt, LogHead, Published};
pub use integrator::{INTERVAL, Integrator};
pub use self_check::{Checked, SelfCheck};
