//! What is no error and no opening, and what a reader should see all the same.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use crate::ast::PolicyFile;
use crate::compile::{CompiledPolicy, Interface};
use crate::diagnostic::Diagnostics;
use crate::slice::Effect;

/// Most notes of one report.
pub const MAX_NOTES: usize = 10_000;

/// One note. Its display is `file:line:column: note: …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// `file:line:column`.
    pub at: String,
    pub kind: NoteKind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// An interface that no rule opens: nobody reaches it.
    Unreachable,
    /// Some request is two actions at once: a deny of either denies it, else an allow of either allows it.
    Overlap,
}

pub(super) fn list(
    files: &[PolicyFile],
    policy: &CompiledPolicy,
    places: &Diagnostics<'_>,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let known: HashMap<(&str, &str), &Interface> = policy
        .interfaces
        .iter()
        .map(|known| ((known.service.as_str(), known.name.as_str()), known))
        .collect();
    let services = files.iter().flat_map(|file| &file.services);
    for (service, interface) in
        services.flat_map(|service| service.interfaces.iter().map(move |i| (service, i)))
    {
        let name = format!("{}/{}", service.name.value, interface.name.value);
        let pair = (service.name.value.as_str(), interface.name.value.as_str());
        let opened = known.get(&pair).is_some_and(|known| {
            let rules = known.rows.iter().chain(&policy.everywhere);
            let actions = known.actions();
            rules
                .filter_map(|rule| policy.rules.get(*rule))
                .any(|rule| {
                    rule.effect == Effect::Allow
                        && rule
                            .actions
                            .iter()
                            .any(|action| actions.contains(&action.as_str()))
                })
        });
        if !opened {
            notes.push(Note {
                at: places.show(interface.name.at),
                kind: NoteKind::Unreachable,
                text: format!("no rule opens {name}: nobody reaches it"),
            });
        }
        notes.extend(interface.overlaps.iter().map(|overlap| Note {
            at: places.show(overlap.at),
            kind: NoteKind::Overlap,
            text: format!(
                "{name}: what fits {:?} of {} may fit {:?} of {} as well, and is then both",
                overlap.pattern, overlap.action, overlap.other_pattern, overlap.other_action
            ),
        }));
        if notes.len() >= MAX_NOTES {
            notes.truncate(MAX_NOTES);
            break;
        }
    }
    notes
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: note: {}", self.at, self.text)
    }
}
