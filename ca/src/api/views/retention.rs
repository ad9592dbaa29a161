//! Sites and their keys, retention, the archive.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::when::When;

/// A site, by the keys that seal its events.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SiteView {
    /// The value of the nodes' label `site`; `default`: nodes without one; `:cloud`: what the cloud did that no node has to
    /// do with.
    pub site: String,
    /// Keys in use: one, unless clouds began at the same moment.
    pub keys: u64,
    /// When the one that seals now was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<When>,
    /// Keys that were destroyed: the events that they sealed are erased.
    pub erased: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_erased: Option<When>,
    /// Whether its events can be erased: all but those of `:cloud`.
    pub erasable: bool,
}

/// The word that the events of a site are to be erased.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// The site's name once more: this cannot be taken back.
    pub confirm: String,
}

/// The events of a site are erased.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErasedView {
    pub site: String,
    /// Ids of the keys that were destroyed.
    pub keys: Vec<String>,
    pub erased: When,
}

/// For how long events are kept, and what is gone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RetentionView {
    /// In words.
    pub policy: String,
    /// Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_seconds: Option<u64>,
    /// The smallest index whose event, record and entry are kept here. Hashes of the tree are kept from 0 on.
    pub minimum_index: u64,
    /// When it was raised last, and under which policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<When>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned_under: Option<String>,
    /// What keeps the next segment.
    pub held_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveView>,
}

/// The archive of segments.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ArchiveView {
    pub to: String,
    /// `writing`, `failing` or `waiting` (nothing was written yet).
    pub state: String,
    /// Index of the first event that is not in it.
    pub next_index: u64,
    /// Covered events that are not in it; of these up to 16,383 wait for their segment to be full.
    pub behind: u64,
    pub segments: u64,
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<When>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<When>,
}
