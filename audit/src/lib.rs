//! The record: typed events, hash-chained journals, batches, and the Merkle log they end in.
//!
//! * [`event`]: what happened. [`record`]: events in a chain, one chain per boot of a node.
//! * [`journal`]: the chain in files, on a node. Generic over [`journal::SegmentStore`]; `journal/segment_file.rs` is
//!   the one file of this crate that touches a file system.
//! * [`batch`]: records on their way to the cloud, and what of them is new there.
//! * [`block`]: events as a store keeps them: 256 leaves in a few bytes each, searchable and erasable.
//! * [`statement`]: where a node says that its journal ends, and what of it is gone.
//! * [`merkle`], [`note`], [`checkpoint`], [`tiles`]: the log's tree and its public form (C2SP tlog-tiles).
//! * [`cosignature`], [`witness`], [`tlog_policy`]: others who saw the tree grow, and how many of them a reader wants.
//! * [`export`]: events in the formats of others.
//! * [`log_proof`]: that one entry is in the log, as one text for whoever is offline.
//! * [`proven`]: an export that whoever is offline can check.
//! * [`watch`]: what a reader of the log who remembers a checkpoint demands of the next.
//! * [`segment`]: a piece of the log in one file, for archives.
//! * [`query`]: the typed filter and the cursor of the audit API.
//!
//! Everything is told the time and handed its randomness.

pub mod batch;
pub mod block;
pub mod checkpoint;
pub mod cosignature;
pub mod digest;
pub mod event;
pub mod export;
pub mod journal;
pub mod log_proof;
pub mod merkle;
pub mod note;
pub mod proven;
pub mod query;
pub mod record;
pub mod segment;
pub mod statement;
pub mod tiles;
pub mod tlog_policy;
pub mod watch;
pub mod witness;

#[cfg(test)]
mod vectors;

pub use digest::Digest;
pub use event::{Actor, Class, Event, EventKind, Subject, Verdict};
pub use journal::Journal;
pub use record::{BootId, BootOpened, Chain, Head, Position, Record, SealedRecord};
