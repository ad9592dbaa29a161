//! Syslog: messages of RFC 5424 and their frames of RFC 5425 and RFC 6587 (octets counted).

use std::borrow::Cow;

use edgeward_identity::Timestamp;

use super::{Exported, Severity, rfc3339};

/// "Log audit" of RFC 5424, 6.2.1.
pub const DEFAULT_FACILITY: u8 = 13;
/// The highest facility.
pub const MAX_FACILITY: u8 = 23;
/// Names our structured data. RFC 5612 keeps 32473 for those who have no number of their own.
pub const ENTERPRISE: u32 = 32473;

const APP: &str = "edgeward";
const MAX_HOST: usize = 255;
const MAX_PROC: usize = 128;
const MAX_MSG_ID: usize = 32;
const MAX_PARAM_NAME: usize = 32;

/// What stands at the head of a message.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub facility: u8,
    pub severity: Severity,
    pub time: Timestamp,
    pub host: &'a str,
    pub process: &'a str,
    /// What kind of message it is.
    pub id: &'a str,
}

/// One element of structured data: its name (ours are under [`ENTERPRISE`]) and what it says.
#[derive(Clone, Debug)]
pub struct Element<'a> {
    pub name: &'a str,
    pub params: Vec<(&'a str, Cow<'a, str>)>,
}

/// One message, without a frame. `text` is its last part, whatever the format of that is; line ends in it become blanks.
pub fn write(head: Head<'_>, elements: &[Element<'_>], text: &str) -> String {
    let priority =
        u16::from(head.facility.min(MAX_FACILITY)) * 8 + u16::from(head.severity.syslog());
    let mut out = format!(
        "<{priority}>1 {} {} {APP} {} {} ",
        rfc3339(head.time).unwrap_or_else(|| "-".to_owned()),
        printable(head.host, MAX_HOST),
        printable(head.process, MAX_PROC),
        printable(head.id, MAX_MSG_ID),
    );
    let mut any = false;
    for element in elements.iter().filter(|element| !element.params.is_empty()) {
        any = true;
        out.push_str(&format!("[{}@{ENTERPRISE}", sd_name(element.name)));
        for (name, value) in &element.params {
            param(&mut out, name, value);
        }
        out.push(']');
    }
    if !any {
        out.push('-');
    }
    if !text.is_empty() {
        out.push(' ');
        out.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    out
}

/// An event as a message, without a frame.
pub fn message(exported: &Exported<'_>, facility: u8, text: &str) -> String {
    let event = exported.event;
    let mut params = vec![
        ("index", Cow::from(exported.index.to_string())),
        ("seq", exported.seq.to_string().into()),
        ("hash", exported.hash.to_string().into()),
        ("actor", event.actor.to_string().into()),
        ("verdict", event.verdict.as_str().into()),
    ];
    if exported.claimed {
        params.push(("claimed", "true".into()));
    }
    if let Some(subject) = &event.subject {
        params.push(("subject", subject.to_string().into()));
    }
    if let Some(rule) = &event.rule {
        params.push(("rule", rule.as_str().into()));
    }
    if let Some(code) = &event.code {
        params.push(("code", code.as_str().into()));
    }
    let detail = event
        .detail
        .iter()
        .map(|(name, value)| (name, value.into()));
    write(
        Head {
            facility,
            severity: exported.severity(),
            time: event.time,
            host: &exported.host(),
            process: &exported.boot.to_string(),
            id: event.kind.name(),
        },
        &[
            Element {
                name: "edgeward",
                params,
            },
            Element {
                name: "detail",
                params: detail.collect(),
            },
        ],
        text,
    )
}

/// The message in its frame: how many octets it has, a blank, and these.
pub fn frame(message: &str) -> Vec<u8> {
    format!("{} {message}", message.len()).into_bytes()
}

fn param(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(&sd_name(name));
    out.push_str("=\"");
    for character in value.chars() {
        match character {
            '"' | '\\' | ']' => out.extend(['\\', character]),
            other if other.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// SD-NAME: no blank, bracket, quote, equals sign (6.3.2); nor an at sign, which sets our number apart.
fn sd_name(name: &str) -> String {
    printable(name, MAX_PARAM_NAME)
        .chars()
        .map(|c| {
            if matches!(c, '=' | ']' | '"' | '@') {
                '_'
            } else {
                c
            }
        })
        .collect()
}

/// PRINTUSASCII of at most so many: anything else is an underscore.
fn printable(text: &str, most: usize) -> String {
    let out: String = text
        .chars()
        .take(most)
        .map(|c| if c.is_ascii_graphic() { c } else { '_' })
        .collect();
    if out.is_empty() { "-".to_owned() } else { out }
}
