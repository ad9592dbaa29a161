//! Registrations of workloads: on groups that exist and lie in the file's scope.

use super::Resolver;
use crate::ast::PolicyFile;
use crate::compile::Registration;
use crate::diagnostic::Code;
use crate::workload::MAX_SLICE_WORKLOADS;

impl Resolver<'_, '_> {
    pub(super) fn workloads(&mut self, files: &[PolicyFile]) {
        for (file, def) in files
            .iter()
            .flat_map(|file| file.workloads.iter().map(move |def| (file, def)))
        {
            let (name, at) = (&def.name.value, def.name.at);
            let index = self.policy.workloads.len();
            if !self.workload_names.define(name, at, index, self.found) {
                continue;
            }
            let Some(on) = self.require_nodes(&def.on) else {
                continue;
            };
            let Some(matches) = self
                .policy
                .groups
                .get(on)
                .map(|group| group.matches.clone())
            else {
                continue;
            };
            let what = format!("workload `{name}` on group `{}`", def.on.value);
            self.require_in_scope(file, &matches, def.on.at, &what);
            let workloads = &self.policy.workloads;
            if workloads.iter().filter(|known| known.on == on).count() >= MAX_SLICE_WORKLOADS {
                self.found.error(
                    at,
                    Code::TooMuch,
                    format!("more workloads on one group than the limit: {MAX_SLICE_WORKLOADS}"),
                );
                return;
            }
            self.policy.workloads.push(Registration {
                name: name.clone(),
                on,
                selectors: def.selectors.value.clone(),
                ttl: def.ttl,
            });
        }
    }
}
