//! Parts of the format that are checked in full and that this version does not enforce: refused for that alone, once
//! nothing else is wrong with them.

use super::Resolver;
use crate::ast::PolicyFile;
use crate::check::lookup::Names;
use crate::diagnostic::Code;
use crate::source::{Place, Placed};

impl Resolver<'_, '_> {
    pub(super) fn later(&mut self, files: &[PolicyFile]) {
        let of = |kind| super::unreadable(files, kind);
        let mut publishers = Names::new("publisher", of("publisher"));
        let mut apps = Names::new("apps", of("apps"));
        for (index, def) in files.iter().flat_map(|file| &file.publishers).enumerate() {
            let (name, at) = (&def.name.value, def.name.at);
            if publishers.define(name, at, index, self.found) {
                self.not_enforced(at, "publisher");
            }
        }
        for file in files {
            for def in &file.apps {
                let before = self.found.count();
                apps.define(&def.name.value, def.name.at, 0, self.found);
                self.group_in_scope(file, &def.name, "apps");
                for publisher in &def.publishers {
                    publishers.require_placed(publisher, self.found);
                }
                self.unless_wrong(before, def.name.at, "apps");
            }
        }
    }

    /// The group, if it is one of nodes.
    pub(super) fn group_in_scope(
        &mut self,
        file: &PolicyFile,
        name: &Placed<String>,
        kind: &str,
    ) -> Option<usize> {
        let index = self.require_nodes(name)?;
        let group = self.policy.groups.get(index);
        if let Some(matches) = group.map(|group| group.matches.clone()) {
            let what = format!("{kind} on group `{}`", name.value);
            self.require_in_scope(file, &matches, name.at, &what);
        }
        Some(index)
    }

    fn unless_wrong(&mut self, before: usize, at: Place, kind: &str) {
        if self.found.count() == before {
            self.not_enforced(at, kind);
        }
    }

    fn not_enforced(&mut self, at: Place, kind: &str) {
        self.found.error_with_help(
            at,
            Code::NotEnforced,
            format!("`{kind}` is not enforced by this version"),
            "take it out, or the policy would promise what nothing keeps",
        );
    }
}
