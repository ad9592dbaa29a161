//! Our own form: one JSON object on a line, with the names of `GET /api/v1/audit/events`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Exported, rfc3339};

/// Names the form; a field may be added under the same name, none changes its meaning.
pub const SCHEMA: &str = "edgeward.audit/1";

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    index: u64,
    /// Absent where the recorder's clock said what no calendar holds; `time_ms` is always there.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    time_ms: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    severity: &'static str,
    actor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    detail: BTreeMap<&'a str, &'a str>,
    /// Present where the keeper had no business recording this kind.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    claimed: bool,
    node: String,
    boot: String,
    seq: u64,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<String>,
}

/// The object, without a line's end.
pub fn line(exported: &Exported<'_>) -> String {
    let event = exported.event;
    let line = Line {
        schema: SCHEMA,
        index: exported.index,
        time: rfc3339(event.time),
        time_ms: event.time.millis(),
        kind: event.kind.name(),
        severity: exported.severity().as_str(),
        actor: event.actor.to_string(),
        subject: event.subject.as_ref().map(ToString::to_string),
        verdict: event.verdict.as_str(),
        rule: event.rule.as_ref().map(crate::event::Text::as_str),
        code: event.code.as_ref().map(crate::event::Text::as_str),
        detail: event.detail.iter().collect(),
        claimed: exported.claimed,
        node: exported.node.to_string(),
        boot: exported.boot.to_string(),
        seq: exported.seq,
        hash: exported.hash.to_string(),
        received: rfc3339(exported.received),
    };
    serde_json::to_string(&line).expect("texts and numbers always serialise")
}
