//! The cloud of Edgeward: certification authority, policy engine and audit log in one process, and the
//! commands that operate it.

pub mod access;
pub mod advice;
pub mod alerts;
mod allowance;
pub mod api;
pub mod approvals;
pub mod apps;
pub mod archive;
pub mod attest;
pub mod audit;
pub mod authorities;
pub mod cli;
pub mod config;
mod crowd;
pub mod cut;
pub mod dial;
pub mod ek;
pub mod enrol;
pub mod export;
pub mod hub;
pub mod issue;
pub mod keys;
pub mod profiles;
pub mod relay;
pub mod retention;
pub mod rollout;
pub mod run;
pub mod serve;
pub mod session;
pub mod store;
pub mod stun;
#[cfg(test)]
mod testing;
pub mod when;
pub mod witness;
pub mod workload;
