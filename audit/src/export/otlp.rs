//! OpenTelemetry's log records as OTLP carries them over HTTP (opentelemetry-proto 1.x, `collector/logs/v1`).
//!
//! The messages are written down here by their published field numbers, only the fields that are used.

use prost::Message;

use super::{Exported, PRODUCT, VERSION};
use crate::event::Text;

/// What OTLP over HTTP is posted as.
pub const CONTENT_TYPE: &str = "application/x-protobuf";
/// Longest answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What a collector said about a request that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// So many records it will never take.
    pub rejected: u64,
    /// Its reason, cut and freed of what steers terminals.
    pub reason: String,
}

/// Not an answer of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("answer is not one of otlp")]
pub struct NotAnAnswer;

/// An `ExportLogsServiceRequest` of these events. `cloud` names the process that sends.
pub fn request(events: &[Exported<'_>], cloud: &str) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![
            text("service.name", "edgeward"),
            text("service.version", VERSION),
            text("service.instance.id", cloud),
        ],
    };
    Request {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                scope: Some(Scope {
                    name: "edgeward.audit".to_owned(),
                    version: VERSION.to_owned(),
                }),
                log_records: events.iter().map(record).collect(),
            }],
        }],
    }
    .encode_to_vec()
}

/// Reads an `ExportLogsServiceResponse`. An empty one says that everything was taken.
pub fn answer(bytes: &[u8]) -> Result<Taken, NotAnAnswer> {
    if bytes.len() > MAX_ANSWER_BYTES {
        return Err(NotAnAnswer);
    }
    let answer = Answer::decode(bytes).map_err(|_| NotAnAnswer)?;
    let partial = answer.partial_success.unwrap_or_default();
    Ok(Taken {
        rejected: u64::try_from(partial.rejected_log_records).map_err(|_| NotAnAnswer)?,
        reason: Text::<200>::lossy(&partial.error_message).to_string(),
    })
}

fn record(exported: &Exported<'_>) -> LogRecord {
    let event = exported.event;
    let severity = exported.severity();
    let mut attributes = vec![
        number("edgeward.index", exported.index),
        text("edgeward.node", &exported.node.to_string()),
        text("host.name", &exported.host()),
        text("edgeward.boot", &exported.boot.to_string()),
        number("edgeward.seq", exported.seq),
        text("edgeward.hash", &exported.hash.to_string()),
        text("edgeward.actor", &event.actor.to_string()),
        text("edgeward.verdict", event.verdict.as_str()),
    ];
    if exported.claimed {
        attributes.push(text("edgeward.claimed", "true"));
    }
    if let Some(subject) = &event.subject {
        attributes.push(text("edgeward.subject", &subject.to_string()));
    }
    if let Some(rule) = &event.rule {
        attributes.push(text("edgeward.rule", rule.as_str()));
    }
    if let Some(code) = &event.code {
        attributes.push(text("edgeward.code", code.as_str()));
    }
    for (name, value) in event.detail.iter() {
        attributes.push(text(&format!("edgeward.detail.{name}"), value));
    }
    LogRecord {
        time_unix_nano: nanos(event.time.millis()),
        observed_time_unix_nano: nanos(exported.received.millis()),
        severity_number: severity.otlp(),
        severity_text: severity.as_str().to_owned(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(exported.sentence())),
        }),
        attributes,
        event_name: format!("{}.{}", PRODUCT.to_ascii_lowercase(), event.kind.name()),
    }
}

fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(1_000_000)
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
    }
}

fn number(key: &str, value: u64) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))),
        }),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    severity_number: i32,
    #[prost(string, tag = "3")]
    severity_text: String,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "11")]
    observed_time_unix_nano: u64,
    #[prost(string, tag = "12")]
    event_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    StringValue(String),
    #[prost(int64, tag = "3")]
    IntValue(i64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_log_records: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}
