//! Naming the events behind a value: for people. Nothing is decided here.

use super::Logs;
use crate::boot_log::{ChangeKind, EventView, difference_of};

/// Most events named in one finding.
const MAX_NAMED: usize = 3;

/// What a PCR's value comes from: where a log that passed before is known, what is not as there; else the last events.
pub(super) fn of_pcr(logs: &Logs<'_>, pcr: u8) -> String {
    let Some(log) = logs.boot_log else {
        return String::new();
    };
    if let Some(before) = logs.boot_log_passed {
        let changed: Vec<String> = difference_of(before, log, pcr)
            .iter()
            .filter_map(
                |change| match (change.kind, &change.before, &change.after) {
                    (ChangeKind::Removed, Some(view), _) => Some(format!("gone: {}", name(view))),
                    (_, _, Some(view)) => Some(name(view)),
                    _ => None,
                },
            )
            .take(MAX_NAMED)
            .collect();
        if !changed.is_empty() {
            return changed.join("; ");
        }
    }
    let bank = log.shown_bank();
    let of_pcr: Vec<_> = log
        .events()
        .filter(|event| event.pcr() == Some(pcr))
        .collect();
    let last = of_pcr.iter().rev().take(MAX_NAMED).rev();
    let names: Vec<String> = last.map(|event| name(&event.describe(bank))).collect();
    names.join("; ")
}

pub(super) fn by_index(logs: &Logs<'_>, index: usize) -> String {
    let Some(log) = logs.boot_log else {
        return String::new();
    };
    log.events()
        .nth(index)
        .map_or_else(String::new, |event| name(&event.describe(log.shown_bank())))
}

fn name(view: &EventView) -> String {
    format!("boot event {}: {} {}", view.index, view.kind, view.text)
}
