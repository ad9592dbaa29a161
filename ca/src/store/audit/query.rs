//! An event as it stands in the log.

use edgeward_audit::digest::Digest;
use edgeward_audit::event::Event;
use edgeward_audit::record::BootId;
use edgeward_identity::{SpiffeId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::event_of;
use crate::store::{StoreError, number_from_column, parse_column, time_from_column};

/// What [`stored_event`] reads of a row.
pub(super) const COLUMNS: &str = "leaf, node, boot, seq, hash, received, record";

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

pub(super) fn stored_event(row: &AnyRow) -> Result<StoredEvent, StoreError> {
    let (event, claimed) = event_of(row.try_get("record")?)?;
    Ok(StoredEvent {
        index: number_from_column(row.try_get("leaf")?),
        node: parse_column("spiffe id", row.try_get("node")?)?,
        boot: parse_column("boot id", row.try_get("boot")?)?,
        seq: number_from_column(row.try_get("seq")?),
        hash: parse_column("hash", row.try_get("hash")?)?,
        received: time_from_column(row.try_get("received")?),
        event,
        claimed,
        record: row.try_get("record")?,
    })
}
