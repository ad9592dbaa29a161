//! Invariants: their names looked up.

use std::collections::BTreeSet;

use super::Resolver;
use crate::ast::{InvariantDef, PolicyFile, TargetName};
use crate::check::lookup::Names;
use crate::compile::Invariant;
use crate::diagnostic::Code;

impl Resolver<'_, '_> {
    pub(super) fn invariants(&mut self, files: &[PolicyFile]) {
        let mut names = Names::new("invariant", BTreeSet::new());
        for def in files.iter().flat_map(|file| &file.invariants) {
            let index = self.policy.invariants.len();
            if names.define(&def.name.value, def.name.at, index, self.found) {
                let invariant = self.invariant(def);
                self.policy.invariants.push(invariant);
            }
        }
    }

    fn invariant(&mut self, def: &InvariantDef) -> Invariant {
        let from = self.sources(&def.from);
        let mut everywhere = false;
        let mut targets = BTreeSet::new();
        for target in &def.to {
            match &target.value {
                TargetName::Any => {
                    everywhere = true;
                    if def.to.len() > 1 {
                        let message = "`any` stands beside other targets, which it covers";
                        self.found.error(target.at, Code::BadValue, message);
                    }
                }
                TargetName::Exit => targets.extend(self.exit_interfaces(target.at)),
                TargetName::Interface { service, interface } => {
                    let name = format!("{service}/{interface}");
                    let index = self.interface_names.require(&name, target.at, self.found);
                    targets.extend(index);
                }
            }
        }
        if everywhere {
            targets.clear();
        }
        if let Some(actions) = &def.actions {
            self.known_by_all(actions, everywhere, &targets);
        }
        let outside = def.outside.as_ref();
        Invariant {
            name: def.name.value.clone(),
            at: def.name.at,
            from,
            everywhere,
            targets,
            actions: def.actions.as_ref().map(|actions| {
                let names = actions.iter();
                names.map(|action| action.value.clone()).collect()
            }),
            outside: outside.and_then(|name| self.window_names.require_placed(name, self.found)),
            states: def.state.as_ref().map(|state| state.value.clone()),
            tiers: def.tier.as_ref().map(|tier| tier.value.clone()),
        }
    }
}
