//! Events in the formats of others: OCSF, CEF, RFC 5424, OTLP, and our own JSON by lines.
//!
//! Only the forms: who sends them where, and how far each receiver has come, is the cloud's. Whatever the event holds, each
//! form is well-formed and on one line: texts of strangers are escaped by the rules of the format they are put in.
//! Every form carries the event's index in the log, by which a receiver knows one that it was given twice, and the hash of
//! the record, by which the line can be held against the log.

use edgeward_identity::{Kind, SpiffeId, Timestamp};

use crate::digest::Digest;
use crate::event::Event;
use crate::record::BootId;

pub mod cef;
pub mod json;
pub mod ocsf;
pub mod otlp;
mod severity;
pub mod syslog;

#[cfg(test)]
mod tests;

pub use severity::Severity;

/// Longest form of one event in any of the formats, in bytes (a test says so of the largest event).
pub const MAX_FORMATTED_BYTES: usize = 64 * 1024;

/// Who makes all of this, in every format that asks for a vendor and a product.
const PRODUCT: &str = "Edgeward";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An event in its place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Exported<'a> {
    /// Its index in the log.
    pub index: u64,
    /// Who kept the journal that it was in.
    pub node: &'a SpiffeId,
    pub boot: BootId,
    pub seq: u64,
    /// Of the whole record: what the log commits to.
    pub hash: Digest,
    /// When the cloud stored it.
    pub received: Timestamp,
    /// A node recorded what is not a node's to record: evidence of what it said, and of nothing else.
    pub claimed: bool,
    pub event: &'a Event,
}

impl Exported<'_> {
    pub fn severity(&self) -> Severity {
        match self.claimed {
            // Nobody is loud by recording what is not theirs to record.
            true => Severity::Notice,
            false => Severity::of(self.event),
        }
    }

    /// The event in one line for people: what happened, to whom, by whom.
    pub fn sentence(&self) -> String {
        let event = self.event;
        let mut text = format!("{}: {}", event.kind, event.kind.meaning());
        if let Some(subject) = &event.subject {
            text.push_str(&format!("; subject {subject}"));
        }
        text.push_str(&format!("; by {}", event.actor));
        if let Some(code) = &event.code {
            text.push_str(&format!("; {code}"));
        }
        text
    }

    /// Names the event for good: by journal, boot and number.
    fn uid(&self) -> String {
        format!("{}/{}", self.boot, self.seq)
    }

    /// What the keeper is called where a host name belongs: its name in its trust domain.
    fn host(&self) -> String {
        format!("{}.{}", self.node.name(), self.node.trust_domain())
    }

    fn keeper_is_node(&self) -> bool {
        self.node.kind() == Kind::Node
    }
}

/// As RFC 3339 has it, with milliseconds; none for a time that no calendar holds (a recorder's clock may say anything).
fn rfc3339(time: Timestamp) -> Option<String> {
    let millis = i64::try_from(time.millis()).ok()?;
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(format!("{time:.3}"))
}
