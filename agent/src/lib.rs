//! The edge of Edgeward: TPM, enrolment, session with the cloud, stored state, journal, enforcement.
//!
//! [`view::NodeView`] is what the node holds at this moment, verified; the session writes it, enforcement reads it.

pub mod accept;
pub mod apps;
pub mod boot;
pub mod break_glass;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connect;
pub mod enforce;
pub mod enrol;
pub mod ext_authz;
pub mod gateway;
pub mod journal;
pub mod logs;
pub mod machine;
pub mod names;
pub mod outside;
pub mod reach;
pub mod recover;
pub mod resume;
pub mod root;
pub mod run;
pub mod session;
pub(crate) mod socket;
pub mod state;
pub mod status;
pub mod tpm;
pub mod upgrade;
pub mod view;
mod wear;
pub mod workload;
