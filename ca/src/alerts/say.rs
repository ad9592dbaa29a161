//! What is said of an alert, as JSON: the body of a webhook, and what a message for syslog is made of.

use edgeward_identity::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::book::{Alert, Word};
use crate::api::views::AlertView;
use crate::when::When;

/// A word about an alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saying {
    /// `alert.opened`, `alert.repeated`, `alert.ended` or `alert.test`.
    #[serde(rename = "type")]
    pub kind: String,
    pub timestamp: When,
    /// Which cloud says it.
    pub cloud: String,
    pub data: AlertView,
}

/// The body of a word about an alert.
pub fn body(cloud: &SpiffeId, alert: &Alert, word: Word, now: Timestamp) -> String {
    saying(cloud, alert, &format!("alert.{}", word.as_str()), now)
}

pub(crate) fn saying(cloud: &SpiffeId, alert: &Alert, kind: &str, now: Timestamp) -> String {
    let saying = Saying {
        kind: kind.to_owned(),
        timestamp: now.into(),
        cloud: cloud.to_string(),
        data: AlertView::of(alert),
    };
    serde_json::to_string(&saying).expect("plain structures with string keys always serialise")
}
