//! The repository of signed applications: what publishers release is taken in, kept, signed for online and served.
//!
//! `intake` judges every upload by the code that nodes judge by, before anything of it is served; `online` signs what is
//! newest; `shelf` keeps content; `service` serves nodes. What a node should have is not decided here.

mod content;
pub(crate) mod director;
mod draft;
mod intake;
mod named;
pub mod online;
mod online_key;
mod refusal;
mod repository;
mod said;
mod service;
pub mod shelf;
mod upkeep;

#[cfg(test)]
mod tests;

pub use content::Content;
pub use intake::{Named, Taken, TakenReleases};
pub use refusal::NotTaken;
pub use repository::{Parts, PublishedRelease, Releases, Repository};
pub use said::{AppSaid, AppsSaid, NotSaid};
pub use service::{NodeStock, serving};
pub use upkeep::Ending;
