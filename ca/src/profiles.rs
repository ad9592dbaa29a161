//! Profiles from evidence: what to write down of a machine, what changed on it, what to add for a group of them. No I/O;
//! what comes of it is text for people to read, and nothing here puts anything into force.

pub mod changes;
pub mod kept;
pub mod meaning;
pub mod propose;
pub mod record;

pub use changes::{Changes, changes};
pub use kept::{EvidenceView, FindingView, NodeEvidence};
pub use propose::{Proposal, propose};
pub use record::{NotRecorded, Recorded, Wanted, record};
