//! Events that this version cannot read: of a type, or with a field, that came later.
//!
//! A journal must not stop at them. The record's bytes are chained, hashed and kept as they came; for filters and
//! readers an event of type `event.unknown` stands there, with whatever could be read, and the type's name in its detail.

use edgeward_identity::{SpiffeId, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::event::{Actor, Event, EventKind};

use super::{BootId, BootOpened, Record, RecordError, Salt};

/// The detail that holds the type's name.
pub const UNKNOWN_TYPE: &str = "unknown_type";

/// Everything around the event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(default)]
    salt: Option<Salt>,
    node: SpiffeId,
    boot: BootId,
    seq: u64,
    prev: Digest,
    #[serde(default)]
    opened: Option<BootOpened>,
    #[serde(rename = "event")]
    _event: IgnoredAny,
}

/// Reads a record whose event this version does not know. `bytes` are within the limit.
pub(super) fn read(bytes: &[u8]) -> Result<Record, RecordError> {
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(RecordError::Json)?;
    let mut record = Record {
        salt: envelope.salt,
        event: Event::new(
            Timestamp::default(),
            envelope.node.clone(),
            EventKind::EventUnknown,
        ),
        node: envelope.node,
        boot: envelope.boot,
        seq: envelope.seq,
        prev: envelope.prev,
        opened: envelope.opened,
    };
    let foreign = foreign_part(&record, bytes)?;
    let fields: Map<String, Value> = serde_json::from_slice(foreign).map_err(RecordError::Json)?;
    // Two ways to write what this version reads would be two hashes for one event.
    if let Ok(known) = serde_json::from_slice::<Event>(foreign)
        && known.kind != EventKind::EventUnknown
    {
        return Err(RecordError::NotCanonical);
    }
    record.event = shown(&fields, record.event);
    Ok(record)
}

/// The bytes of the event: what lies between the one way to write all before it, and the closing brace.
fn foreign_part<'a>(record: &Record, bytes: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let own = serde_json::to_vec(record).map_err(RecordError::Json)?;
    let event = serde_json::to_vec(&record.event).map_err(RecordError::Json)?;
    own.len()
        .checked_sub(event.len() + 1)
        .and_then(|before| own.get(..before))
        .and_then(|before| bytes.strip_prefix(before))
        .and_then(|rest| rest.strip_suffix(b"}"))
        .ok_or(RecordError::NotCanonical)
}

/// What can be said of the event: each field that reads as it would in a known event.
fn shown(fields: &Map<String, Value>, unknown: Event) -> Event {
    fn field<T: for<'a> Deserialize<'a>>(fields: &Map<String, Value>, name: &str) -> Option<T> {
        T::deserialize(fields.get(name)?).ok()
    }
    let name: Option<String> = field(fields, "type");
    let mut event = Event {
        time: field(fields, "time").unwrap_or(unknown.time),
        actor: field::<Actor>(fields, "actor").unwrap_or(unknown.actor),
        subject: field(fields, "subject"),
        verdict: field(fields, "verdict").unwrap_or(unknown.verdict),
        rule: field(fields, "rule"),
        code: field(fields, "code"),
        kind: unknown.kind,
        detail: unknown.detail,
    };
    event = event.detail(UNKNOWN_TYPE, name.as_deref().unwrap_or("none"));
    if let Some(Value::Object(details)) = fields.get("detail") {
        for (key, value) in details {
            if let (Some(value), false) = (value.as_str(), key == UNKNOWN_TYPE) {
                event = event.detail(key, value);
            }
        }
    }
    event
}
