//! The cloud of Edgeward: certification authority, policy engine and audit log in one process, and the
//! commands that operate it.

pub mod store;
