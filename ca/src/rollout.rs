//! Staged policies: a candidate comes into force for a share of the nodes first. Pure; the hub performs it.

mod part;

pub use part::{Part, Percent};
