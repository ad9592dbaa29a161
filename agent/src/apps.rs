//! Signed applications on this node: fetched, verified, installed, started.

mod activate;
mod check;
pub mod fetch;
pub mod floors;
mod folder;
pub mod installer;
pub mod measure;
mod place;
pub mod receipt;
pub mod report;
mod shared;
pub mod stage;
pub mod store;
mod sweep;
#[cfg(test)]
mod testing;
pub mod volume;

pub use activate::NotActivated;
pub use check::TreeDiffers;
pub use sweep::Swept;
