//! The repository of signed applications: what publishers release is taken in, kept, signed for online and served.
//!
//! `intake` judges every upload by the code that nodes judge by, before anything of it is served; `online` signs what is
//! newest; `shelf` keeps content; `service` serves nodes. What a node should have is not decided here.

pub(crate) mod director;
mod draft;
mod intake;
pub mod online;
mod refusal;
mod repository;
mod said;
mod service;
pub mod shelf;
mod upkeep;

#[cfg(test)]
mod tests;

pub use intake::{Named, Taken, TakenReleases};
pub use refusal::NotTaken;
pub use repository::{Parts, PublishedRelease, Releases, Repository};
pub use said::{AppSaid, AppsSaid, NotSaid};
pub use service::AppsService;
pub use upkeep::Ending;
