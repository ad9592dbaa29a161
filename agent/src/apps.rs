//! Signed applications on this node: fetched, verified, installed, started.

mod activate;
pub mod begin;
mod check;
pub mod desk;
pub mod egress;
pub mod enforcing;
pub mod fetch;
pub mod floors;
mod folder;
pub mod guard;
mod hierarchy;
pub mod installer;
pub mod launch;
pub mod level;
pub mod machinery;
pub mod measure;
pub mod mirror;
mod place;
pub mod receipt;
pub mod records;
pub mod report;
pub mod rights;
pub mod runs;
mod shared;
pub mod stage;
pub mod start;
pub mod store;
mod sweep;
#[cfg(test)]
mod testing;
pub mod volume;

pub use activate::NotActivated;
pub use check::TreeDiffers;
pub use sweep::Swept;
