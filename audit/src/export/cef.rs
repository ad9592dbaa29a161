//! Common Event Format, version 0 (ArcSight's "Implementing CEF", 2019).

use std::net::IpAddr;

use super::{Exported, PRODUCT, VERSION};
use crate::event::Actor;

/// Longest value of a custom string field (`cs1` to `cs6`), in characters.
const MAX_CUSTOM: usize = 4000;
/// Longest value of a name, a reason or a message, in characters.
const MAX_NAME: usize = 1023;

/// `CEF:0|…`, on one line, without a prefix of syslog.
pub fn line(exported: &Exported<'_>) -> String {
    let event = exported.event;
    let mut text = format!(
        "CEF:0|{PRODUCT}|{PRODUCT}|{}|{}|{}|{}|",
        header(VERSION),
        header(event.kind.name()),
        header(event.kind.meaning()),
        exported.severity().cef()
    );
    let mut fields = Fields(&mut text, true);
    fields.put("rt", &event.time.millis().to_string(), MAX_NAME);
    fields.put("externalId", &exported.index.to_string(), 40);
    fields.put("cat", event.kind.family(), MAX_NAME);
    fields.put("act", event.verdict.as_str(), 63);
    fields.put("dvchost", exported.node.name(), 100);
    fields.put("deviceExternalId", &exported.node.to_string(), 255);
    fields.put("suser", &event.actor.to_string(), MAX_NAME);
    if let Actor::Anonymous(Some(address)) = &event.actor {
        match address {
            IpAddr::V4(address) => fields.put("src", &address.to_string(), MAX_NAME),
            IpAddr::V6(address) => {
                fields.named("c6a2", "Source IPv6 Address", &address.to_string());
            }
        }
    }
    if let Some(subject) = &event.subject {
        fields.put("duser", &subject.to_string(), MAX_NAME);
    }
    if let Some(code) = &event.code {
        fields.put("reason", code.as_str(), MAX_NAME);
    }
    if let Some(rule) = &event.rule {
        fields.named("cs1", "rule", rule.as_str());
    }
    fields.named("cs2", "boot", &exported.boot.to_string());
    fields.named("cs3", "recordHash", &exported.hash.to_string());
    if !event.detail.is_empty() {
        let detail: std::collections::BTreeMap<&str, &str> = event.detail.iter().collect();
        let detail = serde_json::to_string(&detail).expect("texts always serialise");
        fields.named("cs4", "detail", &detail);
    }
    if exported.claimed {
        fields.named("cs5", "claimed", "true");
    }
    fields.named("cn1", "sequence", &exported.seq.to_string());
    text
}

struct Fields<'a>(&'a mut String, bool);

impl Fields<'_> {
    fn put(&mut self, key: &str, value: &str, most: usize) {
        if !std::mem::take(&mut self.1) {
            self.0.push(' ');
        }
        self.0.push_str(key);
        self.0.push('=');
        for character in value.chars().take(most) {
            match character {
                '\\' | '=' => self.0.extend(['\\', character]),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                other => self.0.push(other),
            }
        }
    }

    /// A custom field says what it holds in a second one.
    fn named(&mut self, key: &str, label: &str, value: &str) {
        self.put(&format!("{key}Label"), label, MAX_NAME);
        self.put(key, value, MAX_CUSTOM);
    }
}

/// In the header a bar ends a field, and a line's end cannot be said.
fn header(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '|' => out.extend(['\\', character]),
            '\n' | '\r' => out.push(' '),
            other => out.push(other),
        }
    }
    out
}
