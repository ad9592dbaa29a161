//! The guard on a real volume, under a real kernel: as root, each test in a mount namespace of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod attacks;
mod escape;
#[cfg(feature = "kernel-level")]
mod kernel;
mod lab;
mod launcher;
mod runs;
mod states;
mod survives;
mod ways;
