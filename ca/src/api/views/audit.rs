//! Events of the audit log, and how complete it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::when::When;

/// An event in its place in the log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its place in the one global order.
    pub index: u64,
    pub time: When,
    #[serde(rename = "type")]
    pub kind: String,
    pub actor: String,
    pub subject: Option<String>,
    /// allow, deny or none.
    pub verdict: String,
    pub rule: Option<String>,
    pub code: Option<String>,
    pub detail: BTreeMap<String, String>,
    /// Who recorded it.
    pub node: String,
    pub boot: String,
    pub seq: u64,
    /// Of the record, hex.
    pub hash: String,
    pub received: When,
    /// The word of a node on what is not a node's to say: evidence of what it says, and no more.
    #[serde(default)]
    pub claimed: bool,
    /// The record as it was written, where it is asked for. `hash` is over a label and these bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The event is longer than the page may be: `detail` is left out here, and this path has it whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<String>,
}

/// A page of events.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    pub items: Vec<EventView>,
    /// Where to go on, also later when there is more. Absent while nothing ever matched.
    pub cursor: Option<String>,
    /// Whether more matches exist now, or may: looking for few among many ends a page early.
    pub more: bool,
}

/// How complete the record of one boot is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CoverageView {
    pub node: String,
    pub boot: String,
    /// Records 0 to this one are stored without a gap.
    pub last_seq: u64,
    /// Hash of the last one.
    pub head: String,
    pub opened: When,
    pub updated: When,
    pub faults: Vec<FaultView>,
}

/// What is wrong with the record of one boot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FaultView {
    pub boot: String,
    /// missing, forked, rolled_back or restarted.
    pub kind: String,
    pub first_seq: u64,
    pub last_seq: u64,
    pub noticed: When,
    /// When missing records arrived after all.
    pub resolved: Option<When>,
    /// When the node signed that it does not have missing records any more.
    pub lost: Option<When>,
    /// Who has taken note of the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<LossView>,
}

/// Somebody has taken note that records are lost.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LossView {
    pub at: When,
    pub by: String,
    pub reason: String,
}

/// Of which lost range somebody takes note.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LossRequest {
    /// Name or SPIFFE ID.
    pub node: String,
    pub boot: String,
    /// Where the range begins.
    pub first_seq: u64,
    pub reason: String,
}

/// All of `GET /api/v1/audit/coverage`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CoverageReport {
    /// True: nothing is missing of any journal, and nothing else is wrong with one.
    pub complete: bool,
    /// Faults of which nobody knows yet what becomes of them.
    #[serde(default)]
    pub open: u64,
    /// Ranges that the nodes do not have any more, and of which nobody has taken note.
    #[serde(default)]
    pub lost: u64,
    /// Lost ranges of which somebody has taken note.
    #[serde(default)]
    pub acknowledged: u64,
    pub items: Vec<CoverageView>,
    /// Faults of boots of which nothing is stored.
    pub unknown_boots: Vec<FaultView>,
    /// Where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    #[serde(default)]
    pub more: bool,
    /// Events below this index were stored, and deleted under the retention policy.
    #[serde(default)]
    pub minimum_index: u64,
}

/// How many events there are, by time and by one of their fields.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatsView {
    /// All that match.
    pub total: u64,
    /// The field by whose values they are counted.
    pub by: Option<String>,
    /// The values with most events, most first.
    pub values: Vec<CountView>,
    /// Events with other values than these.
    pub others: u64,
    /// Seconds in a piece of time.
    pub bucket_seconds: Option<u64>,
    /// Pieces of time with events in them, oldest first.
    pub buckets: Vec<BucketView>,
}

/// Events with one value.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CountView {
    /// Empty: the event has no such field.
    pub value: String,
    pub count: u64,
}

/// Events of one piece of time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BucketView {
    /// When it begins.
    pub time: When,
    pub total: u64,
    /// Those with the values that are counted by themselves.
    pub values: BTreeMap<String, u64>,
}
