//! An event as it stands in the log.

use edgeward_audit::digest::Digest;
use edgeward_audit::event::Event;
use edgeward_audit::record::{BootId, SealedRecord};
use edgeward_identity::{SpiffeId, Timestamp};

use crate::store::StoreError;

/// An event in its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its index in the log: the global order.
    pub index: u64,
    pub node: SpiffeId,
    pub boot: BootId,
    pub seq: u64,
    /// Of the whole record.
    pub hash: Digest,
    pub received: Timestamp,
    pub event: Event,
    /// The record as its keeper wrote it: what is hashed.
    pub record: String,
    /// Its keeper says so, and it is not its keeper's to say: nothing may act on it.
    pub claimed: bool,
}

impl StoredEvent {
    pub(super) fn of(
        index: u64,
        received: Timestamp,
        sealed: SealedRecord,
    ) -> Result<Self, StoreError> {
        let claimed = sealed.is_claimed();
        let (record, bytes, hash) = sealed.into_parts();
        let text = String::from_utf8(bytes).map_err(|_| StoreError::Unreadable {
            what: "record",
            value: format!("event {index}"),
        })?;
        Ok(Self {
            index,
            node: record.node,
            boot: record.boot,
            seq: record.seq,
            hash,
            received,
            event: record.event,
            record: text,
            claimed,
        })
    }
}
