//! The cloud of Edgeward: certification authority, policy engine and audit log in one process, and the
//! commands that operate it.

mod crowd;
pub mod access;
pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod issue;
pub mod keys;
pub mod serve;
pub mod store;
pub mod when;
pub mod attest;
pub mod cut;
pub mod enrol;
pub mod hub;
pub mod run;
pub mod session;
#[cfg(test)]
mod testing;
