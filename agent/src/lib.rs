//! The edge of Edgeward: TPM, enrolment, session with the cloud, stored state, journal, enforcement.
//!
//! [`view::NodeView`] is what the node holds at this moment, verified; the session writes it, enforcement reads it.

pub mod boot;
pub mod enforce;
pub mod tpm;
pub mod view;
