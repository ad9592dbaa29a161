//! What the commands say in the cloud's own words.

use std::collections::BTreeMap;

use edgeward_runtime::screen::{Paint, Screen};

use super::Failure;

/// Words of the domain that mean well or ill.
pub(super) fn meaning(word: &str) -> Option<Paint> {
    match word {
        "trusted" | "active" | "allow" | "usable" | "vouched" | "complete" => Some(Paint::Good),
        "failed" | "quarantined" | "deny" | "revoked" | "forked" | "rolled_back" => {
            Some(Paint::Bad)
        }
        "stale" | "pending" | "expired" | "missing" | "restarted" | "removed" => Some(Paint::Warn),
        "-" | "none" | "used" => Some(Paint::Dim),
        _ => None,
    }
}

/// Why a command failed, with what the cloud found line by line, and what to do.
pub(super) fn complain(screen: &Screen, failure: &Failure) {
    screen.error(&failure.to_string());
    for part in failure.more().iter().flat_map(|more| more.lines()) {
        screen.note(&format!("  {part}"));
    }
    if let Some(hint) = failure.hint() {
        screen.hint(hint);
    }
}

/// An absent value.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `key=value` pairs on one line.
pub(super) fn pairs(map: &BTreeMap<String, String>) -> String {
    match map.is_empty() {
        true => "-".to_owned(),
        false => map
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(" "),
    }
}
