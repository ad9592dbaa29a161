//! Events as people read them.

use super::super::Session;
use super::super::screen::{or_dash, pairs};
use crate::api::views::EventView;

/// Hex of at least this many characters is cut to so many in tables.
const LONG_HEX: usize = 40;
const SHOWN_HEX: usize = 12;

pub(super) const HEADINGS: [&str; 7] = [
    "TIME",
    "TYPE",
    "VERDICT",
    "ACTOR",
    "SUBJECT",
    "RULE/CODE",
    "DETAIL",
];

pub(super) fn row(event: &EventView) -> [String; 7] {
    [
        event.time.to_string(),
        event.kind.clone(),
        event.verdict.clone(),
        short(&event.actor),
        event
            .subject
            .as_deref()
            .map_or_else(|| "-".to_owned(), short),
        or_dash(event.rule.clone().or_else(|| event.code.clone())),
        details(event),
    ]
}

/// Details for a line: hashes, keys and signatures only as far as people compare them. JSON has them whole.
fn details(event: &EventView) -> String {
    let shown = event
        .detail
        .iter()
        .map(|(key, value)| (key.clone(), abbreviate(value)))
        .collect();
    pairs(&shown)
}

fn abbreviate(value: &str) -> String {
    let is_hex = value.len() >= LONG_HEX && value.bytes().all(|b| b.is_ascii_hexdigit());
    match value.get(..SHOWN_HEX) {
        Some(start) if is_hex => format!("{start}…"),
        _ => value.to_owned(),
    }
}

/// `node/gw-3` instead of `spiffe://plant.example/node/gw-3`: a table is of one trust domain. JSON has it whole.
pub(super) fn short(id: &str) -> String {
    id.strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
        .map_or(id, |(_, path)| path)
        .to_owned()
}

pub(super) fn show(session: &Session, event: &EventView) {
    if session.wants_json() {
        session.screen.json_line(event);
        return;
    }
    // Columns cannot be measured ahead: one line of fields instead.
    let line: Vec<String> = row(event).into_iter().filter(|cell| cell != "-").collect();
    session.screen.line(&line.join("  "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_hex_is_cut() {
        assert_eq!(abbreviate(&"ab".repeat(32)), "abababababab…");
        assert_eq!(abbreviate("7cdd47eda97e"), "7cdd47eda97e");
        let text = "a long reason in words that an operator gave for it";
        assert_eq!(abbreviate(text), text);
    }
}
