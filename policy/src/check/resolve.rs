//! Names to indices, scopes kept, conditions where they belong: files become a [`CompiledPolicy`].

use std::collections::{BTreeMap, BTreeSet};

use super::Made;
use super::dead;
use super::lookup::Names;
use super::reach;
use super::terms::Directories;
use crate::ast::{LabelSets, PolicyFile, Scope};
use crate::compile::{CompiledPolicy, Interface};
use crate::diagnostic::{Code, Diagnostics};
use crate::labels::{is_within, may_meet};
use crate::parse::lists::Lists;
use crate::source::Place;

mod approvals;
mod apps;
mod devices;
mod invariants;
mod members;
mod networks;
mod rules;
mod workloads;

pub(super) use rules::known_actions;

/// Deepest nesting of operator groups.
pub const MAX_NESTING: usize = 16;

/// What is being put together, with the names that lead to it.
struct Resolver<'r, 's> {
    found: &'r mut Diagnostics<'s>,
    policy: CompiledPolicy,
    group_names: Names,
    operator_group_names: Names,
    service_names: Names,
    interface_names: Names,
    window_names: Names,
    profile_names: Names,
    device_names: Names,
    route_names: Names,
    workload_names: Names,
    rule_names: Names,
    /// Of each interface.
    interface_places: Vec<Place>,
    /// `None` for a rule that names something unknown: nothing further is said about it.
    rule_places: Vec<Option<Place>>,
    /// A group could not be read, or names an unknown one: nothing is said of what then lacks a group.
    unsure_of_groups: bool,
}

pub(super) fn resolve(
    files: &[PolicyFile],
    lists: &mut Lists,
    version: u64,
    hash: [u8; 32],
    made: Made,
    found: &mut Diagnostics<'_>,
) -> CompiledPolicy {
    let unreadable = |kind: &'static str| unreadable(files, kind);
    let directories = Directories::gather(files, found);
    let mut resolver = Resolver {
        found,
        policy: CompiledPolicy::empty(version, hash),
        group_names: Names::new("group", unreadable("group")),
        operator_group_names: Names::new("operator group", unreadable("operator-group")),
        service_names: Names::new("service", unreadable("service")),
        interface_names: Names::new("interface", unreadable("interface")),
        window_names: Names::new("window", unreadable("window")),
        profile_names: Names::new("profile", unreadable("profile")),
        device_names: Names::new("device", unreadable("device")),
        route_names: Names::new("route", unreadable("route")),
        workload_names: Names::new("workload", unreadable("workload")),
        rule_names: Names::new("rule", BTreeSet::new()),
        interface_places: Vec::new(),
        rule_places: Vec::new(),
        unsure_of_groups: !unreadable("group").is_empty(),
    };
    resolver.profiles(files, lists, &directories);
    resolver.groups(files);
    resolver.operator_groups(files);
    resolver.windows(files);
    resolver.devices(files);
    resolver.routes(files);
    resolver.services(files);
    resolver.roles(files);
    resolver.clashes();
    resolver.workloads(files);
    let publishers = resolver.apps(files);
    // An allow that rests on what nobody can be proven to run lets nobody in: as its owner meant it.
    if made != Made::Stored {
        resolver.wants_are_known(files, &publishers);
    }
    resolver.rules(files, &directories);
    resolver.wants_fit(files);
    resolver.break_glass(files);
    resolver.invariants(files);
    // A profile that could not be read may have named them.
    if files.iter().all(|file| file.unreadable.is_empty()) {
        lists.refuse_unused(resolver.found);
    }
    reach::check(&resolver.policy, &resolver.rule_places, resolver.found);
    if let Some(now) = made.now() {
        dead::check(&resolver.policy, &resolver.rule_places, now, resolver.found);
    }
    resolver.policy
}

/// Names of one kind whose definitions could not be read.
fn unreadable(files: &[PolicyFile], kind: &'static str) -> BTreeSet<String> {
    let of_kind = files.iter().flat_map(|file| &file.unreadable);
    of_kind
        .filter(|(k, _)| *k == kind)
        .map(|(_, name)| name.clone())
        .collect()
}

