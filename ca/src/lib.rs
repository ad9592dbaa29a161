//! The cloud of Edgeward: certification authority, policy engine and audit log in one process, and the
//! commands that operate it.

pub mod store;
pub mod config;
pub mod issue;
pub mod keys;
pub mod serve;
