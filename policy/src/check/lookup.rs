//! Names of definitions, one space for each kind, across all files.

use std::collections::{BTreeSet, HashMap};

use crate::diagnostic::{Code, Diagnostics, suggest};
use crate::source::{Place, Placed};

/// The names of one kind.
pub(super) struct Names {
    kind: &'static str,
    known: HashMap<String, (usize, Place)>,
    /// Defined, but unreadable: no second error for it.
    unreadable: BTreeSet<String>,
}

impl Names {
    pub(super) fn new(kind: &'static str, unreadable: BTreeSet<String>) -> Self {
        Self {
            kind,
            known: HashMap::new(),
            unreadable,
        }
    }

    /// Whether the name was free.
    pub(super) fn define(
        &mut self,
        name: &str,
        at: Place,
        index: usize,
        found: &mut Diagnostics<'_>,
    ) -> bool {
        if let Some((_, first)) = self.known.get(name) {
            let message = format!(
                "{} `{name}` is also defined at {}",
                self.kind,
                found.show(*first)
            );
            found.error_with_help(
                at,
                Code::DuplicateName,
                message,
                "names hold across all files: choose another",
            );
            return false;
        }
        self.known.insert(name.to_owned(), (index, at));
        true
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.known.get(name).map(|(index, _)| *index)
    }

    /// Looks a name up; unknown ones are an error.
    pub(super) fn require(
        &self,
        name: &str,
        at: Place,
        found: &mut Diagnostics<'_>,
    ) -> Option<usize> {
        let index = self.find(name);
        if index.is_none() && !self.unreadable.contains(name) {
            let known = self.known.keys().map(String::as_str);
            let help = if found.is_full() {
                String::new()
            } else {
                suggest(name, known)
            };
            let message = format!("{} `{name}` is not defined", self.kind);
            found.error_with_help(at, Code::UnknownName, message, help);
        }
        index
    }

    pub(super) fn require_placed(
        &self,
        name: &Placed<String>,
        found: &mut Diagnostics<'_>,
    ) -> Option<usize> {
        self.require(&name.value, name.at, found)
    }
}
