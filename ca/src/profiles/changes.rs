//! What changed on a machine between the last evidence that passed and the newest.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_evidence::boot_log::{Change, ChangeKind, difference};
use edgeward_evidence::ima::{escaped, parse_binary};
use serde::{Deserialize, Serialize};

use super::kept::{EvidenceView, FindingView, NodeEvidence};
use super::meaning::of_pcr;
use crate::when::When;

/// Most new files that are named.
const MAX_FILES: usize = 200;

/// What changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Changes {
    pub node: String,
    /// When the evidence came that passed last; absent: none ever passed.
    pub before: Option<When>,
    pub after: When,
    pub code: Option<String>,
    pub pcrs: Vec<PcrChange>,
    /// Boot events, by PCR and then in the order of the boot.
    pub events: Vec<Change>,
    pub files: FileChanges,
    /// Other things than PCRs and logs: tier, TPM firmware, Secure Boot.
    pub others: Vec<String>,
    /// What does not match the profile, as it was judged.
    pub against_profile: Vec<FindingView>,
    /// Why something above is missing.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcrChange {
    pub pcr: u8,
    /// What is measured there.
    pub meaning: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Files in the newest IMA list that were not in the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChanges {
    pub count: usize,
    /// `algorithm:hex path`, at most 200.
    pub first: Vec<String>,
}

/// Compares. `None`: the node never gave evidence.
pub fn changes(evidence: &NodeEvidence) -> Option<Changes> {
    let after = evidence.latest.as_ref().or(evidence.passed.as_ref())?;
    let before = evidence.passed.as_ref();
    let mut notes = Vec::new();
    let mut changes = Changes {
        node: evidence.node.clone(),
        before: before.map(|before| before.taken),
        after: after.taken,
        code: after.code.clone(),
        pcrs: Vec::new(),
        events: Vec::new(),
        files: FileChanges::default(),
        others: Vec::new(),
        against_profile: after.findings.clone(),
        notes: Vec::new(),
    };
    let Some(before) = before else {
        notes.push(
            "no evidence of this node ever passed: there is nothing to compare it with".to_owned(),
        );
        changes.notes = notes;
        return Some(changes);
    };
    if before.bank == after.bank {
        changes.pcrs = pcrs(&before.pcrs, &after.pcrs);
    } else {
        notes.push(format!(
            "values are of different banks ({} and {}) and cannot be compared",
            before.bank, after.bank
        ));
    }
    changes.events = events(before, after, &mut notes);
    changes.files = files(before, after, &mut notes);
    changes.others = others(before, after);
    changes.notes = notes;
    Some(changes)
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.pcrs.is_empty()
            && self.events.is_empty()
            && self.others.is_empty()
            && self.files.count == 0
    }
}

/// PCR 10 changes with every file that runs: its list tells, its value does not.
fn pcrs(before: &BTreeMap<u8, String>, after: &BTreeMap<u8, String>) -> Vec<PcrChange> {
    let all: BTreeSet<u8> = before.keys().chain(after.keys()).copied().collect();
    all.into_iter()
        .filter(|pcr| *pcr != 10 && before.get(pcr) != after.get(pcr))
        .map(|pcr| PcrChange {
            pcr,
            meaning: of_pcr(pcr).to_owned(),
            before: before.get(&pcr).cloned(),
            after: after.get(&pcr).cloned(),
        })
        .collect()
}

fn events(before: &EvidenceView, after: &EvidenceView, notes: &mut Vec<String>) -> Vec<Change> {
    match (before.parsed_boot_log(), after.parsed_boot_log()) {
        (Some(Ok(before)), Some(Ok(after))) => difference(&before, &after),
        (Some(Err(refused)), _) | (_, Some(Err(refused))) => {
            notes.push(format!("a boot log cannot be read: {refused}"));
            Vec::new()
        }
        _ => {
            notes.push(
                "boot logs are missing: they come where a profile asks for secure_boot".to_owned(),
            );
            Vec::new()
        }
    }
}

fn files(before: &EvidenceView, after: &EvidenceView, notes: &mut Vec<String>) -> FileChanges {
    let (Some(old), Some(new)) = (before.ima_bytes(), after.ima_bytes()) else {
        return FileChanges::default();
    };
    let lines = |bytes: &[u8]| -> Result<Vec<String>, _> {
        let entries = parse_binary(bytes)?;
        Ok::<_, edgeward_evidence::ima::ImaRefused>(
            entries
                .iter()
                .map(|entry| format!("{} {}", entry.file(), escaped(entry.path())))
                .collect(),
        )
    };
    match (lines(&old), lines(&new)) {
        (Ok(old), Ok(new)) => {
            let known: BTreeSet<&String> = old.iter().collect();
            let added: BTreeSet<&String> =
                new.iter().filter(|line| !known.contains(line)).collect();
            FileChanges {
                count: added.len(),
                first: added.into_iter().take(MAX_FILES).cloned().collect(),
            }
        }
        (Err(refused), _) | (_, Err(refused)) => {
            notes.push(format!("an IMA list cannot be read: {refused}"));
            FileChanges::default()
        }
    }
}

fn others(before: &EvidenceView, after: &EvidenceView) -> Vec<String> {
    let secure_boot = |view: &EvidenceView| match view.secure_boot {
        Some(true) => "on",
        Some(false) => "off",
        None => "not known",
    };
    [
        ("tier", before.tier.as_str(), after.tier.as_str()),
        ("TPM firmware", &before.firmware, &after.firmware),
        ("Secure Boot", secure_boot(before), secure_boot(after)),
    ]
    .into_iter()
    .filter(|(_, before, after)| before != after)
    .map(|(what, before, after)| format!("{what}: {before} -> {after}"))
    .collect()
}

/// A change as one line: `+`, `-` or `~`, then the event.
pub fn line_of(change: &Change) -> String {
    let (mark, view) = match (change.kind, &change.before, &change.after) {
        (ChangeKind::Added, _, Some(after)) => ('+', after),
        (ChangeKind::Removed, Some(before), _) => ('-', before),
        (_, _, Some(after)) => ('~', after),
        (_, Some(before), None) => ('-', before),
        (_, None, None) => return format!("PCR {}", change.pcr),
    };
    let was = match (change.kind, &change.before) {
        (ChangeKind::Changed, Some(before)) if before.text != view.text => {
            format!(" (was: {})", before.text)
        }
        _ => String::new(),
    };
    format!(
        "{mark} PCR {} event {}: {} {}{was}",
        change.pcr, view.index, view.kind, view.text
    )
}

#[cfg(test)]
mod tests;