impl Resolver<'_, '_> {
    fn windows(&mut self, files: &[PolicyFile]) {
        for def in files.iter().flat_map(|file| &file.windows) {
            let index = self.policy.windows.len();
            if self
                .window_names
                .define(&def.window.name, def.at, index, self.found)
            {
                self.policy.windows.push(def.window.clone());
            }
        }
    }

    fn services(&mut self, files: &[PolicyFile]) {
        for (file, def) in files
            .iter()
            .flat_map(|file| file.services.iter().map(move |def| (file, def)))
        {
            let (name, at) = (&def.name.value, def.name.at);
            if !self.service_names.define(name, at, 0, self.found) {
                continue;
            }
            if def.interfaces.is_empty()
                && !file.unreadable.iter().any(|(kind, _)| *kind == "interface")
            {
                self.found.error(
                    at,
                    Code::MatchesNobody,
                    format!("service `{name}` has no interface"),
                );
            }
            let Some(on) = self.require_nodes(&def.on) else {
                continue;
            };
            let matches = self
                .policy
                .groups
                .get(on)
                .map(|group| group.matches.clone());
            if let Some(matches) = matches {
                let what = format!("service `{name}` on group `{}`", def.on.value);
                self.require_in_scope(file, &matches, def.on.at, &what);
            }
            for interface in &def.interfaces {
                let Some(behind) = self.behind(interface, on) else {
                    continue;
                };
                let full_name = format!("{name}/{}", interface.name.value);
                let index = self.policy.interfaces.len();
                if self
                    .interface_names
                    .define(&full_name, interface.name.at, index, self.found)
                {
                    self.interface_places.push(interface.name.at);
                    self.policy.interfaces.push(Interface {
                        service: name.clone(),
                        name: interface.name.value.clone(),
                        on,
                        net: interface.net.clone(),
                        proto: interface.proto,
                        port: interface.port,
                        to: interface.to,
                        behind,
                        l7: interface.l7.clone(),
                        rows: Vec::new(),
                    });
                }
            }
        }
    }

    /// Two interfaces at one port of one node: packets could not be told apart.
    fn clashes(&mut self) {
        let places = std::mem::take(&mut self.interface_places);
        let mut by_port: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (index, interface) in self.policy.interfaces.iter().enumerate() {
            // What lies behind another thing is another place.
            let behind = interface.behind.map(|behind| format!("{behind:?}"));
            let port = (&interface.net, interface.proto, interface.port, behind);
            by_port.entry(port).or_default().push(index);
        }
        let on = |index: usize| {
            let interface = self.policy.interfaces.get(index)?;
            self.policy.groups.get(interface.on)
        };
        for indices in by_port.values() {
            for (position, later) in indices.iter().enumerate() {
                let clash = indices.iter().take(position).find(|earlier| {
                    match (on(**earlier), on(*later)) {
                        (Some(one), Some(other)) => may_meet(&one.matches, &other.matches),
                        _ => false,
                    }
                });
                let (Some(earlier), Some(at)) = (clash, places.get(*later)) else {
                    continue;
                };
                let shown = places
                    .get(*earlier)
                    .map(|at| self.found.show(*at))
                    .unwrap_or_default();
                self.found.error_with_help(
                    *at,
                    Code::InterfaceClash,
                    format!(
                        "the interface at {shown} has the same port and may be on the same node"
                    ),
                    "choose another port, or groups that no node can be in at once",
                );
            }
        }
    }

    fn require_in_scope(&mut self, file: &PolicyFile, matches: &LabelSets, at: Place, what: &str) {
        let Scope::Labels(scope) = &file.scope else {
            return;
        };
        if is_within(matches, scope) {
            return;
        }
        let missing: Vec<String> = scope
            .iter()
            .filter(|(key, values)| !matches.get(*key).is_some_and(|set| set.is_subset(values)))
            .map(|(key, values)| {
                let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
                format!("{key} = [{}]", values.join(", "))
            })
            .collect();
        self.found.error_with_help(
            at,
            Code::OutsideScope,
            format!("{what} is outside the file's scope"),
            format!("its labels must be within {}", missing.join(", ")),
        );
    }
}
