//! Profiles, groups of nodes, and groups of operators with those nested in them.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_NESTING, Resolver};
use crate::ast::{Member, OperatorGroupDef, PolicyFile};
use crate::check::terms::{Directories, offline_within};
use crate::compile::{Group, OperatorGroup};
use crate::diagnostic::Code;
use crate::parse::lists::Lists;
use crate::profile::ImaRequirement;
use crate::source::Placed;

impl Resolver<'_, '_> {
    pub(super) fn profiles(
        &mut self,
        files: &[PolicyFile],
        lists: &mut Lists,
        directories: &Directories,
    ) {
        for (file, def) in files
            .iter()
            .flat_map(|file| file.profiles.iter().map(move |def| (file, def)))
        {
            let terms = directories.terms(&file.directory);
            if let (Some(offline), Some(at)) = (def.profile.offline, def.offline_at) {
                offline_within(offline, terms.max_offline, at, self.found);
            }
            let mut profile = def.profile.clone();
            if let Some(ima) = &def.ima {
                let mut list =
                    |name: &Placed<String>| lists.require(&file.directory, name, self.found);
                let allow = list(&ima.allow);
                let deny = ima.deny.as_ref().map(list);
                // A list that is missing or unreadable has its error: nothing is compiled from what stands in for it.
                profile.ima = Some(ImaRequirement {
                    allow: allow.unwrap_or_default(),
                    deny: deny.flatten().unwrap_or_default(),
                    violations: ima.violations,
                });
            }
            let index = self.policy.profiles.len();
            let names = &mut self.profile_names;
            if names.define(&profile.name, def.at, index, self.found) {
                self.policy.labels.push(profile.label());
                self.policy.profiles.push(profile);
            }
        }
    }

    pub(super) fn groups(&mut self, files: &[PolicyFile]) {
        let mut vias = Vec::new();
        for (file, def) in files
            .iter()
            .flat_map(|file| file.groups.iter().map(move |def| (file, def)))
        {
            self.require_in_scope(
                file,
                &def.matches,
                def.name.at,
                &format!("group `{}`", def.name.value),
            );
            let profile = def
                .profile
                .as_ref()
                .and_then(|profile| self.profile_names.require_placed(profile, self.found));
            let index = self.policy.groups.len();
            if self
                .group_names
                .define(&def.name.value, def.name.at, index, self.found)
            {
                self.policy.groups.push(Group {
                    name: def.name.value.clone(),
                    matches: def.matches.clone(),
                    profile,
                    via: None,
                });
                vias.extend(def.via.as_ref().map(|via| (file, index, via)));
            }
        }
        for (_, index, via) in &vias {
            let nodes = self.group_names.require_placed(via, self.found);
            self.unsure_of_groups |= nodes.is_none();
            if let (Some(nodes), Some(group)) = (nodes, self.policy.groups.get_mut(*index)) {
                group.via = Some(nodes);
            }
        }
        for (file, index, via) in vias {
            self.via(file, index, via);
        }
    }

    /// Those who vouch are nodes, within the file's scope.
    fn via(&mut self, file: &PolicyFile, index: usize, via: &Placed<String>) {
        let nodes = self.policy.groups.get(index).and_then(|group| group.via);
        let Some(nodes) = nodes.and_then(|nodes| self.policy.groups.get(nodes)) else {
            return;
        };
        if nodes.via.is_some() {
            self.found.error_with_help(
                via.at,
                Code::BadValue,
                format!("group `{}` is one of devices itself", via.value),
                "`via` names a group of nodes: a device vouches for nobody",
            );
            return;
        }
        let matches = nodes.matches.clone();
        let what = format!("`via` group `{}`", via.value);
        self.require_in_scope(file, &matches, via.at, &what);
    }

    /// The nodes of a group: to offer something, or to run something.
    pub(super) fn require_nodes(&mut self, name: &Placed<String>) -> Option<usize> {
        let index = self.group_names.require_placed(name, self.found)?;
        if self.policy.groups.get(index)?.via.is_none() {
            return Some(index);
        }
        self.found.error_with_help(
            name.at,
            Code::BadValue,
            format!("group `{}` is one of devices", name.value),
            "name a group of nodes: a device has no agent",
        );
        None
    }

    pub(super) fn operator_groups(&mut self, files: &[PolicyFile]) {
        let mut defs: Vec<&OperatorGroupDef> = Vec::new();
        for def in files.iter().flat_map(|file| &file.operator_groups) {
            let index = defs.len();
            if self
                .operator_group_names
                .define(&def.name.value, def.name.at, index, self.found)
            {
                defs.push(def);
            }
        }
        for def in &defs {
            for member in &def.members {
                if let Member::Group(name) = &member.value {
                    self.operator_group_names
                        .require(name, member.at, self.found);
                }
            }
        }
        let mut flat: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        let mut depths: BTreeMap<usize, usize> = BTreeMap::new();
        for (index, def) in defs.iter().enumerate() {
            let mut path = Vec::new();
            let depth = self.flatten(index, &defs, &mut path, &mut flat, &mut depths);
            if depth.is_none_or(|depth| depth > MAX_NESTING) {
                self.found.error(
                    def.name.at,
                    Code::Nesting,
                    format!(
                        "operator group `{}` is nested in itself, or deeper than {MAX_NESTING}",
                        def.name.value
                    ),
                );
            }
        }
        for (index, def) in defs.iter().enumerate() {
            self.policy.operator_groups.push(OperatorGroup {
                name: def.name.value.clone(),
                members: flat.get(&index).cloned().unwrap_or_default(),
            });
        }
    }

    /// The depth of a group, `None` for a cycle or beyond the limit.
    fn flatten(
        &self,
        index: usize,
        defs: &[&OperatorGroupDef],
        path: &mut Vec<usize>,
        flat: &mut BTreeMap<usize, BTreeSet<String>>,
        depths: &mut BTreeMap<usize, usize>,
    ) -> Option<usize> {
        if let Some(depth) = depths.get(&index) {
            return Some(*depth);
        }
        if path.contains(&index) || path.len() > MAX_NESTING {
            return None;
        }
        path.push(index);
        let mut members = BTreeSet::new();
        let mut depth = Some(0);
        for member in &defs.get(index)?.members {
            match &member.value {
                Member::Operator(name) => {
                    members.insert(name.clone());
                }
                Member::Group(name) => {
                    let Some(inner) = self.operator_group_names.find(name) else {
                        continue;
                    };
                    let inner_depth = self.flatten(inner, defs, path, flat, depths);
                    depth = match (depth, inner_depth) {
                        (Some(depth), Some(inner)) => Some(depth.max(inner + 1)),
                        _ => None,
                    };
                    members.extend(flat.get(&inner).into_iter().flatten().cloned());
                }
            }
        }
        path.pop();
        let depth = depth?;
        flat.insert(index, members);
        depths.insert(index, depth);
        Some(depth)
    }
}
