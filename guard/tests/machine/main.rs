//! The guard on a machine that has everything: a kernel that decides by itself, files that are sealed, control groups with
//! their controllers. As root, one test at a time; `tests/run machine` boots such a machine and runs them there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod groups;
mod kernel;
#[path = "../exec/lab.rs"]
mod lab;
